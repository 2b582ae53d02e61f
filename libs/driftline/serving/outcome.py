"""What becomes of a batch of requests, column by column; filled in group by group, without a step per row.

It is told as Arrow columns, or, for a few requests, as a dictionary each: the same values.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.contracts import prediction_fields as fields
from driftline.features import FeatureView

ANSWERED, REFUSED, FAILED = range(len(fields.STATUSES))

Rows = NDArray[np.intp]
_NO_AGE = -1
#: What processing makes of a request, beside features and ages.
_MADE = (
    fields.STATUS,
    fields.SCORE,
    fields.ERROR,
    fields.MODEL_VERSION,
    fields.DECISION,
    fields.FEATURE_VIEWS,
    fields.DEGRADED,
    fields.ARM,
)


class TextColumn:
    """A column with few distinct values, held as codes; null unless set."""

    def __init__(self, count: int) -> None:
        self._codes = np.full(count, -1, np.int32)
        self._values: list[str] = []

    def set(self, rows: Rows | slice, value: str) -> None:
        """Give rows a value."""
        if value not in self._values:
            self._values.append(value)
        self._codes[rows] = self._values.index(value)

    def array(self) -> pa.Array:
        """Return the column."""
        return pa.array(self._values, pa.string()).take(pa.array(self._codes, mask=self._codes < 0))

    def values(self) -> list[str | None]:
        """Return the column as a list."""
        named = [*self._values, None]  # the code of null, -1, is the last place
        return [named[code] for code in self._codes.tolist()]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureColumns:
    """Where the features of some views stand: worked out once, used for every batch."""

    place: Mapping[str, int]
    first: Mapping[str, int]
    ages: Mapping[str, int]
    age_columns: tuple[str, ...]
    names: tuple[str, ...]

    @staticmethod
    def of(views: Sequence[FeatureView]) -> "FeatureColumns":
        """Return the columns of views, side by side."""
        names = [name for view in views for name in view.columns]
        place = {name: number for number, name in enumerate(names)}
        return FeatureColumns(
            place=place,
            first={view.name: place[view.columns[0]] for view in views},
            ages={view.name: number for number, view in enumerate(views)},
            age_columns=tuple(view.age_column for view in views),
            names=(*_MADE, *names, *(view.age_column for view in views)),
        )


class Outcome:
    """The state of a batch's rows. Each row is FAILED until it is settled: none passes as answered by accident."""

    def __init__(self, count: int, columns: FeatureColumns) -> None:
        self.count = count
        self.open = np.ones(count, np.bool_)
        self.status = np.full(count, FAILED, np.int8)
        self.score = np.full(count, np.nan)
        self.error, self.version, self.decision = TextColumn(count), TextColumn(count), TextColumn(count)
        self.degraded = TextColumn(count)
        self.arm = TextColumn(count)
        self._views_read = np.zeros(count, np.int32)
        self._view_lists: list[list[str]] = [[]]
        self._columns = columns
        self._features = np.full((len(columns.place), count), np.nan)
        self._ages = np.full((len(columns.ages), count), _NO_AGE, np.int64)

    def close(self, rows: Rows, status: int, error: str) -> None:
        """Settle rows that get no score."""
        if len(rows):
            self.open[rows] = False
            self.status[rows] = status
            self.error.set(rows, error)

    def answer(self, rows: Rows, scores: NDArray[np.float64]) -> None:
        """Settle rows that have a score."""
        self.open[rows] = False
        self.status[rows] = ANSWERED
        self.score[rows] = scores

    def set_views(self, rows: Rows, refs: list[str]) -> None:
        """Note which views were read for rows."""
        self._views_read[rows] = len(self._view_lists)
        self._view_lists.append(refs)

    def set_features(
        self, rows: Rows, view: FeatureView, values: NDArray[np.float64], age_us: NDArray[np.int64]
    ) -> None:
        """Keep a view's values for rows, and their age (-1 where the entity has no events)."""
        first = self._columns.first[view.name]
        self._features[first : first + values.shape[1], rows] = values.T
        self._ages[self._columns.ages[view.name], rows] = np.where(age_us < 0, _NO_AGE, age_us // 1_000)

    def feature(self, column: str) -> NDArray[np.float64] | None:
        """Return a feature's values for all rows; None where no view has such a column."""
        place = self._columns.place.get(column)
        return None if place is None else self._features[place]

    def columns(self) -> Mapping[str, pa.Array]:
        """Return the columns of the log that this batch's processing has made."""
        names = pa.array(fields.STATUSES)
        made: dict[str, pa.Array] = {
            fields.STATUS: names.take(pa.array(self.status)),
            fields.SCORE: pa.array(self.score, mask=np.isnan(self.score)),
            fields.ERROR: self.error.array(),
            fields.MODEL_VERSION: self.version.array(),
            fields.DECISION: self.decision.array(),
            fields.FEATURE_VIEWS: pa.array(self._view_lists, pa.list_(pa.string())).take(
                pa.array(self._views_read)
            ),
            fields.DEGRADED: self.degraded.array(),
            fields.ARM: self.arm.array(),
        }
        missing, unknown = np.isnan(self._features), self._ages == _NO_AGE
        for name, place in self._columns.place.items():
            made[name] = pa.array(self._features[place], mask=missing[place])
        for place, name in enumerate(self._columns.age_columns):
            made[name] = pa.array(self._ages[place], mask=unknown[place])
        return made

    def rows(self) -> Iterator[dict[str, Any]]:
        """Return for each row what ``columns`` holds of it."""
        made: list[Sequence[Any]] = [
            [fields.STATUSES[status] for status in self.status.tolist()],
            without_nan(self.score.tolist()),
            self.error.values(),
            self.version.values(),
            self.decision.values(),
            [self._view_lists[number] for number in self._views_read.tolist()],
            self.degraded.values(),
            self.arm.values(),
            *map(without_nan, self._features.tolist()),
            *([None if age == _NO_AGE else age for age in ages] for ages in self._ages.tolist()),
        ]
        for values in zip(*made, strict=True):
            yield dict(zip(self._columns.names, values, strict=True))


def without_nan(values: Sequence[float]) -> list[float | None]:
    """Return values with None for NaN."""
    return [None if value != value else value for value in values]  # noqa: PLR0124  (only NaN differs)
