"""How long it takes to build a partition from its oldest record, kept beside it: after Redis was lost, or the first time."""

from collections.abc import Collection
from typing import Protocol

from driftline.features.filling import Build, Builds
from driftline.runtime import metrics
from driftline.runtime.clock import Clock
from driftline.runtime.logging import get_logger
from driftline.streaming.partitions import Partition
from services.feature_store.fenced_store import FencedStore, Ownership

_log = get_logger(__name__)


class _Log(Protocol):
    def at_end(self, partition: Partition) -> bool: ...


class PartitionBuilds:
    """The builds of this process's partitions that go on.

    One is done when everything is applied that the partition held as it began. What ends in a transaction that failed is
    never applied, so the end of the log does as well.
    """

    def __init__(self, store: FencedStore, log: _Log, clock: Clock) -> None:
        self._store = store
        self._log = log
        self._clock = clock
        self._going_on: dict[Partition, Build] = {}

    def begin(self, partition: Partition, ownership: Ownership) -> None:
        """Take a partition on, whether it is being built or not."""
        builds = Builds.parse(self._store.load_key(self._store.builds_key(ownership)))
        if builds.building is not None:
            self._going_on[partition] = builds.building

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop partitions; whoever has them next goes on."""
        for partition in partitions:
            self._going_on.pop(partition, None)

    def look_at(self, partition: Partition, ownership: Ownership) -> Ownership:
        """Write down when a partition's build is done; return its ownership since then."""
        build = self._going_on.get(partition)
        if build is None:
            return ownership
        if ownership.next_offset < build.stop and not self._log.at_end(partition):
            return ownership
        key = self._store.builds_key(ownership)
        done = build.finished(ownership.next_offset, self._clock.now_us())
        ownership = self._store.change(
            ownership, {key: Builds.parse(self._store.load_key(key)).done(done).format()}
        )
        del self._going_on[partition]
        metrics.STORE_BUILDS.labels(partition.topic).inc()
        metrics.STORE_BUILD_SECONDS.labels(partition.topic, str(partition.number)).set(done.seconds or 0.0)
        _log.info(
            "a partition was built from its oldest record",
            partition=str(partition),
            offset=done.start,
            records=done.records,
            seconds=done.seconds,
        )
        return ownership
