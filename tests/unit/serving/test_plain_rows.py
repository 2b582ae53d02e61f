"""Given a few requests of which nothing is unusual, the short way says what the way of any batch says, and leaves in time."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from driftline.contracts.batch_codec import BatchEncoder
from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame
from driftline.project import Project
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.serving.plain_rows import PlainRows
from driftline.serving.predict import PredictionEngine
from driftline.serving.rack import ModelRack
from driftline.serving.rows import RequestRows
from tests.unit.serving.test_failing_models import RULE, World, fails
from tests.unit.serving.test_predict import NOW_US, Features, Rows, request

_KEYS = st.sampled_from(["fresh-10", "fresh-90", "nobody", "", "ß"])
_PLAIN = st.builds(
    request,
    request_id=st.uuids().map(str),
    event_time=st.sampled_from([NOW_US, 0, NOW_US + 86_400_000_000]),
    customer=_KEYS | st.just("stale-20"),  # served; a stale merchant is refused
    merchant=_KEYS,
    amount=st.none() | st.floats(allow_infinity=False),
)


def as_rows(asked: Rows) -> RequestRows:
    return RequestRows(asked, frozenset({"amount"}))


def same_bytes(project: Project, columns: pa.RecordBatch, rows: Sequence[dict[str, Any]]) -> bool:
    """Compare predictions as the log has them; how long they took is another each time."""
    schema = prediction_schema(project)
    codec = RecordCodec(schema)
    took = columns.column("duration_us").to_pylist()
    told = [{**one, "duration_us": us} for one, us in zip(rows, took, strict=True)]
    return BatchEncoder(schema, 7).encode(columns) == [frame(7, codec.encode(one)) for one in told]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_PLAIN, min_size=1, max_size=20), st.booleans())
def test_both_ways_give_the_same_bytes(
    engine: PredictionEngine,
    project: Project,
    rack: ModelRack,
    requests: pa.Schema,
    asked: Rows,
    stale: bool,
) -> None:
    if stale:  # found when the features are read: the short way is left
        asked[-1]["merchant"] = "stale-3"
    assert PlainRows(project, rack).model(asked, NOW_US) is not None
    columns = pa.RecordBatch.from_pylist(asked, schema=requests)
    answers = engine.predict(as_rows(asked), "HTTP")
    assert same_bytes(project, engine.predict(columns, "HTTP"), answers)
    assert [one["status"] for one in answers] == ["ANSWERED"] * (len(asked) - stale) + ["REFUSED"] * stale


@pytest.mark.parametrize(
    "wrong",
    [
        {"request_id": "none"},
        {"model": "abuse"},
        {"model": "nothing"},
        {"event_time": -1},
        {"event_time": NOW_US + 86_400_000_001},
        {"merchant": None},
        {"amount": float("inf")},
    ],
    ids=str,
)
def test_one_unusual_request_makes_a_batch_unusual(
    project: Project,
    rack: ModelRack,
    wrong: dict[str, Any],
) -> None:
    plain = PlainRows(project, rack)
    assert plain.model([request(), request()], NOW_US) is not None
    assert plain.model([request(), request(**wrong)], NOW_US) is None


def test_no_requests_and_models_that_are_not_loaded_are_left(
    project: Project,
    rack: ModelRack,
    tmp_path: Path,
) -> None:
    assert PlainRows(project, rack).model([], NOW_US) is None
    assert PlainRows(project, ModelRack(tmp_path, project)).model([request()], NOW_US) is None


def test_a_store_that_fails_is_told_as_ever(
    engine: PredictionEngine,
    features: Features,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "failure", ConfigurationError("raise its version"))
    (found,) = engine.predict(as_rows([request()]), "HTTP")
    assert (found["status"], found["error"], found["feature_views"]) == ("FAILED", "raise its version", [])
    monkeypatch.setattr(features, "failure", UnavailableError("no answer"))
    with pytest.raises(UnavailableError):
        engine.predict(as_rows([request()]), "HTTP")


def counted(status: str) -> float:
    labels = {"model": "fraud", "channel": "HTTP", "status": status}
    return REGISTRY.get_sample_value("driftline_predictions_total", labels) or 0.0


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.mark.parametrize("case", ["some are no numbers", "it fails", "its breaker is open", "all fail"])
def test_where_a_version_fails_the_batch_goes_on_where_it_is(world: World, case: str) -> None:
    asked = [request(customer=f"fresh-{number}") for number in range(5)]
    match case:
        case "some are no numbers":
            world.does["3"] = lambda _, scores: np.where(np.arange(len(scores)) % 2, np.nan, scores)
        case "its breaker is open":
            world.break_down("3")
        case "it fails":
            world.does["3"] = fails
        case _:
            world.does = dict.fromkeys("123", fails)
    before, status = {one: counted(one) for one in ("ANSWERED", "FAILED")}, "ANSWERED"
    if case == "all fail":
        status = "FAILED"
    world.asked.clear()
    rows = world.engine.predict(as_rows(asked), "HTTP")
    assert world.asked == {
        "some are no numbers": ["3", "2"],
        "its breaker is open": ["2"],
        "it fails": ["3", "2"],
        "all fail": ["3", "2", "1"],
    }.get(case)  # each once: what was scored is not scored again
    assert {one: counted(one) - before[one] for one in before} == {
        "ANSWERED": 0.0,
        "FAILED": 0.0,
        status: 5.0,
    }
    columns = world.engine.predict(pa.RecordBatch.from_pylist(asked, schema=world.schema), "HTTP")
    assert same_bytes(world.project, columns, rows)
    assert all(one["error"] for one in rows[1::2])


def test_a_breaker_that_opens_by_a_plain_batch_is_noted(world: World) -> None:
    world.does["3"] = fails
    for _ in range(RULE.least_calls):
        world.engine.predict(as_rows([request()]), "HTTP")
    (incident,) = world.rack.take_incidents()
    assert (incident.version, incident.answered_by) == ("3", "2")


def test_views_of_one_model_stand_side_by_side_whatever_version_reads_them(
    project: Project,
    models: Path,
) -> None:
    fraud = project.models["fraud"]
    turned = replace(fraud, views=tuple(reversed(fraud.views)))
    other = replace(project, models={**project.models, "fraud": turned})
    engines = [PredictionEngine(one, Features(), ModelRack(models, one)) for one in (project, other)]
    asked = [request(customer="fresh-3", merchant="fresh-70", event_time=1)]
    (one,), (two,) = (engine.predict(as_rows(asked), "HTTP") for engine in engines)
    assert one["score"] == two["score"]
    assert one["feature_views"] == two["feature_views"][::-1]
    values = {name: value for name, value in one.items() if "__" in name}
    assert values == {name: two[name] for name in values}
