"""Predictions and labels in, outcomes out, exactly once: decode, apply to the waiting room, join, commit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchDecoder, BatchEncoder
from driftline.runtime import metrics
from driftline.runtime.errors import BadMessageError
from driftline.streaming.dead_letters import DeadLetterCeiling
from driftline.streaming.kafka_sink import KafkaSink
from driftline.streaming.partitions import Partition, PartitionBatch
from services.outcome_joiner.outcomes import OutcomeColumns
from services.outcome_joiner.waiting_room import LABELS, PREDICTIONS, Claims, Place, Rows, WaitingRoom

SERVICE = "outcome_joiner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The two topics that are joined, and how each is decoded."""

    predictions: str
    labels: str
    prediction_decoder: BatchDecoder
    label_decoder: BatchDecoder
    columns: OutcomeColumns

    def place(self, partition: Partition) -> Place:
        """Return a partition's place in the waiting room."""
        side = PREDICTIONS if partition.topic == self.predictions else LABELS
        return Place(side=side, partition=partition.number)

    def rows(self, batch: PartitionBatch) -> tuple[Rows, list[tuple[int, BadMessageError]]]:
        """Return a batch as rows for the waiting room, and its bad messages by their position."""
        offsets = np.array([message.offset() for message in batch.messages], np.int64)
        if batch.partition.topic == self.predictions:
            decoded = self.prediction_decoder.decode(batch.values)
            raw = [batch.messages[row].value() or b"" for row in decoded.rows.tolist()]
            rows = self.columns.prediction_rows(decoded.table, raw, offsets[decoded.rows])
            bad = []
        else:
            decoded = self.label_decoder.decode(batch.values)
            rows, wrong = self.columns.label_rows(decoded.table, offsets[decoded.rows])
            bad = [(int(decoded.rows[row]), error) for row, error in wrong]
        return rows, bad + [(row.index, row.error) for row in decoded.bad]


class OutcomeJoinerPipeline:
    """The steps from a batch of predictions and labels to outcomes (a ``driftline.streaming.loop.Pipeline``)."""

    def __init__(
        self,
        sides: Sides,
        room: WaitingRoom,
        sink: KafkaSink,
        encoder: BatchEncoder,
        *,
        log: str,
        ceiling: DeadLetterCeiling,
        rebuild: Callable[[], None],
        look_after: Callable[[dict[str, int]], None],
    ) -> None:
        self._sides = sides
        self._room = room
        self._sink = sink
        self._encoder = encoder
        self._log = log
        self._ceiling = ceiling
        self._rebuild = rebuild
        self._look_after = look_after

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """Start where the group has committed, in a room that holds everything up to there."""
        positions = self._sink.positions(partitions)
        lacking = [
            partition
            for partition, position in positions.items()
            if not self._room.take(self._sides.place(partition), position)
        ]
        if lacking:
            self._rebuild()
            return self.positions(partitions)
        return positions

    def process(self, batches: Sequence[PartitionBatch]) -> None:
        """Join batches; outcomes, dead letters and offsets are one transaction."""
        claims: list[Claims] = []
        bad: list[tuple[PartitionBatch, int, BadMessageError]] = []
        for batch in batches:
            with metrics.STEP_SECONDS.labels("decode").time():
                rows, wrong = self._sides.rows(batch)
            self._ceiling.check(total=len(batch.messages), bad=len(wrong))
            bad += [(batch, row, error) for row, error in wrong]
            with metrics.STEP_SECONDS.labels("claim").time():
                claims.append(self._room.apply(self._sides.place(batch.partition), rows, batch.next_offset))
        claimed = Claims.together(claims)
        with metrics.STEP_SECONDS.labels("join").time():
            keys, values = self._outcomes(claimed)
        with metrics.STEP_SECONDS.labels("commit").time(), self._sink.transaction(batches) as transaction:
            transaction.send(self._log, keys, values)
            for batch, row, error in bad:
                transaction.dead_letter(batch.messages[row], error)

    def _outcomes(self, claims: Claims) -> tuple[list[str], list[bytes]]:
        """Return keys and values of the outcomes that were claimed."""
        if not claims.records:
            return [], []
        predictions = self._sides.prediction_decoder.decode(claims.records).table
        outcomes = self._sides.columns.outcomes(predictions, claims)
        return outcomes.column(fields.REQUEST_ID).to_pylist(), self._encoder.encode(outcomes)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Nothing is kept of a partition but the offset that it has reached in the room, and `positions` sets that."""

    def idle(self) -> Mapping[Partition, float]:
        """Once a second: report what became of labels."""
        self._look_after(self._room.counts())
        return {}
