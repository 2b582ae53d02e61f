"""Assemble a training set: what each request would have been answered with, and what then happened.

Features are read as of each request's instant, by the kernels that serve them. A label counts only where
it was known by the end of the span.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.features.code_lists import read_codes
from driftline.features.declarations import FeatureView
from driftline.features.event_columns import request_keys
from driftline.features.point_in_time import as_of_join
from driftline.project.declaration import InputType, ModelDeclaration
from driftline.project.history import KNOWN_AT, LABEL, LABEL_KNOWN_AT, History

_Progress = Callable[[str], None]
#: Returns a view's values ``[n, features]`` for requests, from the events by event type.
Join = Callable[[FeatureView, Mapping[str, pa.Table], pa.Table], NDArray[np.float64]]
#: At most so many views are joined at a time: each join holds copies of its events and rows.
_JOINS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of a training set in the order of their instants; columns in the model's declared order.

    ``numeric`` is float32 [n, K] with NaN for missing, ``labels`` whether it came true, and the times
    (microseconds since the epoch) when the prediction was due and when the label was known.
    """

    numeric: NDArray[np.float32]
    categorical: Mapping[str, list[str | None]]
    labels: NDArray[np.bool_]
    as_of_us: NDArray[np.int64]
    label_known_us: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: NDArray[np.bool_]) -> "Rows":
        """Return the rows where ``chosen`` is true."""
        positions = np.flatnonzero(chosen)
        return Rows(
            numeric=self.numeric[positions],
            categorical={
                name: [values[position] for position in positions]
                for name, values in self.categorical.items()
            },
            labels=self.labels[positions],
            as_of_us=self.as_of_us[positions],
            label_known_us=self.label_known_us[positions],
        )

    def sha256(self) -> str:
        """Name exactly these rows: a hash over every value in order."""
        digest = hashlib.sha256()
        for array in (self.numeric, self.labels, self.as_of_us, self.label_known_us):
            digest.update(np.ascontiguousarray(array).data)
        for name, values in self.categorical.items():
            digest.update(json.dumps([name, values], separators=(",", ":")).encode())
        return digest.hexdigest()


def labelled_requests(requests: pa.Table, known_by_us: int) -> pa.Table:
    """Return the requests whose label was known at that instant."""
    known = pc.less_equal(pc.cast(requests[LABEL_KNOWN_AT], pa.int64()), known_by_us)
    return requests.filter(pc.and_(pc.is_valid(requests[LABEL]), pc.fill_null(known, False)))


def join_as_known(
    view: FeatureView, events: Mapping[str, pa.Table], requests: pa.Table
) -> NDArray[np.float64]:
    """Return a view's values as of each request's ``event_time``, from the events that were ``known_at`` that instant."""
    keys = request_keys(view.entity, requests)
    return as_of_join(view, events, keys, _times(requests, "event_time"), known_at=KNOWN_AT).values


def assemble(
    model: ModelDeclaration,
    history: History,
    requests: pa.Table,
    progress: _Progress = lambda _: None,
    *,
    join: Join = join_as_known,
) -> Rows:
    """Read the model's features point-in-time for labelled requests, and return the rows."""
    spoken, _ = read_codes(requests, _times(requests, "event_time"), model.coded_inputs)

    def block(view: FeatureView) -> NDArray[np.float32]:
        values = join(view, history.events, requests)
        with np.errstate(over="ignore"):  # as in scoring
            return np.asarray(values, dtype=np.float64).astype(np.float32)

    # Threads: most of a join is searches and sums within numpy, which let other threads run.
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, _JOINS)) as pool:
        blocks = [_inputs(model, requests)]
        for view, values in zip(model.views, pool.map(block, model.views), strict=True):
            progress(f"features of {view.ref}")
            blocks.append(values)
    return Rows(
        numeric=np.ascontiguousarray(np.concatenate(blocks, axis=1)),
        categorical={name: spoken[name].to_pylist() for name in model.categorical_columns},
        labels=requests[LABEL].combine_chunks().to_numpy(zero_copy_only=False).astype(np.bool_),
        as_of_us=_times(requests, "event_time"),
        label_known_us=_times(requests, LABEL_KNOWN_AT),
    )


def _inputs(model: ModelDeclaration, requests: pa.Table) -> NDArray[np.float32]:
    names = [field.name for field in model.inputs if field.type is InputType.DOUBLE]
    columns = [pc.fill_null(pc.cast(requests[name], pa.float64()), float("nan")).to_numpy() for name in names]
    if not columns:
        return np.empty((len(requests), 0), dtype=np.float32)
    with np.errstate(over="ignore"):
        return np.stack(columns, axis=1).astype(np.float32)


def _times(table: pa.Table, name: str) -> NDArray[np.int64]:
    times: NDArray[np.int64] = pc.cast(table[name], pa.int64()).to_numpy()
    return times
