"""Were the served feature values the right ones? A share of the log is computed again from the archived events.

Served and computed again must be the same bits, in every feature and in the view's age. A request knows the events that
were in the log when it was answered, as far as the store had come: an event that was logged within the *grace* before
(or, clocks differ, after) the answer may have been in the store or not. So where a row differs, it is computed once for each
way in which the store may have stood then, a prefix of each partition's late events. If one of them gives the served row, the
row is told as *in flight*, not as different.
"""

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.archive.columns import OFFSET, PARTITION, TIMESTAMP
from driftline.contracts.prediction_fields import (
    DEGRADED,
    EVENT_TIME,
    FEATURE_VIEWS,
    PREDICTED_AT,
    REQUEST_ID,
)
from driftline.contracts.topics import PREDICTIONS
from driftline.features import FeatureView
from driftline.features.event_columns import event_keys, float_inputs, micros, request_keys
from driftline.features.joining import joined_values
from driftline.features.point_in_time import as_of_join
from driftline.features.read import ViewValues, same_bits
from driftline.project import Project
from driftline.replay.recomputing import ArchivedFeatures, join_as_logged
from driftline.replay.records import ArchiveRecords, batched
from driftline.replay.selection import Selection

GRACE_US = 5_000_000
_BATCH_ROWS = 5_000
_WAYS = 256
_TRIED = 200
_KNOWN, _WAY = "__known", "__way"

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(slots=True, kw_only=True)
class ColumnParity:
    """How the served values of a column compare: differences are absolute, over those where both are there.

    ``nulls`` counts those where only one of the two is null, ``example`` is the request of the first difference.
    """

    view: str
    column: str
    compared: int = 0
    different: int = 0
    in_flight: int = 0
    nulls: int = 0
    max_difference: float = 0.0
    total_difference: float = 0.0
    example: str | None = None

    @property
    def mismatch_rate(self) -> float:
        """The share of different values; 0 where there was nothing to compare."""
        return self.different / self.compared if self.compared else 0.0

    def add(
        self, served: Floats, again: Floats, different: Flags, in_flight: Flags, ids: Sequence[str]
    ) -> None:
        """Add the values of some rows."""
        rows = np.flatnonzero(different)
        self.compared += len(served)
        self.different += len(rows)
        self.in_flight += int(in_flight.sum())
        gaps = np.abs(served[rows] - again[rows])
        both = gaps[~np.isnan(gaps)]
        self.nulls += len(gaps) - len(both)
        self.total_difference += float(both.sum())
        self.max_difference = max(self.max_difference, float(both.max(initial=0.0)))
        if self.example is None and len(rows):
            self.example = ids[int(rows[0])]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        sized = self.different - self.nulls
        return {
            "view": self.view,
            "column": self.column,
            "compared": self.compared,
            "different": self.different,
            "mismatch_rate": self.mismatch_rate,
            "in_flight": self.in_flight,
            "nulls": self.nulls,
            "max_difference": self.max_difference if sized else None,
            "mean_difference": self.total_difference / sized if sized else None,
            "example": self.example,
        }


@dataclass(slots=True, kw_only=True)
class ParityLook:
    """One look: requests answered in ``[since_us, until_us)``, a share of them, column by column.

    ``other_versions`` counts the rows that were served views which the project declares no more.
    """

    since_us: int
    until_us: int
    requests: int = 0
    columns: dict[str, ColumnParity] = field(default_factory=dict)
    other_versions: int = 0

    @property
    def values(self) -> int:
        """How many values were compared."""
        return sum(one.compared for one in self.columns.values())

    @property
    def different(self) -> tuple[ColumnParity, ...]:
        """The columns that differ, the worst first."""
        found = [one for one in self.columns.values() if one.different]
        return tuple(sorted(found, key=lambda one: -one.mismatch_rate))

    def views(self) -> dict[str, list[ColumnParity]]:
        """Return the columns by the view's reference."""
        found: dict[str, list[ColumnParity]] = {}
        for one in self.columns.values():
            found.setdefault(one.view, []).append(one)
        return found

    def mismatch_rates(self) -> dict[str, float]:
        """Return the share of different values by view."""
        return {
            view: sum(one.different for one in found) / max(1, sum(one.compared for one in found))
            for view, found in self.views().items()
        }

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        different = sum(one.different for one in self.columns.values())
        return {
            "equal": not different,
            "requests": self.requests,
            "values": self.values,
            "different": different,
            "mismatch_rate": different / self.values if self.values else 0.0,
            "in_flight": sum(one.in_flight for one in self.columns.values()),
            "other_versions": self.other_versions,
            "columns": [one.as_json() for one in self.columns.values()],
        }


