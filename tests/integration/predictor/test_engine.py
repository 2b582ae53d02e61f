"""One row of request, one row of prediction: whatever its neighbours are, and however many."""

from typing import Any

import pyarrow as pa
import pytest

from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.project_schemas import prediction_request_schema
from driftline.features.online import OnlineStore
from driftline.serving.predict import PredictionEngine
from driftline.serving.rack import ModelRack
from tests.integration.predictor.conftest import NOW_US, Shop

DAY_US = 86_400_000_000
#: Of a prediction, what tells when and how fast it was made.
_OF_THE_RUN = {"predicted_at", "duration_us"}


@pytest.fixture
def engine(shop: Shop) -> PredictionEngine:
    store = OnlineStore(
        shop.redis, prefix=shop.topics.prefix, project=shop.project, partitions={"payments": 3}
    )
    return PredictionEngine(shop.project, store, ModelRack(shop.settings.models, shop.project))


def predict(shop: Shop, engine: PredictionEngine, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    schema = arrow_schema(prediction_request_schema(shop.project))
    table = engine.predict(pa.RecordBatch.from_pylist(requests, schema=schema), "TOPIC")
    found: list[dict[str, Any]] = table.to_pylist()
    assert [one["request_id"] for one in found] == [one["request_id"] for one in requests]
    return found


def test_a_bad_row_is_refused_and_its_neighbours_are_answered(shop: Shop, engine: PredictionEngine) -> None:
    bad: list[tuple[str, dict[str, Any]]] = [
        ("no model is named 'nobody'", {"model": "nobody"}),
        ("no model is named 'fraud\\x00'", {"model": "fraud\0"}),
        ("entity 'merchant' is missing", {"merchant": None}),
        ("request_id is no UUID", {"request_id": "not-a-uuid"}),
        ("event_time lies", {"event_time": 4_000_000_000_000_000}),
        ("event_time lies before 1970", {"event_time": -1}),
        ("is not finite", {"amount": float("inf")}),
    ]
    requests = [one for _, changes in bad for one in (shop.request(), shop.request(**changes))]
    found = predict(shop, engine, [*requests, shop.request()])
    assert [one["status"] for one in found] == ["ANSWERED", "REFUSED"] * len(bad) + ["ANSWERED"]
    for (reason, _), one in zip(bad, found[1::2], strict=True):
        assert reason in one["error"]
        assert (one["score"], one["decision"]) == (None, None)
    assert len({one["score"].hex() for one in found[::2]}) == 1


def test_a_rows_score_has_the_same_bits_alone_and_among_a_thousand(
    shop: Shop, engine: PredictionEngine, payments: list[dict[str, Any]]
) -> None:
    shop.feed(payments)
    requests = [
        shop.request(
            customer=f"c{number % 11}",
            merchant=f"m{number % 5}",
            amount=None if number % 9 == 0 else number * 0.37,
            event_time=NOW_US - (number % 3) * 600_000_000,
        )
        for number in range(1_000)
    ]
    together = predict(shop, engine, requests)
    assert {one["status"] for one in together} == {"ANSWERED"}
    assert len({one["score"] for one in together}) > 5
    for number in range(0, 1_000, 41):
        (alone,) = predict(shop, engine, [requests[number]])
        assert alone["score"].hex() == together[number]["score"].hex()
        assert {name for name in alone if alone[name] != together[number][name]} <= _OF_THE_RUN


def test_a_batch_without_a_good_row(shop: Shop, engine: PredictionEngine) -> None:
    assert predict(shop, engine, []) == []
    found = predict(shop, engine, [shop.request(model="x"), shop.request(request_id="")])
    assert [one["status"] for one in found] == ["REFUSED", "REFUSED"]
