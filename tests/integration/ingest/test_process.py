"""The process itself: starts in any order, says where it listens, ends cleanly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import httpx

from driftline.runtime.errors import EXIT_CONFIGURATION
from driftline.runtime.instance_file import read_instance_file

from .conftest import Shop, read_all, wait_until_ready

_COMMAND = [sys.executable, "-P", "-m", "services.ingest"]
_ROOT = Path(__file__).parents[3]


def _environment(shop: Shop) -> dict[str, str]:
    settings = shop.settings
    return {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "SCHEMA_REGISTRY_URL": settings.schema_registry_url,
        "DRIFTLINE_PROJECT": str(settings.project),
        "DRIFTLINE_ENVIRONMENT": settings.environment,
        "DRIFTLINE_STATE": str(settings.state),
        "DRIFTLINE_INSTANCE": "ingest-7",
        "DRIFTLINE_LOG_FORMAT": "json",
    }


def test_sigterm_drains_and_leaves_nothing(shop: Shop) -> None:
    process = subprocess.Popen(_COMMAND, cwd=_ROOT, env=_environment(shop))
    try:
        until = time.monotonic() + 30
        while (found := read_instance_file(shop.settings.state, "ingest-7")) is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert found.pid == process.pid
        with httpx.Client(base_url=f"http://127.0.0.1:{found.port}", timeout=10) as client:
            while True:
                try:
                    wait_until_ready(client)
                    break
                except httpx.ConnectError:  # it says where it will listen a moment before it does
                    assert time.monotonic() < until
                    time.sleep(0.05)
            event = {
                "event_id": str(uuid4()),
                "paid_at": "2013-04-01T12:30:00Z",
                "customer": "ann",
                "amount": 1.0,
                "kind": "CASH",
            }
            assert client.post("/v1/events/payments", json=event).status_code == 202
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert read_instance_file(shop.settings.state, "ingest-7") is None
    assert len(read_all(shop.settings.kafka_bootstrap_servers, shop.topics.events("payments"))) == 1


def test_wrong_settings_are_explained_and_not_retried(shop: Shop, tmp_path: Path) -> None:
    for wrong, word in [
        ({"KAFKA_BOOTSTRAP_SERVERS": ""}, "KAFKA_BOOTSTRAP_SERVERS"),
        ({"DRIFTLINE_PROJECT": str(tmp_path / "nowhere")}, "not a driftline project"),
        ({"DRIFTLINE_HOST": "203.0.113.1"}, "DRIFTLINE_HOST"),
    ]:
        ended = subprocess.run(
            _COMMAND,
            cwd=_ROOT,
            env={**_environment(shop), **wrong},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ended.returncode == EXIT_CONFIGURATION
        assert word in ended.stderr
        assert "Traceback" not in ended.stderr
