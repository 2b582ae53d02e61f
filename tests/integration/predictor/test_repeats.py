"""The same UUID again gives the same bytes, from whichever process, and the log has it once."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import redis

from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame, split
from driftline.runtime.acknowledged_producer import AcknowledgedProducer
from driftline.runtime.ids import new_id
from driftline.runtime.pipelined_redis import PipelinedRedis
from driftline.serving import predict
from driftline.serving.claims import Claims
from services.predictor.marks import Marks
from tests.integration.predictor.conftest import NOW_US, Running, Shop

GOOD: dict[str, Any] = {
    "entities": {"customer": "c1", "merchant": "m1"},
    "inputs": {"amount": 1.5},
    "event_time": NOW_US,
}
BULK = "/v1/models/fraud/predictions/bulk"
#: Declared like this, a request takes the routes.
BY_THE_ROUTES = {"content-type": "application/json; charset=utf-8"}
Runner = Callable[..., Any]


@contextmanager
def running(shop: Shop, number: int = 0, **changes: Any) -> Iterator[Running]:
    settings = shop.settings.model_copy(update={"instance": f"predictor-{number}", **changes})
    one = Running(settings, shop.project)
    try:
        one.wait_ready()
        yield one
    finally:
        one.stop()


def replayed(answer: httpx.Response) -> bool:
    return answer.headers.get("idempotent-replay") == "true"


def claim_key(shop: Shop, request_id: str) -> str:
    return f"dl:{shop.topics.prefix}:answer:{request_id}"


def test_the_same_bytes_again_by_every_way(
    shop: Shop, predictor: Running, payments: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.feed(payments)
    body = {**GOOD, "request_id": new_id()}
    first = predictor.ask(**body)
    shop.redis.delete(
        *shop.redis.keys(f"dl:{{{shop.topics.prefix}.payments*")
    )  # scored again it would differ
    monkeypatch.setattr(predict, "score_in_turn", None)  # and cannot be
    url = "/v1/models/fraud/predictions"
    again = [
        predictor.ask(**body),
        predictor.http.post(url, json=body, headers=BY_THE_ROUTES),
        predictor.ask(**body, caller="who else"),
    ]
    rows = predictor.http.post(BULK, json=[body, body]).content.splitlines()
    assert first.status_code == 200 and not replayed(first)
    assert [(one.status_code, one.content, replayed(one)) for one in again] == [
        (200, first.content, True)
    ] * 3
    assert rows == [first.content] * 2
    assert [len(records) for records in shop.log(1).values()] == [1]


def test_a_uuid_that_was_made_is_known_once_it_was_told(shop: Shop, predictor: Running) -> None:
    body = {name: value for name, value in GOOD.items() if name != "event_time"}
    first = predictor.ask(**body)
    again = predictor.ask(**body, request_id=first.json()["request_id"])
    assert (again.content, replayed(again)) == (first.content, True)
    shop.log(1)


def test_refusals_of_the_engine_are_answers_and_failures_are_not(
    shop: Shop, predictor: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, failed = ({**GOOD, "request_id": new_id()} for _ in range(2))
    refused["entities"] = {"customer": "c1"}
    answers = [predictor.ask(**refused) for _ in range(2)]
    assert [one.status_code for one in answers] == [422, 422]
    assert answers[0].content == answers[1].content
    assert [replayed(one) for one in answers] == [False, True]
    unknown = [predictor.ask("nobody", request_id=failed["request_id"]) for _ in range(2)]
    assert [(one.status_code, replayed(one)) for one in unknown] == [(404, False), (404, True)]
    failed["request_id"] = new_id()
    with monkeypatch.context() as patch:
        patch.setattr(predict, "score_in_turn", None)
        assert predictor.ask(**failed).status_code == 503
    retried = predictor.ask(**failed)
    assert retried.status_code == 200 and not replayed(retried)
    statuses = [one["status"] for one in shop.log(4)[failed["request_id"]]]
    assert statuses == ["FAILED", "ANSWERED"]


def test_from_another_process_and_after_a_restart(shop: Shop, payments: list[dict[str, Any]]) -> None:
    shop.feed(payments)
    bodies = [{**GOOD, "request_id": new_id()} for _ in range(20)]
    with running(shop) as one:
        firsts = [one.ask(**body) for body in bodies]
        made = one.ask(**GOOD)
        with running(shop, 1) as other:
            elsewhere = [other.ask(**body) for body in bodies]
    shop.redis.delete(*shop.redis.keys(f"dl:{{{shop.topics.prefix}.payments*"))
    with running(shop) as restarted:
        later = [restarted.ask(**body) for body in bodies]
        made_again = restarted.ask(**GOOD, request_id=made.json()["request_id"])
    for first, *others in zip(firsts, elsewhere, later, strict=True):
        assert not replayed(first)
        assert [(one.content, replayed(one)) for one in others] == [(first.content, True)] * 2
    assert (made_again.content, replayed(made_again)) == (made.content, True)
    shop.log(21)


def test_another_body_is_refused_under_a_uuid_of_its_own(shop: Shop, predictor: Running) -> None:
    body = {**GOOD, "request_id": new_id()}
    first = predictor.ask(**body)
    others = [
        ("amount", {**body, "inputs": {"amount": 2}}),
        ("amount", {**body, "inputs": {}}),
        ("merchant", {**body, "entities": {"customer": "c1", "merchant": "m2"}}),
        ("event_time", {**body, "event_time": NOW_US - 1}),
    ]
    for name, other in others:
        told = predictor.ask(**other)
        assert told.status_code == 422 and not replayed(told)
        assert f"was asked before with another {name}" in told.json()["detail"]
        assert told.json()["request_id"] != body["request_id"]
    broken = predictor.ask(**{**body, "inputs": {"amount": "much"}})
    assert (broken.status_code, broken.json()["request_id"] != body["request_id"]) == (422, True)
    assert predictor.ask(**body).content == first.content
    log = shop.log(2 + len(others))
    assert [one["status"] for one in log.pop(body["request_id"])] == ["ANSWERED"]
    assert {one["status"] for (one,) in log.values()} == {"REFUSED"}


def test_at_the_same_moment_one_answer_and_one_record(
    shop: Shop, predictor: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one batch, in batches in flight, in two processes."""
    bodies = [{**GOOD, "request_id": new_id()} for _ in range(40)]
    with running(shop, 1) as other, ThreadPoolExecutor(16) as pool:
        asked = [(one, body) for body in bodies for one in (predictor, other, predictor, other)]
        answers = list(pool.map(lambda pair: pair[0].ask(**pair[1]), asked))
        rows = predictor.http.post(BULK, json=[*bodies, *bodies]).content.splitlines()
    by_id: dict[str, set[bytes]] = {}
    for answer in answers:
        assert answer.status_code == 200, answer.text
        by_id.setdefault(answer.json()["request_id"], set()).add(answer.content)
    assert {len(one) for one in by_id.values()} == {1}
    assert rows == [next(iter(by_id[body["request_id"]])) for body in bodies] * 2
    assert {len(records) for records in shop.log(40).values()} == {1}


