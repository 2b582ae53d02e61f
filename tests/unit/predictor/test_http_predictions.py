"""Over HTTP: good requests take the short way, all others the routes; each is logged, none answered before that."""

import asyncio
from typing import Any

import httpx
import pytest

from driftline.runtime.errors import BackpressureError, DriftlineError, UnavailableError
from driftline.runtime.ids import new_id
from driftline.serving.predict import PredictionEngine
from tests.unit.predictor.harness import GOOD, NOW_US, PATH, Service

#: Declared like this, a request takes the routes.
BY_THE_ROUTES = {"content-type": "application/json; charset=utf-8"}

_BODIES: list[Any] = [
    GOOD,
    {**GOOD, "inputs": None, "caller": "till 7"},
    {**GOOD, "entities": {"customer": "c1"}},  # the engine refuses it
    {**GOOD, "event_time": NOW_US + 200_000_000_000},
    {**GOOD, "inputs": {"colour": 1}},
    {**GOOD, "entities": 3},
    [],
]


@pytest.mark.parametrize("body", _BODIES)
@pytest.mark.parametrize("failure", [None, UnavailableError("no Redis")])
def test_the_short_way_and_the_routes_say_the_same(
    service: Service, body: Any, failure: Exception | None
) -> None:
    service.store.failure = failure
    body = {**body, "request_id": new_id()} if isinstance(body, dict) else body
    quick, routed = service.ask(body), service.ask(body, **BY_THE_ROUTES)
    first, second = quick.json(), routed.json()
    if not isinstance(body, dict):  # without an id of its own each is given one
        del first["request_id"], second["request_id"]
    assert (quick.status_code, first) == (routed.status_code, second)
    assert _but_date(quick) == _but_date(routed)
    one, other = ({**record, "duration_us": 0, "request_id": ""} for record in service.logged)
    assert one == other
    assert (one["status"] == "ANSWERED") == (quick.status_code == 200)


def _but_date(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name != "date"}


def test_the_short_way_is_taken(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.predictor.api.read_request", None)  # what the routes read with
    assert service.ask().status_code == 200
    assert service.ask(x_request_timeout_ms="20000").status_code == 200
    assert service.ask(**BY_THE_ROUTES).status_code == 500


def test_what_is_no_prediction_goes_to_the_routes(service: Service) -> None:
    assert service.ask(path="/v1/models/nobody/predictions").status_code == 404
    assert [one["model"] for one in service.logged] == ["nobody"]
    assert service.run(lambda client: client.get(PATH)).status_code == 405
    assert service.run(lambda client: client.get("/v1/models")).json()["models"][0]["version"] == "1"
    text = service.run(lambda client: client.post(PATH, content=b"{", headers={"content-type": "text/plain"}))
    assert (text.status_code, service.logged[-1]["status"]) == (415, "REFUSED")


def test_nobody_is_answered_before_the_log_has_it(service: Service) -> None:
    service.log.prompt = False

    async def story(client: httpx.AsyncClient) -> httpx.Response:
        asked = asyncio.create_task(client.post(PATH, json=GOOD))
        while not service.log.unacknowledged:
            await asyncio.sleep(0.001)
        assert not asked.done()
        service.log.unacknowledged.pop()()
        return await asked

    assert service.run(story).status_code == 200


@pytest.mark.parametrize(
    ("failure", "status"), [(BackpressureError("full"), 429), (UnavailableError("no broker"), 503)]
)
def test_an_answer_that_cannot_be_logged_is_not_given(
    service: Service, failure: DriftlineError, status: int
) -> None:
    service.log.failure = failure
    answer = service.ask()
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "1")
    service.log.failure = None
    assert service.ask().status_code == 200


def test_what_arrives_meanwhile_is_the_next_batch_and_what_is_too_much_is_refused(service: Service) -> None:
    service.store.open.clear()

    async def story(client: httpx.AsyncClient) -> list[int]:
        first = asyncio.create_task(client.post(PATH, json=GOOD))
        await asyncio.to_thread(service.store.entered.wait, 20)
        others = [asyncio.create_task(client.post(PATH, json=GOOD)) for _ in range(11)]
        while sum(other.done() for other in others) < 3:
            await asyncio.sleep(0.001)
        service.store.open.set()
        return [(await one).status_code for one in (first, *others)]

    assert sorted(service.run(story)) == [200] * 9 + [429] * 3
    assert service.store.rows == [1, 8]
    assert len(service.logged) == 9


