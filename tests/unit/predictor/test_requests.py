"""A body is read as far as it can be, and every mistake is named by its field."""

import json
import uuid
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.features import Entity
from driftline.project import Project
from services.predictor.documentation import request_schema
from services.predictor.requests import GoodBodies, read_request

NOW_US = 1_750_000_000_000_000
ID = "0190a6c5-7b2e-7c11-8000-0123456789ab"
GOOD: dict[str, Any] = {
    "request_id": ID.upper(),
    "event_time": "2013-04-01T14:00:00+02:00",
    "caller": "till 7",
    "entities": {"customer": "c1", "merchant": "m1"},
    "inputs": {"amount": 12},
}


def test_a_good_body_becomes_the_logs_columns(project: Project) -> None:
    read = read_request(project, "fraud", GOOD, NOW_US)
    assert read.mistakes == ()
    assert read.id == ID
    assert read.record == {
        "request_id": ID,
        "model": "fraud",
        "requested_at": NOW_US,
        "event_time": 1_364_817_600_000_000,
        "caller": "till 7",
        "customer": "c1",
        "merchant": "m1",
        "amount": 12.0,
        "order_id": None,
    }


def test_a_composite_entity_is_named_by_its_keys(project: Project) -> None:
    fraud = project.models["fraud"]
    pair = Entity("pair", keys=("customer", "merchant"))
    composite = replace(project, models={"fraud": replace(fraud, entities=(pair,))})
    read = read_request(composite, "fraud", GOOD, NOW_US)
    assert read.mistakes == ()
    assert (read.record["customer"], read.record["merchant"]) == ("c1", "m1")
    wrong = read_request(composite, "fraud", {"entities": {"pair": "c1,m1"}}, NOW_US)
    assert wrong.mistakes == (
        (("entities", "pair"), "fraud takes no such name; known are customer, merchant"),
    )
    wanted = request_schema(composite.models["fraud"])["properties"]["entities"]
    assert wanted["required"] == ["customer", "merchant"]


def test_what_is_absent_is_made_or_null(project: Project) -> None:
    first, second = (read_request(project, "fraud", {}, NOW_US) for _ in range(2))
    assert first.mistakes == ()
    assert uuid.UUID(first.id).version == 7
    assert first.id != second.id
    assert first.record["event_time"] == NOW_US
    assert [first.record[name] for name in ("caller", "customer", "merchant", "amount")] == [None] * 4


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"request_id": "17"}, "request_id", "no UUID"),
        ({"request_id": 17}, "request_id", "UUID"),
        ({"event_time": "2013-04-01T12:00:00"}, "event_time", "offset"),
        ({"event_time": "soon"}, "event_time", "ISO 8601"),
        ({"event_time": 1.5}, "event_time", "wanted"),
        ({"event_time": True}, "event_time", "wanted"),
        ({"event_time": 2**63}, "event_time", ""),
        ({"event_time": 2**62}, "event_time", ""),
        ({"caller": "x" * 201}, "caller", "characters"),
        ({"entities": []}, "entities", "object"),
        ({"entities": {"customer": 3}}, "entities.customer", "text"),
        ({"entities": {"planet": "x"}}, "entities.planet", "no such name"),
        ({"inputs": "x"}, "inputs", "object"),
        ({"inputs": {"amount": "much"}}, "inputs.amount", "number"),
        ({"inputs": {"amount": True}}, "inputs.amount", "number"),
        ({"inputs": {"amount": float("nan")}}, "inputs.amount", "finite"),
        ({"inputs": {"amount": 10**400}}, "inputs.amount", ""),
        ({"inputs": {"colour": 1}}, "inputs.colour", "no such name"),
        ({"inptus": {}}, "inptus", "no such field"),
    ],
)
def test_a_mistake_is_named_and_the_rest_is_read(
    project: Project, changes: dict[str, Any], field: str, reason: str
) -> None:
    read = read_request(project, "fraud", {**GOOD, **changes}, NOW_US)
    ((path, told),) = read.mistakes
    assert ".".join(path) == field
    assert reason in told
    uuid.UUID(read.id)
    if "entities" not in changes:
        assert read.record["customer"] == "c1"


@pytest.mark.parametrize("body", [None, 3, "text", [GOOD], True])
def test_a_body_that_is_no_object_is_one_mistake(project: Project, body: Any) -> None:
    assert [path for path, _ in read_request(project, "fraud", body, NOW_US).mistakes] == [("body",)]


def test_a_request_to_an_unknown_model_is_the_engines_to_refuse(project: Project) -> None:
    read = read_request(project, "x" * 5_000, GOOD, NOW_US)
    assert read.mistakes == ()
    assert len(read.record["model"]) <= 200


def both_ways(project: Project, body: bytes) -> dict[str, Any] | None:
    """Read a body in one step and field by field; both say the same, or the first says nothing."""
    read = GoodBodies(project, project.models["fraud"]).read(body, NOW_US)
    quick = None if read is None else read.record
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        assert quick is None
        return None
    slow = read_request(project, "fraud", parsed, NOW_US)
    assert quick is None or not slow.mistakes
    if read is not None and quick is not None:
        assert (read.brought, slow.brought) == (parsed.get("request_id") is not None,) * 2
        if parsed.get("request_id") is None:  # each has made one
            quick["request_id"] = slow.id
        assert repr(quick) == repr({name: slow.record[name] for name in quick})
        assert quick.keys() == slow.record.keys()
    return quick


_WRONG = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.none())
_BODIES = st.fixed_dictionaries(
    {},
    optional={
        "request_id": st.uuids().map(str) | st.just(ID.upper()) | st.just("{" + ID + "}") | _WRONG,
        "event_time": st.integers()
        | st.sampled_from(["2013-04-01T12:00:00Z", "2013-04-01", "0001-01-01T00:00:00+14:00", 1.0, 2**63])
        | _WRONG,
        "caller": st.sampled_from(["x" * 200, "x" * 201, "ß" * 200]) | _WRONG,
        "entities": st.dictionaries(st.sampled_from(["customer", "merchant", "planet"]), st.text() | _WRONG)
        | _WRONG,
        "inputs": st.dictionaries(
            st.sampled_from(["amount", "order_id", "colour"]), st.floats() | st.just(10**400) | _WRONG
        )
        | _WRONG,
        "inptus": _WRONG,
    },
)


@given(_BODIES | _WRONG)
def test_a_body_read_in_one_step_means_what_it_means_field_by_field(project: Project, body: Any) -> None:
    both_ways(project, json.dumps(body).encode())


@given(st.binary(max_size=3), st.integers(0, 120))
def test_no_broken_bytes_pass(project: Project, bytes_: bytes, place: int) -> None:
    whole = json.dumps(GOOD).encode()
    both_ways(project, whole[:place] + bytes_ + whole[place + len(bytes_) :])


@pytest.mark.parametrize("changes", [{}, {"caller": None}, {"inputs": None}, {"event_time": NOW_US}])
def test_good_bodies_are_read_in_one_step(project: Project, changes: dict[str, Any]) -> None:
    assert both_ways(project, json.dumps({**GOOD, **changes}).encode()) is not None
    assert both_ways(project, b"{}") is not None


@pytest.mark.parametrize("changes", [{"entities": {"planet": "x"}}, {"caller": "x" * 201}, {"inptus": {}}])
def test_a_body_with_a_mistake_is_not(project: Project, changes: dict[str, Any]) -> None:
    assert both_ways(project, json.dumps({**GOOD, **changes}).encode()) is None
