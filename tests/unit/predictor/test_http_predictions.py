"""Over HTTP: good requests take the short way, all others the routes; each is logged, none answered before that."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import split
from driftline.features import FeatureView
from driftline.features.layout import ViewLayout
from driftline.features.read import ViewValues, read_state
from driftline.project import Project, ServiceLevelRule, load_project
from driftline.runtime.acknowledged_producer import Acknowledgement, Sending
from driftline.runtime.clock import ManualClock
from driftline.runtime.errors import BackpressureError, DriftlineError, UnavailableError
from driftline.runtime.health import Health
from driftline.runtime.http import Application, create_app
from driftline.runtime.ids import new_id
from driftline.serving.predict import PredictionEngine
from driftline.serving.rack import ModelRack
from driftline.serving.service_levels import ServiceLevels
from services.predictor.api import PredictorState, predictor_routes
from services.predictor.batching import HttpBatches
from services.predictor.endpoint import QuickPredictions
from services.predictor.feature_reads import FeatureReads
from tests.serving import served
from tests.small_model import write_model

SHOP = Path(__file__).parents[2] / "e2e" / "shop"
NOW_US = 1_750_000_000_000_000
PATH = "/v1/models/fraud/predictions"
GOOD: dict[str, Any] = {
    "entities": {"customer": "c1", "merchant": "m1"},
    "inputs": {"amount": 1.5},
    "event_time": NOW_US,
}
#: Declared like this, a request takes the routes.
BY_THE_ROUTES = {"content-type": "application/json; charset=utf-8"}


@dataclass
class Store:
    """A store without events, that can be made to wait or to fail."""

    open: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    failure: Exception | None = None
    rows: list[int] = field(default_factory=list)

    def read_each(
        self, requests: Sequence[tuple[FeatureView, Sequence[str], NDArray[np.int64]]]
    ) -> list[ViewValues]:
        return [self.read([(view, entities)], as_of_us)[0] for view, entities, as_of_us in requests]

    def read(
        self, requests: Sequence[tuple[FeatureView, Sequence[str | None]]], as_of_us: NDArray[np.int64]
    ) -> list[ViewValues]:
        self.entered.set()
        assert self.open.wait(20)
        self.rows.append(len(as_of_us))
        if self.failure is not None:
            raise self.failure
        layouts = [ViewLayout.of(view) for view, _ in requests]
        return [read_state(layout, layout.empty(len(as_of_us)), as_of_us) for layout in layouts]


@dataclass
class Log:
    """A log in memory. It acknowledges at once, or when it is told to."""

    prompt: bool = True
    failure: DriftlineError | None = None
    values: list[bytes] = field(default_factory=list)
    unacknowledged: list[Callable[[], object]] = field(default_factory=list)

    def send_together(self, topic: str, messages: Sequence[Sending]) -> None:
        for one in messages:
            if self.failure is None:
                assert one.value is not None
                self.values.append(one.value)
            outcome = self.failure or Acknowledgement(topic, 0, len(self.values))
            tell = partial(one.loop.call_soon_threadsafe, one.tell, outcome)
            if self.prompt:
                tell()
            else:
                self.unacknowledged.append(tell)


@dataclass
class Service:
    """The application with its batches, as the predictor puts them together."""

    app: Application
    batches: HttpBatches
    store: Store
    log: Log
    codec: RecordCodec
    levels: ServiceLevels
    port: int
    incomplete: dict[str, str] = field(default_factory=dict)

    def run(self, story: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        """Play a story with a client."""

        async def play() -> Any:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=30) as client:
                return await story(client)

        return asyncio.run(play())

    def ask(self, body: Any = GOOD, path: str = PATH, **headers: str) -> httpx.Response:
        """Ask once."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        found: httpx.Response = self.run(lambda client: client.post(path, json=body, headers=named))
        return found

    @property
    def logged(self) -> list[dict[str, Any]]:
        """The log's records."""
        return [self.codec.decode(split(value)[1]) for value in self.log.values]


@pytest.fixture(scope="module")
def project() -> Project:
    return load_project(SHOP)


@pytest.fixture(scope="module")
def rack(project: Project, tmp_path_factory: pytest.TempPathFactory) -> ModelRack:
    models = tmp_path_factory.mktemp("models")
    write_model(project, models)
    return ModelRack(models, project)