def test_while_the_queue_is_full_requests_are_refused_unread_and_both_ways_say_the_same(
    service: Service,
) -> None:
    service.store.open.clear()
    others: list[asyncio.Task[httpx.Response]] = []

    async def story(client: httpx.AsyncClient) -> list[httpx.Response]:
        others.append(asyncio.create_task(client.post(PATH, json=GOOD)))
        await asyncio.to_thread(service.store.entered.wait, 20)
        others.extend(asyncio.create_task(client.post(PATH, json=GOOD)) for _ in range(9))
        while not any(one.done() for one in others):
            await asyncio.sleep(0.001)
        refused = [await client.post(PATH, content=b"{", headers={"content-type": kind}) for kind in kinds]
        service.store.open.set()
        await asyncio.gather(*others)
        return refused

    kinds = ("application/json", BY_THE_ROUTES["content-type"])
    quick, routed = service.run(story)
    assert (quick.status_code, quick.headers["retry-after"], quick.json()) == (
        429,
        "1",
        {
            "type": "urn:driftline:problem:queue-full",
            "title": "Queue full",
            "status": 429,
            "detail": "too many predictions are waiting",
        },
    )
    assert (routed.status_code, routed.json()) == (429, quick.json())
    assert _but_date(quick) == _but_date(routed)
    levels = {level.objective: level for level in service.levels.levels()}
    assert (levels["availability"].requests, levels["availability"].good) == (12, 0.75)
    assert len(service.logged) == 9
    assert service.ask().status_code == 200


def test_who_cannot_wait_is_told_in_time_and_the_log_says_failed(service: Service) -> None:
    service.store.open.clear()

    async def story(client: httpx.AsyncClient) -> list[httpx.Response]:
        patient = asyncio.create_task(client.post(PATH, json=GOOD))
        while not service.store.entered.is_set():
            await asyncio.sleep(0.001)
        hurried = {"x-request-timeout-ms": "20"}
        answers = [await client.post(PATH, json=GOOD, headers=hurried)]  # the store waits all the while
        service.store.open.set()
        return [*answers, await patient]

    late, patient = service.run(story)
    service.batches.close()
    assert (late.status_code, patient.status_code) == (503, 200)
    assert "within the 20 ms" in late.json()["detail"]
    by_id = {one["request_id"]: one for one in service.logged}
    assert by_id[patient.json()["request_id"]]["status"] == "ANSWERED"
    assert by_id[late.json()["request_id"]]["status"] == "FAILED"
    assert "within the 20 ms" in by_id[late.json()["request_id"]]["error"]
    assert len(by_id) == len(service.logged) == 2


def test_what_is_predicted_too_late_is_logged_as_failed_once(service: Service) -> None:
    service.store.open.clear()

    async def story(client: httpx.AsyncClient) -> httpx.Response:
        answer = await client.post(PATH, json=GOOD, headers={"x-request-timeout-ms": "20"})
        service.store.open.set()
        return answer

    assert service.run(story).status_code == 503
    service.batches.close()
    assert [(one["status"], one["score"]) for one in service.logged] == [("FAILED", None)]


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5", "9999999", "²"])
def test_a_wrong_timeout_is_refused_and_logged(service: Service, value: str) -> None:
    headers = [(b"x-request-timeout-ms", value.encode())]
    answer = service.run(lambda client: client.post(PATH, json=GOOD, headers=headers))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "header.X-Request-Timeout-Ms"
    assert [one["status"] for one in service.logged] == ["REFUSED"]


def test_after_a_fault_of_ours_the_next_request_is_answered(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    for name in ("predict", "failed"):  # the second cannot even be logged
        with monkeypatch.context() as patch:
            patch.setattr(PredictionEngine, "predict", fail)
            patch.setattr(PredictionEngine, name, fail)
            answer = service.ask()
        assert answer.status_code == 503
        assert "ZeroDivisionError" in answer.json()["detail"]
    assert service.ask().status_code == 200
    assert [one["status"] for one in service.logged] == ["FAILED", "ANSWERED"]


def test_the_header_and_the_body_are_documented(service: Service) -> None:
    operation = service.app.openapi()["paths"][PATH]["post"]
    assert [one["name"] for one in operation["parameters"]] == ["X-Request-Timeout-Ms"]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["examples"]


def test_service_levels_count_answers_and_faults_but_no_refusals(service: Service) -> None:
    for _ in range(3):
        assert service.ask().status_code == 200
    assert service.ask({**GOOD, "entities": {"customer": "c1"}}).status_code == 422
    service.store.failure = UnavailableError("no Redis")
    assert service.ask().status_code == 503
    found = {level.objective: (level.requests, level.good) for level in service.levels.levels()}
    assert found == {"availability": (4, 0.75), "latency": (3, 1.0)}


def test_once_closed_nothing_is_taken(service: Service) -> None:
    service.batches.close()
    assert service.ask().status_code == 503
    assert service.logged == []


def test_features_of_a_view_that_is_being_filled_are_refused_with_how_far_it_is(service: Service) -> None:
    service.incomplete["customer_payments@1"] = "feature view customer_payments@1 is being filled (43%)"
    answer = service.run(lambda client: client.get("/v1/features/customer_payments/c1"))
    assert answer.status_code == 503
    assert answer.json()["detail"] == "feature view customer_payments@1 is being filled (43%)"
    assert service.run(lambda client: client.get("/v1/features/merchant_payments/m1")).status_code != 503