def look_at_parity(
    project: Project,
    records: ArchiveRecords,
    *,
    since_us: int,
    until_us: int,
    share: float = 1.0,
    grace_us: int = GRACE_US,
) -> ParityLook:
    """Compute the features of a share of the archived predictions again, and compare them with what was served.

    Parameters
    ----------
    since_us, until_us
        When the predictions were answered, microseconds. Leave the archive time to hold the events up to then.
    share
        Of the requests, chosen by a hash of their ids: every look at a span takes the same.
    grace_us
        How far the store may have been behind the log.

    Raises
    ------
    ConfigurationError
        The archive has no predictions, or no events of a view.
    UnavailableError
        The store does not answer.
    """
    look = ParityLook(since_us=since_us, until_us=until_us)
    features = ArchivedFeatures(project, records)
    selection = Selection(start_us=since_us, stop_us=until_us)
    sampled = (_sampled(table, share) for table in records.read(PREDICTIONS, selection))
    for rows in batched((one for one in sampled if len(one)), _BATCH_ROWS):
        look.requests += len(rows)
        declared = set()
        for view in project.request_views:
            declared.add(view.ref)
            read = rows.filter(has_read(rows, view))
            if len(read):
                _compare(look, features, view, read, grace_us)
        look.other_versions += sum(not declared.issuperset(refs) for refs in rows[FEATURE_VIEWS].to_pylist())
    return look


def has_read(predictions: pa.Table, view: FeatureView) -> pa.Array:
    """Tell which logged requests were served a view in this version; what was served without the store is no store's."""
    read = pa.array([view.ref in (refs or ()) for refs in predictions[FEATURE_VIEWS].to_pylist()], pa.bool_())
    if DEGRADED not in predictions.column_names:  # a log from before there was such a thing
        return read
    return pc.and_(read, predictions[DEGRADED].combine_chunks().is_null())


def served_of(view: FeatureView, predictions: pa.Table) -> Floats:
    """Return what was served of a view ``[n, features + 1]``: the values, and the age in milliseconds."""
    names = (*view.columns, view.age_column)
    columns = float_inputs(predictions, names)
    return np.stack([columns[name] for name in names], axis=1)


