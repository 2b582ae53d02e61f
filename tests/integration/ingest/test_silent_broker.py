"""What callers see when the broker is gone, or holds its connections open and says nothing."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx
import pytest

from driftline.runtime.health import Health
from driftline.runtime.http import BackgroundServer
from services.ingest.assembly import build_app

from .conftest import Shop

_EVENT = {"paid_at": "2013-04-01T12:30:00Z", "customer": "ann", "amount": 1.0, "kind": "CASH"}


@pytest.fixture
def silent() -> Iterator[str]:
    """A listener that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def ingest_at(shop: Shop, bootstrap: str, **changes: float) -> Iterator[httpx.Client]:
    settings = shop.settings.model_copy(
        update={"kafka_bootstrap_servers": bootstrap, "delivery_seconds": 1.0, **changes}
    )
    server = BackgroundServer(build_app(settings, Health("ingest", "ingest-0")))
    port = server.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        until = time.monotonic() + 10
        while not client.get("/readyz").json()["components"].get("registry", {}).get("ready"):
            assert time.monotonic() < until
            time.sleep(0.02)
        yield client
    server.stop()


@pytest.mark.parametrize("where", ["silent", "closed"])
def test_503_in_time_with_ids_to_retry(shop: Shop, silent: str, where: str) -> None:
    with ingest_at(shop, silent if where == "silent" else "127.0.0.1:9") as client:
        before = time.monotonic()
        answer = client.post("/v1/events/payments", json=[_EVENT, {**_EVENT, "amount": "x"}])
        assert time.monotonic() - before < 3
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        unknown, rejected = answer.json()["results"]
        assert unknown["status"] == "unknown"
        assert unknown["event_id"]
        assert rejected["status"] == "rejected"
        assert client.get("/readyz").status_code == 503
        assert client.get("/readyz").json()["components"]["broker"]["ready"] is False
        assert client.get("/healthz").status_code == 200


def test_the_deadline_holds_where_delivery_takes_longer(shop: Shop, silent: str) -> None:
    with ingest_at(shop, silent, delivery_seconds=5.0, deadline_seconds=0.5) as client:
        before = time.monotonic()
        answer = client.post("/v1/events/payments", json=_EVENT)
        assert time.monotonic() - before < 2
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:driftline:problem:deadline-exceeded"


def test_429_where_the_queue_is_full(shop: Shop, silent: str) -> None:
    with ingest_at(shop, silent, delivery_seconds=4.0, deadline_seconds=0.3, max_in_flight=10) as client:
        events = [{**_EVENT, "event_id": str(uuid4())} for _ in range(8)]
        assert client.post("/v1/events/payments", json=events).status_code == 503
        answer = client.post("/v1/events/payments", json=events)
        assert answer.status_code == 429
        assert answer.json()["type"] == "urn:driftline:problem:queue-full"
        assert int(answer.headers["Retry-After"]) >= 1
