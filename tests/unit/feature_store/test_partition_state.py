"""What a batch of decoded events brings to a view is what the offline join takes of the same events."""

import numpy as np
import pyarrow as pa
import pytest

from driftline.features import (
    Condition,
    Entity,
    FeatureView,
    Source,
    decayed_mean,
    distinct_count,
    field,
    last,
    most_frequent,
    share,
)
from driftline.features.event_columns import float_inputs
from driftline.features.layout import ViewLayout
from driftline.features.point_in_time import as_of_join
from driftline.features.read import read_state
from driftline.features.update import apply_events
from services.feature_store.partition_state import _of_view, _rows_of

NOW_US = 1_750_000_000_000_000
FEATURES = [
    distinct_count("merchant").over("1h"),
    share("currency", "EUR").over("1h"),
    most_frequent("currency", among=("EUR", "USD")).where(field("amount") > 15).over("1h").named("usual"),
    last("currency", among=("EUR", "USD")),
    decayed_mean("amount", half_life="1h"),
]


@pytest.mark.parametrize("where", [None, field("amount") < 35])
def test_a_batch_brings_what_the_join_takes(where: Condition | None) -> None:
    view = FeatureView(
        "spending", 1, Source("payments", Entity("customer"), "paid_at"), FEATURES, where=where
    )
    time_us = NOW_US + np.arange(6) * 1_000_000
    events = pa.record_batch(
        {
            "customer": ["ann"] * 6,
            "paid_at": pa.array(time_us).cast(pa.timestamp("us")),
            "merchant": ["a", "b", "a", None, "c", "b"],
            "currency": ["EUR", "USD", None, "USD", "GBP", "EUR"],
            "amount": [10.0, 20.0, 30.0, 20.0, 40.0, 50.0],
        }
    )
    layout = ViewLayout.of(view)
    assert layout.fields == ("amount",)  # texts are not validated as numbers

    rows = _rows_of(view, events)
    entities, own_us, inputs = _of_view(layout, events, time_us, float_inputs(events, layout.fields), rows)
    state = layout.empty(1)
    apply_events(layout, state, np.zeros(len(entities), np.int64), own_us, inputs)

    read = read_state(layout, state, time_us[-1:])
    joined = as_of_join(view, events, ["ann"], time_us[-1:])
    assert read.values.tobytes() == joined.values.tobytes()
    expected = [3.0, 0.4, 1.0, 0.0] if where is None else [2.0, 1 / 3, 1.0, 1.0]
    assert read.values[0, :4].tolist() == expected
