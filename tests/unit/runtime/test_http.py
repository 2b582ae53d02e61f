"""Limits, problems and process routes, over a real server on loopback."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import orjson
import pytest
from fastapi import Request
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from driftline.runtime.errors import BackpressureError, BadMessageError, RefusedError, UnavailableError
from driftline.runtime.health import Health
from driftline.runtime.http import BackgroundServer, create_app, read_json
from driftline.runtime.limits import json_depth, lift_deadline


class Body(BaseModel):
    amount: float
    name: str = ""


_ERRORS = {
    "refused": RefusedError("no such thing", status=404, title="Unknown thing"),
    "bad": BadMessageError("not so"),
    "busy": BackpressureError("full", retry_after=2.5),
    "away": UnavailableError("broker"),
    "odd": KeyError("x"),
}


@pytest.fixture
def health() -> Health:
    return Health("test", "test-0")


@pytest.fixture
def client(health: Health) -> Iterator[httpx.Client]:
    app = create_app(
        title="test",
        service="test",
        health=health,
        max_body_bytes=10_000,
        max_depth=5,
        deadline_seconds=0.5,
        max_in_flight=3,
    )

    @app.post("/echo/{number}")
    async def echo(number: int, body: Body) -> Body:
        return body

    @app.post("/raw")
    async def raw(request: Request) -> object:
        return await read_json(request)

    @app.get("/fail/{kind}")
    async def fail(kind: str) -> None:
        raise _ERRORS[kind]

    @app.get("/slow")
    async def slow(seconds: float = 5) -> None:
        await asyncio.sleep(seconds)

    @app.get("/endless")
    async def endless(request: Request) -> StreamingResponse:
        async def numbers() -> AsyncIterator[bytes]:
            lift_deadline(request.scope)
            for number in range(4):
                yield b"%d" % number
                await asyncio.sleep(0.3)

        return StreamingResponse(numbers())

    server = BackgroundServer(app)
    port = server.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        yield client
    server.stop()


def check_problem(answer: httpx.Response, status: int, kind: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    shown = answer.json()
    assert (shown["status"], shown["type"]) == (status, f"urn:driftline:problem:{kind}")
    assert shown["detail"]


@pytest.mark.parametrize(
    ("kind", "status", "slug", "after"),
    [
        ("refused", 404, "unknown-thing", None),
        ("bad", 422, "bad-message", None),
        ("busy", 429, "queue-full", "3"),
        ("away", 503, "unavailable", "1"),
        ("odd", 500, "internal-error", None),
    ],
)
def test_errors_become_problems(
    client: httpx.Client, kind: str, status: int, slug: str, after: str | None
) -> None:
    answer = client.get(f"/fail/{kind}")
    check_problem(answer, status, slug)
    assert answer.headers.get("retry-after") == after
    assert client.get("/healthz").status_code == 200


def test_what_the_frameworks_refuse_are_problems_too(client: httpx.Client) -> None:
    check_problem(client.get("/nothing"), 404, "no-such-route")
    check_problem(client.delete("/raw"), 405, "method-not-allowed")
    assert client.delete("/raw").headers["allow"] == "POST"
    check_problem(
        client.post("/echo/1", content=b"{", headers={"content-type": "application/json"}), 400, "not-json"
    )
    answer = client.post("/echo/one", json={"amount": "much", "name": 1})
    check_problem(answer, 422, "invalid-request")
    assert [item["field"] for item in answer.json()["errors"]] == ["path.number", "body.amount", "body.name"]


def test_strict_json(client: httpx.Client) -> None:
    assert client.post("/raw", json={"a": [1, None]}).json() == {"a": [1, None]}
    for body in (b"", b"{", b"NaN", b'{"a": Infinity}', b'"\\ud800"', b"{} {}", b"\xff"):
        check_problem(client.post("/raw", content=body), 400, "not-json")
    check_problem(
        client.post("/raw", content=b"{}", headers={"content-type": "text/plain"}),
        415,
        "unsupported-media-type",
    )


def test_large_bodies_declared_and_streamed(client: httpx.Client) -> None:
    before = time.monotonic()
    check_problem(client.post("/raw", content=b"x" * 100_000_000), 413, "body-too-large")
    check_problem(client.post("/raw", content=(b"x" * 1000 for _ in range(50_000))), 413, "body-too-large")
    assert time.monotonic() - before < 10
    assert client.post("/raw", content=orjson.dumps("x" * 9_000)).status_code == 200


def test_deep_json(client: httpx.Client) -> None:
    for body in (b"[" * 4_000 + b"]" * 4_000, b'{"a":' * 6 + b"1" + b"}" * 6, b"[" * 9_000):
        check_problem(client.post("/raw", content=body), 400, "nested-too-deeply")
    assert client.post("/raw", content=b"[[[[[]]]]]").status_code == 200
    assert client.post("/raw", json="[" * 100).status_code == 200


def test_a_stream_may_lift_the_deadline(client: httpx.Client) -> None:
    assert client.get("/endless").content == b"0123"


def test_a_slow_answer_and_a_slow_body_end_at_the_deadline(client: httpx.Client) -> None:
    before = time.monotonic()
    answer = client.get("/slow")
    check_problem(answer, 503, "deadline-exceeded")
    assert answer.headers["retry-after"] == "1"
    assert time.monotonic() - before < 3
    host, port = client.base_url.host, client.base_url.port or 0
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(b"POST /raw HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


def test_too_many_at_once_are_503_but_probes_answer(client: httpx.Client, health: Health) -> None:
    health.set("part", True)
    with ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(client.get, "/slow?seconds=0.4") for _ in range(6)]
        time.sleep(0.15)
        assert client.get("/readyz").status_code == 200
        answers = [item.result() for item in slow]
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200, 200, 200, 503, 503, 503]
    refused = next(answer for answer in answers if answer.status_code == 503)
    check_problem(refused, 503, "overloaded")
    assert refused.headers["retry-after"] == "1"


def test_health_over_http(client: httpx.Client, health: Health) -> None:
    assert client.get("/readyz").status_code == 503
    health.set("broker", True)
    assert client.get("/readyz").json()["components"] == {"broker": {"ready": True}}
    health.fail("broker", "fenced")
    assert client.get("/healthz").status_code == 503


def test_requests_are_timed_by_route(client: httpx.Client) -> None:
    client.post("/echo/7", json={"amount": 1})
    client.get("/nothing/at/all")
    text = client.get("/metrics").text
    assert 'driftline_http_seconds_count{method="POST",route="/echo/{number}",status="200"}' in text
    assert "/nothing/at/all" not in text


def test_the_openapi_describes_problems(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert "HTTPValidationError" not in str(document)
    responses = document["paths"]["/echo/{number}"]["post"]["responses"]
    assert set(responses) == {"200", "400", "408", "413", "422", "503"}
    reference = responses["422"]["content"]["application/problem+json"]["schema"]["$ref"]
    assert reference == "#/components/schemas/Problem"


_JSON = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('[]{}"\\a,')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@given(_JSON)
@example("[")
def test_json_depth_is_exact_for_valid_json(value: object) -> None:
    assert json_depth(orjson.dumps(value, default=str) if not _big(value) else b"1") == (
        0 if _big(value) else depth(value)
    )


def _big(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_big, value.values()))
    if isinstance(value, list):
        return any(map(_big, value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63
