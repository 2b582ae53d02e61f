"""Predictions on the event loop: where nothing is in the way, a request needs no other thread but the broker's client.

Threads of one process that hand a request to each other run on two cores in turn, each with the other's work in its caches, and
each hand-over waits for the interpreter's lock.

1. What one turn of the event loop has read is a batch, at most ``max_batch``, and what comes while two batches are under
   way is the next.
2. Its features, and the claims of UUIDs that callers brought, are asked for with one command (``PipelinedRedis``). The
   event loop reads other requests meanwhile.
3. Then it is scored, encoded, claimed and sent to the log, as on the worker's thread (``batching.py``).
4. Whatever is not plain goes to the worker's thread instead: a request that is refused or late, that was asked before or is
   in a hurry, rules about the feature store once it is silent, what ``plain_rows`` does not know, and models that are slow:
   they would hold up all others, and the health check.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import redis

from driftline.contracts import prediction_fields as fields
from driftline.features.online import OnlineStore
from driftline.runtime.errors import UnavailableError
from driftline.runtime.logging import get_logger
from driftline.runtime.pipelined_redis import PipelinedRedis, Reply
from driftline.serving.bounded_reads import BoundedReads
from driftline.serving.claims import claims_of
from driftline.serving.predict import BegunPrediction, PredictionEngine
from services.predictor.each_anew import EachAnew
from services.predictor.log_sending import HTTP, LogSending
from services.predictor.waiting import WaitingRequest, by_model, fault_of
from services.predictor.zero_wait_queue import Pace

_log = get_logger(__name__)
_MOST_UNDER_WAY = 2
#: A model that takes longer than so many seconds for a batch is the worker's for so many.
_SLOW_SECONDS, _AWAY_SECONDS = 0.02, 1.0


class LoopReads(NamedTuple):
    """What features are read with on the event loop; ``bounded`` keeps models' rules about the store, where there are any."""

    store: OnlineStore
    server: PipelinedRedis
    bounded: BoundedReads | None = None


class _Batch(NamedTuple):
    """Requests to one model whose features are being read."""

    taken: Sequence[WaitingRequest]
    begun: BegunPrediction
    asked_ids: Sequence[str]


