"""Over the topic each UUID is answered once: in a batch, in later ones, after a kill, and beside HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from driftline.contracts.project_schemas import prediction_request_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame
from driftline.runtime.acknowledged_producer import AcknowledgedProducer
from driftline.runtime.ids import new_id
from driftline.streaming.kafka_sink import KafkaSink
from services.predictor.marks import Marks
from tests.integration.predictor.conftest import Running, Shop
from tests.integration.predictor.test_repeats import claim_key, replayed, running, until_marked


class Crash(BaseException):
    """The process dies here."""


@contextmanager
def dying(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A predictor that is killed after it has noted its first batch, before it commits."""

    def die(*_: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(KafkaSink, "_commit", die)
        patch.setattr(KafkaSink, "_abort", lambda _self, _producer: None)  # a dead process does not abort
        killed = Running(shop.settings, shop.project)
        killed._thread.join(60)
        yield killed
        with pytest.raises(Crash):
            killed.stop()


def counts(log: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    return {request_id: len(records) for request_id, records in log.items()}


def body_of(request: dict[str, Any]) -> dict[str, Any]:
    return {
        "request_id": request["request_id"],
        "event_time": request["event_time"],
        "entities": {"customer": request["customer"], "merchant": request["merchant"]},
        "inputs": {"amount": request["amount"]},
    }


def repeated() -> float:
    return REGISTRY.get_sample_value("driftline_predictions_repeated_total", {"channel": "TOPIC"}) or 0.0


def produce(shop: Shop, request: dict[str, Any], key: str) -> None:
    topic = shop.topics.prediction_requests
    codec = RecordCodec(prediction_request_schema(shop.project))
    shop.producer.produce(topic, frame(shop.ids[topic], codec.encode(request)), key)
    assert shop.producer.flush(20) == 0


def test_in_one_batch_and_across_batches(shop: Shop) -> None:
    requests = [shop.request() for _ in range(30)]
    bad = shop.request(request_id="no uuid")
    before = repeated()
    shop.ask_topic(*requests, *requests[:20], bad, bad)
    with running(shop):
        assert counts(shop.log(32)) == {**{one["request_id"]: 1 for one in requests}, "no uuid": 2}
        later = shop.request()
        shop.ask_topic(*requests, *[{**one, "request_id": one["request_id"].upper()} for one in requests])
        for number in range(8):  # by another key: it comes to lie in another partition
            produce(shop, requests[0], f"key-{number}")
        shop.ask_topic(later)
        shop.log(33)
    with running(shop):  # and after a restart
        shop.ask_topic(*requests, later, newest := shop.request())
        assert counts(shop.log(34))[newest["request_id"]] == 1
    assert repeated() - before == 20 + 30 + 30 + 8 + 31


def test_killed_between_the_note_and_the_commit(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [shop.request() for _ in range(30)]
    shop.ask_topic(*requests, *requests[:10])
    for number in range(8):
        produce(shop, requests[0], f"key-{number}")
    with dying(shop, monkeypatch):
        pass
    assert shop.log(0, seconds=0) == {}
    with dying(shop, monkeypatch):  # once more
        pass
    shop.ask_topic(*requests[20:])
    with running(shop):
        assert counts(shop.log(30)) == {one["request_id"]: 1 for one in requests}


def test_what_failed_is_tried_again(shop: Shop, tmp_path: Path) -> None:
    requests = [shop.request() for _ in range(3)]
    shop.ask_topic(*requests)
    settings = shop.settings.model_copy(update={"models": tmp_path / "none"})
    one = Running(settings, shop.project)
    try:
        shop.log(3)
    finally:
        one.stop()
    with running(shop):
        shop.ask_topic(*requests)
        log = shop.log(6)
        shop.ask_topic(*requests, shop.request())
        shop.log(7)
    for records in log.values():
        assert [record["status"] for record in records] == ["FAILED", "ANSWERED"]


def test_the_topic_first_and_then_http(shop: Shop, payments: list[dict[str, Any]]) -> None:
    shop.feed(payments)
    requests = [shop.request() for _ in range(3)]
    with running(shop) as one:
        shop.ask_topic(*requests)
        log = shop.log(3)
        shop.redis.delete(*shop.redis.keys(f"dl:{{{shop.topics.prefix}.payments*"))
        for request in requests:
            answers = [one.ask(**body_of(request)) for _ in range(2)]
            assert [(a.status_code, replayed(a)) for a in answers] == [(200, True)] * 2, answers[0].text
            assert answers[0].content == answers[1].content
            assert answers[0].json()["score"] == log[request["request_id"]][0]["score"]
        other = one.ask(**{**body_of(requests[0]), "inputs": {"amount": 1}})
        assert (other.status_code, "another amount" in other.text) == (422, True)
    shop.log(4)


def test_http_first_and_then_the_topic(shop: Shop) -> None:
    requests = [shop.request() for _ in range(3)]
    with running(shop) as one:
        for request in requests:
            assert one.ask(**body_of(request)).status_code == 200
        made = one.ask(**{**body_of(requests[0]), "request_id": None}).json()["request_id"]
        until_marked(shop, made)
        shop.ask_topic(*requests, shop.request(request_id=made.upper()), last := shop.request())
        log = shop.log(5)
    assert counts(log) == {**{one["request_id"]: 1 for one in requests}, made: 1, last["request_id"]: 1}
    assert [one["channel"] for (one,) in log.values()].count("HTTP") == 4


def test_http_waits_for_what_the_topic_is_about_to_answer(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = shop.request()
    shop.ask_topic(request)
    with dying(shop, monkeypatch) as killed:  # its HTTP goes on
        answer = killed.ask(**body_of(request))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "over the topic" in answer.json()["detail"]
    with running(shop) as one:
        shop.log(1)
        again = one.ask(**body_of(request))
    assert (again.status_code, replayed(again)) == (200, True)
    shop.log(1)


@pytest.mark.parametrize("reached_the_log", [True, False])
def test_http_was_killed_before_its_mark_and_the_topic_comes(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, reached_the_log: bool
) -> None:
    request = shop.request()
    key = claim_key(shop, request["request_id"])
    with monkeypatch.context() as patch:
        if reached_the_log:
            patch.setattr(Marks, "_write", lambda *_: None)
        else:
            patch.setattr(AcknowledgedProducer, "send_together", lambda *_: None)
        with running(shop) as killed:
            assert killed.ask(**body_of(request)).status_code == (200 if reached_the_log else 503)
    assert shop.redis.get(key).startswith(b"C")
    with running(shop, 1) as one:
        shop.redis.expire(key, 3_660)  # as if claimed in a minute: longer than this takes
        shop.ask_topic(request)
        shop.log(int(reached_the_log))  # the topic waits, for HTTP may be alive
        shop.redis.expire(key, 3_590)
        shop.ask_topic(last := shop.request())
        log = shop.log(2)
        again = one.ask(**body_of(request))
    assert counts(log) == {request["request_id"]: 1, last["request_id"]: 1}
    assert log[request["request_id"]][0]["channel"] == ("HTTP" if reached_the_log else "TOPIC")
    assert (again.status_code, replayed(again)) == (200, True)
    assert again.json()["score"] == log[request["request_id"]][0]["score"]
    shop.log(2)


def test_redis_emptied_makes_them_new(shop: Shop) -> None:
    request = shop.request()
    with running(shop):
        shop.ask_topic(request)
        shop.log(1)
        shop.redis.delete(*shop.redis.keys(f"dl:{{{shop.topics.prefix}.asked}}*"))
        shop.ask_topic(request)
        shop.log(2)
        shop.ask_topic(request, shop.request(request_id=new_id()))
        assert counts(shop.log(3))[request["request_id"]] == 2