def as_served(values: ViewValues) -> Floats:
    """Return values in the form of ``served_of``."""
    age_ms = np.where(values.age_us < 0, np.nan, (values.age_us // 1000).astype(np.float64))
    return np.column_stack([values.values, age_ms])


def _sampled(table: pa.Table, share: float) -> pa.Table:
    below = share * 2**32
    return table.filter(
        pa.array([zlib.crc32(one.lower().encode()) < below for one in table[REQUEST_ID].to_pylist()])
    )


def _compare(
    look: ParityLook, features: ArchivedFeatures, view: FeatureView, read: pa.Table, grace_us: int
) -> None:
    keys = request_keys(view.entity, read).to_pylist()
    as_of_us, answered_us = micros(read[EVENT_TIME]), micros(read[PREDICTED_AT])
    served = served_of(view, read)
    explained = np.zeros(len(read), np.bool_)

    def compute(part: FeatureView) -> ViewValues:
        events = features.events_of(part, read, after_us=grace_us)
        found = join_as_logged(part, events, keys, as_of_us, answered_us)
        again = as_served(found)
        # Of a part of several, the log has the values without an age of their own.
        known = served if part is view else _served_part(view, part, served)
        if known is None:
            return found
        again = again[:, : known.shape[1]]
        differing = np.flatnonzero(~same_bits(known, again).all(axis=1))[:_TRIED].tolist()
        late = _LateEvents(part, events if differing else events.slice(0, 0), grace_us)
        for row in differing:
            explained[row] |= late.explain(keys[row], int(as_of_us[row]), int(answered_us[row]), known[row])
        return found

    again = as_served(joined_values(view, compute))
    same = same_bits(served, again)
    ids = read[REQUEST_ID].to_pylist()
    for place, column in enumerate((*view.columns, view.age_column)):
        found = look.columns.setdefault(column, ColumnParity(view=view.ref, column=column))
        wrong = ~same[:, place]
        found.add(served[:, place], again[:, place], wrong & ~explained, wrong & explained, ids)


def _served_part(view: FeatureView, part: FeatureView, served: Floats) -> Floats | None:
    """Return what was served of one of a view's parts; None for a part of a view that it joins."""
    if part not in view.parts:
        return None
    names = [one.name for one in view.features]
    return served[:, [names.index(one.name) for one in part.features]]


class _LateEvents:
    """Tries the ways in which the store may have stood when a request was answered."""

    def __init__(self, view: FeatureView, events: pa.Table, grace_us: int) -> None:
        self._view, self._grace_us = view, grace_us
        self._events = events.sort_by(
            [(TIMESTAMP, "ascending"), (PARTITION, "ascending"), (OFFSET, "ascending")]
        )
        self._keys = event_keys(view.source, self._events).cast(pa.string())

    def explain(self, key: str | None, as_of_us: int, answered_us: int, served: Floats) -> bool:
        """Tell whether one of the ways gives the served row."""
        if key is None:
            return False
        own = self._events.filter(pc.equal(self._keys, pa.scalar(key)))
        ways = list(self._ways(own, answered_us))
        taken = own.take(pa.array(np.concatenate(ways)))
        names = [f"{number}" for number, way in enumerate(ways) for _ in range(len(way))]
        known = pa.array(np.full(len(taken), as_of_us), pa.timestamp("us"))
        taken = taken.append_column(_WAY, pa.array(names, pa.string())).append_column(_KNOWN, known)
        asked = [f"{number}" for number in range(len(ways))]
        instants = np.full(len(ways), as_of_us, np.int64)
        again = as_served(as_of_join(self._view, taken, asked, instants, known_at=_KNOWN, entities=_WAY))
        again = again[:, : len(served)]
        return bool(same_bits(np.broadcast_to(served, again.shape), again).all(axis=1).any())

    def _ways(self, own: pa.Table, answered_us: int) -> Iterator[NDArray[np.intp]]:
        """Yield the places of the events that the store may have held; by time alone where there are too many ways."""
        logged_us = micros(own[TIMESTAMP])
        first, last = np.searchsorted(
            logged_us, [answered_us - self._grace_us, answered_us + self._grace_us], side="right"
        ).tolist()
        before, late = np.arange(first), np.arange(first, last)
        partition = own[PARTITION].to_numpy()[first:last]
        parts = [late[partition == number] for number in np.unique(partition)]
        if np.prod([len(part) + 1.0 for part in parts]) <= _WAYS:
            for sizes in itertools.product(*(range(len(part) + 1) for part in parts)):
                chosen = [part[:size] for part, size in zip(parts, sizes, strict=True)]
                yield np.concatenate([before, *chosen]).astype(np.intp)
            return
        answered = int(np.searchsorted(logged_us, answered_us, side="right"))
        for stop in range(max(first, answered - _WAYS // 2), min(last, answered + _WAYS // 2) + 1):
            yield np.arange(stop)
