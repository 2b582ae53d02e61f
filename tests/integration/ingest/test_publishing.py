from typing import Any
from uuid import UUID, uuid4

import httpx

from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import split
from driftline.features.keys import partition_of

from .conftest import Shop, read_all


def payment(**changes: Any) -> dict[str, Any]:
    event = {
        "event_id": str(uuid4()),
        "paid_at": "2013-04-01T12:30:00Z",
        "customer": "ann",
        "amount": 12.5,
        "kind": "CARD",
    }
    return {**event, **changes}


def test_an_accepted_event_is_on_the_topic_in_the_wire_format(ingest: httpx.Client, shop: Shop) -> None:
    event = payment(lines=3)
    answer = ingest.post("/v1/events/payments", json=event)
    assert answer.status_code == 202
    (result,) = answer.json()["results"]
    assert result["event_id"] == event["event_id"]
    assert result["status"] == "accepted"
    assert result["partition"] == partition_of("ann", 2)
    ((key, value),) = read_all(shop.settings.kafka_bootstrap_servers, shop.topics.events("payments"))
    assert key == b"ann"
    record = RecordCodec(shop.project.event_types["payments"].schema).decode(split(value)[1])
    assert RecordCodec.to_json(record) == {**event, "tags": []}


def test_an_event_without_id_gets_one(ingest: httpx.Client) -> None:
    event = payment()
    del event["event_id"]
    (result,) = ingest.post("/v1/events/payments", json=event).json()["results"]
    assert UUID(result["event_id"]).version == 7


def test_a_wrong_event_does_not_keep_its_neighbours(ingest: httpx.Client, shop: Shop) -> None:
    events: list[Any] = [
        payment(),
        payment(amount="much"),
        payment(customer=None),
        payment(customer=""),
        payment(surprise=1),
        payment(event_id="no uuid"),
        payment(paid_at="2913-01-01T00:00:00Z"),
        payment(paid_at="2013-01-01T00:00:00"),
        payment(kind="BARTER"),
        payment(tags=["a", 1]),
        payment(lines=2**31),
        17,
        payment(),
    ]
    answer = ingest.post("/v1/events/payments", json=events).json()
    assert (answer["accepted"], answer["rejected"]) == (2, 11)
    results = answer["results"]
    assert [result["status"] == "accepted" for result in results] == [True, *[False] * 11, True]
    for result, field in zip(
        results[1:11],
        [
            "amount",
            "customer",
            "customer",
            "surprise",
            "event_id",
            "paid_at",
            "paid_at",
            "kind",
            "tags[1]",
            "lines",
        ],
        strict=True,
    ):
        assert result["error"].startswith(field + ":"), result
    assert len(read_all(shop.settings.kafka_bootstrap_servers, shop.topics.events("payments"))) == 2


def test_422_where_no_event_is_accepted(ingest: httpx.Client) -> None:
    answer = ingest.post("/v1/events/payments", json=[payment(amount=None), payment(amount=True)])
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [result["status"] for result in answer.json()["results"]] == ["rejected", "rejected"]
    assert "amount" in answer.json()["detail"]


def test_an_unknown_type_is_404_and_lists_the_known_ones(ingest: httpx.Client) -> None:
    for answer in (ingest.post("/v1/events/refunds", json={}), ingest.get("/v1/events/refunds")):
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:driftline:problem:unknown-event-type"
        assert "payments" in answer.json()["detail"]


def test_bodies_that_are_refused(ingest: httpx.Client) -> None:
    deep = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
    wide = payment(tags=["x" * 1000] * 2000)
    for body, status in [
        (b"", 400),
        (b"{", 400),
        (b'{"amount": NaN}', 400),
        (b'{"customer": "\\ud800"}', 400),
        (b"\xff\xfe", 400),
        (b"[]", 422),
        (b"null", 422),
        (b'"text"', 422),
        (deep, 400),
        (b"x" * 100_000_000, 413),
    ]:
        answer = ingest.post(
            "/v1/events/payments", content=body, headers={"content-type": "application/json"}
        )
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert ingest.post("/v1/events/payments", json=wide).status_code == 422
    assert ingest.post("/v1/events/payments", json=[payment()] * 1001).status_code == 413
    assert (
        ingest.post("/v1/events/payments", content=b"a=1", headers={"content-type": "text/csv"}).status_code
        == 415
    )
    assert ingest.get("/readyz").status_code == 200


def test_the_event_types_are_listed_with_schema_and_a_valid_example(ingest: httpx.Client) -> None:
    (shown,) = ingest.get("/v1/events").json()["event_types"]
    assert shown == ingest.get("/v1/events/payments").json()
    assert shown["name"] == "payments"
    assert shown["key"] == "customer"
    assert shown["avro_schema"]["name"] == "Payment"
    assert "event_id" not in shown["json_schema"]["required"]
    assert ingest.post("/v1/events/payments", json=shown["example"]).status_code == 202


def test_a_thousand_events_in_one_list(ingest: httpx.Client, shop: Shop) -> None:
    events = [payment(customer=f"c{number}") for number in range(1000)]
    answer = ingest.post("/v1/events/payments", json=events)
    assert answer.json()["accepted"] == 1000
    found = read_all(shop.settings.kafka_bootstrap_servers, shop.topics.events("payments"))
    assert sorted(key or b"" for key, _ in found) == sorted(event["customer"].encode() for event in events)


def test_metrics_count_events_and_time_routes(ingest: httpx.Client) -> None:
    ingest.post("/v1/events/payments", json=[payment(), payment(amount="x")])
    text = ingest.get("/metrics").text
    assert 'driftline_events_accepted_total{event_type="payments"}' in text
    assert 'driftline_http_seconds_count{method="POST",route="/v1/events/payments",status="202"}' in text
