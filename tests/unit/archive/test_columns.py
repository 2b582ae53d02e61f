"""Stored columns: wide types, one union whatever the order, and no silent casts."""

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.archive.columns import ColumnConflictError, fitted, placed, storage_schema, united

KINDS = st.recursive(
    st.sampled_from([pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.date32(), pa.binary()]),
    lambda inner: st.one_of(
        inner.map(pa.list_),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(
            lambda fields: pa.struct(list(fields.items()))
        ),
        inner.map(lambda kind: pa.map_(pa.string(), kind)),
    ),
    max_leaves=4,
)
SCHEMAS = st.dictionaries(st.sampled_from("pqrs"), KINDS, max_size=3).map(
    lambda fields: pa.schema(list(fields.items()))
)


def test_values_survive_in_their_wide_types() -> None:
    values: dict[str, tuple[pa.DataType, Any, Any]] = {
        "small": (pa.int32(), 7, 7),
        "single": (pa.float32(), 0.1, float(np.float32(0.1))),
        "at": (pa.timestamp("ms"), dt.datetime(2013, 4, 1, 12), dt.datetime(2013, 4, 1, 12, tzinfo=dt.UTC)),
        "clock": (pa.time32("ms"), dt.time(0, 0, 1, 5000), 1_005_000),
        "long_decimal": (pa.decimal256(50, 2), decimal.Decimal("1.25"), "1.25"),
        "price": (pa.decimal128(9, 2), decimal.Decimal("1.25"), decimal.Decimal("1.25")),
        "fixed": (pa.binary(2), b"ab", b"ab"),
        "nothing": (pa.null(), None, None),
        "deep": (
            pa.list_(pa.struct([("n", pa.int32()), ("m", pa.map_(pa.string(), pa.float32()))])),
            [{"n": 1, "m": [("k", 0.5)]}, None],
            [{"n": 1, "m": [("k", 0.5)]}, None],
        ),
    }
    table = pa.table({name: pa.array([value, None], kind) for name, (kind, value, _) in values.items()})
    stored = fitted(table, storage_schema(table.schema))
    assert stored.to_pylist()[0] == {name: wanted for name, (_, _, wanted) in values.items()}
    assert set(stored.to_pylist()[1].values()) == {None}


@given(first=SCHEMAS, second=SCHEMAS)
def test_a_union_holds_both_and_needs_nothing_more(first: pa.Schema, second: pa.Schema) -> None:
    try:
        both = united(first, second)
    except ColumnConflictError:
        with pytest.raises(ColumnConflictError):
            united(second, first)
        return
    assert united(both, first).equals(both) and united(both, second).equals(both)
    assert set(united(second, first).names) == set(both.names)
    for schema in (first, second):
        empty = fitted(schema.empty_table(), both)
        assert empty.schema.equals(both)


@pytest.mark.parametrize(
    "fields",
    [
        {"a": pa.int64(), "A": pa.int64()},
        {"_offset": pa.int64()},
        {"_Partition": pa.int32()},
        {"e": pa.struct([])},
    ],
)
def test_columns_that_no_table_can_have_are_refused(fields: dict[str, pa.DataType]) -> None:
    with pytest.raises(ColumnConflictError):
        storage_schema(pa.schema(list(fields.items())))


@pytest.mark.parametrize(("old", "new"), [(pa.int64(), pa.float64()), (pa.string(), pa.binary())])
def test_a_promotion_that_would_change_stored_values_is_refused(old: pa.DataType, new: pa.DataType) -> None:
    with pytest.raises(ColumnConflictError, match=r"'x\[\]'"):
        united(pa.schema([("x", pa.list_(old))]), pa.schema([("x", pa.list_(new))]))


def test_the_day_is_the_events_own_and_kafkas_where_it_has_none() -> None:
    at = pa.array([dt.datetime(2013, 1, 1, 23, 59), None], pa.timestamp("us", "UTC"))
    found = placed(
        pa.table({"paid_at": at, "event_time": pa.array(["not", "a time"])}),
        partition=3,
        offsets=[7, 9],
        timestamps_ms=np.array([0, 86_400_000], np.int64),
        event_times=("event_time", "paid_at"),
    )
    assert [str(day) for day in found["_event_date"].to_pylist()] == ["2013-01-01", "1970-01-02"]
    assert found["_partition"].to_pylist() == [3, 3]
    assert found["_offset"].to_pylist() == [7, 9]
