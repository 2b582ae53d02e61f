"""Given a batch of requests and what the store says, each row has its prediction: status, reason, score, features."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftline.contracts.batch_codec import BatchEncoder
from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame
from driftline.features import Entity, FeatureView, Source
from driftline.features.read import FRESH, MISSING, STALE, ViewValues
from driftline.models.scoring import Scorer
from driftline.project import Project
from driftline.runtime.clock import ManualClock
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.runtime.ids import new_id
from driftline.serving.predict import PredictionEngine
from driftline.serving.rack import ModelRack
from driftline.serving.rows import RequestRows

SHOP = Path(__file__).parents[2] / "e2e" / "shop"
NOW_US = 1_750_000_000_000_000
Rows = list[dict[str, Any]]


class Features:
    """A store whose entities are named after their state: ``fresh-17``, ``stale-3``, anything else is unknown."""

    failure: Exception | None = None

    def read(
        self,
        requests: Sequence[tuple[FeatureView, Sequence[str | None] | pa.StringArray]],
        as_of_us: NDArray[np.int64],
    ) -> list[ViewValues]:
        if self.failure is not None:
            raise self.failure
        return [self._view(view, pa.array(entities, pa.string()).to_pylist()) for view, entities in requests]

    @staticmethod
    def _view(view: FeatureView, entities: Sequence[str | None]) -> ViewValues:
        known = [entity.partition("-")[0] in {"fresh", "stale"} if entity else False for entity in entities]
        stale = [entity.startswith("stale") if entity else False for entity in entities]
        number = [
            int(entity.partition("-")[2]) if entity and good else 0
            for entity, good in zip(entities, known, strict=True)
        ]
        values = np.array(number, float)[:, None] + np.arange(len(view.features)) * 10.0
        values[~np.array(known, bool)] = np.nan
        return ViewValues(
            values=values,
            age_us=np.where(known, np.where(stale, 7_200_000_000, 1_500), -1).astype(np.int64),
            status=np.where(known, np.where(stale, STALE, FRESH), MISSING).astype(np.uint8),
        )


def request(**changes: Any) -> dict[str, Any]:
    good = {
        "request_id": new_id(),
        "model": "fraud",
        "requested_at": NOW_US,
        "event_time": NOW_US,
        "caller": None,
        "customer": "fresh-40",
        "merchant": "fresh-50",
        "amount": 12.5,
        "order_id": None,
    }
    return {**good, **changes}


def predict(engine: PredictionEngine, schema: pa.Schema, *asked: dict[str, Any]) -> Rows:
    found: Rows = engine.predict(pa.RecordBatch.from_pylist(list(asked), schema=schema), "BATCH").to_pylist()
    assert [one["request_id"] for one in found] == [one["request_id"] for one in asked]
    return found


def test_a_prediction_tells_what_the_model_saw(engine: PredictionEngine, requests: pa.Schema) -> None:
    (found,) = predict(engine, requests, request(merchant="unknown", caller="till 3"))
    assert (found["status"], found["channel"], found["error"], found["model_version"]) == (
        "ANSWERED",
        "BATCH",
        None,
        "1",
    )
    assert found["decision"] == ("review" if found["score"] >= 0.5 else "accept")
    assert (found["caller"], found["customer"], found["amount"]) == ("till 3", "fresh-40", 12.5)
    assert found["feature_views"] == ["customer_payments@1", "merchant_payments@1"]
    assert (found["customer_payments__count_1h"], found["customer_payments__sum_amount_1h"]) == (40, 50)
    assert (found["customer_payments__age_ms"], found["merchant_payments__age_ms"]) == (1, None)
    assert found["merchant_payments__count_10m"] is None


class Pairs(Features):
    """A store that notes the keys that it is asked for, and answers for their first part."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def read(
        self,
        requests: Sequence[tuple[FeatureView, Sequence[str | None] | pa.StringArray]],
        as_of_us: NDArray[np.int64],
    ) -> list[ViewValues]:
        keys = [pa.array(entities, pa.string()).to_pylist() for _, entities in requests]
        self.asked = keys
        firsts = [[key.split(",")[0] for key in column] for column in keys]
        return super().read(
            [(view, column) for (view, _), column in zip(requests, firsts, strict=True)], as_of_us
        )


def test_a_composite_entity_is_read_by_all_that_the_request_names(
    project: Project, models: Path, requests: pa.Schema
) -> None:
    pair = Entity("pair", keys=("customer", "merchant"))
    fraud = project.models["fraud"]
    of_customer, of_merchant = fraud.views
    of_pair = replace(of_customer, source=Source("payments", pair, "paid_at"))
    fraud = replace(fraud, entities=(pair, of_merchant.entity), views=(of_pair, of_merchant))
    composite = replace(project, models={"fraud": fraud}, views={**project.views, of_pair.name: of_pair})
    assert composite.request_entities == project.request_entities
    store = Pairs()
    engine = PredictionEngine(composite, store, ModelRack(models, composite), ManualClock(NOW_US))

    found, nameless = predict(
        engine, requests, request(merchant="fresh-50,~"), request(customer=None, merchant="fresh-1")
    )

    assert store.asked == [["fresh-40,fresh-50~1~0"], ["fresh-50,~"]]
    assert (found["status"], found["customer_payments__count_1h"]) == ("ANSWERED", 40)
    assert (nameless["status"], nameless["error"]) == ("REFUSED", "entity 'customer' is missing")