@pytest.fixture
def service(project: Project, rack: ModelRack) -> Iterator[Service]:
    store, log, clock = Store(), Log(), ManualClock(NOW_US)
    store.open.set()
    schema = prediction_schema(project)
    levels = ServiceLevels({"fraud": ServiceLevelRule(latency_us=60_000_000)}, now=time.monotonic)
    incomplete: dict[str, str] = {}
    features = FeatureReads(store, project.views, max_batch=64, max_waiting=8, incomplete=lambda: incomplete)
    state = PredictorState(project, features, rack, clock)
    state.batches = HttpBatches(
        PredictionEngine(project, store, rack, clock),
        project,
        schema,
        7,
        log,  # type: ignore[arg-type]
        levels=levels,
        log="log",
        max_batch=64,
        max_waiting=8,
    )
    app = create_app(title="test", service="test", health=Health("test", "test-0"))
    app.include_router(predictor_routes(state))
    app.direct.finders.append(QuickPredictions(state).find)
    with served(app) as port:
        yield Service(app, state.batches, store, log, RecordCodec(schema), levels, port, incomplete)
        store.open.set()
    features.close()
    state.batches.close()


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


def test_a_record_that_does_not_fit_the_log_spoils_no_other(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = RecordCodec.encode

    def fussy(self: RecordCodec, record: dict[str, Any]) -> bytes:
        return encode(self, {**record, "amount": "much"} if record["amount"] == 13 else record)

    monkeypatch.setattr(RecordCodec, "encode", fussy)
    rows = [{**GOOD, "inputs": {"amount": amount}} for amount in (12, 13, 14)]
    told = lines(service.run(lambda client: client.post(BULK, json=rows)))
    assert [one["status"] for one in told] == ["ANSWERED", 422, "ANSWERED"]
    assert [one["amount"] for one in service.logged] == [12, 14]


BULK = f"{PATH}/bulk"
_ROWS: list[Any] = [
    GOOD,
    {**GOOD, "entities": {"customer": "c1"}},
    {**GOOD, "inputs": {"colour": 1}},
    7,
    {**GOOD, "event_time": "soon"},
]


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("form", ["application/json", "application/x-ndjson"])
def test_each_row_is_answered_in_order_as_if_it_had_come_alone(service: Service, form: str) -> None:
    rows = [{**row, "request_id": new_id()} if isinstance(row, dict) else row for row in _ROWS * 80]
    written = [json.dumps(row) for row in rows]
    content = f"[{', '.join(written)}]" if form == "application/json" else "\r\n\n".join(written)
    headers = {"content-type": form}
    service.batches._waiting._max_waiting = 1_000
    told = lines(service.run(lambda client: client.post(BULK, content=content, headers=headers)))
    alone = [service.ask(row).json() for row in rows[:5]]
    assert [one["status"] for one in told] == ["ANSWERED", 422, 422, 422, 422] * 80
    for row, one in zip(rows, told, strict=True):
        assert not isinstance(row, dict) or one["request_id"] == row["request_id"]
    for one, other in zip(told, alone, strict=False):
        assert {**one, "request_id": ""} == {**other, "request_id": ""}
    logged = {one["request_id"]: one["status"] for one in service.logged[:400]}
    assert logged == {one["request_id"]: "ANSWERED" if "score" in one else "REFUSED" for one in told}
    assert max(service.store.rows) > 1


def test_a_line_that_is_no_json_is_refused_alone(service: Service) -> None:
    content = f"{json.dumps(GOOD)}\n{{\n{json.dumps(GOOD)}"
    headers = {"content-type": "application/x-ndjson"}
    told = lines(service.run(lambda client: client.post(BULK, content=content, headers=headers)))
    assert [one["status"] for one in told] == ["ANSWERED", 400, "ANSWERED"]
    assert sorted(one["status"] for one in service.logged) == ["ANSWERED", "ANSWERED", "REFUSED"]


def test_rows_that_find_the_queue_full_say_so_and_the_others_are_answered(service: Service) -> None:
    answer = service.run(lambda client: client.post(BULK, json=[GOOD] * 50))
    told = [one["status"] for one in lines(answer)]
    assert told.count("ANSWERED") == len(service.logged) >= 8
    assert told.count(429) == 50 - told.count("ANSWERED") > 0


@pytest.mark.parametrize(
    ("content", "form", "status"),
    [
        (b"{}", "application/json", 400),
        (b"[1", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[]", "text/plain", 415),
        (b"[" + b"1," * 10_000 + b"1]", "application/json", 413),
    ],
)
def test_a_call_that_is_no_rows_is_refused_whole_and_logged(
    service: Service, content: bytes, form: str, status: int
) -> None:
    headers = {"content-type": form}
    answer = service.run(lambda client: client.post(BULK, content=content, headers=headers))
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert [one["status"] for one in service.logged] == ["REFUSED"]


def test_no_rows_give_no_lines(service: Service) -> None:
    assert lines(service.run(lambda client: client.post(BULK, json=[]))) == []
    assert service.logged == []


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