def test_a_second_one_waits_for_the_first_ones_record(
    shop: Shop, predictor: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Callable[[], None]] = []
    sent = threading.Event()
    send_together = AcknowledgedProducer.send_together

    def hold(self: AcknowledgedProducer, *arguments: Any) -> None:
        held.append(lambda: send_together(self, *arguments))
        sent.set()

    body = {**GOOD, "request_id": new_id()}
    with ThreadPoolExecutor(4) as pool, running(shop, 1) as other:
        with monkeypatch.context() as patch:
            patch.setattr(AcknowledgedProducer, "send_together", hold)
            first = pool.submit(predictor.ask, **body)
            assert sent.wait(20)
            here, there = pool.submit(predictor.ask, **body), pool.submit(other.ask, **body)
            conflict = pool.submit(predictor.ask, **{**body, "inputs": {"amount": 7}})
            while len(held) < 2:  # the refusal of the other body is sent
                time.sleep(0.002)
            assert not (here.done() or there.done() or first.done())
        for send in held:
            send()
        answers = [one.result() for one in (first, here, there)]
        assert conflict.result().status_code == 422
    assert {one.content for one in answers} == {answers[0].content}
    assert [replayed(one) for one in answers] == [False, True, True]
    shop.log(2)


@pytest.mark.parametrize("reached_the_log", [True, False])
def test_killed_between_the_claim_and_its_mark(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, reached_the_log: bool
) -> None:
    """What a killed process leaves: a claim that is not marked, and perhaps a record. The bits are the claim's."""
    body = {**GOOD, "request_id": new_id()}
    key = claim_key(shop, body["request_id"])
    if reached_the_log:
        with monkeypatch.context() as patch, running(shop) as killed:
            patch.setattr(Marks, "_write", lambda *_: None)
            assert killed.ask(**body).status_code == 200
        shop.log(1)
    else:
        with monkeypatch.context() as patch, running(shop) as killed:
            patch.setattr(AcknowledgedProducer, "send_together", lambda *_: None)
            answer = killed.ask(**body)
            assert answer.status_code == 503
            assert (shop.redis.get(key) or b"").startswith(b"C")
    value = shop.redis.get(key)
    assert value.startswith(b"C")
    codec = RecordCodec(prediction_schema(shop.project))
    schema_id, claimed = split(value[1:])
    shop.redis.expire(key, 3_590)  # ten seconds old: longer than a record may be on its way
    with running(shop, 1) as other:
        again = [other.ask(**body) for _ in range(2)]
    assert [(one.status_code, replayed(one)) for one in again] == [(200, True)] * 2, again[0].text
    assert again[0].content == again[1].content
    assert again[0].json()["score"] == codec.decode(claimed)["score"]
    assert shop.redis.get(key) == b"L" + frame(schema_id, claimed)
    shop.log(1)


