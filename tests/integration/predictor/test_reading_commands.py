"""`driftline predict`, `features get` and `trace`, typed against a predictor that runs."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from driftline.cli import reading
from driftline.runtime.errors import ConfigurationError, RefusedError
from driftline.runtime.instance_file import write_instance_file
from tests.integration.predictor.conftest import NOW_US, Running, Shop

NOW = datetime.fromtimestamp(NOW_US / 1e6, UTC).isoformat()
Driftline = Callable[..., Result]


@pytest.fixture
def driftline(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Driftline:
    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": shop.settings.kafka_bootstrap_servers,
        "SCHEMA_REGISTRY_URL": shop.settings.schema_registry_url,
        "REDIS_URL": shop.settings.redis_url,
        "DRIFTLINE_PROJECT": str(shop.settings.project),
        "DRIFTLINE_ENVIRONMENT": shop.settings.environment,
        "DRIFTLINE_STATE": str(shop.settings.state),
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, value)
    app = typer.Typer()
    app.command()(reading.predict)
    app.command()(reading.trace)
    app.add_typer(reading.features, name="features")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    return run


def test_ask_look_and_trace(
    shop: Shop, predictor: Running, driftline: Driftline, payments: list[dict[str, Any]]
) -> None:
    shop.feed(payments)
    write_instance_file(
        shop.settings.state, "predictor-0", service="predictor", port=predictor.http.base_url.port or 0
    )
    asked = (
        "predict",
        "fraud",
        "-e",
        "customer=c1",
        "-e",
        "merchant=m1",
        "-i",
        "amount=7.5",
        "--event-time",
        NOW,
    )
    found = json.loads(driftline(*asked, "--json").output)
    assert (found["status"], found["event_time"]) == ("ANSWERED", NOW.replace("+00:00", "Z"))
    for_people = driftline(*asked).output
    assert f"{found['decision']} (score {found['score']:.4f}) by fraud@1" in for_people
    assert "customer_payments@1, fresh" in for_people

    seen = driftline("features", "get", "customer_payments", "c1", "--as-of", NOW)
    assert "customer_payments@1 of c1" in seen.output
    values = json.loads(
        driftline("features", "get", "customer_payments", "c1", "--as-of", NOW, "--json").output
    )
    assert values["values"] == found["features"]["customer_payments"]["values"]

    told = json.loads(driftline("trace", found["request_id"], "--json").output)
    assert told["prediction"]["score"] == found["score"]
    assert told["prediction"]["amount"] == 7.5
    assert {view["view"] for view in told["views"]} == {"customer_payments", "merchant_payments"}
    shown = driftline("trace", found["request_id"]).output
    assert f"Request {found['request_id']}" in shown
    assert "fraud@1" in shown


def test_what_goes_wrong_is_said(shop: Shop, predictor: Running, driftline: Driftline) -> None:
    nowhere = driftline("predict", "fraud", "-e", "customer=c1")
    assert isinstance(nowhere.exception, ConfigurationError)
    assert "driftline up" in str(nowhere.exception)
    url = ("--url", str(predictor.http.base_url))
    absent = driftline("predict", "fraud", "-e", "customer=c1", *url)
    assert isinstance(absent.exception, RefusedError)
    assert "entity 'merchant' is missing" in str(absent.exception)
    wrong = driftline("predict", "fraud", "-e", "customer=c", "-e", "merchant=m", "-i", "amount=much", *url)
    assert "inputs.amount: a finite number is wanted" in str(wrong.exception)
    assert "write NAME=VALUE" in str(driftline("predict", "fraud", "-e", "customer", *url).exception)
    assert "no feature view is named 'ab'" in str(driftline("features", "get", "ab", "c", *url).exception)
    odd = driftline("features", "get", "customer_payments", "a/b c?ü", *url, "--json")
    assert json.loads(odd.output)["entity"] == "a/b c?ü"
