"""Challengers in shadow: both versions score the same logged predictions when their outcomes arrive.

An outcome carries the features as they were served, so scoring it later gives the bits that scoring it then would have
given (the replay guarantee), and the challenger costs the answer's latency nothing. Rows count that were asked for from
the pair's start on, before which either version may have learnt.

Days are closed by event time: a day is complete once every partition has seen a label that was known a horizon after
the day's end. A row that comes behind that mark of its own partition is late and left out, so that the blocks are the
same however the partitions were interleaved.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.features.event_columns import float_inputs, micros
from driftline.models.comparison import Block, blocks_of
from driftline.models.outcomes import log_losses
from driftline.models.scoring import Scorer
from driftline.runtime.durations import DAY_US

_CORRECTED = "CORRECTED"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two versions of a model on the outcomes of requests from ``start_us`` on."""

    model: str
    champion: str
    challenger: str
    start_us: int


class PairedOutcomes:
    """The losses of a pair, summed by day."""

    def __init__(self, pair: Pair, champion: Scorer, challenger: Scorer, *, horizon_us: int) -> None:
        self.pair = pair
        self.horizon_us = horizon_us
        self._scorers = champion, challenger
        self._days: dict[int, Block] = {}

    @property
    def needed(self) -> frozenset[str]:
        """Columns that either version needs."""
        return frozenset(
            name for one in self._scorers for name in (*one.manifest.numeric, *one.manifest.categorical)
        )

    def add(self, outcomes: pa.RecordBatch, marks_us: NDArray[np.int64]) -> None:
        """Add outcomes, with the mark of their partition before each of them."""
        names = np.asarray(outcomes.column("model").to_pylist(), dtype=object)
        asked = micros(outcomes.column("event_time"))
        in_time = marks_us < (asked // DAY_US + 1) * DAY_US + self.horizon_us
        chosen = np.flatnonzero((names == self.pair.model) & (asked >= self.pair.start_us) & in_time)
        if not len(chosen):
            return
        rows = outcomes.take(pa.array(chosen))
        corrected = np.asarray(rows.column("kind").to_pylist(), dtype=object) == _CORRECTED
        columns = float_inputs(rows, ("label", "previous_label"))
        label = columns["label"]
        previous = np.where(corrected, columns["previous_label"], np.nan)
        counts = (~np.isnan(label)).astype(np.int64) - (~np.isnan(previous)).astype(np.int64)
        first, second = (_change(label, previous, score_logged(scorer, rows)) for scorer in self._scorers)
        for block in blocks_of(asked[chosen] // DAY_US, first, second, counts):
            before = self._days.get(block.day)
            self._days[block.day] = block if before is None else _sum(before, block)

    def closed(self, mark_us: int | None) -> list[Block]:
        """Return the complete days that have outcomes, ascending; ``mark_us`` is the oldest partition's mark."""
        if mark_us is None:
            return []
        return [
            block
            for day, block in sorted(self._days.items())
            if block.rows > 0 and (day + 1) * DAY_US + self.horizon_us <= mark_us
        ]

    def closed_day(self, mark_us: int | None) -> int | None:
        """Return the newest complete day, with outcomes or without; None before every partition was heard of."""
        return None if mark_us is None else (mark_us - self.horizon_us) // DAY_US - 1

    def known_us(self, day: int) -> int:
        """Return the instant from which a day can be known to be complete."""
        return (day + 1) * DAY_US + self.horizon_us


def score_logged(scorer: Scorer, rows: pa.RecordBatch | pa.Table) -> Floats:
    """Return what a model says of logged rows: their columns are its inputs and features as they were served."""
    manifest = scorer.manifest
    inputs = float_inputs(rows, manifest.numeric)
    numeric = np.empty((rows.num_rows, len(manifest.numeric)))
    for at, name in enumerate(manifest.numeric):
        numeric[:, at] = inputs[name]
    categories = {name: rows.column(name).to_pylist() for name in manifest.categorical}
    return scorer.score(numeric, scorer.categories(categories, micros(rows.column("event_time")))[0])


class Shadow:
    """All pairs of a project, on outcomes that are read from the beginning of every partition."""

    def __init__(self, pairs: Mapping[Pair, PairedOutcomes], *, sources: int) -> None:
        self._pairs = dict(pairs)
        self._sources = sources
        self._marks: dict[int, int] = {}

    @property
    def pairs(self) -> frozenset[Pair]:
        """What is compared."""
        return frozenset(self._pairs)

    def add(self, source: int, outcomes: pa.RecordBatch) -> None:
        """Add consecutive outcomes of a partition, by its number."""
        if not outcomes.num_rows:
            return
        known = micros(outcomes.column("label_known_at"))
        first = self._marks.get(source, int(np.iinfo(np.int64).min))
        running = np.maximum.accumulate(np.concatenate([[first], known]))
        self._marks[source] = int(running[-1])
        for pair in self._pairs.values():
            pair.add(outcomes, running[:-1])

    def closed(self, pair: Pair) -> list[Block]:
        """Return a pair's complete days; none before every partition was heard of."""
        return self._pairs[pair].closed(self.mark_us)

    def closed_day(self, pair: Pair) -> int | None:
        """Return a pair's newest complete day, with outcomes or without; None before every partition was heard of."""
        return self._pairs[pair].closed_day(self.mark_us)

    def known_us(self, pair: Pair, day: int) -> int:
        """Return the instant from which a pair's day can be known to be complete."""
        return self._pairs[pair].known_us(day)

    @property
    def mark_us(self) -> int | None:
        """How far event time has come in every partition."""
        return min(self._marks.values()) if len(self._marks) == self._sources else None


def _change(label: Floats, previous: Floats, scores: Floats) -> Floats:
    """Return what each row adds to the sum of losses: its label's, less that of the label it corrects."""
    return np.nan_to_num(log_losses(label, scores)) - np.nan_to_num(log_losses(previous, scores))


def _sum(first: Block, second: Block) -> Block:
    return Block(
        day=first.day,
        rows=first.rows + second.rows,
        champion_loss=first.champion_loss + second.champion_loss,
        challenger_loss=first.challenger_loss + second.challenger_loss,
    )
