"""Given requests over HTTP and over the topic: the same scores, and each of them in the log."""

import struct
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from driftline.runtime.ids import new_id
from tests.integration.predictor.conftest import NOW_US, Running, Shop

_NOW = datetime.fromtimestamp(NOW_US / 1e6, UTC)


def bits(number: float) -> bytes:
    return struct.pack("<d", number)


def ask_like(predictor: Running, request: dict[str, Any]) -> dict[str, Any]:
    """Ask over HTTP what the topic is asked."""
    answer = predictor.ask(
        request_id=request["request_id"],
        event_time=request["event_time"],
        entities={"customer": request["customer"], "merchant": request["merchant"]},
        inputs={"amount": request["amount"]},
        caller=request["caller"],
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_topic_and_http_give_the_same_bits_and_the_log_has_both(
    shop: Shop, predictor: Running, payments: list[dict[str, Any]]
) -> None:
    shop.feed(payments)
    requests = [
        shop.request(customer=f"c{number % 10}", merchant=f"m{number % 5}", amount=number * 1.1)
        for number in range(40)
    ]
    shop.ask_topic(*requests)
    answers = [ask_like(predictor, {**request, "request_id": new_id()}) for request in requests]
    log = shop.log(80)
    scores = set()
    for request, answer in zip(requests, answers, strict=True):
        (topic,), (http,) = log[request["request_id"]], log[answer["request_id"]]
        assert (topic["channel"], http["channel"]) == ("TOPIC", "HTTP")
        assert bits(topic["score"]) == bits(http["score"]) == bits(answer["score"])
        scores.add(topic["score"])
        own = {"request_id", "channel", "requested_at", "predicted_at", "duration_us"}
        assert {k: v for k, v in topic.items() if k not in own} == {
            k: v for k, v in http.items() if k not in own
        }
        assert topic["status"] == "ANSWERED"
        assert topic["decision"] == answer["decision"] == ("review" if answer["score"] >= 0.5 else "accept")
        assert topic["feature_views"] == ["customer_payments@1", "merchant_payments@1"]
        assert topic["model_version"] == answer["version"] == "1"
    assert len(scores) > 3  # the rows differ, so the equality above says something


def test_the_answer_tells_features_with_version_age_and_status(
    shop: Shop, predictor: Running, payments: list[dict[str, Any]]
) -> None:
    shop.feed(payments)
    answer = ask_like(predictor, shop.request(customer="c1", merchant="new"))
    customer, merchant = answer["features"]["customer_payments"], answer["features"]["merchant_payments"]
    newest = max(one["paid_at"] for one in payments if one["customer"] == "c1")
    assert customer["version"] == 1
    assert customer["status"] == "fresh"
    assert customer["age_ms"] == (NOW_US - newest) // 1000
    of_last_hour = [p for p in payments if p["customer"] == "c1" and p["paid_at"] > NOW_US - 3_600_000_000]
    assert abs(customer["values"]["count_1h"] - len(of_last_hour)) <= 2  # a window's edge is a tile wide
    assert merchant == {
        "version": 1,
        "age_ms": None,
        "status": "missing",
        "values": {
            "count_10m": 0.0,
            "rate_refunded_1d": None,
            "min_amount_1d": None,
            "max_amount_1d": None,
        },
    }
    assert answer["event_time"] == _NOW.isoformat().replace("+00:00", "Z")


def test_the_batch_in_which_a_request_falls_changes_no_bit(
    shop: Shop, predictor: Running, payments: list[dict[str, Any]]
) -> None:
    shop.feed(payments)
    requests = [shop.request(customer=f"c{n % 9}", merchant=f"m{n % 5}", amount=n / 7) for n in range(60)]

    def ask(request: dict[str, Any]) -> float:
        score: float = ask_like(predictor, {**request, "request_id": new_id()})["score"]
        return score

    alone = [ask(request) for request in requests]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(ask, requests))
    shop.ask_topic(*requests)
    log = shop.log(180)
    streamed = [log[request["request_id"]][0]["score"] for request in requests]
    assert [bits(one) for one in alone] == [bits(one) for one in together] == [bits(one) for one in streamed]


