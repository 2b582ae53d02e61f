"""What ingest makes of events, and that its OpenAPI says the same as its validation."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import split
from driftline.project import EventType
from driftline.runtime.clock import ManualClock
from driftline.runtime.errors import BadMessageError
from services.ingest.event_channel import EventChannel
from services.ingest.json_schema import event_example, event_json_schema

_TIME = {"type": "long", "logicalType": "timestamp-micros"}
_NOW = 1_700_000_000_000_000
_SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "event_id", "type": "string", "doc": "UUID."},
        {"name": "at", "type": _TIME},
        {"name": "sensor", "type": "string", "example": "north"},
        {"name": "value", "type": ["null", "double"], "default": None},
        {"name": "count", "type": "int", "default": 0},
        {"name": "labels", "type": {"type": "map", "values": "string"}, "default": {}},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
        {
            "name": "place",
            "type": {"type": "record", "name": "Place", "fields": [{"name": "floor", "type": "long"}]},
        },
    ],
}
_TYPE = EventType(name="readings", schema=_SCHEMA, schema_path=Path("r.avsc"), key="sensor", event_time="at")
_CHANNEL = EventChannel(
    event_type=_TYPE,
    topic="t.readings",
    schema_id=7,
    future_skew_us=60_000_000,
    clock=ManualClock(_NOW),
    codec=RecordCodec(_SCHEMA),
)


def reading(**changes: Any) -> dict[str, Any]:
    return {"at": _NOW, "sensor": "north", "place": {"floor": 1}, **changes}


def test_a_valid_event_is_framed() -> None:
    given_id = "0190A6C5-7B2E-7C11-8000-0123456789AB"
    ready = _CHANNEL.prepare(reading(event_id=given_id))
    assert ready.event_id == given_id.lower()  # one event has one id, however it is written
    schema_id, body = split(ready.value)
    assert schema_id == 7
    assert RecordCodec(_SCHEMA).decode(body)["event_id"] == given_id.lower()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"event_id": "1"}, "event_id"),
        ({"event_id": 1}, "event_id"),
        ({"event_id": "{0190a6c5-7b2e-7c11-8000-0123456789ab}"}, "event_id"),
        ({"sensor": ""}, "sensor"),
        ({"sensor": None}, "sensor"),
        ({"at": _NOW + 60_000_001}, "at"),
        ({"at": "yesterday"}, "at"),
        ({"at": True}, "at"),
        ({"value": "1"}, "value"),
        ({"count": 1.5}, "count"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"place": {}}, "place.floor"),
        ({"place": None}, "place"),
        ({"other": 1}, "other"),
    ],
)
def test_errors_name_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(BadMessageError) as caught:
        _CHANNEL.prepare(reading(**changes))
    assert caught.value.reason.startswith(f"{field}:")


def test_an_event_at_the_edge_of_the_skew_passes() -> None:
    assert _CHANNEL.prepare(reading(at=_NOW + 60_000_000)).key == "north"


def test_the_example_is_valid_and_uses_the_schemas_own() -> None:
    example = event_example(_TYPE)
    assert example["sensor"] == "north"
    assert _CHANNEL.prepare(example).event_id == example["event_id"]
    jsonschema.validate(example, event_json_schema(_TYPE))


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "event_id": st.uuids().map(str) | _ANY,
            "at": st.integers(0, _NOW) | _ANY,
            "sensor": st.text() | _ANY,
            "value": st.floats() | _ANY,
            "count": st.integers() | _ANY,
            "labels": st.dictionaries(st.text(max_size=3), st.text(max_size=3)) | _ANY,
            "day": st.dates().map(str) | _ANY,
            "place": st.just({"floor": 3}) | _ANY,
        },
    )
    | _ANY
)
@example({"event_id": None, "at": 0, "sensor": "north", "place": {"floor": 3}})
def test_any_json_is_accepted_or_refused_and_never_breaks(event: Any) -> None:
    try:
        ready = _CHANNEL.prepare(event)
    except BadMessageError:
        return
    jsonschema.validate(json.loads(json.dumps(event)), event_json_schema(_TYPE))
    assert RecordCodec(_SCHEMA).decode(split(ready.value)[1])["event_id"] == ready.event_id
