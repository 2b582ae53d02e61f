"""One evaluation of drift of 50 features, 10,000 reference and 10,000 current rows, beside Evidently's report.

Ours is what the services do with a window: profile its rows, measure every check (PSI, Jensen-Shannon, out of range and
missing on all rows; Kolmogorov-Smirnov and Wasserstein exactly on samples: 2,000 reference rows, 256 of the window),
and hold each against its calibrated threshold; the score is looked at too. The reference is summarised and the
thresholds calibrated once per model version, before the clock starts.

Evidently's is its ``DataDriftPreset``: one statistic per column, on all rows of both tables, against a fixed threshold,
and the plots' data, each time anew. With its own choice of statistic (for more than 1,000 rows the Wasserstein distance
in standard deviations), and with PSI.

Before anything is measured: both must find drift in the columns that were moved and in no other, and our Wasserstein
distance of all rows must be Evidently's.
"""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.comparison import Comparison
from benchmarks.peer_environment import peer_python
from benchmarks.peer_process import PeerProcess
from driftline.models.model_reference import SAMPLE_ROWS
from driftline.monitoring.calibration import calibrate
from driftline.monitoring.checks import evaluate
from driftline.monitoring.levels import Level
from driftline.monitoring.profile import Profile
from driftline.monitoring.reference import Reference, build_reference
from driftline.monitoring.statistics import wasserstein_normalised
from driftline.monitoring.thresholds import Judgement, Thresholds, judge
from driftline.runtime.ids import new_id

ROWS, COLUMNS = 10_000, 50
#: So many columns are moved by half a standard deviation.
MOVED, SHIFT = 5, 0.5
_PEER = Path(__file__).parent / "evidently_peer.py"
_REPLICATES = 2_000

Floats = NDArray[np.float64]
#: Per column, Evidently's value and the threshold that it is held against.
Values = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """Two tables of shape (rows, columns), and ours made ready: a reference, thresholds, the window's rows."""

    reference_table: Floats
    current_table: Floats
    reference: Reference
    thresholds: Thresholds
    ids: pa.Array
    columns: dict[str, Floats]
    score: Floats

    @classmethod
    def of(cls, rows: int, columns: int, *, replicates: int = _REPLICATES, seed: int = 12) -> "Window":
        """Draw both tables; the first columns of the current one are moved."""
        rng = np.random.default_rng(seed)
        reference_table, current_table = rng.normal(0, 1, (2, rows, columns))
        current_table[:, :MOVED] += SHIFT
        reference = build_reference(_named(reference_table), {}, rng.random(rows), None)
        return cls(
            reference_table=reference_table,
            current_table=current_table,
            reference=reference,
            thresholds=calibrate(reference, (rows,), sample_rows=SAMPLE_ROWS, replicates=replicates),
            ids=pa.array([new_id() for _ in range(rows)]),
            columns=_named(current_table),
            score=rng.random(rows),
        )

    def judged(self) -> list[Judgement]:
        """Profile the current rows, measure, and judge."""
        profile = Profile.of(self.reference, self.ids, self.columns, {}, self.score, sample_rows=SAMPLE_ROWS)
        return judge(evaluate(self.reference, profile), self.thresholds, rows=profile.rows)

    def check(self, values: Values, *, wasserstein: bool) -> None:
        """Raise ValueError where the sides find drift in different columns, or their distances differ."""
        moved = set(list(self.columns)[:MOVED])
        ours = {str(one.measurement.column) for one in self.judged() if one.level is Level.ALERT}
        theirs = {name for name, (value, threshold) in values.items() if value >= threshold}
        if not ours == theirs == moved:
            raise ValueError(
                f"drift in {sorted(moved)}; found by us {sorted(ours)}, by Evidently {sorted(theirs)}"
            )
        if not wasserstein:
            return
        for place, name in enumerate(self.columns):
            own = wasserstein_normalised(self.reference_table[:, place], self.current_table[:, place])
            if not np.isclose(own, values[name][0], rtol=1e-9):
                raise ValueError(
                    f"Wasserstein distance of {name}: {own} against Evidently's {values[name][0]}"
                )


def _named(table: Floats) -> dict[str, Floats]:
    return {f"x{place}": np.ascontiguousarray(column) for place, column in enumerate(table.T)}


class Evidently:
    """The peer's process; ended by ``close``."""

    def __init__(self, python: Path, folder: Path, window: Window, method: str | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tables = {"reference": window.reference_table, "current": window.current_table}
        for name, table in tables.items():
            np.save(folder / f"{name}.npy", table)
        command: list[str | Path] = [
            python,
            "-W",
            "ignore",
            _PEER,
            *(folder / f"{name}.npy" for name in tables),
        ]
        self._process = PeerProcess([*command, *([method] if method else [])], folder / "evidently.log")
        self._process.answer()

    def run(self) -> tuple[float, Values]:
        """Return the seconds of one report, and its values."""
        answer = self._process.ask()
        return answer["seconds"], {name: tuple(pair) for name, pair in answer["values"].items()}

    def close(self) -> None:
        """End the process."""
        self._process.close()


def comparisons(folder: Path, closing: list[Callable[[], None]]) -> list[Comparison]:
    """Return the lines. Evidently's environment stays in ``folder``; what is to be ended is added to ``closing``."""

    @functools.cache
    def window() -> Window:
        return Window.of(ROWS, COLUMNS)

    @functools.cache
    def peer(method: str | None) -> Evidently:
        started = Evidently(peer_python(folder, "evidently"), folder / "evidently-data", window(), method)
        closing.append(started.close)
        window().check(started.run()[1], wasserstein=method is None)
        return started

    def ours() -> float:
        drawn = window()
        begun = time.perf_counter()
        drawn.judged()
        return 1 / (time.perf_counter() - begun)

    return [
        Comparison(
            name=f"drift evaluation of 50 features / Evidently's report, {statistic}",
            unit="evaluations/s",
            ours=ours,
            theirs=lambda method=method: 1 / peer(method).run()[0],  # type: ignore[misc]
            aim=50,
            note="10,000 rows against 10,000; ours: profile, all checks, calibrated thresholds; Evidently: with its plots",
        )
        for method, statistic in ((None, "its own choice (Wasserstein)"), ("psi", "PSI"))
    ]
