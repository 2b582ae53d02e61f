"""A point-in-time training set of the year's flights, beside a pandas pipeline that gives the same values."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks import merge_asof
from benchmarks.comparison import Comparison, rate
from driftline.features.update import QUANTUM
from driftline.models.training_set import Rows, assemble, labelled_requests
from driftline.project import ModelDeclaration, load_project
from driftline.project.history import History, load_history

PROJECT = Path(__file__).parents[1] / "examples" / "flights"
YEAR = (date(2013, 1, 1), date(2014, 1, 3))
#: Of the rows, every so many is compared, column by column.
SAMPLED = 7
#: Both sides end in float32. We round values to a quantum so that sums are exact in any order: a sum over a day of
#: hourly weather may differ by half of one for each of its 24 events.
_RELATIVE, _ABSOLUTE = 1e-5, 12 * QUANTUM


@dataclass(frozen=True, kw_only=True, eq=False)
class Flights:
    """The flights' model, a span of its history, and the same as pandas has it before the clock starts."""

    model: ModelDeclaration
    history: History
    end: date

    @classmethod
    def of(cls, start: date, end: date) -> "Flights":
        """Load a span of days."""
        project = load_project(PROJECT)
        return cls(model=project.models["lateness"], history=load_history(project, start, end), end=end)

    @functools.cached_property
    def known_by(self) -> pd.Timestamp:
        """Labels known at this instant count."""
        return pd.Timestamp(self.end)

    @functools.cached_property
    def frames(self) -> dict[str, pd.DataFrame]:
        """The events of each view as frames."""
        events = self.history.events
        return {
            view.name: merge_asof.event_frame(view, events[view.source.event_type])
            for view in self.model.views
        }

    @functools.cached_property
    def requests(self) -> pd.DataFrame:
        """The requests as a frame."""
        return self.history.requests.to_pandas()

    def ours(self) -> Rows:
        """Assemble the training set as the trainer does."""
        known = labelled_requests(self.history.requests, round(self.known_by.timestamp() * 1e6))
        return assemble(self.model, self.history, known)

    def theirs(self) -> pd.DataFrame:
        """Assemble it with pandas."""
        return merge_asof.training_frame(self.model, self.frames, self.requests, self.known_by)


def comparisons() -> list[Comparison]:
    """Return the line. Before anything is measured the two results are compared."""

    @functools.cache
    def year() -> Flights:
        flights = Flights.of(*YEAR)
        check_equal(flights.model, flights.ours(), flights.theirs(), every=SAMPLED)
        return flights

    def measured(side: str) -> float:
        flights = year()
        return rate(len(flights.requests), getattr(flights, side))

    return [
        Comparison(
            name="training set of a year's flights, point in time / pandas merge_asof",
            unit="requests/s",
            ours=lambda: measured("ours"),
            theirs=lambda: measured("theirs"),
            aim=5,
            note="pandas leaves out the windows' minima and maxima; every 7th row is compared before measuring",
        )
    ]


def check_equal(model: ModelDeclaration, ours: Rows, theirs: pd.DataFrame, *, every: int = 1) -> None:
    """Compare every so many rows, all columns that pandas can make; ValueError names the columns that differ."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours):,} rows against {len(theirs):,}")
    skipped = merge_asof.left_out(model)
    names = [name for name in model.numeric_columns if name not in skipped]
    wrong = [
        name
        for name in names
        if not _equal(
            ours.numeric[::every, model.numeric_columns.index(name)], theirs[name].to_numpy()[::every]
        )
    ]
    wrong += [
        name
        for name in model.categorical_columns
        if _texts(ours.categorical[name][::every]) != _texts(theirs[name][::every].tolist())
    ]
    if not np.array_equal(ours.labels[::every], theirs["label"].to_numpy(bool)[::every]):
        wrong.append("label")
    if wrong:
        raise ValueError(f"the two training sets differ in {', '.join(wrong)}")


def _equal(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> bool:
    return bool(np.allclose(ours, theirs, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True))


def _texts(values: Sequence[object]) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in values]
