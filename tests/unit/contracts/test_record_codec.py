"""Single records: strict bytes, and JSON that says which field is wrong."""

from datetime import UTC, datetime
from typing import Any

import pytest

from driftline.contracts.record_codec import RecordCodec
from driftline.runtime.errors import BadMessageError, ConfigurationError

SCHEMA = {
    "type": "record",
    "name": "Arrival",
    "fields": [
        {"name": "flight", "type": "string"},
        {"name": "arrived_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "delay", "type": ["null", "double"], "default": None},
        {"name": "late", "type": ["null", "boolean"], "default": None},
        {
            "name": "legs",
            "type": {
                "type": "array",
                "items": {"type": "record", "name": "Leg", "fields": [{"name": "miles", "type": "int"}]},
            },
            "default": [],
        },
    ],
}


def test_json_becomes_a_record_with_defaults() -> None:
    record = RecordCodec(SCHEMA).from_json(
        {"flight": "UA1", "arrived_at": "2013-04-01T08:00:00-04:00", "delay": 3}
    )
    assert record == {
        "flight": "UA1",
        "arrived_at": datetime(2013, 4, 1, 12, tzinfo=UTC),
        "delay": 3.0,
        "late": None,
        "legs": [],
    }


def test_microseconds_are_a_time_too() -> None:
    record = RecordCodec(SCHEMA).from_json({"flight": "UA1", "arrived_at": 1_364_817_600_000_000})
    assert record["arrived_at"] == datetime(2013, 4, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flight": 5}, "flight: a text is wanted, got 5"),
        ({"arrived_at": "yesterday"}, "arrived_at: an ISO 8601 time"),
        ({"arrived_at": "2013-04-01T08:00:00"}, "arrived_at: a time with an offset"),
        ({"delay": "3"}, "delay: a finite number is wanted"),
        ({"delay": float("nan")}, "delay: a finite number is wanted"),
        ({"delay": True}, "delay: a finite number is wanted"),
        ({"late": 1}, "late: true or false is wanted"),
        ({"gate": "B3"}, "gate: no such field"),
        ({"legs": [{"miles": 2**40}]}, "legs[0].miles: a whole number"),
        ({"arrived_at": 10**30}, "arrived_at: a time between"),
    ],
)
def test_the_message_names_the_field(change: dict[str, Any], message: str) -> None:
    event = {"flight": "UA1", "arrived_at": 0, **change}
    with pytest.raises(BadMessageError) as raised:
        RecordCodec(SCHEMA).from_json(event)
    assert message in str(raised.value)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(BadMessageError, match="arrived_at: the field is missing"):
        RecordCodec(SCHEMA).from_json({"flight": "UA1"})


@pytest.mark.parametrize(
    "items",
    ["null", {"type": "record", "name": "E", "fields": []}, {"type": "fixed", "name": "F", "size": 0}],
)
def test_arrays_without_a_bound_are_refused(items: Any) -> None:
    schema = {
        "type": "record",
        "name": "B",
        "fields": [{"name": "a", "type": {"type": "array", "items": items}}],
    }
    with pytest.raises(ConfigurationError, match="a: an array of items without bytes"):
        RecordCodec(schema)


def test_recursive_schemas_are_refused() -> None:
    schema = {"type": "record", "name": "Tree", "fields": [{"name": "child", "type": ["null", "Tree"]}]}
    with pytest.raises(ConfigurationError, match="recursive"):
        RecordCodec(schema)


def test_json_out_is_plain() -> None:
    record = {"at": datetime(2013, 4, 1, 12, tzinfo=UTC), "x": float("inf"), "list": [{"y": 1}]}
    assert RecordCodec.to_json(record) == {"at": "2013-04-01T12:00:00Z", "x": None, "list": [{"y": 1}]}
