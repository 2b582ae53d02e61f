"""A broker that hangs, too many callers, a fault of ours: each is told clearly, and nothing is answered unlogged."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from driftline.embedded import EmbeddedStack
from driftline.runtime.pipelined_redis import PipelinedRedis
from driftline.serving.log_reading import LogReader
from driftline.serving.predict import PredictionEngine
from services.predictor.documentation import request_example
from tests.integration.predictor.conftest import Running, Shop

GOOD: dict[str, Any] = {"entities": {"customer": "c1", "merchant": "m1"}, "inputs": {"amount": 1.5}}


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_while_the_broker_hangs_nobody_is_answered_and_then_all_goes_on(
    shop: Shop, stack: EmbeddedStack
) -> None:
    running = Running(shop.settings.model_copy(update={"deadline_seconds": 2.5}), shop.project)
    try:
        running.wait_ready()
        assert running.ask(**GOOD).status_code == 200
        with frozen(stack.pid("kafka")), ThreadPoolExecutor(8) as pool:
            begun = time.monotonic()
            answers = list(pool.map(lambda _: running.ask(**GOOD), range(8)))
            took = time.monotonic() - begun
            until = time.monotonic() + 5
            while running.http.get("/readyz").status_code == 200 and time.monotonic() < until:
                time.sleep(0.1)
            unready = running.http.get("/readyz")
        assert {answer.status_code for answer in answers} == {503}
        assert all(answer.headers["retry-after"] for answer in answers)
        assert took < 4
        assert unready.status_code == 503
        assert "broker" in unready.text
        running.wait_ready()
        again = [running.ask(**GOOD) for _ in range(5)]
        assert {answer.status_code for answer in again} == {200}
    finally:
        running.stop()
    with LogReader(shop.settings.kafka_config()) as reader:  # those that were told 503 may be there as well
        held = reader.held(shop.topics.predictions)
        logged = {message.key() for messages in reader.read(held) for message in messages}
    assert {answer.json()["request_id"].encode() for answer in again} <= logged


def test_what_is_on_its_way_while_the_broker_is_away_for_a_moment_is_kept_and_answered(
    shop: Shop, stack: EmbeddedStack
) -> None:
    running = Running(shop.settings.model_copy(update={"deadline_seconds": 20.0}), shop.project)
    try:
        running.wait_ready()
        assert running.ask(**GOOD).status_code == 200
        with ThreadPoolExecutor(8) as pool:
            with frozen(stack.pid("kafka")):
                asked = [pool.submit(running.ask, **GOOD) for _ in range(8)]
                time.sleep(1.0)
                assert not any(one.done() for one in asked)
            answers = [one.result() for one in asked]
    finally:
        running.stop()
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["request_id"] for answer in answers} < set(shop.log(9))


def test_too_many_callers_are_sent_away_and_the_others_are_served(
    shop: Shop, each_way: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go = threading.Event(), threading.Event()
    predict, ask = PredictionEngine.predict, PipelinedRedis.ask

    def slow(self: PredictionEngine, requests: Any, channel: str, **options: Any) -> Any:
        if channel == "HTTP":
            entered.set()
            assert go.wait(20)
        return predict(self, requests, channel, **options)

    def slowly(self: PipelinedRedis, *command: Any, **options: Any) -> None:
        entered.set()
        if go.is_set():
            ask(self, *command, **options)
        else:
            asyncio.get_running_loop().call_later(0.01, partial(slowly, self, *command, **options))

    monkeypatch.setattr(PredictionEngine, "predict", slow)
    monkeypatch.setattr(PipelinedRedis, "ask", slowly)
    settings = shop.settings.model_copy(update={"max_waiting": 3, "max_http_batch": 1})
    taken = 5 if each_way else 4  # two batches are under way, or one
    running = Running(settings, shop.project)
    try:
        running.wait_ready()
        with ThreadPoolExecutor(10) as pool:
            first = pool.submit(running.ask, **GOOD)
            assert entered.wait(10)
            others = [pool.submit(running.ask, **GOOD) for _ in range(9)]
            until = time.monotonic() + 10
            while sum(other.done() for other in others) < 10 - taken:
                assert time.monotonic() < until
                time.sleep(0.01)
            refused = [other.result() for other in others if other.done()]
            go.set()
            answers = [first.result(), *(other.result() for other in others)]
    finally:
        go.set()
        running.stop()
    assert {answer.status_code for answer in refused} == {429}
    assert all(answer.headers["retry-after"] for answer in refused)
    assert sorted(answer.status_code for answer in answers) == [200] * taken + [429] * (10 - taken)
    assert set(shop.log(taken)) == {answer.json()["request_id"] for answer in answers if answer.is_success}


@pytest.mark.parametrize("step", ["begin", "finish"])
def test_a_fault_of_ours_is_logged_as_failed_and_the_next_request_is_answered(
    shop: Shop, each_way: bool, step: str, predictor: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(PredictionEngine, "predict", fail)
        patch.setattr(PredictionEngine, step, fail)
        answer = predictor.ask(**GOOD)
    assert answer.status_code == 503
    assert "ZeroDivisionError" in answer.json()["detail"]
    assert predictor.ask(**GOOD).status_code == 200
    (record,) = shop.log(2)[answer.json()["request_id"]]
    assert record["status"] == "FAILED"


def test_what_the_openapi_shows_works(shop: Shop, predictor: Running) -> None:
    document = predictor.http.get("/openapi.json").json()
    operation = document["paths"]["/v1/models/fraud/predictions"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]["examples"][0]
    assert body == request_example(shop.project.models["fraud"])
    answer = predictor.ask(**body)
    assert answer.status_code == 200
    content = operation["responses"]["200"]["content"]["application/json"]
    assert answer.json().keys() == content["schema"]["properties"].keys()
    assert answer.json()["features"].keys() == content["example"]["features"].keys()
    assert {"400", "413", "415", "422", "429", "503"} <= operation["responses"].keys()


def test_it_waits_for_schemas_that_are_registered_later(shop: Shop, unique: str) -> None:
    """Services start in any order: without its schemas the predictor is up, says so, and refuses politely."""
    running = Running(shop.settings.model_copy(update={"environment": f"{unique}x"}), shop.project)
    try:
        time.sleep(0.5)
        answer = running.ask(**GOOD)
        assert answer.status_code == 503
        assert "registry" in running.health.report()["components"]
        assert running.http.get("/healthz").status_code == 200
        assert not running.health.ready
    finally:
        running.stop()