def test_a_claim_in_doubt_that_goes_away_leaves_a_new_request(shop: Shop, predictor: Running) -> None:
    """Another process had claimed it, and drops the claim, as its record was never sent."""
    bodies = [{**GOOD, "request_id": new_id()} for _ in range(12)]
    for body in bodies:
        assert predictor.ask(**body).status_code == 200
    for body in bodies[:-1]:
        until_marked(shop, body["request_id"])
        key = claim_key(shop, body["request_id"])
        shop.redis.set(key, b"C" + shop.redis.get(key)[1:], ex=3_600)
    with ThreadPoolExecutor(1) as pool:
        rows = pool.submit(predictor.http.post, BULK, json=bodies)
        time.sleep(0.3)
        assert not rows.done()
        shop.redis.delete(*(claim_key(shop, body["request_id"]) for body in bodies[:-1]))
        lines = rows.result().text.splitlines()
    assert ['"status":"ANSWERED"' in line for line in lines] == [True] * 12
    log = shop.log(12 + 11)
    assert [len(log[body["request_id"]]) for body in bodies] == [2] * 11 + [1]
    assert {record["status"] for records in log.values() for record in records} == {"ANSWERED"}


def test_what_was_never_sent_is_a_new_request(shop: Shop, predictor: Running) -> None:
    body = {**GOOD, "request_id": new_id()}
    predictor.predictor._producer._max_in_flight = 0  # type: ignore[union-attr]
    assert predictor.ask(**body).status_code == 429
    predictor.predictor._producer._max_in_flight = 100  # type: ignore[union-attr]
    again = predictor.ask(**body)
    assert again.status_code == 200
    shop.log(1)


def test_redis_emptied_in_between_makes_it_a_new_request(shop: Shop, predictor: Running) -> None:
    body = {**GOOD, "request_id": new_id()}
    assert predictor.ask(**body).status_code == 200
    until_marked(shop, body["request_id"])
    shop.redis.delete(*shop.redis.keys(f"dl:{shop.topics.prefix}:*"))
    again = predictor.ask(**body)
    assert again.status_code == 200 and not replayed(again)
    assert predictor.ask(**body).content == again.content
    assert [len(records) for records in shop.log(2).values()] == [2]


def test_switched_off_each_time_is_a_new_one(shop: Shop) -> None:
    body = {**GOOD, "request_id": new_id()}
    with running(shop, answer_seconds=0) as one:
        answers = [one.ask(**body) for _ in range(2)]
    assert [(one.status_code, replayed(one)) for one in answers] == [(200, False)] * 2
    shop.log(2)
    assert not shop.redis.keys(f"dl:{shop.topics.prefix}:*")


def test_when_claims_cannot_be_made_nobody_is_answered(
    shop: Shop, each_way: bool, predictor: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = PipelinedRedis.ask

    def gone(*_: Any) -> None:
        raise redis.ConnectionError

    def without_scripts(self: PipelinedRedis, parts: Any, tell: Any, **options: Any) -> None:
        if parts[0] == "MGET":
            ask(self, parts, tell, **options)
        else:
            tell(redis.ConnectionError())

    body = {**GOOD, "request_id": new_id()}
    with monkeypatch.context() as patch:
        patch.setattr(Claims, "_claim", gone)
        patch.setattr(PipelinedRedis, "ask", without_scripts)
        answer = predictor.ask(**body)
    assert (answer.status_code, "Redis" in answer.json()["detail"]) == (503, True)
    assert predictor.ask(**body).status_code == 200
    assert [[one["status"] for one in records] for records in shop.log(2).values()] == [
        ["FAILED", "ANSWERED"]
    ]


def until_marked(shop: Shop, request_id: str) -> None:
    while not (shop.redis.get(claim_key(shop, request_id)) or b"").startswith(b"L"):
        time.sleep(0.002)