def test_a_stale_view_that_refuses_is_a_refusal_that_shows_the_features(
    engine: PredictionEngine, requests: pa.Schema
) -> None:
    stale, fine, other = predict(
        engine, requests, request(merchant="stale-5"), request(), request(customer="stale-5")
    )
    assert (stale["status"], stale["score"], stale["decision"]) == ("REFUSED", None, None)
    assert stale["error"] == "feature view merchant_payments@1 is stale (older than 1h)"
    assert stale["merchant_payments__age_ms"] == 7_200_000
    assert stale["feature_views"] == ["customer_payments@1", "merchant_payments@1"]
    assert (fine["status"], other["status"]) == ("ANSWERED", "ANSWERED")


def test_a_model_that_fails_fails_its_own_rows(
    engine: PredictionEngine, requests: pa.Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Scorer.score

    def fail(self: Scorer, numeric: Any, categorical: Any) -> Any:
        if self.manifest.model == "abuse":
            raise RuntimeError("out of beans")
        return score(self, numeric, categorical)

    monkeypatch.setattr(Scorer, "score", fail)
    found = predict(engine, requests, request(), request(model="abuse"), request(model="nothing"))
    assert [one["status"] for one in found] == ["ANSWERED", "FAILED", "REFUSED"]
    assert found[1]["error"] == "abuse@1 failed: out of beans"
    assert found[1]["customer_payments__count_1h"] == 40
    assert (found[1]["feature_views"], found[2]["feature_views"]) == (found[0]["feature_views"], [])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_a_failure(
    engine: PredictionEngine, requests: pa.Schema, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    monkeypatch.setattr(Scorer, "score", lambda *_: np.array([0.7, wrong, 0.2]))
    found = predict(engine, requests, request(), request(), request())
    assert [(one["status"], one["score"], one["decision"]) for one in found] == [
        ("ANSWERED", 0.7, "review"),
        ("FAILED", None, None),
        ("ANSWERED", 0.2, "accept"),
    ]


def test_a_store_that_holds_other_features_fails_and_one_that_is_away_is_told(
    engine: PredictionEngine, requests: pa.Schema, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "failure", ConfigurationError("raise its version"))
    (found,) = predict(engine, requests, request())
    assert (found["status"], found["error"], found["feature_views"]) == ("FAILED", "raise its version", [])
    monkeypatch.setattr(features, "failure", UnavailableError("no answer"))
    with pytest.raises(UnavailableError):
        predict(engine, requests, request())
    assert predict(engine, requests, request(model="nothing"))[0]["status"] == "REFUSED"


def test_a_model_without_an_active_version_fails(
    project: Project, requests: pa.Schema, tmp_path: Path
) -> None:
    engine = PredictionEngine(project, Features(), ModelRack(tmp_path, project), ManualClock(NOW_US))
    found = predict(engine, requests, request(), request(customer=None))
    assert [one["status"] for one in found] == ["FAILED", "REFUSED"]
    assert "driftline train" in found[0]["error"]


_ENTITIES = st.sampled_from(["fresh-10", "fresh-90", "stale-20", "nobody", "", "\x00", "ß", None])
_REQUESTS = st.builds(
    request,
    request_id=st.uuids().map(str) | st.just("none"),
    model=st.sampled_from(["fraud", "abuse", "fraud\x00", "\x00", ""]),
    event_time=st.sampled_from([NOW_US, 0, -1, NOW_US + 86_400_000_000, NOW_US + 86_400_000_001]),
    customer=_ENTITIES,
    merchant=_ENTITIES,
    amount=st.none() | st.floats(),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_REQUESTS, max_size=25))
def test_neighbours_change_nothing(engine: PredictionEngine, requests: pa.Schema, asked: Rows) -> None:
    together = predict(engine, requests, *asked)
    for one, among in zip(asked, together, strict=True):
        (alone,) = predict(engine, requests, one)
        # duration_us tells of the batch; NaN inputs are passed on and equal nothing
        assert repr({**alone, "duration_us": 0}) == repr({**among, "duration_us": 0})
        assert (among["score"] is not None) == (among["status"] == "ANSWERED") == (among["error"] is None)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_REQUESTS, max_size=25), st.sampled_from([None, UnavailableError("no answer")]))
def test_rows_and_columns_give_the_same_bytes_in_the_log(
    engine: PredictionEngine, project: Project, requests: pa.Schema, asked: Rows, failure: Exception | None
) -> None:
    schema = prediction_schema(project)
    columns = pa.RecordBatch.from_pylist(asked, schema=requests)
    rows = RequestRows(asked, frozenset({"amount"}))
    if failure is not None:
        as_columns, as_rows = (engine.failed(one, "HTTP", str(failure)) for one in (columns, rows))
    else:
        as_columns, as_rows = engine.predict(columns, "HTTP"), engine.predict(rows, "HTTP")
        took = as_columns.column("duration_us").to_pylist()
        as_rows = [{**one, "duration_us": us} for one, us in zip(as_rows, took, strict=True)]
    codec = RecordCodec(schema)
    assert BatchEncoder(schema, 7).encode(as_columns) == [frame(7, codec.encode(one)) for one in as_rows]
