"""Events in, features in the online store, exactly once: decode, validate, drop duplicates, apply, commit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from driftline.contracts.batch_codec import BatchDecoder
from driftline.features.filling import Build, Builds, StoredViews, fingerprints_of
from driftline.features.keys import builds_key, views_key
from driftline.project import Project
from driftline.runtime import metrics
from driftline.runtime.clock import Clock, SystemClock
from driftline.runtime.errors import LostOwnershipError
from driftline.streaming.dead_letters import (
    DeadLetter,
    DeadLetterCeiling,
    DeadLetterTopic,
    count_dead_letters,
    dead_letter,
)
from driftline.streaming.loop import LOST_OWNERSHIP_SECONDS
from driftline.streaming.partitions import Partition, PartitionBatch
from services.feature_store.backfill import Backfill, plan_views
from services.feature_store.fenced_store import FencedStore, Lane, Ownership
from services.feature_store.filling_turns import FillingTurns
from services.feature_store.freshness import Freshness
from services.feature_store.partition_builds import PartitionBuilds
from services.feature_store.partition_state import Change, PartitionState
from services.feature_store.past_events import Past

SERVICE = "feature_store"
_BACKFILL_SHARE = 0.3


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


class Log(Protocol):
    """What the topics hold."""

    def oldest(self, partition: Partition) -> int:
        """Return the oldest offset that a partition holds."""
        ...

    def end(self, partition: Partition) -> int:
        """Return the offset after the newest record that a partition holds."""
        ...

    def at_end(self, partition: Partition) -> bool:
        """Tell whether everything that a partition holds was handed out."""
        ...


class FeatureStorePipeline:
    """The steps from a batch of messages to the online store (a ``driftline.streaming.loop.Pipeline``).

    Views that are new to a partition are filled between batches (``fill_views``); ``past`` is what they are filled with.
    """

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
        log: Log,
        past: Past,
        max_entities: int,
        backfill_share: float = _BACKFILL_SHARE,
        clock: Clock | None = None,
    ) -> None:
        self._project = project
        self._feeds = feeds
        self._store = store
        self._dead_letters = dead_letters
        self._prefix = prefix
        self._instance = instance
        self._ceiling = ceiling
        self._log = log
        self._past = past
        self._clock = clock or SystemClock()
        self._turns = FillingTurns(backfill_share)
        self._builds = PartitionBuilds(store, log, self._clock)
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

    def fill_views(self, busy: bool) -> bool:
        """Fill views that are new, between batches; return whether there is more to do at once.

        ``busy`` says that there was a batch just now: then only a share of the time is taken.
        """
        done = self._turns.turn(busy=busy)
        if done is not None:
            for view in done.views:
                metrics.BACKFILLS.labels(view).inc()
            self._show_fresh(done.partition, done.views)
        return self._turns.pressing

    def close(self) -> None:
        """Let go of the past."""
        self._past.close()

    def filling(self) -> list[dict[str, Any]]:
        """Return what is being filled now, for people."""
        return self._turns.as_json()

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop the state of partitions."""
        for partition in partitions:
            self._states.pop(partition, None)
        self._turns.forget(partitions)
        self._builds.forget(partitions)
        self._freshness.forget(partitions)

    def idle(self) -> dict[Partition, float]:
        """Look whether the store is still as we left it: an emptied or restored one is noticed without traffic."""
        for topic in self._feeds:
            rows = [state.resident for partition, state in self._states.items() if partition.topic == topic]
            metrics.STATES_RESIDENT.labels(topic).set(sum(rows))
        self._freshness.show()
        self._turns.show()
        anew = self._look_at_builds()
        by_ownership = {state.ownership: partition for partition, state in self._states.items()}
        for ownership, epoch in self._store.lost(list(by_ownership)):
            # A larger epoch is another process, which may be the rightful owner: let the group decide first.
            foreign = epoch is not None and epoch > ownership.epoch
            anew[by_ownership[ownership]] = LOST_OWNERSHIP_SECONDS if foreign else 0.0
        return anew | self._turns.take_anew()

    def _look_at_builds(self) -> dict[Partition, float]:
        """Write down which partitions' builds are done; return those that turn out not to be ours."""
        lost = {}
        for partition, state in self._states.items():
            try:
                state.ownership = self._builds.look_at(partition, state.ownership)
            except LostOwnershipError:
                lost[partition] = LOST_OWNERSHIP_SECONDS
        return lost

    def _take(self, partition: Partition) -> int:
        feed = self._feeds[partition.topic]
        ownership = self._store.take(
            feed.event_type,
            partition.number,
            oldest=lambda: self._log.oldest(partition),
            beginning=lambda offset: self._beginning(partition, offset),
        )
        ownership, plan = plan_views(self._store, ownership, self._project, self._clock.now_us())
        state = self._states[partition] = self._state(partition, ownership, plan.views.complete, Lane.LIVE)
        self._builds.begin(partition, ownership)
        self._show_fresh(partition, list(plan.views.complete))
        if plan.fill is not None:
            wanted = plan.fill.views
            backfill = Backfill(
                self._store,
                state,
                plan,
                self._past,
                partition=partition,
                decoder=feed.decoder,
                make_state=lambda: self._state(partition, state.ownership, wanted, Lane.FILL),
                clock=self._clock,
            )
            self._turns.begin(backfill)
        return ownership.next_offset

    def _state(
        self, partition: Partition, ownership: Ownership, refs: Collection[str], lane: Lane
    ) -> PartitionState:
        feed = self._feeds[partition.topic]
        return PartitionState(
            self._store,
            ownership,
            self._project,
            prefix=self._prefix,
            partitions=feed.partitions,
            max_entities=self._max_entities,
            views=[view for view in self._project.views_of(feed.event_type) if view.ref in refs],
            lane=lane,
        )

    def _beginning(self, partition: Partition, offset: int) -> dict[str, bytes]:
        """Return the keys of a partition that is built from its oldest record: all its views are complete."""
        event_type = self._feeds[partition.topic].event_type
        place = self._prefix, event_type, partition.number
        build = Build(start=offset, stop=max(offset, self._log.end(partition)), begun_us=self._clock.now_us())
        return {
            views_key(*place): StoredViews(complete=fingerprints_of(self._project, event_type)).format(),
            builds_key(*place): Builds().with_one(build).format(),
        }

    def _show_fresh(self, partition: Partition, refs: Collection[str]) -> None:
        newest = self._states[partition].newest
        if newest is not None:
            # Of a view with a condition the log's clock says nothing: it is known from its next event on.
            views = self._project.views_of(self._feeds[partition.topic].event_type)
            whole = (view.ref for view in views if view.where is None and view.ref in refs)
            self._freshness.begin(partition, whole, *newest)

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
