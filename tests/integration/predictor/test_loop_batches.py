"""Plain requests are predicted on the event loop, all others on the worker's thread; both give the same answers."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from driftline.models.scoring import Scorer
from driftline.runtime.acknowledged_producer import AcknowledgedProducer
from driftline.runtime.ids import new_id
from driftline.runtime.pipelined_redis import PipelinedRedis
from services.predictor import loop_batches
from tests.integration.predictor.conftest import NOW_US, Running, Shop

GOOD: dict[str, Any] = {
    "entities": {"customer": "c1", "merchant": "m1"},
    "inputs": {"amount": 1.5},
    "event_time": NOW_US,
}


class Places:
    """Where the model was asked, by the name of the thread, and with how many rows. May make it slow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.rows: list[int] = []
        self.seconds = 0.0
        score = Scorer.score

        def seen(scorer: Scorer, numeric: Any, categorical: Any) -> Any:
            self.names.append("worker" if threading.current_thread().name == "predictions" else "loop")
            self.rows.append(len(numeric))
            time.sleep(self.seconds)
            return score(scorer, numeric, categorical)

        monkeypatch.setattr(Scorer, "score", seen)
        monkeypatch.setattr(loop_batches, "_SLOW_SECONDS", 60.0)  # else a busy machine is a slow model

    def take(self) -> Counter[str]:
        """Return how often it was asked where, since the last time."""
        names, self.names = self.names, []
        return Counter(names)


@pytest.fixture
def places(predictor: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    del predictor  # its warm-up is over
    return Places(monkeypatch)


def test_both_ways_give_the_same_answers(
    shop: Shop, predictor: Running, payments: list[dict[str, Any]], places: Places
) -> None:
    shop.feed(payments)
    bodies = [
        {
            "request_id": new_id(),
            "entities": {"customer": f"c{number % 9}", "merchant": f"m{number % 5}"},
            "inputs": {"amount": number * 1.25},
            "event_time": NOW_US + number,
        }
        for number in range(40)
    ]
    with ThreadPoolExecutor(8) as pool:
        on_loop = list(pool.map(lambda body: predictor.ask(**body).json(), bodies))
    assert set(places.take()) == {"loop"}
    settings = shop.settings.model_copy(update={"instance": "predictor-1", "answer_seconds": 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PipelinedRedis, "takes", lambda _url: False)
        other = Running(settings, shop.project)
        try:
            other.wait_ready()
            places.take()  # its warm-up
            by_worker = [other.ask(**body).json() for body in bodies]
        finally:
            other.stop()
    assert set(places.take()) == {"worker"}
    assert on_loop == by_worker
    assert len({one["score"] for one in on_loop}) > 10


def test_what_comes_together_is_one_batch(shop: Shop, predictor: Running, places: Places) -> None:
    rows = [{"entities": {"customer": "c1", "merchant": f"m{number}"}} for number in range(150)]
    body = "\n".join(map(json.dumps, rows))
    answer = predictor.http.post(
        "/v1/models/fraud/predictions/bulk", content=body, headers={"content-type": "application/x-ndjson"}
    )
    assert answer.text.count('"ANSWERED"') == 150
    assert max(places.rows) == shop.settings.max_http_batch == 64


def test_who_was_asked_before_is_answered_from_before(predictor: Running, places: Places) -> None:
    body = {**GOOD, "request_id": new_id()}
    first = predictor.ask(**body)
    assert places.take() == {"loop": 1}
    with ThreadPoolExecutor(6) as pool:
        again = list(pool.map(lambda _: predictor.ask(**body).content, range(6)))
    assert set(again) == {first.content}
    assert not places.take()


@pytest.mark.parametrize(("away_seconds", "asked"), [(600.0, {"loop": 1, "worker": 4}), (0.001, {"loop": 5})])
def test_a_slow_model_holds_up_one_batch_and_then_none_for_a_while(
    predictor: Running,
    places: Places,
    monkeypatch: pytest.MonkeyPatch,
    away_seconds: float,
    asked: dict[str, int],
) -> None:
    monkeypatch.setattr(loop_batches, "_SLOW_SECONDS", 0.02)
    monkeypatch.setattr(loop_batches, "_AWAY_SECONDS", away_seconds)
    places.seconds = 0.05
    for _ in range(5):
        assert predictor.ask(**GOOD).status_code == 200
        time.sleep(0.01)
    assert places.take() == asked


def test_a_cut_connection_to_redis_costs_nobody_an_answer(
    shop: Shop, predictor: Running, places: Places
) -> None:
    statuses: Counter[int] = Counter()
    with ThreadPoolExecutor(4) as pool:
        for turn in range(20):  # in each it is cut once, for who is cut off twice is told
            asked = [
                pool.submit(predictor.ask, **GOOD, request_id=new_id() if number % 2 else None)
                for number in range(20)
            ]
            time.sleep(0.002 * (turn % 10))
            shop.redis.client_kill_filter(_type="normal", skipme=True)
            statuses.update(one.result().status_code for one in asked)
    assert statuses == {200: 400}
    assert places.take()["loop"] > 0


def test_a_caller_that_waits_no_more_is_logged_as_failed(
    shop: Shop, predictor: Running, places: Places
) -> None:
    places.seconds = 0.2
    asked = predictor.http.post(
        "/v1/models/fraud/predictions", json=GOOD, headers={"x-request-timeout-ms": "50"}
    )
    assert asked.status_code == 503
    places.seconds = 0.0
    (records,) = shop.log(1).values()
    assert [one["status"] for one in records] == ["FAILED"]
    assert "50 ms" in records[0]["error"]


def test_a_fault_while_sending_is_told_and_holds_up_nobody(
    predictor: Running, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(AcknowledgedProducer, "send_together", fail)
        for request_id in (None, new_id(), None):  # claimed after and before
            answer = predictor.ask(**GOOD, request_id=request_id)
            assert (answer.status_code, "ZeroDivisionError" in answer.json()["detail"]) == (503, True)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: predictor.ask(**GOOD).status_code, range(20)))
    assert answers == [200] * 20
    assert set(places.take()) == {"loop"}