def test_refusals_are_answered_clearly_and_logged(shop: Shop, predictor: Running) -> None:
    good = {"entities": {"customer": "c1", "merchant": "m1"}, "inputs": {"amount": 1.5}}
    cases: list[tuple[int, str, str, Any]] = [
        (404, "frod", "no model is named 'frod'; known are: fraud", good),
        (422, "fraud", "entity 'merchant' is missing", {"entities": {"customer": "c1"}}),
        (422, "fraud", "more than a day ahead", {**good, "event_time": "2999-01-01T00:00:00Z"}),
        (422, "fraud", "event_time: give the offset too", {**good, "event_time": "2025-01-01T00:00:00"}),
        (422, "fraud", "inputs.amount: a finite number is wanted", {**good, "inputs": {"amount": "much"}}),
        (
            422,
            "fraud",
            "inputs.amont: fraud takes no such name; known are amount",
            {**good, "inputs": {"amont": 1}},
        ),
        (
            422,
            "fraud",
            "entities.customer: a text is wanted",
            {**good, "entities": {"customer": 7, "merchant": "m"}},
        ),
        (422, "fraud", "request_id: '17' is no UUID", {**good, "request_id": "17"}),
        (422, "fraud", "inptus: no such field", {**good, "inptus": {}}),
        (422, "fraud", "body: an object is wanted", [good]),
    ]
    told = []
    for status, model, words, body in cases:
        answer = predictor.http.post(f"/v1/models/{model}/predictions", json=body)
        assert (answer.status_code, words in answer.text) == (status, True), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        told.append(answer.json()["request_id"])
    unreadable = predictor.http.post("/v1/models/fraud/predictions", content=b'{"entities": NaN}')
    assert unreadable.status_code == 400
    told.append(unreadable.json()["request_id"])
    log = shop.log(len(told))
    for request_id in told:
        (record,) = log[request_id]
        assert (record["status"], record["score"]) == ("REFUSED", None)
        assert record["error"]
    assert log[told[0]][0]["model"] == "frod"


def test_wrong_requests_on_the_topic_are_refused_in_the_log_and_unreadable_ones_are_dead_letters(
    shop: Shop, predictor: Running
) -> None:
    good, absent = shop.request(), shop.request(customer=None)
    unknown, early, endless = (
        shop.request(model="?"),
        shop.request(event_time=-1),
        shop.request(amount=float("inf")),
    )
    nameless = shop.request(request_id="seventeen")
    shop.ask_topic(
        b"junk", absent, unknown, early, None, nameless, endless, good, b"\x00\x00\x00\x00\x63body"
    )
    log = shop.log(6)
    assert {key: (one["status"], one["error"]) for key, (one,) in log.items()} == {
        good["request_id"]: ("ANSWERED", None),
        absent["request_id"]: ("REFUSED", "entity 'customer' is missing"),
        unknown["request_id"]: ("REFUSED", "no model is named '?'; known are: fraud"),
        early["request_id"]: ("REFUSED", "event_time lies before 1970 or more than a day ahead"),
        endless["request_id"]: ("REFUSED", "input 'amount' is not finite"),
        "seventeen": ("REFUSED", "request_id is no UUID"),
    }
    letters = shop.read(shop.topics.dead_letters, 1, 3)
    assert sorted(letter.value() or b"" for letter in letters) == [b"", b"\x00\x00\x00\x00\x63body", b"junk"]


def test_features_and_models_can_be_read(
    shop: Shop, predictor: Running, payments: list[dict[str, Any]]
) -> None:
    shop.feed(payments)
    found = predictor.http.get("/v1/features/customer_payments/c1", params={"as_of": _NOW.isoformat()}).json()
    served = ask_like(predictor, shop.request(customer="c1"))["features"]["customer_payments"]
    assert {key: found[key] for key in served} == served
    assert found["as_of"] == _NOW.isoformat().replace("+00:00", "Z")
    unknown = predictor.http.get("/v1/features/customer_payments/nobody").json()
    assert (unknown["status"], unknown["age_ms"]) == ("missing", None)
    assert predictor.http.get("/v1/features/nothing/c1").status_code == 404
    assert (
        predictor.http.get("/v1/features/customer_payments/c1", params={"as_of": "soon"}).status_code == 422
    )
    assert (
        predictor.http.get(
            "/v1/features/customer_payments/c1", params={"as_of": "9999-12-31T23:59:59-05:00"}
        ).status_code
        == 422
    )
    (model,) = predictor.http.get("/v1/models").json()["models"]
    assert (model["name"], model["version"], model["problem"]) == ("fraud", "1", None)
    assert model["inputs"] == {"amount": "double", "order_id": "string"}
