"""The clients against a service that is busy, away, or says no; over real HTTP."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from fastapi import Request
from starlette.responses import Response

from driftline.client import (
    AsyncClient,
    BusyError,
    Client,
    InvalidRequestError,
    NotFoundError,
    Retries,
    ServiceFaultError,
    ServiceUnavailableError,
)
from driftline.runtime.health import Health
from driftline.runtime.http import BackgroundServer, create_app
from driftline.runtime.problem import problem

_VIEW = {"version": 2, "age_ms": 1500, "status": "fresh", "values": {"count_1h": 3.0, "mean_x_1h": None}}
_NO_WAIT = Retries(attempts=3, first_wait=0.01, longest_wait=0.05)


class Service:
    """Answers what it was told to, in turn; then with success. Remembers the bodies."""

    def __init__(self) -> None:
        self.answers: list[Response] = []
        self.bodies: list[Any] = []
        self.paths: list[str] = []

    async def handle(self, request: Request) -> Response:
        body = await request.body()
        self.bodies.append(orjson.loads(body) if body else None)
        self.paths.append(request.scope["raw_path"].decode() + "?" + request.scope["query_string"].decode())
        if self.answers:
            return self.answers.pop(0)
        answer: dict[str, Any]
        if "/events/" in request.url.path:
            answer = {
                "results": [
                    {"event_id": e["event_id"], "status": "accepted", "partition": 0, "offset": 1}
                    for e in self.bodies[-1]
                ]
            }
        elif "/features/" in request.url.path:
            answer = {**_VIEW, "view": "v", "entity": "JFK", "as_of": "2013-04-01T12:00:00Z"}
        else:
            answer = {
                "request_id": self.bodies[-1]["request_id"],
                "status": "ANSWERED",
                "score": 0.25,
                "decision": "on_time",
                "model": "lateness",
                "version": "1",
                "event_time": "2013-04-01T12:00:00Z",
                "features": {"v": _VIEW},
            }
        return Response(orjson.dumps(answer), media_type="application/json")


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    app = create_app(title="stand-in", service="stand-in", health=Health())
    app.add_api_route("/v1/{path:path}", service.handle, methods=["GET", "POST"])
    server = BackgroundServer(app)
    yield f"http://127.0.0.1:{server.start()}"
    server.stop()


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(ingest_url=url, predictor_url=url + "/", retries=_NO_WAIT) as client:
        yield client


def test_a_repeated_publication_has_the_same_ids(client: Client, service: Service) -> None:
    service.answers = [problem(503, "away", retry_after=1), problem(429, "full", retry_after=1)]
    result = client.publish("payments", [{"x": 1}, {"event_id": "mine", "x": 2}])
    assert result.accepted == 2
    assert len(service.bodies) == 3
    assert service.bodies[0] == service.bodies[1] == service.bodies[2]
    assert result.results[1].event_id == "mine"


def test_retry_after_is_honoured(url: str, service: Service) -> None:
    service.answers = [problem(429, "full", retry_after=1)]
    with Client(ingest_url=url, retries=Retries(first_wait=0.01)) as client:
        before = time.monotonic()
        client.publish("payments", {"x": 1})
        assert time.monotonic() - before >= 1.0


@pytest.mark.parametrize(
    ("answer", "error", "attempts"),
    [
        (lambda: problem(429, "full", title="Queue full", retry_after=1), BusyError, 3),
        (lambda: problem(503, "away", retry_after=1), ServiceUnavailableError, 3),
        (lambda: problem(404, "no such type"), NotFoundError, 1),
        (lambda: problem(413, "too large"), InvalidRequestError, 1),
        (lambda: problem(500, "ouch"), ServiceFaultError, 1),
        (lambda: Response("<html>", 502, media_type="text/html"), ServiceFaultError, 1),
    ],
)
def test_errors_have_a_class_and_the_problem(
    client: Client, service: Service, answer: Callable[[], Response], error: type, attempts: int
) -> None:
    service.answers = [answer() for _ in range(3)]
    with pytest.raises(error) as caught:
        client.predict("lateness", entities={"origin": "JFK"})
    assert len(service.bodies) == attempts
    assert len({body["request_id"] for body in service.bodies}) == 1
    assert caught.value.status == answer().status_code
    assert caught.value.detail


def test_field_errors(client: Client, service: Service) -> None:
    wrong = [{"field": "inputs.distance", "detail": "a number is wanted"}]
    service.answers = [problem(422, "wrong", title="Invalid request", extensions={"errors": wrong})]
    with pytest.raises(InvalidRequestError) as caught:
        client.predict("lateness", entities={}, inputs={"distance": "far"})
    assert caught.value.field_errors == {"inputs.distance": "a number is wanted"}
    assert caught.value.kind == "urn:driftline:problem:unprocessable-entity" or caught.value.kind.startswith(
        "urn:"
    )


def test_a_service_that_is_not_there() -> None:
    with Client(ingest_url="http://127.0.0.1:9", retries=_NO_WAIT) as client:
        with pytest.raises(ServiceUnavailableError) as caught:
            client.publish("payments", [{"event_id": "a"}, {}])
        assert [result.status for result in caught.value.results] == ["unknown", "unknown"]
        assert caught.value.results[0].event_id == "a"
        assert caught.value.results[1].event_id
        with pytest.raises(ValueError, match="predictor_url"):
            client.predict("lateness", entities={})


def test_a_long_list_is_several_requests_and_a_failure_says_what_is_known(
    client: Client, service: Service
) -> None:
    events = [{"event_id": f"e{number}"} for number in range(2_500)]
    assert client.publish("payments", events).accepted == 2_500
    assert [len(body) for body in service.bodies] == [1_000, 1_000, 500]

    service.bodies.clear()
    accepted = [{"event_id": f"e{number}", "status": "accepted"} for number in range(1_000)]
    first = Response(orjson.dumps({"results": accepted}), media_type="application/json")
    service.answers = [first, *(problem(503, "away") for _ in range(3))]
    with pytest.raises(ServiceUnavailableError) as caught:
        client.publish("payments", events)
    statuses = [result.status for result in caught.value.results]
    assert statuses == ["accepted"] * 1_000 + ["unknown"] * 1_500


def test_predict_and_features(client: Client, service: Service) -> None:
    instant = datetime(2013, 4, 1, 12, tzinfo=UTC)
    answer = client.predict(
        "lateness", entities={"origin": "JFK"}, inputs={"x": 1.5}, event_time=instant, caller="me"
    )
    body = service.bodies[-1]
    assert body["event_time"] == "2013-04-01T12:00:00+00:00"
    assert body["entities"] == {"origin": "JFK"}
    assert body["caller"] == "me"
    assert answer.request_id == body["request_id"]
    assert (answer.score, answer.decision, answer.event_time) == (0.25, "on_time", instant)
    assert answer.features["v"].values == {"count_1h": 3.0, "mean_x_1h": None}
    found = client.features("v", "J/F K", as_of=instant)
    assert service.paths[-1] == "/v1/features/v/J%2FF%20K?as_of=2013-04-01T12%3A00%3A00%2B00%3A00"
    assert (found.served.version, found.served.age_ms, found.as_of) == (2, 1500, instant)
    with pytest.raises(ValueError, match="time zone"):
        client.predict("lateness", entities={}, event_time=datetime(2013, 4, 1))


def test_the_async_client_does_the_same(url: str, service: Service) -> None:
    async def run() -> None:
        async with AsyncClient(ingest_url=url, predictor_url=url, retries=_NO_WAIT) as client:
            service.answers = [problem(503, "away", retry_after=1)]
            result = await client.publish("payments", {"x": 1})
            assert result.accepted == 1
            assert service.bodies[0] == service.bodies[1]
            assert (await client.predict("lateness", entities={"origin": "JFK"})).score == 0.25
            assert (await client.features("v", "JFK")).entity == "JFK"
            service.answers = [problem(404, "no such type")]
            with pytest.raises(NotFoundError):
                await client.publish("nothing", {"x": 1})

    asyncio.run(run())
