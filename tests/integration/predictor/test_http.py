"""Broken bodies are the callers' fault, lost servers are not, and nobody waits for ever."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from driftline.runtime.ids import new_id
from tests.integration.predictor.conftest import Running, Shop

URL = "/v1/models/fraud/predictions"
JSON = {"content-type": "application/json"}
GOOD: dict[str, Any] = {"entities": {"customer": "c1", "merchant": "m1"}, "inputs": {"amount": 1.5}}


@pytest.fixture
def nowhere() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_http(running: Running) -> None:
    until = time.monotonic() + 30
    while running.http.post(URL, json=GOOD).status_code == 503:
        if "starting" not in running.http.post(URL, json=GOOD).text:
            return
        assert time.monotonic() < until
        time.sleep(0.1)


def test_every_answer_is_in_the_log_with_its_score(shop: Shop, predictor: Running) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: predictor.ask(**{**GOOD, "inputs": {"amount": n}}), range(60)))
    assert {answer.status_code for answer in answers} == {200}
    log = shop.log(60)
    for answer in (one.json() for one in answers):
        (record,) = log[answer["request_id"]]
        assert float(answer["score"]).hex() == record["score"].hex()
        assert (record["status"], record["channel"]) == ("ANSWERED", "HTTP")
        assert (record["decision"], record["model_version"]) == (answer["decision"], answer["version"])


def test_an_instant_beyond_all_dates_is_refused_and_neighbours_are_answered(predictor: Running) -> None:
    for instant in (2**62, -(2**62), 2**63 - 1, 2**63, -1, "0001-01-01T00:00:00+14:00"):
        bodies = [GOOD] * 3 + [{**GOOD, "event_time": instant}] + [GOOD] * 4
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda body: predictor.ask(**body), bodies))
        assert [one.status_code for one in answers] == [200] * 3 + [422] + [200] * 4, answers[3].text


def test_a_malformed_body_is_the_callers_fault(predictor: Running) -> None:
    keys = b'"entities": {"customer": "c", "merchant": "m"}'
    bodies = [
        *(b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe", b'{"entities": 3}'),
        b"{%s, %s}" % (keys, b'"event_time": true'),
        b"{%s, %s}" % (keys, b'"inputs": {"amount": true}'),
        b"{%s, %s}" % (keys, b'"inputs": {"amount": NaN}'),
        b"{%s, %s}" % (keys, b'"inputs": {"amount": 1e999}'),
        b"{%s, %s}" % (keys, b'"inputs": []'),
        b'{"entities": {"customer": "\\ud800", "merchant": "m"}}',
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b"[" * 100_000,
    ]
    for content in bodies:
        answer = predictor.http.post(URL, content=content, headers=JSON)
        assert 400 <= answer.status_code < 500, (content[:80], answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert predictor.ask(**GOOD).status_code == 200, "the next caller is not to notice"


def test_a_body_of_a_hundred_megabytes_is_refused(predictor: Running) -> None:
    assert predictor.http.post(URL, content=b" " * 100_000_000, headers=JSON).status_code == 413
    assert predictor.ask(**GOOD).status_code == 200


def test_a_strange_model_name_is_not_found(predictor: Running) -> None:
    for path in (
        "/v1/models/%ff/predictions",
        "/v1/models/%00/predictions",
        "/v1/models/fraud%00/predictions",
        "/v1/models/" + "x" * 3_000 + "/predictions",
    ):
        assert predictor.http.post(path, json=GOOD).status_code == 404


def test_without_the_store_the_answer_is_503_and_the_log_says_failed(shop: Shop, nowhere: int) -> None:
    settings = shop.settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{nowhere}/0"})
    check_failed(shop, Running(settings, shop.project), "Redis")


def test_without_an_active_model_the_answer_is_503_and_the_log_says_failed(
    shop: Shop, tmp_path: Path
) -> None:
    settings = shop.settings.model_copy(update={"models": tmp_path / "none"})
    check_failed(shop, Running(settings, shop.project), "no version is active")


def check_failed(shop: Shop, running: Running, reason: str) -> None:
    try:
        until = time.monotonic() + 30
        while "starting" in (answer := running.ask(**GOOD, request_id=new_id())).text:
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        running.stop()
    assert answer.status_code == 503, answer.text
    assert answer.headers["retry-after"]
    (record,) = shop.log(1)[answer.json()["request_id"]]
    assert (record["status"], record["score"]) == ("FAILED", None)
    assert reason in record["error"]
    assert reason in answer.text


def test_without_the_broker_nobody_waits_longer_than_the_deadline(shop: Shop, nowhere: int) -> None:
    settings = shop.settings.model_copy(
        update={"kafka_bootstrap_servers": f"127.0.0.1:{nowhere}", "deadline_seconds": 2.0}
    )
    running = Running(settings, shop.project)
    try:
        wait_for_http(running)
        bodies = [GOOD] * 4 + [{**GOOD, "inputs": {"colour": 1}}]  # a refusal is logged as well
        begun = time.monotonic()
        with ThreadPoolExecutor(5) as pool:
            answers: list[httpx.Response] = list(pool.map(lambda body: running.ask(**body), bodies))
        took = time.monotonic() - begun
    finally:
        running.stop()
    assert {answer.status_code for answer in answers} == {503}
    assert took < 3.5
