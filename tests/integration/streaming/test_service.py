"""The frame of a data-plane process: answers while it starts, drains on SIGTERM, says by its exit code what happened."""

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from driftline.runtime.errors import (
    EXIT_CEILING,
    EXIT_CONFIGURATION,
    EXIT_GAP,
    ConfigurationError,
    DeadLetterCeilingError,
    OffsetGapError,
)
from driftline.runtime.health import Health
from driftline.runtime.http import create_app
from driftline.runtime.settings import PlatformSettings
from driftline.streaming.service import run_service


@pytest.fixture
def settings(tmp_path: Path) -> PlatformSettings:
    return PlatformSettings(
        kafka_bootstrap_servers="none:1",
        schema_registry_url="http://none",
        state=tmp_path,
        instance="frame-0",
    )


def run(settings: PlatformSettings, loop: object) -> int:
    health = Health("frame", settings.instance)
    health.set("stream", ready=True)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        app = create_app(title="Frame", service="frame", health=health)
        return run_service("frame", settings, health=health, app=app, loop=loop)  # type: ignore[arg-type]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_sigterm_lets_the_batch_finish(settings: PlatformSettings) -> None:
    finished, answers = [], []

    def loop(stop: threading.Event) -> None:
        port = json.loads((settings.state / "run" / "frame-0.json").read_text())["port"]
        answers.append(status(f"http://127.0.0.1:{port}/readyz"))
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
        time.sleep(0.1)  # the batch in hand
        answers.append(status(f"http://127.0.0.1:{port}/readyz"))
        finished.append(True)

    assert run(settings, loop) == 0
    assert finished == [True]
    assert answers == [200, 503]
    assert not list((settings.state / "run").glob("*.json"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("a wrong setting"), EXIT_CONFIGURATION),
        (DeadLetterCeilingError("all bad"), EXIT_CEILING),
        (OffsetGapError("lost"), EXIT_GAP),
    ],
)
def test_errors_that_a_restart_does_not_mend_have_their_codes(
    settings: PlatformSettings, error: Exception, code: int
) -> None:
    def loop(_stop: threading.Event) -> None:
        raise error

    assert run(settings, loop) == code


def test_anything_else_crashes(settings: PlatformSettings) -> None:
    def loop(_stop: threading.Event) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(settings, loop)


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
