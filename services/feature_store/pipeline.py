"""Events in, features in the online store, exactly once: decode, validate, drop duplicates, apply, commit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from driftline.contracts.batch_codec import BatchDecoder
from driftline.project import Project
from driftline.runtime import metrics
from driftline.streaming.dead_letters import (
    DeadLetter,
    DeadLetterCeiling,
    DeadLetterTopic,
    count_dead_letters,
    dead_letter,
)
from driftline.streaming.loop import LOST_OWNERSHIP_SECONDS
from driftline.streaming.partitions import Partition, PartitionBatch
from services.feature_store.fenced_store import FencedStore
from services.feature_store.freshness import Freshness
from services.feature_store.partition_state import Change, PartitionState

SERVICE = "feature_store"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """A topic that feeds the store: its event type, its number of partitions, how its values are decoded.

    ``own`` says whether applications write it. What the platform writes is good, but a prediction may be about the
    future: the store leaves it out, and nobody has to mend it.
    """

    event_type: str
    partitions: int
    decoder: BatchDecoder
    own: bool = True


class FeatureStorePipeline:
    """The steps from a batch of messages to the online store (a ``driftline.streaming.loop.Pipeline``)."""

    def __init__(
        self,
        project: Project,
        feeds: Mapping[str, Feed],
        store: FencedStore,
        dead_letters: DeadLetterTopic,
        *,
        prefix: str,
        instance: str,
        ceiling: DeadLetterCeiling,
        oldest: Callable[[Partition], int],
        max_entities: int,
    ) -> None:
        self._project = project
        self._feeds = feeds
        self._store = store
        self._dead_letters = dead_letters
        self._prefix = prefix
        self._instance = instance
        self._ceiling = ceiling
        self._oldest = oldest
        self._max_entities = max_entities
        self._states: dict[Partition, PartitionState] = {}
        targets = {
            part.ref: target
            for name, target in project.freshness.items()
            for part in project.views[name].stored
            if not part.source.table
        }
        self._freshness = Freshness(targets)

    def positions(self, partitions: Sequence[Partition]) -> dict[Partition, int | None]:
        """Become the owner of partitions; each starts where the store's state of it ends."""
        return {partition: self._take(partition) for partition in partitions}

    def process(self, batches: Sequence[PartitionBatch]) -> None:
        """Apply batches: dead letters first, then one atomic step per partition."""
        changes: list[tuple[PartitionBatch, Change]] = []
        letters: list[DeadLetter] = []
        for batch in batches:
            change, refused = self._apply(batch)
            changes.append((batch, change))
            letters += refused
        # Before anything is committed: a fault that makes most messages bad must not eat them.
        self._ceiling.check(total=sum(len(batch.messages) for batch in batches), bad=len(letters))
        with metrics.STEP_SECONDS.labels("dead_letters").time():
            # Before the offsets move. After a crash in between they are written again, with the same identity.
            self._dead_letters.write(letters)
        for batch, change in changes:
            with metrics.STEP_SECONDS.labels("commit").time():
                self._states[batch.partition].commit(change, batch.next_offset)
            self._freshness.readable(batch.partition, change.readable)
            event_type = self._feeds[batch.partition.topic].event_type
            metrics.EVENTS_APPLIED.labels(event_type).inc(change.applied)
            metrics.EVENTS_DUPLICATE.labels(event_type).inc(change.duplicates)
        count_dead_letters(letters)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop the state of partitions."""
        for partition in partitions:
            self._states.pop(partition, None)
        self._freshness.forget(partitions)

    def idle(self) -> dict[Partition, float]:
        """Look whether the store is still as we left it: an emptied or restored one is noticed without traffic."""
        by_ownership = {state.ownership: partition for partition, state in self._states.items()}
        for topic in self._feeds:
            rows = [state.resident for partition, state in self._states.items() if partition.topic == topic]
            metrics.STATES_RESIDENT.labels(topic).set(sum(rows))
        self._freshness.show()
        anew = {}
        for ownership, epoch in self._store.lost(list(by_ownership)):
            # A larger epoch is another process, which may be the rightful owner: let the group decide first.
            foreign = epoch is not None and epoch > ownership.epoch
            anew[by_ownership[ownership]] = LOST_OWNERSHIP_SECONDS if foreign else 0.0
        return anew

    def _take(self, partition: Partition) -> int:
        feed = self._feeds[partition.topic]
        ownership = self._store.take(
            feed.event_type, partition.number, oldest=lambda: self._oldest(partition)
        )
        state = self._states[partition] = PartitionState(
            self._store,
            ownership,
            self._project,
            prefix=self._prefix,
            partitions=feed.partitions,
            max_entities=self._max_entities,
        )
        if state.newest is not None:
            # Of a view with a condition the log's clock says nothing: it is known from its next event on.
            whole = (view.ref for view in self._project.views_of(feed.event_type) if view.where is None)
            self._freshness.begin(partition, whole, *state.newest)
        return ownership.next_offset

    def _apply(self, batch: PartitionBatch) -> tuple[Change, list[DeadLetter]]:
        with metrics.STEP_SECONDS.labels("decode").time():
            decoded = self._feeds[batch.partition.topic].decoder.decode(batch.values)
            record_us = np.array(batch.timestamps_ms, np.int64)[decoded.rows] * 1_000
        change = self._states[batch.partition].apply(decoded.table, record_us)
        if not self._feeds[batch.partition.topic].own:
            metrics.EVENTS_LEFT_OUT.labels(self._feeds[batch.partition.topic].event_type).inc(
                len(change.refused)
            )
            change = replace(change, refused=())
        bad = [(row.index, row.error) for row in decoded.bad]
        bad += [(int(decoded.rows[row]), error) for row, error in change.refused]
        letters = [
            dead_letter(batch.messages[index], error, service=SERVICE, instance=self._instance)
            for index, error in sorted(bad, key=lambda pair: pair[0])
        ]
        return change, letters