class LoopBatches:
    """Predicts what is plain; the rest is given to ``aside``. For the thread of an event loop.

    Parameters
    ----------
    hurries
        Tells which requests leave less time than their features may take.
    """

    def __init__(
        self,
        engine: PredictionEngine,
        reads: LoopReads,
        repeats: EachAnew,
        sending: LogSending,
        *,
        aside: Callable[[WaitingRequest], None],
        hurries: Callable[[WaitingRequest], bool],
        pace: Pace,
        max_batch: int,
    ) -> None:
        self._engine = engine
        self._reads = reads
        self._repeats = repeats
        self._sending = sending
        self._aside = aside
        self._hurries = hurries
        self._pace = pace
        self._max_batch = max_batch
        self._waiting: deque[WaitingRequest] = deque()
        self._under_way = 0
        self._slow: dict[str, float] = {}
        self._sent_at: float | None = None  # the last batch, if another was to be done then

    @property
    def waiting(self) -> int:
        """How many requests wait for their batch."""
        return len(self._waiting)

    def put(self, one: WaitingRequest) -> None:
        """Take a request into the batch of this turn."""
        if not self._waiting:
            one.loop.call_soon(self._go_on)
        self._waiting.append(one)

    def _go_on(self) -> None:
        while self._waiting and self._under_way < _MOST_UNDER_WAY:
            count = min(len(self._waiting), self._max_batch)
            self._start([self._waiting.popleft() for _ in range(count)])

    def _start(self, taken: Sequence[WaitingRequest]) -> None:
        plain = [one for one in taken if self._takes(one)]
        for same in by_model(self._repeats.first(plain)):
            try:
                self._read(same)
            except Exception as error:  # noqa: BLE001 - the worker logs what it comes to
                _log.error("a batch could not be begun", exc_info=error)
                self._put_aside(same)

    def _takes(self, one: WaitingRequest) -> bool:
        """Tell whether a request is for us; it is put aside where not (4)."""
        slow = self._slow and self._slow.get(one.request[fields.MODEL], 0.0) > time.monotonic()
        if slow or one.refusal is not None or one.late or self._hurries(one):
            self._aside(one)
            return False
        return True

    def _read(self, taken: Sequence[WaitingRequest]) -> None:
        store, server, bounded = self._reads
        begun = self._engine.begin(self._sending.rows(taken), HTTP, store.plan)
        within = None
        if begun is not None and bounded is not None:
            within = bounded.patience(begun.declaration)
        if begun is None or (bounded is not None and within is None):
            self._put_aside(taken)
            return
        ids, keys = self._repeats.asked(taken)
        told = partial(self._has_read, _Batch(taken, begun, ids))
        server.ask(("MGET", *begun.reading.keys, *keys), told, within_seconds=within)  # (2)
        self._under_way += 1

    def _has_read(self, batch: _Batch, reply: Reply) -> None:
        try:
            if self._goes_on(batch, reply):
                return
        except Exception as error:  # noqa: BLE001 - whatever happens, nobody waits in vain
            self._fail(batch.taken, error)
        self._done(0)

    def _goes_on(self, batch: _Batch, reply: Reply) -> bool:
        """Predict and send what was read; False where the worker does that, or it cannot be done."""
        taken, begun, ids = batch
        if isinstance(reply, redis.RedisError):
            self._do_without(batch, f"the feature store's Redis does not answer: {reply}")
            return False
        keys = len(begun.reading.keys)
        if ids and claims_of(ids, reply[keys:]):
            self._put_aside(taken)
            return False
        since = time.monotonic()
        try:
            records = self._engine.finish(begun, reply[:keys])  # (3)
        except Exception as error:  # noqa: BLE001 - a fault of ours: it is logged for each request, and each caller is told
            self._log_failed(batch, fault_of(taken, error))
            return False
        if (until := time.monotonic()) - since > _SLOW_SECONDS:
            self._slow[begun.declaration.name] = until + _AWAY_SECONDS
        made = []
        for one, record in zip(taken, records, strict=True):
            if one.late:  # meanwhile: it is logged as failed
                self._aside(one)
            else:
                made.append((one, record))
        self._sending.send_by(self._reads.server, made, partial(self._sent, [one for one, _ in made]))
        return True

    def _do_without(self, batch: _Batch, reason: str) -> None:
        """Do what a model's rule says where its features cannot be had."""
        taken, begun, _ = batch
        if self._reads.bounded is not None:
            self._reads.bounded.missed(begun.declaration, reason)
            self._put_aside(taken)
            return
        self._log_failed(batch, UnavailableError(reason))

    def _log_failed(self, batch: _Batch, failure: UnavailableError) -> None:
        failed = self._engine.failed(batch.begun.requests, HTTP, str(failure))
        self._sending.send(list(zip(batch.taken, failed, strict=True)), failure)

    def _sent(self, taken: Sequence[WaitingRequest], error: Exception | None) -> None:
        if error is not None:
            self._fail(taken, error)
        self._done(len(taken))

    def _done(self, sent: int) -> None:
        self._under_way -= 1
        now = time.monotonic()
        if self._sent_at is not None and sent:
            self._pace.note(now - self._sent_at, sent)
        self._sent_at = now if self._under_way or self._waiting else None
        if self._waiting:  # with what this turn has read
            self._waiting[0].loop.call_soon(self._go_on)

    def _put_aside(self, taken: Sequence[WaitingRequest]) -> None:
        for one in taken:
            self._aside(one)

    def _fail(self, taken: Sequence[WaitingRequest], error: Exception) -> None:
        fault = fault_of(taken, error)
        for one in taken:
            self._repeats.settle(one, {}, b"", fault, fault)
