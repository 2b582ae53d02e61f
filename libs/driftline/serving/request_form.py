"""What the engine asks of a batch of requests, be they an Arrow batch or, a few at a time, rows."""

from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.contracts import prediction_fields as fields
from driftline.features import Entity
from driftline.features.entity_keys import join_key
from driftline.features.event_columns import request_keys
from driftline.runtime.ids import UUID_PATTERN, is_uuid
from driftline.serving.arms import Keys
from driftline.serving.outcome import Rows
from driftline.serving.rows import RequestRows

#: Requests in either form.
Requests: TypeAlias = pa.RecordBatch | RequestRows


def instants_of(requests: Requests) -> NDArray[np.int64]:
    """Return the event times, in microseconds since the epoch."""
    if isinstance(requests, RequestRows):
        return np.array(requests.column(fields.EVENT_TIME).to_pylist(), np.int64)
    column = requests.column(fields.EVENT_TIME).cast(pa.int64())
    instants: NDArray[np.int64] = column.to_numpy(zero_copy_only=False)
    return instants


def nameless(requests: Requests) -> NDArray[np.bool_]:
    """Tell which requests have no UUID."""
    if isinstance(requests, RequestRows):
        ids = requests.column(fields.REQUEST_ID).to_pylist()
        return np.array([not is_uuid(one) for one in ids], np.bool_)
    valid = pc.match_substring_regex(requests.column(fields.REQUEST_ID), f"^{UUID_PATTERN}$")
    without: NDArray[np.bool_] = ~valid.to_numpy(zero_copy_only=False)
    return without


def rows_by_model(requests: Requests) -> list[tuple[str, Rows]]:
    """Return the rows that ask each model, models in the order of their first request."""
    if isinstance(requests, RequestRows):
        names = requests.column(fields.MODEL).to_pylist()
        return [
            (name, np.array([row for row, other in enumerate(names) if other == name], np.intp))
            for name in dict.fromkeys(names)
        ]
    models = requests.column(fields.MODEL).dictionary_encode()
    of_row = models.indices.to_numpy(zero_copy_only=False)
    return [
        (name, np.flatnonzero(of_row == number)) for number, name in enumerate(models.dictionary.to_pylist())
    ]


def keys_of(entity: Entity, requests: Requests) -> Keys:
    """Return the key of the entity that each request names; null where it does not name all of it."""
    if not isinstance(requests, RequestRows):
        return request_keys(entity, requests)
    if not entity.composite:
        keys: list[str | None] = requests.column(entity.keys[0]).to_pylist()
        return keys
    parts = zip(*(requests.column(key).to_pylist() for key in entity.keys), strict=True)
    return [None if None in each else join_key(each) for each in parts]


def sticky_keys(entity: Entity | None, requests: Requests) -> Keys:
    """Return what requests are assigned to arms by: an entity's key, or the request's own id."""
    if entity is not None:
        return keys_of(entity, requests)
    ids = requests.column(fields.REQUEST_ID)
    if isinstance(requests, RequestRows):
        return [one.lower() for one in ids.to_pylist()]
    return pc.utf8_lower(ids)
