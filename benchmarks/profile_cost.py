"""What profiling costs per event and feature, beside the barest histogram of the same columns."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.comparison import Comparison
from driftline.models.model_reference import SAMPLE_ROWS
from driftline.monitoring.profile import Profile
from driftline.monitoring.reference import Reference, build_reference
from driftline.runtime.ids import new_id

ROWS, BATCHES = 10_000, 20
NUMERIC, CATEGORIES = 10, 2
SITES = 30
#: The score is summarised as the features are, so it counts as one.
FEATURES = NUMERIC + CATEGORIES + 1
_LOW, _HIGH, _BINS = -5.0, 5.0, 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Rows of predictions as the profiler has them after decoding; ``codes`` are the categories as numbers."""

    ids: pa.Array
    numeric: dict[str, NDArray[np.float64]]
    categorical: dict[str, pa.Array]
    codes: dict[str, NDArray[np.int64]]
    score: NDArray[np.float64]

    @classmethod
    def of(cls, rng: np.random.Generator, rows: int) -> "Batch":
        """Draw rows: normal columns, categories that are not equally frequent."""
        weights = 1 / np.arange(1, SITES + 1)
        codes = {
            f"site{place}": rng.choice(SITES, rows, p=weights / weights.sum()) for place in range(CATEGORIES)
        }
        names = pa.array([f"site {number}" for number in range(SITES)])
        return cls(
            ids=pa.array([new_id() for _ in range(rows)]),
            numeric={f"x{place}": rng.normal(0, 1, rows) for place in range(NUMERIC)},
            categorical={name: names.take(pa.array(column)) for name, column in codes.items()},
            codes=codes,
            score=rng.random(rows),
        )


def reference_of(batch: Batch) -> Reference:
    """Return the reference that batches are profiled against."""
    texts = {name: column.to_pylist() for name, column in batch.categorical.items()}
    return build_reference(batch.numeric, texts, batch.score, None)


def profiled(reference: Reference, batch: Batch) -> Profile:
    """Profile a batch as the service does: bins, missing, moments, cells, unseen, a sample of rows, expected loss."""
    return Profile.of(
        reference, batch.ids, batch.numeric, batch.categorical, batch.score, sample_rows=SAMPLE_ROWS
    )


def histograms(batch: Batch) -> list[NDArray[np.int64]]:
    """Count each column, and no more: equal bins between known ends, categories that are numbers already."""
    columns = [*batch.numeric.values(), batch.score]
    numeric = [np.histogram(column, _BINS, (_LOW, _HIGH))[0] for column in columns]
    return [*numeric, *(np.bincount(codes, minlength=SITES) for codes in batch.codes.values())]


def comparisons() -> list[Comparison]:
    """Return the line."""

    @functools.cache
    def drawn() -> tuple[Reference, list[Batch]]:
        rng = np.random.default_rng(11)
        return reference_of(Batch.of(rng, ROWS)), [Batch.of(rng, ROWS) for _ in range(BATCHES)]

    def ours() -> float:
        reference, batches = drawn()
        return nanoseconds(lambda: [profiled(reference, batch) for batch in batches])

    def theirs() -> float:
        _, batches = drawn()
        return nanoseconds(lambda: [histograms(batch) for batch in batches])

    return [
        Comparison(
            name="profiling, per event and feature / numpy histogram",
            unit="ns CPU",
            ours=ours,
            theirs=theirs,
            better="lower",
            note="10 numbers, 2 categories and the score, 10,000 rows at a time; numpy: np.histogram and np.bincount",
        )
    ]


def nanoseconds(job: Callable[[], object]) -> float:
    """Return the processor time of all batches per event and feature."""
    begun = time.process_time_ns()
    job()
    return (time.process_time_ns() - begun) / (BATCHES * ROWS * FEATURES)
