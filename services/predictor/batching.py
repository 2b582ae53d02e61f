"""Zero-wait batching: whatever arrived while the last batch ran is the next one.

1. A request waits in the queue, bounded; a full queue refuses with BackpressureError.
2. The worker thread takes what waits (at most ``max_batch``), predicts it in one go, encodes it.
3. Each prediction goes to the log; the request is answered when the broker has acknowledged its record.
   An answer that could not be logged is not given.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchEncoder
from driftline.runtime.acknowledged_producer import AcknowledgedProducer
from driftline.runtime.errors import BackpressureError, DriftlineError, UnavailableError
from driftline.runtime.logging import get_logger
from driftline.serving.predict import PredictionEngine

_log = get_logger(__name__)

HTTP = fields.CHANNELS[0]
Waiting = tuple[dict[str, Any], "asyncio.Future[dict[str, Any]]", asyncio.AbstractEventLoop]


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
        self._waiting: deque[Waiting] = deque()
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
        loop = asyncio.get_running_loop()
        future: asyncio.Future[dict[str, Any]] = loop.create_future()
        with self._arrived:
            if self._closed:
                raise UnavailableError("the predictor is stopping")
            if len(self._waiting) >= self._max_waiting:  # (1)
                raise BackpressureError("too many predictions are waiting", retry_after=1.0)
            self._waiting.append((request, future, loop))
            self._arrived.notify()
        return await future

    async def refuse(self, request: dict[str, Any], error: str) -> None:
        """Log a request that is refused before it can be tried; returns once the log has it."""
        columns = [pa.array([request[one.name]], one.type) for one in self._schema]
        requests = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        (value,) = self._encoder.encode(self._engine.refused(requests, HTTP, error))
        await self._producer.send(self._topic, request[fields.REQUEST_ID], value)

    def close(self) -> None:
        """Predict what waits, then stop."""
        with self._arrived:
            self._closed = True
            self._arrived.notify()
        self._thread.join(10)

    def _work(self) -> None:
        while True:
            with self._arrived:
                while not self._waiting and not self._closed:
                    self._arrived.wait()
                if not self._waiting:
                    return
                taken = [
                    self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))
                ]  # (2)
            try:
                self._predict(taken)
            except Exception as error:  # noqa: BLE001 - each caller is told; the thread must go on
                self._refuse(taken, error)

    def _predict(self, taken: list[Waiting]) -> None:
        columns = [pa.array([request[one.name] for request, _, _ in taken], one.type) for one in self._schema]
        requests = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        failure: UnavailableError | None = None
        try:
            predictions = self._engine.predict(requests, HTTP)
        except UnavailableError as error:
            failure = error
            predictions = self._engine.failed(requests, HTTP, str(error))
        values = self._encoder.encode(predictions)
        records = predictions.to_pylist()
        for (_, future, loop), record, value in zip(taken, records, values, strict=True):
            acknowledged = self._producer.submit(self._topic, record[fields.REQUEST_ID], value)  # (3)
            acknowledged.add_done_callback(
                lambda done, loop=loop, future=future, record=record: loop.call_soon_threadsafe(  # type: ignore[misc]
                    _settle, future, record, done.exception() or failure
                )
            )

    @staticmethod
    def _refuse(taken: list[Waiting], error: Exception) -> None:
        if not isinstance(error, DriftlineError):
            _log.error("predicting failed", error=repr(error))
        for _, future, loop in taken:
            loop.call_soon_threadsafe(_settle, future, {}, error)


def _settle(
    future: "asyncio.Future[dict[str, Any]]", record: Mapping[str, Any], error: BaseException | None
) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(dict(record))
    else:
        future.set_exception(error)
