"""The loop of a data-plane process: take a batch, process it, and start anew from the sink after any failure.

There is one way to recover, whatever went wrong: forget what was cached of the partitions, ask the sink
where they stand, go on from there. It settles the ambiguous cases too (a commit whose answer was lost).
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from driftline.runtime import metrics
from driftline.runtime.errors import LostOwnershipError, UnavailableError
from driftline.runtime.health import Health
from driftline.runtime.logging import get_logger
from driftline.streaming.consumer import PartitionedConsumer
from driftline.streaming.overlapped import Overlapped
from driftline.streaming.partitions import Partition, PartitionBatch
from driftline.streaming.stall_guard import StallGuard

_log = get_logger(__name__)

_POLL_SECONDS = 0.2  # also how long a SIGTERM may wait for an idle loop
_FIRST_BACKOFF, _LAST_BACKOFF = 0.1, 5.0
#: Another owner has written: give the group this long to say whether the partition is still ours.
LOST_OWNERSHIP_SECONDS = 2.0


class Pipeline(Protocol):
    """What is done with the messages. All methods run on the loop's thread."""

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """Take partitions on: return the next offset of each from the sink, None where it has none."""
        ...

    def process(self, batches: Sequence[PartitionBatch]) -> None:
        """Process batches and commit them, wholly or not at all; UnavailableError and LostOwnershipError repeat them."""
        ...

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop what is cached of partitions that are no longer ours, or start anew."""
        ...

    def idle(self) -> Mapping[Partition, float]:
        """Run once a second: return the partitions that must start anew, and after how many seconds."""
        ...


def run_pipeline(
    consumer: PartitionedConsumer,
    pipeline: Pipeline,
    *,
    stop: threading.Event,
    health: Health,
    until: Callable[[], bool] = lambda: False,
    guard: StallGuard | None = None,
    between: Callable[[bool], bool] | None = None,
) -> None:
    """Run until ``stop`` is set (the batch in hand is finished first) or ``until`` says so; then leave the group.

    A turn that takes longer than the group's patience (``max.poll.interval.ms``) ends the process. A pipeline with
    longer work brings its own ``guard`` and tells it meanwhile that it goes on.

    ``between`` is called in every turn after the batches, if there were any (which it is told), for a short piece of other
    work. Where it returns that there is more, the next turn does not wait for messages.
    """
    loop = _Loop(consumer, pipeline, health, between)
    try:
        with guard or StallGuard(consumer.max_silence) as watching:
            while not stop.is_set() and not until():
                loop.turn()
                watching.turned()
    finally:
        if isinstance(pipeline, Overlapped):
            _finish(pipeline)
        consumer.close()
        pipeline.forget(consumer.take_revoked())


def _finish(pipeline: Overlapped) -> None:
    try:
        pipeline.close()
    except UnavailableError as error:
        _log.warning("the last batch was not committed; it comes again", error=str(error))


class _Loop:
    def __init__(
        self,
        consumer: PartitionedConsumer,
        pipeline: Pipeline,
        health: Health,
        between: Callable[[bool], bool] | None,
    ) -> None:
        self._between = between
        self._more = False
        self._consumer = consumer
        self._pipeline = pipeline
        self._health = health
        self._backoff = _FIRST_BACKOFF
        self._next_idle = 0.0
        health.set("stream", ready=False)  # no detail: joining is no error

    def turn(self) -> None:
        """Start what is due, process what has arrived, look after the rest once a second."""
        self._forget_revoked()
        self._start_due()
        with metrics.STEP_SECONDS.labels("poll").time():
            batches = self._consumer.poll(0 if self._more else _POLL_SECONDS)
        self._forget_revoked()  # before processing: a partition may be revoked and assigned again in one poll
        if batches:
            self._process(batches)
        if self._between is not None:
            self._more = self._between(bool(batches))
        if time.monotonic() >= self._next_idle:
            self._look_after()
            self._next_idle = time.monotonic() + 1.0
        self._health.progress("stream")

    def _forget_revoked(self) -> None:
        revoked = self._consumer.take_revoked()
        if revoked:
            self._pipeline.forget(revoked)

    def _start_due(self) -> None:
        due = self._consumer.due()
        if not due:
            return
        try:
            for partition, position in self._pipeline.positions(due).items():
                self._consumer.start(partition, position)
        except (UnavailableError, LostOwnershipError) as error:
            self._again(due, error)
        else:
            self._backoff = _FIRST_BACKOFF

    def _process(self, batches: Sequence[PartitionBatch]) -> None:
        for batch in batches:
            metrics.BATCH_ROWS.labels(batch.partition.topic).observe(len(batch.messages))
        try:
            self._pipeline.process(batches)
        except (UnavailableError, LostOwnershipError) as error:
            self._again([batch.partition for batch in batches], error)

    def _again(self, partitions: Collection[Partition], error: Exception) -> None:
        if isinstance(error, LostOwnershipError):
            delay = LOST_OWNERSHIP_SECONDS
        else:
            delay, self._backoff = self._backoff, min(self._backoff * 2, _LAST_BACKOFF)
        if isinstance(error, UnavailableError):
            partitions = tuple(dict.fromkeys((*partitions, *error.partitions)))
        names = [str(partition) for partition in partitions]
        _log.warning("starting anew from the sink", partitions=names, seconds=delay, error=str(error))
        self._health.set("stream", ready=False, detail=str(error))
        self._pipeline.forget(partitions)
        self._consumer.hold(partitions, seconds=delay)

    def _look_after(self) -> None:
        try:
            reset = self._pipeline.idle()
        except UnavailableError as error:
            if error.partitions:
                self._again((), error)
            self._health.set("stream", ready=False, detail=str(error))
            return
        if reset:
            _log.warning("the sink changed; starting anew from it", partitions=[str(one) for one in reset])
            self._pipeline.forget(reset.keys())
            for partition, seconds in reset.items():
                self._consumer.hold([partition], seconds=seconds)
        self._consumer.measure_lag()
        waiting = len(self._consumer.assigned) - len(self._consumer.started)
        if self._consumer.joined and not waiting:
            self._health.set("stream", ready=True, detail=f"{len(self._consumer.started)} partitions")
