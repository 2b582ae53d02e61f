"""Predictions and outcomes in, profiles out, exactly once: decode, summarise, gather for a moment, commit.

Profiles merge, so nothing is kept but what is in hand: rows are gathered for seconds, and their profiles and offsets
are one transaction. What was gathered and not committed comes again from the topic.

A partition that was read to its end and brings nothing of a model must not hold its windows open; one that is merely
behind must. Only who reads it can tell: it says so in a *mark* without rows, again and again for as long as it is true.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame
from driftline.features.event_columns import micros
from driftline.models.model_reference import ModelReference
from driftline.project import ModelDeclaration, Project
from driftline.runtime import metrics
from driftline.runtime.clock import Clock
from driftline.runtime.errors import BadMessageError, LostOwnershipError, UnavailableError
from driftline.streaming.dead_letters import DeadLetterCeiling
from driftline.streaming.kafka_sink import KafkaSink
from driftline.streaming.partitions import Partition, PartitionBatch
from services.profiler.summaries import (
    OUTCOMES,
    PREDICTIONS,
    AnyProfile,
    Key,
    by_version,
    profiled_outcomes,
    profiled_predictions,
)

SERVICE = "profiler"
#: No window lies further ahead of the clock: one absurd event time must not close every window before it.
_FUTURE_US = 86_400_000_000

FindReference = Callable[[str, str], ModelReference | None]


@dataclass(slots=True)
class _Gathered:
    """What was read of a partition since the last commit."""

    next_offset: int = 0
    rows: int = 0
    profiles: dict[Key, AnyProfile] = field(default_factory=dict)
    bad: list[tuple[PartitionBatch, int, BadMessageError]] = field(default_factory=list)


class ProfilerPipeline:
    """The steps from predictions and outcomes to profiles (a ``driftline.streaming.loop.Pipeline``)."""

    def __init__(
        self,
        project: Project,
        decoders: Mapping[str, BatchDecoder],
        streams: Mapping[str, str],
        partitions: Mapping[str, int],
        sink: KafkaSink,
        codec: RecordCodec,
        schema_id: int,
        find_reference: FindReference,
        *,
        target: str,
        ceiling: DeadLetterCeiling,
        flush_seconds: float,
        flush_rows: int,
        quiet_seconds: float,
        at_end: Callable[[Partition], bool],
        clock: Clock,
    ) -> None:
        self._project = project
        self._decoders = decoders
        self._streams = streams
        self._partitions = partitions
        self._sink = sink
        self._codec = codec
        self._schema_id = schema_id
        self._find_reference = find_reference
        self._target = target
        self._ceiling = ceiling
        self._flush_seconds = flush_seconds
        self._flush_rows = flush_rows
        self._quiet_seconds = quiet_seconds
        self._at_end = at_end
        self._clock = clock
        self._gathered: dict[Partition, _Gathered] = {}
        self._committed: dict[Partition, int | None] = {}
        #: When a partition last brought rows of a model, or was last said to bring none.
        self._heard: dict[tuple[Partition, str], float] = {}
        self._watermarks: dict[tuple[Partition, str], int] = {}
        self._published: dict[tuple[Partition, str], int] = {}
        self._since = time.monotonic()

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """Start where the group has committed."""
        found = self._sink.positions(partitions)
        for partition, position in found.items():
            self._committed[partition] = position
            for model in self._models_of(partition):
                self._heard[partition, model.name] = time.monotonic()
        return found

    def process(self, batches: Sequence[PartitionBatch]) -> None:
        """Summarise batches; write profiles once enough is gathered."""
        if not self._gathered:
            self._since = time.monotonic()
        for batch in batches:
            self._gather(batch)
        self._flush_if_due()

    def _gather(self, batch: PartitionBatch) -> None:
        with metrics.STEP_SECONDS.labels("decode").time():
            decoded = self._decoders[batch.partition.topic].decode(batch.values)
        self._ceiling.check(total=len(batch.messages), bad=len(decoded.bad))
        held = self._gathered.setdefault(batch.partition, _Gathered())
        with metrics.STEP_SECONDS.labels("profile").time():
            for name, version, rows in by_version(decoded.table):
                self._summarise(batch.partition, held, name, version, rows)
        held.bad += [(batch, row.index, row.error) for row in decoded.bad]
        held.rows += len(batch.messages)
        held.next_offset = batch.next_offset

    def _summarise(
        self, partition: Partition, held: _Gathered, name: str, version: str, rows: pa.RecordBatch
    ) -> None:
        model = self._project.models.get(name)
        reference = self._find_reference(name, version) if model is not None else None
        if model is None or reference is None:
            metrics.ROWS_NOT_PROFILED.labels(name if model is not None else "unknown").inc(rows.num_rows)
            return
        outcomes = self._streams[partition.topic] == "outcomes"
        times = micros(rows.column("label_known_at" if outcomes else fields.EVENT_TIME))
        self._advance(partition, name, times)
        found = (
            profiled_outcomes(rows, model, version, reference)
            if outcomes
            else profiled_predictions(rows, model, version, reference)
        )
        for key, profile in found:
            before = held.profiles.get(key)
            held.profiles[key] = profile if before is None else before.merge(cast(Any, profile))

    def _advance(self, partition: Partition, model: str, times_us: NDArray[np.int64]) -> None:
        newest = min(int(times_us.max()), self._clock.now_us() + _FUTURE_US)
        place = (partition, model)
        self._heard[place] = time.monotonic()
        self._watermarks[place] = max(newest, self._watermarks.get(place, 0))

    def _flush_if_due(self) -> None:
        if not self._gathered:
            return
        rows = sum(held.rows for held in self._gathered.values())
        if rows >= self._flush_rows or time.monotonic() - self._since >= self._flush_seconds:
            self._flush()

    def _flush(self) -> None:
        """Write all profiles, dead letters and offsets as one transaction."""
        ends = [
            PartitionBatch(partition=partition, messages=[], next_offset=held.next_offset)
            for partition, held in self._gathered.items()
        ]
        keys: list[str] = []
        values: list[bytes] = []
        published = dict(self._published)
        for partition, held in self._gathered.items():
            last = {key.model: key for key in held.profiles}
            for key, profile in held.profiles.items():
                place = (partition, key.model)
                # Only the last record of a partition moves its watermark on: it may close windows that others hold.
                if key == last[key.model]:
                    published[place] = self._watermarks[place]
                keys.append(key.model)
                values.append(self._record(partition, key, profile, published.get(place, 0)))
        with metrics.STEP_SECONDS.labels("commit").time(), self._sink.transaction(ends) as transaction:
            transaction.send(self._target, keys, values)
            for held in self._gathered.values():
                for batch, row, error in held.bad:
                    transaction.dead_letter(batch.messages[row], error)
        self._published = published
        self._committed |= {end.partition: end.next_offset for end in ends}
        self._gathered.clear()
        self._since = time.monotonic()

    def _mark_quiet(self) -> None:
        """Say of which models the partitions bring nothing."""
        now = time.monotonic()
        quiet = [
            (partition, model)
            for partition in self._committed
            if self._at_end(partition)
            for model in self._models_of(partition)
            if now - self._heard[partition, model.name] >= self._quiet_seconds
        ]
        if not quiet:
            return
        ends = [
            PartitionBatch(partition=partition, messages=[], next_offset=next_offset)
            for partition in {partition: None for partition, _ in quiet}
            if (next_offset := self._committed[partition]) is not None
        ]
        marks = [self._mark(partition, model) for partition, model in quiet]
        with self._sink.transaction(ends) as transaction:
            transaction.send(self._target, [model.name for _, model in quiet], marks)
        for partition, model in quiet:
            self._heard[partition, model.name] = now

    def _models_of(self, partition: Partition) -> Collection[ModelDeclaration]:
        if self._streams[partition.topic] == "outcomes":
            return self._project.labelled_models
        return self._project.models.values()

    def _mark(self, partition: Partition, model: ModelDeclaration) -> bytes:
        kind = OUTCOMES if self._streams[partition.topic] == "outcomes" else PREDICTIONS
        key = Key(model=model.name, version="", kind=kind, segment="", window=0)
        return self._record(partition, key, None, self._published.get((partition, model.name), 0))

    def _record(self, partition: Partition, key: Key, profile: AnyProfile | None, watermark: int) -> bytes:
        """Return a profile as it is written; without one, the mark that the model is quiet in the partition."""
        width = 0 if profile is None else self._project.models[key.model].monitor.window_us
        record = {
            "model": key.model,
            "model_version": key.version,
            "kind": key.kind,
            "segment": key.segment,
            "window_start": key.window,
            "window_end": key.window + width,
            "source": f"{self._streams[partition.topic]}/{partition.number}",
            "sources": self._partitions[partition.topic],
            "watermark": watermark,
            "quiet": profile is None,
            "rows": 0 if profile is None else profile.rows,
            "data": b"" if profile is None else profile.to_bytes(),
        }
        return frame(self._schema_id, self._codec.encode(record))

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop what was gathered of partitions: it was not committed, so it comes again."""
        for partition in partitions:
            self._gathered.pop(partition, None)
            self._committed.pop(partition, None)
        for place in [place for place in self._watermarks if place[0] in set(partitions)]:
            del self._watermarks[place]
            self._published.pop(place, None)

    def idle(self) -> Mapping[Partition, float]:
        """Once a second: write what has waited long enough, and what is quiet."""
        try:
            self._flush_if_due()
            self._mark_quiet()
        except (UnavailableError, LostOwnershipError):
            return dict.fromkeys(self._committed, 1.0)
        return {}
