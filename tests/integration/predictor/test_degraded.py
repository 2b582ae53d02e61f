"""Redis silent, gone and back again: whose model can do without is answered and says so, the others are told 503."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import split
from driftline.project import Project, StoreRule, Unavailable, load_project
from driftline.serving.log_reading import LogReader
from tests.integration.predictor.conftest import NOW_US, SHOP, Running, Shop
from tests.integration.predictor.falling_silent import FallingSilent
from tests.small_model import write_model

GOOD: dict[str, Any] = {
    "entities": {"customer": "c1", "merchant": "m1"},
    "inputs": {"amount": 1.5},
    "event_time": NOW_US,
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of both models."""
    folder = tmp_path_factory.mktemp("both")
    shop = two_models(load_project(SHOP))
    for model in shop.models.values():
        write_model(replace(shop, models={model.name: model}), folder)
    return folder


def two_models(shop: Project) -> Project:
    """Return the shop with a model that does without the store after 100 ms, and one that refuses then."""
    rule = StoreRule(wait_us=100_000, unavailable=Unavailable.DEFAULTS)
    fraud = replace(shop.models["fraud"], store=rule)
    strict = replace(fraud, name="abuse", store=replace(rule, unavailable=Unavailable.REFUSE))
    return replace(shop, models={"fraud": fraud, "abuse": strict})


@pytest.fixture
def way(redis_url: str) -> Iterator[FallingSilent]:
    with FallingSilent(int(urlsplit(redis_url).port or 0)) as way:
        yield way


@pytest.fixture
def running(shop: Shop, both: Path, way: FallingSilent, payments: list[dict[str, Any]]) -> Iterator[Running]:
    shop.feed(payments)
    parts = urlsplit(shop.settings.redis_url)
    url = f"redis://127.0.0.1:{way.port}{parts.path}"
    settings = shop.settings.model_copy(update={"redis_url": url, "models": both})
    running = Running(settings, two_models(shop.project))
    try:
        running.wait_ready()
        yield running
    finally:
        way.come_back()
        running.stop()


def ask_both(running: Running, count: int) -> list[httpx.Response]:
    """Ask both models at once, so that they share batches."""
    with ThreadPoolExecutor(8) as pool:
        return list(
            pool.map(lambda number: running.ask(("fraud", "abuse")[number % 2], **GOOD), range(2 * count))
        )


def wait_until_whole(running: Running) -> dict[str, Any]:
    until = time.monotonic() + 20
    while True:
        answer = running.ask(**GOOD).json()
        if answer["degraded"] is None:
            found: dict[str, Any] = answer
            return found
        assert time.monotonic() < until, answer
        time.sleep(0.05)


def everything_logged(shop: Shop) -> list[dict[str, Any]]:
    codec = RecordCodec(prediction_schema(shop.project))
    with LogReader(shop.settings.kafka_config()) as reader:
        held = reader.held(shop.topics.predictions)
        messages = [message for some in reader.read(held) for message in some]
    return [codec.decode(split(message.value() or b"")[1]) for message in messages]


@pytest.mark.parametrize("trouble", ["fall_silent", "go"])
def test_one_model_goes_on_without_redis_and_the_other_refuses_until_it_is_back(
    shop: Shop, running: Running, way: FallingSilent, trouble: str
) -> None:
    whole = running.ask(**GOOD).json()
    assert whole["degraded"] is None
    assert whole["features"]["customer_payments"]["status"] == "fresh"
    getattr(way, trouble)()
    answers = ask_both(running, 10)
    lenient, strict = answers[::2], answers[1::2]
    assert {one.status_code for one in lenient} == {200}
    assert {one.status_code for one in strict} == {503}
    assert all("retry-after" in one.headers for one in strict)
    for one in (one.json() for one in lenient):
        assert "store" in one["degraded"]
        view = one["features"]["customer_payments"]
        assert (view["status"], view["age_ms"], view["values"]["count_1h"]) == ("degraded", None, 0.0)
    metrics = running.http.get("/metrics").text
    assert 'driftline_predictions_degraded_total{model="fraud"}' in metrics
    assert 'status="degraded",view="customer_payments@1"' in metrics
    way.come_back()
    again = wait_until_whole(running)
    assert again["features"] == whole["features"]
    log = {record["request_id"]: record for record in everything_logged(shop)}
    for one in (one.json() for one in lenient):
        assert (log[one["request_id"]]["status"], log[one["request_id"]]["degraded"]) == (
            "ANSWERED",
            one["degraded"],
        )
    for one in (one.json() for one in strict):
        assert (log[one["request_id"]]["status"], log[one["request_id"]]["degraded"]) == ("FAILED", None)


def test_a_silent_redis_is_not_waited_for_by_each_batch(running: Running, way: FallingSilent) -> None:
    """Forty callers one after the other would wait four seconds at 100 ms each; the log tells how many waited."""
    way.fall_silent()
    reasons = [running.ask(**GOOD).json()["degraded"] for _ in range(40)]
    assert "within 100 ms" in reasons[0]
    assert sum("just now" in one for one in reasons) > len(reasons) / 2


def test_a_predictor_whose_model_does_without_the_store_stays_in_service(
    running: Running, way: FallingSilent
) -> None:
    way.go()
    until = time.monotonic() + 20
    while "answered without it: fraud" not in running.http.get("/readyz").text:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert running.http.get("/readyz").status_code == 200
