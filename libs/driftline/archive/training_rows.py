"""A training set's rows as a table, and back: what `driftline training-set build` keeps and training reads."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from driftline.models.training_set import Rows
from driftline.project.declaration import ModelDeclaration
from driftline.project.history import LABEL, LABEL_KNOWN_AT

REQUEST_ID = "request_id"
EVENT_TIME = "event_time"
_TIME = pa.timestamp("us")


def table_of(model: ModelDeclaration, rows: Rows, request_ids: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return rows as columns: the request's id, its time, the model's inputs, the label and when it was known.

    Missing numbers stay NaN, as the model gets them.
    """
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        REQUEST_ID: request_ids.cast(pa.string()),
        EVENT_TIME: pa.array(rows.as_of_us, pa.int64()).cast(_TIME),
    }
    for index, name in enumerate(model.numeric_columns):
        columns[name] = pa.array(np.ascontiguousarray(rows.numeric[:, index]))
    for name in model.categorical_columns:
        columns[name] = pa.array(rows.categorical[name], pa.string())
    columns[LABEL] = pa.array(rows.labels)
    columns[LABEL_KNOWN_AT] = pa.array(rows.label_known_us, pa.int64()).cast(_TIME)
    return pa.table(columns)


def rows_of(model: ModelDeclaration, table: pa.Table) -> Rows:
    """Return a table's rows as training takes them; the inverse of ``table_of``, to the bit."""
    blocks = [table[name].to_numpy().reshape(-1, 1) for name in model.numeric_columns]
    empty = np.empty((len(table), 0), np.float32)
    return Rows(
        numeric=np.ascontiguousarray(np.concatenate([empty, *blocks], axis=1)),
        categorical={name: table[name].to_pylist() for name in model.categorical_columns},
        labels=table[LABEL].to_numpy(),
        as_of_us=pc.cast(table[EVENT_TIME], pa.int64()).to_numpy(),
        label_known_us=pc.cast(table[LABEL_KNOWN_AT], pa.int64()).to_numpy(),
    )
