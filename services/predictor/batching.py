"""Predictions over HTTP, batch by batch: whatever arrived while the last batch ran is the next (``zero_wait_queue``).

1. A request waits in the queue, bounded; a full queue refuses with BackpressureError. What is plain waits for its turn on
   the event loop (``loop_batches.py``), all else for the worker thread.
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
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchEncoder
from driftline.project import InputType, Project
from driftline.runtime import metrics
from driftline.runtime.acknowledged_producer import AcknowledgedProducer
from driftline.runtime.errors import BackpressureError, DriftlineError, UnavailableError
from driftline.runtime.futures import complete
from driftline.runtime.ids import made_id, new_id
from driftline.serving.claimed_reads import ClaimsFoundError
from driftline.serving.kept_answers import RepeatedRecord
from driftline.serving.predict import PredictionEngine
from driftline.serving.service_levels import ServiceLevels
from services.predictor.each_anew import EachAnew
from services.predictor.log_sending import HTTP, LogSending
from services.predictor.loop_batches import LoopBatches, LoopReads
from services.predictor.waiting import Outcome, Record, Tell, WaitingRequest, by_model, fault_of
from services.predictor.zero_wait_queue import ZeroWaitQueue, call

_ANSWERED, _, _FAILED = fields.STATUSES

#: Of what a caller leaves, the part that reading features may take: scoring and the log need some as well.
_READING_SHARE = 0.6
#: Of the time within which a model's callers are promised their answers, the part that those before them may take. The
#: way from the caller and back needs the rest.
_TURN_SHARE = 0.5


class HttpBatches:
    """Predicts requests that come one by one, together.

    Parameters
    ----------
    on_loop
        What features of plain requests are read with on the event loop; without it all go to the worker thread.
    """

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
        on_loop: LoopReads | None = None,
    ) -> None:
        self._engine = engine
        self._levels = levels
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
        self._repeats = repeats or EachAnew()
        self._sending = LogSending(
            engine,
            BatchEncoder(schema, schema_id),
            producer,
            self._repeats,
            numbers=frozenset(one.name for one in project.request_inputs if one.type is InputType.DOUBLE),
            topic=log,
        )
        self._repeats.start(self)
        self._waiting = ZeroWaitQueue(
            self._work, items="predictions", max_batch=max_batch, max_waiting=max_waiting
        )
        self._on_loop: LoopBatches | None = None
        if on_loop is not None:
            self._on_loop = LoopBatches(
                engine,
                on_loop,
                self._repeats,
                self._sending,
                aside=self._waiting.put_again,
                hurries=self._hurries,
                pace=self._waiting.pace,
                max_batch=max_batch,
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
            self._queue(WaitingRequest(request, None, timeout_ms, told, brought=brought))
        except DriftlineError:
            self._levels.failed(request[fields.MODEL])
            raise
        self._in_flight += turns

    def sheds(self, model: str) -> BackpressureError | None:
        """Return what the next request is refused with, unread, while too many wait; it is counted. None: it is taken."""
        if not self._waiting.full(self._on_loop_waiting) and not self._late_in_turn(model):
            return None
        self._levels.failed(model)
        return self._waiting.refusal()

    def _late_in_turn(self, model: str) -> bool:
        """Tell whether those before the next request take longer than its answer may wait for them (5)."""
        if self._in_flight <= self._two_batches:
            return False
        return self._in_flight * self._waiting.pace.seconds_each > self._longest_turn.get(model, math.inf)

    async def refuse(self, request: Record, error: str, *, brought: bool = True) -> str:
        """Log a request that is refused before it can be tried; return the UUID under which the log has it."""
        answer: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._queue(WaitingRequest(request, error, None, partial(complete, answer), brought=brought))
        return str((await answer)[fields.REQUEST_ID])

    def close(self) -> None:
        """Predict what waits, then stop."""
        self._waiting.close()

    def close_repeats(self) -> None:
        """Keep the answers that were given; for after the log's last acknowledgement."""
        self._repeats.close()

    def again(self, one: WaitingRequest) -> None:
        """Take a request as if it had just come: its answer of before is gone."""
        self._waiting.put_again(one)

    def refuse_other(self, one: WaitingRequest, reason: str) -> None:
        """Log a request whose UUID is another one's as refused, under a UUID of its own, and tell its caller."""
        one.request, one.brought = {**one.request, fields.REQUEST_ID: made_id()}, False
        refused = self._engine.refused(self._sending.rows([one]), HTTP, reason)
        self._sending.send(list(zip([one], refused, strict=True)), None)

    def send_framed(self, one: WaitingRequest, record: Record, value: bytes) -> None:
        """Send a record to the log; its caller is told once it is there."""
        self._sending.send_framed(one, record, value)

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

    def _queue(self, waiting: WaitingRequest) -> None:
        self._waiting.admit(self._on_loop_waiting)  # (1)
        if self._on_loop is None or waiting.refusal is not None:
            self._waiting.put(waiting, waiting.loop)
        else:
            self._on_loop.put(waiting)

    @property
    def _on_loop_waiting(self) -> int:
        return 0 if self._on_loop is None else self._on_loop.waiting

    def _work(self, waiting: Sequence[WaitingRequest]) -> None:
        for one in waiting:
            one.sent = False  # one that is taken again was answered from before, in vain
        try:
            first = self._repeats.first([one for one in waiting if one.refusal is None and not one.late])
            for some, within in self._by_hurry(first):
                for same in by_model(some):
                    asked = [one for one in same if not one.late]
                    self._repeats.want(asked)
                    self._predict(asked, within)  # (2)
            self._log_untried([one for one in waiting if not one.sent])
        except Exception as error:  # noqa: BLE001 - whatever happens, the thread goes on and nobody waits in vain
            fault = fault_of(waiting, error)
            for one in waiting:
                call(one.loop, partial(self._repeats.settle, one, {}, b"", fault, fault))

    def _hurries(self, one: WaitingRequest) -> bool:
        """Tell whether a request leaves less time than features may take."""
        return self._longest_wait > 0 and one.seconds_left * _READING_SHARE < self._longest_wait

    def _by_hurry(self, taken: Sequence[WaitingRequest]) -> Iterator[tuple[Sequence[WaitingRequest], float]]:
        """Yield those who leave less time than features may take, then the others, with the seconds for features."""
        hurried: list[WaitingRequest] = []
        others: list[WaitingRequest] = []
        for one in taken:
            (hurried if self._hurries(one) else others).append(one)
        if hurried:
            yield hurried, min(one.seconds_left for one in hurried) * _READING_SHARE
        yield others, math.inf

    def _predict(self, taken: Sequence[WaitingRequest], within: float) -> None:
        if not taken:
            return
        requests = self._sending.rows(taken)
        failure: DriftlineError | None = None
        try:
            predictions = self._engine.predict(requests, HTTP, within=within)
        except ClaimsFoundError as found:
            self._predict(self._repeats.answer(taken, found.claims), within)
            return
        except UnavailableError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - a fault of ours: it is logged for each request, and each caller is told
            failure = fault_of(taken, error)
        if failure is not None:
            predictions = self._engine.failed(requests, HTTP, str(failure))
        made = zip(taken, predictions, strict=True)
        in_time = [(one, record) for one, record in made if not one.late]  # the others are logged as failed
        self._sending.send(in_time, failure)  # (3)

    def _log_untried(self, untried: Sequence[WaitingRequest]) -> None:
        """Log what was refused beforehand, and what nobody waits for any more (6)."""
        for one in untried:
            if one.refusal is not None and self._repeats.was_asked(one):
                one.request = {**one.request, fields.REQUEST_ID: new_id()}
            requests = self._sending.rows([one])
            if one.refusal is not None:
                (record,) = self._engine.refused(requests, HTTP, one.refusal)
            else:
                (record,) = self._engine.failed(requests, HTTP, one.late_reason)
            self._sending.send([(one, record)], None)
