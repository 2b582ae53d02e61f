"""Zero-wait batching: whatever arrived while the last batch ran is the next one.

1. A request waits in the queue, bounded; a full queue refuses with BackpressureError.
2. The worker thread takes what waits (at most ``max_batch``), predicts it in one go, encodes it, and wakes the
   event loop once.
3. The event loop sends every record to the log, whether or not its caller still waits.
4. A request is answered when the broker has acknowledged its record. An answer that could not be logged is not
   given.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchEncoder
from driftline.runtime.acknowledged_producer import AcknowledgedProducer, Acknowledgement
from driftline.runtime.errors import BackpressureError, DriftlineError, UnavailableError
from driftline.runtime.logging import get_logger
from driftline.serving.predict import PredictionEngine

_log = get_logger(__name__)

HTTP = fields.CHANNELS[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Waiting:
    """A request and its caller."""

    request: dict[str, Any]
    answer: "asyncio.Future[dict[str, Any]]"
    loop: asyncio.AbstractEventLoop
    refusal: str | None = None


class HttpBatches:
    """Predicts requests that come one by one, together."""

    def __init__(
        self,
        engine: PredictionEngine,
        encoder: BatchEncoder,
        producer: AcknowledgedProducer,
        *,
        requests: pa.Schema,
        log: str,
        max_batch: int,
        max_waiting: int,
    ) -> None:
        self._engine = engine
        self._encoder = encoder
        self._producer = producer
        self._schema = requests
        self._topic = log
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._arrived = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="predict", daemon=True)
        self._thread.start()

    async def predict(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the logged prediction of a request, as a record.

        Raises
        ------
        BackpressureError
            Too many requests wait.
        UnavailableError
            The store cannot be read, or the log cannot be written.
        """
        return await self._queue(request, None)

    async def refuse(self, request: dict[str, Any], error: str) -> None:
        """Log a request that is refused before it can be tried; returns once the log has it."""
        await self._queue(request, error)

    def close(self) -> None:
        """Predict what waits, then stop."""
        with self._arrived:
            self._closed = True
            self._arrived.notify()
        self._thread.join(10)

    async def _queue(self, request: dict[str, Any], refusal: str | None) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request=request, answer=loop.create_future(), loop=loop, refusal=refusal)
        with self._arrived:
            if self._closed:
                raise UnavailableError("the predictor is stopping")
            if len(self._waiting) >= self._max_waiting:  # (1)
                raise BackpressureError("too many predictions are waiting", retry_after=1.0)
            self._waiting.append(waiting)
            self._arrived.notify()
        return await waiting.answer

    def _work(self) -> None:
        while True:
            with self._arrived:
                while not self._waiting and not self._closed:
                    self._arrived.wait()
                if not self._waiting:
                    return
                number = min(len(self._waiting), self._max_batch)
                taken = [self._waiting.popleft() for _ in range(number)]  # (2)
            tried = [one for one in taken if one.refusal is None]
            if tried:
                self._predict(tried)
            for one in taken:
                if one.refusal is not None:
                    self._hand_over(
                        [one], self._engine.refused(self._columns([one]), HTTP, one.refusal), None
                    )

    def _predict(self, taken: Sequence[_Waiting]) -> None:
        requests = self._columns(taken)
        failure: Exception | None = None
        try:
            predictions = self._engine.predict(requests, HTTP)
        except UnavailableError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - a fault of ours: it is logged for each request, and each caller is told
            ids = [one.request[fields.REQUEST_ID] for one in taken]
            _log.error("predicting failed", request_ids=ids, exc_info=error)
            failure = UnavailableError(
                f"a fault of ours ({type(error).__name__}); it is in the service's log"
            )
        if failure is not None:
            predictions = self._engine.failed(requests, HTTP, str(failure))
        self._hand_over(taken, predictions, failure)

    def _columns(self, taken: Sequence[_Waiting]) -> pa.RecordBatch:
        columns = [
            pa.array([waiting.request[one.name] for waiting in taken], one.type) for one in self._schema
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _hand_over(
        self, taken: Sequence[_Waiting], predictions: pa.RecordBatch, failure: Exception | None
    ) -> None:
        values = self._encoder.encode(predictions)
        records = predictions.to_pylist()
        try:
            taken[0].loop.call_soon_threadsafe(self._log_all, taken, records, values, failure)
        except RuntimeError:  # the event loop has ended, so nobody waits
            _log.warning("predictions for a closed event loop", count=len(taken))

    def _log_all(
        self,
        taken: Sequence[_Waiting],
        records: Sequence[dict[str, Any]],
        values: Sequence[bytes],
        failure: Exception | None,
    ) -> None:
        for waiting, record, value in zip(taken, records, values, strict=True):
            try:
                acknowledged = self._producer.send(self._topic, record[fields.REQUEST_ID], value)  # (3)
            except DriftlineError as error:
                _settle(waiting.answer, record, error)
            else:
                acknowledged.add_done_callback(_settler(waiting.answer, record, failure))  # (4)


def _settler(
    answer: "asyncio.Future[dict[str, Any]]", record: dict[str, Any], failure: Exception | None
) -> Any:
    def settle(acknowledged: "asyncio.Future[Acknowledgement]") -> None:
        _settle(answer, record, acknowledged.exception() or failure)

    return settle


def _settle(
    answer: "asyncio.Future[dict[str, Any]]", record: dict[str, Any], error: BaseException | None
) -> None:
    if answer.done():  # the caller gave up: a deadline, or it went away
        return
    if error is None:
        answer.set_result(record)
    else:
        answer.set_exception(error)
