"""Were the served features the point-in-time ones? Every value is computed again, offline, and compared bit by bit."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.features.event_columns import request_keys
from driftline.features.point_in_time import as_of_join
from driftline.features.read import same_bits
from driftline.project import Project
from driftline.replay.parity import as_served, has_read, served_of

#: Column that says from which instant an event counted: when it was published.
PUBLISHED_AT = "published_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """The first served value of a column that differs from the recomputed one."""

    column: str
    request_id: str
    served: float | None
    recomputed: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How many served values were compared, how many were equal, and an example of each column that differs."""

    compared: int
    equal: int
    mismatches: tuple[Mismatch, ...]

    @property
    def equal_share(self) -> float:
        """The share of equal values; 1 where there was nothing to compare."""
        return self.equal / self.compared if self.compared else 1.0


def check_parity(project: Project, events: Mapping[str, pa.Table], predictions: pa.Table) -> Parity:
    """Recompute every feature value and age of the logged predictions, and compare them.

    Parameters
    ----------
    events
        Per event type the applied events, with a column ``published_at`` (timestamp, microseconds).
    predictions
        The log; rows that read no features (refused requests) are left out per view.
    """
    compared = equal = 0
    mismatches = []
    for view in project.request_views:
        read = predictions.filter(has_read(predictions, view))
        if not len(read):
            continue
        as_of_us = _int64(read["event_time"].cast(pa.timestamp("us")).cast(pa.int64()))
        keys = request_keys(view.entity, read)
        again = as_of_join(view, events, keys, as_of_us, known_at=PUBLISHED_AT)
        both = zip(served_of(view, read).T, as_served(again).T, strict=True)
        for column, (served, values) in zip((*view.columns, view.age_column), both, strict=True):
            same = same_bits(served, values)
            compared += len(same)
            equal += int(same.sum())
            if not same.all():
                row = int(np.flatnonzero(~same)[0])
                mismatches.append(
                    Mismatch(
                        column=column,
                        request_id=read["request_id"][row].as_py(),
                        served=_or_none(served[row]),
                        recomputed=_or_none(values[row]),
                    )
                )
    return Parity(compared=compared, equal=equal, mismatches=tuple(mismatches))


def _int64(column: pa.ChunkedArray) -> NDArray[np.int64]:
    values: NDArray[np.int64] = column.to_numpy()
    return values


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
