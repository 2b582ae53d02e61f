"""Zero-wait batching: whatever arrived while the last batch ran is the next one.

1. A request waits in the queue, bounded; a full queue refuses with BackpressureError. Those that one turn of the
   event loop has read are queued together, so that the worker does not start with the first of them alone.
2. The worker thread takes what waits (at most ``max_batch``), predicts it in one go and encodes it.
3. It sends every record to the log, whether or not its caller still waits.
4. A request is answered when the broker has acknowledged its record. An answer that could not be logged is not
   given. The event loop is woken once for all that are acknowledged together.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from driftline.contracts import prediction_fields as fields
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame
from driftline.project import InputType, Project
from driftline.runtime.acknowledged_producer import AcknowledgedProducer, Acknowledgement
from driftline.runtime.errors import BackpressureError, DriftlineError, UnavailableError
from driftline.runtime.logging import get_logger
from driftline.serving.predict import PredictionEngine
from driftline.serving.rows import RequestRows

_log = get_logger(__name__)

HTTP = fields.CHANNELS[0]

Record = dict[str, Any]


class _Waiting:
    """A request and its caller."""

    __slots__ = ("answer", "loop", "refusal", "request")

    def __init__(self, request: Record, refusal: str | None) -> None:
        self.request = request
        self.refusal = refusal
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Record] = self.loop.create_future()

    def settle(
        self, record: Record, failure: DriftlineError | None, logged: Acknowledgement | DriftlineError
    ) -> None:
        """Answer, or say what went wrong; not where the caller gave up (a deadline, or it went away)."""
        if self.answer.done():
            return
        error = logged if isinstance(logged, DriftlineError) else failure
        if error is None:
            self.answer.set_result(record)
        else:
            self.answer.set_exception(error)


class HttpBatches:
    """Predicts requests that come one by one, together."""

    def __init__(
        self,
        engine: PredictionEngine,
        project: Project,
        schema: Mapping[str, Any],
        schema_id: int,
        producer: AcknowledgedProducer,
        *,
        log: str,
        max_batch: int,
        max_waiting: int,
    ) -> None:
        self._engine = engine
        self._codec = RecordCodec(schema)
        self._schema_id = schema_id
        self._producer = producer
        self._numbers = frozenset(one.name for one in project.request_inputs if one.type is InputType.DOUBLE)
        self._topic = log
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._waiting: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._read: list[_Waiting] = []  # of the event loop alone
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="predict", daemon=True)
        self._thread.start()

    async def predict(self, request: Record) -> Record:
        """Return the logged prediction of a request, as a record (times in microseconds).

        Raises
        ------
        BackpressureError
            Too many requests wait.
        UnavailableError
            The store cannot be read, or the log cannot be written.
        """
        return await self._queue(request, None)

    async def refuse(self, request: Record, error: str) -> None:
        """Log a request that is refused before it can be tried; returns once the log has it."""
        await self._queue(request, error)

    def close(self) -> None:
        """Predict what waits, then stop."""
        self._closed = True
        self._waiting.put(None)
        self._thread.join(10)

    def _queue(self, request: Record, refusal: str | None) -> "asyncio.Future[Record]":
        if self._closed:
            raise UnavailableError("the predictor is stopping")
        if self._waiting.qsize() + len(self._read) >= self._max_waiting:  # (1)
            raise BackpressureError("too many predictions are waiting", retry_after=1.0)
        waiting = _Waiting(request, refusal)
        if not self._read:
            waiting.loop.call_soon(self._put)
        self._read.append(waiting)
        return waiting.answer

    def _put(self) -> None:
        for waiting in self._read:
            self._waiting.put(waiting)
        self._read.clear()

    def _work(self) -> None:
        going = True
        while going:
            taken = self._take()
            going = None not in taken
            tried = [one for one in taken if one is not None and one.refusal is None]
            if tried:
                self._predict(tried)
            for one in taken:
                if one is not None and one.refusal is not None:
                    self._log_all([one], self._engine.refused(self._rows([one]), HTTP, one.refusal), None)

    def _take(self) -> list[_Waiting | None]:
        """Return what waits, at least one: None once the last has come."""
        taken = [self._waiting.get()]  # (2)
        while len(taken) < self._max_batch:
            try:
                taken.append(self._waiting.get_nowait())
            except Empty:
                break
        return taken

    def _predict(self, taken: Sequence[_Waiting]) -> None:
        requests = self._rows(taken)
        failure: DriftlineError | None = None
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
        self._log_all(taken, predictions, failure)

    def _rows(self, taken: Sequence[_Waiting]) -> RequestRows:
        return RequestRows([one.request for one in taken], self._numbers)

    def _log_all(
        self, taken: Sequence[_Waiting], predictions: Sequence[Record], failure: DriftlineError | None
    ) -> None:
        for one, record in zip(taken, predictions, strict=True):
            settle = partial(one.settle, record, failure)  # (4)
            try:
                value = frame(self._schema_id, self._codec.encode(record))
                self._producer.send_to(one.loop, self._topic, record[fields.REQUEST_ID], value, settle)  # (3)
            except DriftlineError as error:
                _call(one.loop, partial(settle, error))


def _call(loop: asyncio.AbstractEventLoop, step: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(step)
    except RuntimeError:  # the event loop has ended, so nobody waits
        _log.warning("a prediction for a closed event loop")
