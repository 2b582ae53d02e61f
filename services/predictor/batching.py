"""Predictions over HTTP, batch by batch: whatever arrived while the last batch ran is the next (``zero_wait_queue``).

1. A request waits in the queue, bounded; a full queue refuses with BackpressureError.
2. The worker thread takes what waits (at most ``max_batch``), predicts it in one go and encodes it.
3. It sends every record to the log, whether or not its caller still waits.
4. What was asked before gets the answer of before (``repeats.py``). Else a request is answered when the broker has
   acknowledged its record. An answer that could not be logged is not given. The event loop is woken once for all that
   are acknowledged together.
5. Where a model's callers are promised an answer within a time, a request is refused as if the queue were full as soon as
   those before it, two batches or more, will take half of that: under any load, what is taken is answered in time.
6. A caller that has said how long it waits is told by then. What was not predicted by then is logged as FAILED. Where
   its model can do without the feature store, part of that time is all that reading features may take.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchEncoder
from driftline.project import InputType, Project
from driftline.runtime import metrics
from driftline.runtime.acknowledged_producer import AcknowledgedProducer, Acknowledgement, Sending
from driftline.runtime.errors import BackpressureError, BadMessageError, DriftlineError, UnavailableError
from driftline.runtime.futures import complete
from driftline.runtime.ids import made_id, new_id
from driftline.runtime.logging import get_logger
from driftline.serving.claimed_reads import ClaimsFoundError
from driftline.serving.kept_answers import RepeatedRecord
from driftline.serving.predict import PredictionEngine
from driftline.serving.rows import RequestRows
from driftline.serving.service_levels import ServiceLevels
from services.predictor.each_anew import EachAnew
from services.predictor.zero_wait_queue import ZeroWaitQueue, call

_log = get_logger(__name__)
_ANSWERED, _, _FAILED = fields.STATUSES

HTTP = fields.CHANNELS[0]
#: Of what a caller leaves, the part that reading features may take: scoring and the log need some as well.
_READING_SHARE = 0.6
#: Of the time within which a model's callers are promised their answers, the part that those before them may take. The
#: way from the caller and back needs the rest.
_TURN_SHARE = 0.5

Record = dict[str, Any]
#: What a request comes to: its record in the log, or what went wrong.
Outcome: TypeAlias = Record | DriftlineError
Tell: TypeAlias = Callable[[Outcome], None]


class _Waiting:
    """A request and its caller, who may have said how long it waits."""

    __slots__ = (
        "_alarm",
        "_until",
        "brought",
        "loop",
        "refusal",
        "request",
        "sent",
        "tell",
        "timeout_ms",
        "told",
    )

    def __init__(
        self, request: Record, refusal: str | None, timeout_ms: int | None, tell: Tell, *, brought: bool
    ) -> None:
        self.request = request
        self.brought = brought  # the UUID, by the caller
        self.refusal = refusal
        self.timeout_ms = timeout_ms
        self.tell = tell
        self.told = False
        self.sent = False  # to the log, or answered from before
        self.loop = asyncio.get_running_loop()
        self._until: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        if timeout_ms is not None:
            self._until = time.monotonic() + timeout_ms / 1_000
            self._alarm = self.loop.call_later(timeout_ms / 1_000, self._give_up)

    @property
    def late(self) -> bool:
        """Whether the caller waits no more."""
        return self._until is not None and time.monotonic() >= self._until

    @property
    def seconds_left(self) -> float:
        """How long the caller still waits."""
        return math.inf if self._until is None else self._until - time.monotonic()

    def settle(
        self, record: Record, failure: DriftlineError | None, logged: Acknowledgement | DriftlineError
    ) -> None:
        """Answer, or say what went wrong; not where the caller gave up."""
        if self._alarm is not None:
            self._alarm.cancel()
        error = logged if isinstance(logged, DriftlineError) else failure
        self._tell_once(record if error is None else error)

    def _give_up(self) -> None:
        self._tell_once(UnavailableError(_late(self.timeout_ms)))

    def _tell_once(self, outcome: Outcome) -> None:
        if not self.told:
            self.told = True
            self.tell(outcome)


def _late(timeout_ms: int | None) -> str:
    return f"no logged prediction within the {timeout_ms} ms that the request allows"


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
        levels: ServiceLevels,
        log: str,
        max_batch: int,
        max_waiting: int,
        repeats: EachAnew | None = None,
    ) -> None:
        self._engine = engine
        self._encoder = BatchEncoder(schema, schema_id)
        self._producer = producer
        self._levels = levels
        self._numbers = frozenset(one.name for one in project.request_inputs if one.type is InputType.DOUBLE)
        self._longest_wait = max(
            (model.store.wait_us / 1e6 for model in project.models.values() if model.store.degrades),
            default=0.0,
        )
        self._in_flight, self._two_batches = 0, 2 * max_batch
        self._longest_turn = {
            name: model.service_levels.latency_us / 1e6 * _TURN_SHARE
            for name, model in project.models.items()
            if model.service_levels is not None
        }
        self._topic = log
        self._repeats = repeats or EachAnew()
        self._repeats.start(self)
        self._waiting = ZeroWaitQueue(
            self._work, items="predictions", max_batch=max_batch, max_waiting=max_waiting
        )

    async def predict(
        self, request: Record, timeout_ms: int | None = None, *, brought: bool = True, in_bulk: bool = False
    ) -> Record:
        """Return the logged prediction of a request, as a record (times in microseconds).

        That of before, a RepeatedRecord, where the request was asked before.

        Parameters
        ----------
        timeout_ms
            How long the caller waits; without it, as long as the service lets it.
        brought
            Whether the UUID is the caller's; one that was made here cannot have been asked before.
        in_bulk
            Whether it is one of many of a caller who waits for all of them: nobody else is refused because of it (5).

        Raises
        ------
        BackpressureError
            Too many requests wait.
        UnavailableError
            The store cannot be read, the log cannot be written, or either was not done in time.
        """
        answer: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self.ask(request, partial(complete, answer), timeout_ms, brought=brought, in_bulk=in_bulk)
        return await answer

    def ask(
        self,
        request: Record,
        tell: Tell,
        timeout_ms: int | None = None,
        *,
        brought: bool = True,
        in_bulk: bool = False,
    ) -> None:
        """Have ``tell`` told, on this event loop, what ``predict`` returns or raises; BackpressureError is raised here."""
        turns = 0 if in_bulk else 1
        told = partial(self._told, request[fields.MODEL], time.perf_counter(), tell, turns)
        try:
            self._queue(_Waiting(request, None, timeout_ms, told, brought=brought))
        except DriftlineError:
            self._levels.failed(request[fields.MODEL])
            raise
        self._in_flight += turns

    def sheds(self, model: str) -> BackpressureError | None:
        """Return what the next request is refused with, unread, while too many wait; it is counted. None: it is taken."""
        if not self._waiting.full and not self._late_in_turn(model):
            return None
        self._levels.failed(model)
        return self._waiting.refusal()

    def _late_in_turn(self, model: str) -> bool:
        """Tell whether those before the next request take longer than its answer may wait for them (5)."""
        if self._in_flight <= self._two_batches:
            return False
        return self._in_flight * self._waiting.seconds_each > self._longest_turn.get(model, math.inf)

    async def refuse(self, request: Record, error: str, *, brought: bool = True) -> str:
        """Log a request that is refused before it can be tried; return the UUID under which the log has it."""
        answer: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._queue(_Waiting(request, error, None, partial(complete, answer), brought=brought))
        return str((await answer)[fields.REQUEST_ID])

    def close(self) -> None:
        """Predict what waits, then stop."""
        self._waiting.close()

    def close_repeats(self) -> None:
        """Keep the answers that were given; for after the log's last acknowledgement."""
        self._repeats.close()

    def again(self, one: _Waiting) -> None:
        """Take a request as if it had just come: its answer of before is gone."""
        self._waiting.put_again(one)

    def refuse_other(self, one: _Waiting, reason: str) -> None:
        """Log a request whose UUID is another one's as refused, under a UUID of its own, and tell its caller."""
        one.request, one.brought = {**one.request, fields.REQUEST_ID: made_id()}, False
        self._send(list(zip([one], self._engine.refused(self._rows([one]), HTTP, reason), strict=True)), None)

    def _told(self, model: str, begun: float, tell: Tell, turns: int, outcome: Outcome) -> None:
        """Count an answer, and tell it."""
        self._in_flight -= turns
        if isinstance(outcome, DriftlineError) or outcome[fields.STATUS] == _FAILED:
            self._levels.failed(model)
        elif outcome[fields.STATUS] == _ANSWERED:
            degraded = outcome[fields.DEGRADED] is not None
            self._levels.answered(model, time.perf_counter() - begun, degraded=degraded)
        if isinstance(outcome, RepeatedRecord):
            metrics.PREDICTIONS_REPEATED.labels(HTTP).inc()
        tell(outcome)

    def _queue(self, waiting: _Waiting) -> None:
        self._waiting.admit()  # (1)
        self._waiting.put(waiting, waiting.loop)

    def _work(self, waiting: Sequence[_Waiting]) -> None:
        for one in waiting:
            one.sent = False  # one that is taken again was answered from before, in vain
        try:
            first = self._repeats.first([one for one in waiting if one.refusal is None and not one.late])
            for some, within in self._by_hurry(first):
                for same in _by_model(some):
                    asked = [one for one in same if not one.late]
                    self._repeats.want(asked)
                    self._predict(asked, within)  # (2)
            self._log_untried([one for one in waiting if not one.sent])
        except Exception as error:  # noqa: BLE001 - whatever happens, the thread goes on and nobody waits in vain
            fault = _fault(waiting, error)
            for one in waiting:
                call(one.loop, partial(self._repeats.settle, one, {}, b"", fault, fault))

    def _by_hurry(self, taken: Sequence[_Waiting]) -> Iterator[tuple[Sequence[_Waiting], float]]:
        """Yield those who leave less time than features may take, then the others, with the seconds for features."""
        left = [one.seconds_left * _READING_SHARE for one in taken] if self._longest_wait else []
        if min(left, default=math.inf) >= self._longest_wait:
            yield taken, math.inf
            return
        hurried = [each < self._longest_wait for each in left]
        yield [one for one, hurries in zip(taken, hurried, strict=True) if hurries], min(left)
        yield [one for one, hurries in zip(taken, hurried, strict=True) if not hurries], math.inf

    def _predict(self, taken: Sequence[_Waiting], within: float) -> None:
        if not taken:
            return
        requests = self._rows(taken)
        failure: DriftlineError | None = None
        try:
            predictions = self._engine.predict(requests, HTTP, within=within)
        except ClaimsFoundError as found:
            self._predict(self._repeats.answer(taken, found.claims), within)
            return
        except UnavailableError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - a fault of ours: it is logged for each request, and each caller is told
            failure = _fault(taken, error)
        if failure is not None:
            predictions = self._engine.failed(requests, HTTP, str(failure))
        made = zip(taken, predictions, strict=True)
        in_time = [(one, record) for one, record in made if not one.late]  # the others are logged as failed
        self._send(in_time, failure)

    def _log_untried(self, untried: Sequence[_Waiting]) -> None:
        """Log what was refused beforehand, and what nobody waits for any more (6)."""
        for one in untried:
            if one.refusal is not None and self._repeats.was_asked(one):
                one.request = {**one.request, fields.REQUEST_ID: new_id()}
            requests = self._rows([one])
            if one.refusal is not None:
                (record,) = self._engine.refused(requests, HTTP, one.refusal)
            else:
                (record,) = self._engine.failed(requests, HTTP, _late(one.timeout_ms))
            self._send([(one, record)], None)

    def _send(self, made: Sequence[tuple[_Waiting, Record]], failure: DriftlineError | None) -> None:
        """Send records to the log; each caller is told once its own is there."""
        values = self._encoder.encode_records([record for _, record in made])
        framed = [(*pair, value) for pair, value in zip(made, values, strict=True)]
        if failure is None:
            try:
                framed = list(self._repeats.claim(framed))
            except UnavailableError as error:
                callers = [one for one, _ in made]
                failed = self._engine.failed(self._rows(callers), HTTP, str(error))
                self._send(list(zip(callers, failed, strict=True)), error)
                return
        whole = []
        for one, record, value in framed:
            if isinstance(value, BadMessageError):
                self.send_framed(one, record, value, failure)
                continue
            settle = partial(self._repeats.settle, one, record, value, failure)  # (4)
            one.sent = True
            whole.append(Sending(one.loop, record[fields.REQUEST_ID], value, settle))
        self._producer.send_together(self._topic, whole)  # (3)

    def send_framed(
        self,
        one: _Waiting,
        record: Record,
        value: bytes | BadMessageError,
        failure: DriftlineError | None = None,
    ) -> None:
        """Send a record to the log; its caller is told once it is there."""
        settle = partial(self._repeats.settle, one, record, value, failure)
        one.sent = True
        if isinstance(value, BadMessageError):
            call(one.loop, partial(settle, value))
        else:
            self._producer.send_together(
                self._topic, [Sending(one.loop, record[fields.REQUEST_ID], value, settle)]
            )

    def _rows(self, taken: Sequence[_Waiting]) -> RequestRows:
        return RequestRows([one.request for one in taken], self._numbers)


def _by_model(taken: Sequence[_Waiting]) -> Iterable[Sequence[_Waiting]]:
    """Return requests model by model: each model's features, and with them its requests' claims, are one read."""
    names = dict.fromkeys(one.request[fields.MODEL] for one in taken)
    if len(names) < 2:
        return [taken]
    return [[one for one in taken if one.request[fields.MODEL] == name] for name in names]


def _fault(taken: Sequence[_Waiting], error: Exception) -> UnavailableError:
    ids = [one.request[fields.REQUEST_ID] for one in taken]
    _log.error("predicting failed", request_ids=ids, exc_info=error)
    return UnavailableError(f"a fault of ours ({type(error).__name__}); it is in the service's log")
