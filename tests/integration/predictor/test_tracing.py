"""Given a request's UUID: the prediction, its features, and the events that made them, from the topics alone."""

import time
import uuid
from typing import Any

import pytest
from confluent_kafka import Producer

from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.wire import frame
from driftline.runtime.errors import RefusedError
from driftline.runtime.ids import new_id
from driftline.serving import predict
from driftline.serving.tracing import Trace, trace_request
from tests.integration.predictor.conftest import NOW_US, Running, Shop


def publish(shop: Shop, payments: list[dict[str, Any]]) -> None:
    """Put payments on their topic, the first of them twice, junk among them, and into the store."""
    config = {"bootstrap.servers": shop.settings.kafka_bootstrap_servers, "partitioner": "murmur2_random"}
    producer, topic = Producer(config), shop.topics.events("payments")
    codec = RecordCodec(dict(shop.project.event_types["payments"].schema))
    for payment in [*payments, payments[0]]:
        producer.produce(topic, frame(shop.ids[topic], codec.encode(payment)), payment["customer"])
    producer.produce(topic, b"junk", b"c1")
    assert producer.flush(20) == 0
    shop.feed(payments)
    time.sleep(0.01)  # record timestamps have milliseconds


def trace(shop: Shop, request_id: str, **options: Any) -> Trace:
    with SchemaRegistry(shop.settings.schema_registry_url) as registry:
        return trace_request(
            shop.project, shop.topics, shop.settings.kafka_config(), registry, request_id, **options
        )


def test_the_events_behind_a_prediction_are_told_and_give_its_values_again(
    shop: Shop, predictor: Running, payments: list[dict[str, Any]]
) -> None:
    publish(shop, payments)
    request = shop.request(customer=payments[0]["customer"], merchant="m1")
    body = {
        "event_time": NOW_US,
        "entities": {"customer": request["customer"], "merchant": "m1"},
        "inputs": {"amount": 5.5},
    }
    answer = predictor.ask(request_id=request["request_id"], **body).json()
    late = {**payments[0], "event_id": new_id(), "paid_at": NOW_US - 1, "amount": 9_999.0}
    publish(shop, [late])  # after the prediction: not part of its story
    told: list[str] = []
    found = trace(shop, request["request_id"].upper(), tell=told.append)
    assert found.prediction["score"] == answer["score"]
    assert (found.prediction["status"], found.prediction["channel"], found.records) == ("ANSWERED", "HTTP", 1)
    customer, merchant = found.views
    mine = [one for one in payments if one["customer"] == request["customer"]]
    theirs = [one for one in payments if one["merchant"] == "m1"]
    assert (customer.view, customer.key, customer.events) == (
        "customer_payments",
        request["customer"],
        len(mine),
    )
    assert (merchant.view, merchant.key, merchant.events) == ("merchant_payments", "m1", len(theirs))
    newest = sorted(mine, key=lambda one: one["paid_at"], reverse=True)[:5]
    assert [one["event_id"] for one in customer.newest] == [one["event_id"] for one in newest]
    for view in found.views:
        assert view.values == answer["features"][view.view]["values"]
        assert view.age_ms == answer["features"][view.view]["age_ms"]
        assert (view.complete, view.recomputed_equal) == (True, True)
    assert found.as_json()["views"][0]["newest"][0]["customer"] == request["customer"]
    assert told


def test_values_that_the_events_do_not_give_are_told(
    shop: Shop, predictor: Running, payments: list[dict[str, Any]]
) -> None:
    publish(shop, payments[:50])
    shop.feed(payments)  # the store knows events that the topic has lost
    answer = predictor.ask(entities={"customer": "c1", "merchant": "m1"}, event_time=NOW_US).json()
    assert [view.recomputed_equal for view in trace(shop, answer["request_id"]).views] == [False, False]


def test_requests_that_were_asked_again_refused_or_never_made(
    shop: Shop, predictor: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    entities = {"customer": "c1", "merchant": "m1"}
    old, new = str(uuid.uuid4()), new_id()
    for request_id in (old, new):
        with monkeypatch.context() as patch:
            patch.setattr(predict, "score_in_turn", None)  # it fails, and is logged as such
            assert predictor.ask(request_id=request_id, entities=entities).status_code == 503
        assert predictor.ask(request_id=request_id, entities=entities).status_code == 200
        found = trace(shop, request_id)
        assert (found.prediction["status"], found.records) == ("ANSWERED", 2)
    refused = predictor.ask(entities={}).json()["request_id"]
    found = trace(shop, refused)
    assert (found.prediction["status"], found.views) == ("REFUSED", [])
    with pytest.raises(RefusedError, match="no request"):
        trace(shop, new_id())
    with pytest.raises(RefusedError, match="no UUID"):
        trace(shop, "seventeen")


def test_a_search_that_hits_its_bound_says_so(
    shop: Shop, predictor: Running, payments: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(shop, payments)
    answer = predictor.ask(entities={"customer": "c1", "merchant": "m1"}, event_time=NOW_US).json()
    monkeypatch.setattr("driftline.serving.event_search._BLOCK", 20)
    whole = trace(shop, answer["request_id"])
    part = trace(shop, answer["request_id"], max_records=30)
    for view, bounded in zip(whole.views, part.views, strict=True):
        assert (view.complete, view.recomputed_equal) == (True, True)
        assert (bounded.complete, bounded.recomputed_equal) == (False, None)
        assert 0 < bounded.events < view.events
