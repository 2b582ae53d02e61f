"""Features over HTTP: plain requests take the short way, all others the route, and both say the same to the byte."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from prometheus_client import REGISTRY

from driftline.features import Entity, FeatureView, Source, count, last, mean, std
from driftline.features.layout import ViewLayout
from driftline.features.read import ViewValues, read_state
from driftline.features.update import apply_events
from driftline.project import load_project
from driftline.runtime.clock import ManualClock
from driftline.runtime.errors import ConfigurationError, RefusedError, UnavailableError
from driftline.runtime.health import Health
from driftline.runtime.http import Application, create_app
from services.predictor.api import FEATURES_PATH, PredictorState, predictor_routes
from services.predictor.feature_endpoint import QuickFeatures
from services.predictor.feature_reads import FeatureReads
from services.predictor.feature_rows import MOST_VALUES, feature_rows_routes
from tests.serving import fetch, served

NOW_US = 1_750_000_000_000_000
SHOP = load_project(Path(__file__).parents[2] / "e2e" / "shop")
PAYMENTS = SHOP.views["customer_payments"]
LANES = FeatureView(
    "lanes",
    1,
    Source("payments", Entity("lane", keys=("customer", "merchant")), PAYMENTS.source.event_time),
    [count().over("1h"), mean("amount").over("1h"), std("amount").over("1h"), last("amount")],
    ttl="2h",
)
VIEWS = {**SHOP.views, "lanes": LANES}
KNOWN = ("c1", "a/b", "ü ?", "c1,m1", "x~1y,z")


@dataclass
class Store:
    """A store in memory that knows some entities, and can be made to wait or to fail."""

    open: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    failures: dict[str, Exception] = field(default_factory=dict)
    batches: list[dict[str, list[str]]] = field(default_factory=list)

    def read_each(
        self, requests: Sequence[tuple[FeatureView, Sequence[str], NDArray[np.int64]]]
    ) -> list[ViewValues]:
        self.entered.set()
        assert self.open.wait(20)
        self.batches.append({view.name: list(entities) for view, entities, _ in requests})
        for view, _, _ in requests:
            if view.name in self.failures:
                raise self.failures[view.name]
        return [self._values(*request) for request in requests]

    @staticmethod
    def _values(view: FeatureView, entities: Sequence[str], as_of_us: NDArray[np.int64]) -> ViewValues:
        layout = ViewLayout.of(view)
        state = layout.empty(len(entities))
        known = np.array([row for row, entity in enumerate(entities) if entity in KNOWN], np.int64)
        amounts = np.array([float(len(entities[row])) for row in known])
        inputs = dict.fromkeys(layout.inputs, amounts)
        apply_events(layout, state, known, np.full(len(known), NOW_US - 60_000_000), inputs)
        return read_state(layout, state, as_of_us)


def application(reads: FeatureReads, *, quick: bool = False, routes: bool = True) -> Application:
    project = replace(SHOP, views=VIEWS)
    state = PredictorState(project, reads, None, ManualClock(NOW_US))  # type: ignore[arg-type]
    app = create_app(title="test", service="test", health=Health("test", "test-0"))
    if routes:
        app.include_router(predictor_routes(state))
        app.include_router(feature_rows_routes(state))
    if quick:
        app.direct.finders.append(QuickFeatures(state).find)
    return app


@contextmanager
def reading(store: Store, max_batch: int = 64, max_waiting: int = 100) -> Iterator[FeatureReads]:
    reads = FeatureReads(store, VIEWS, max_batch=max_batch, max_waiting=max_waiting)
    try:
        yield reads
    finally:
        store.open.set()
        reads.close()


@pytest.fixture
def store() -> Store:
    store = Store()
    store.open.set()
    return store


Told = tuple[int, list[tuple[bytes, bytes]], bytes]


async def get(app: FastAPI, path: str) -> Told:
    """Ask the application itself, in this event loop; return status, headers and body."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        **{"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "headers": []},
        **{"path": path, "raw_path": b"", "query_string": b"", "root_path": "", "state": {}},
        **{"server": ("test", 80), "client": ("test", 1)},
    }
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], sorted(sent[0]["headers"]), body


@pytest.fixture(scope="module")
def both_ways() -> Iterator[tuple[Store, int, int]]:
    """A store; the ports of an application that answers plain requests directly, and of one that does not."""
    store = Store()
    store.open.set()
    with (
        reading(store) as reads,
        served(application(reads, quick=True)) as quick,
        served(application(reads)) as routed,
    ):
        yield store, quick, routed


_PATHS = st.sampled_from([f"/v1/features/{view}/" for view in (*VIEWS, "nothing", "")] + ["/v1/features"])
_ENTITIES = st.one_of(
    st.sampled_from([*KNOWN, "", "nobody", "/", "a\n", "\n", "a\nb", "m,~2", "\ufffd", "%41"]).map(quote),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=6).map(quote),
    st.sampled_from(
        ["%41", "%zz", "c1%", "%2F", "c1%2Fc2", "%ff", "%C3%BC", "c1#x", "c1;x", "c1+c2", "c1%0A", "a%23"]
    ),
).map(str.encode)
_QUERIES = st.sampled_from(
    [
        *(b"", b"?", b"?as_of", b"?as_of=", b"?as_of=soon", b"?as_of=2025-06-15T12:00:00Z", b"?other=1"),
        *(b"?as_of=2025-06-15T14%3A00%3A00%2B02%3A00", b"?as_of=2025-06-15T14:00:00+02:00"),
        *(b"?as_of=2025-06-15T12:00:00", b"?as_of=9999-12-31T23:59:59-05:00", b"?as_of=0001-01-01T00:00:00Z"),
        *(b"?as_of=2025-06-15T12:00:00Z&as_of=2025-06-15T15:00:00Z", b"?as_of=2025-06-15T15:00:00Z&other"),
        *(b"?AS_OF=2025-06-15T12:00:00Z", b"?as%5Fof=2025-06-15T12:00:00Z", b"?as_of=%ff", b"??as_of=soon"),
        *(b"?as_of=2025-06-15T12:00:00Z;x", b"?as_of=2025-06-15T15%3A06%3A40.123456Z"),
        *(b"?&as_of=soon", b"?as_of==1", b"?as_of=2025-06-15T12:00:00Z#x"),
    ]
)


@given(_PATHS, _ENTITIES, _QUERIES, st.sampled_from(["GET", "GET", "GET", "HEAD", "POST"]))
def test_the_short_way_and_the_route_say_the_same(
    both_ways: tuple[Store, int, int], path: str, entity: bytes, query: bytes, method: str
) -> None:
    _, *ports = both_ways
    target = path.encode() + entity + query
    quick, routed = [fetch(port, method, target) for port in ports]
    assert quick == routed


@pytest.mark.parametrize(
    "failure",
    [
        UnavailableError("no Redis"),
        ConfigurationError("raise its version"),
        RefusedError("no"),
        KeyError("x"),
    ],
)
def test_they_say_the_same_of_what_goes_wrong(both_ways: tuple[Store, int, int], failure: Exception) -> None:
    store, *ports = both_ways
    store.failures["lanes"] = failure
    answers = [fetch(port, "GET", b"/v1/features/lanes/c1,m1") for port in ports]
    del store.failures["lanes"]
    assert answers[0] == answers[1]
    assert answers[0].status == {UnavailableError: 503, RefusedError: 422}.get(type(failure), 500)


def test_plain_requests_take_the_short_way_and_are_timed_under_the_routes_name(store: Store) -> None:
    def timed() -> float:
        labels = {"route": FEATURES_PATH, "method": "GET", "status": "200"}
        return REGISTRY.get_sample_value("driftline_http_seconds_sum", labels) or 0.0

    with reading(store) as reads, served(application(reads, quick=True, routes=False)) as port:
        for target in (
            b"customer_payments/c1",
            b"customer_payments/a/b?as_of=2025-06-15T12:00:00Z",
            b"customer_payments/a%2Fb",
            b"lanes/c1,m1?as_of=2025-06-15T14%3A00%3A00%2B02%3A00",
        ):
            before = timed()
            assert fetch(port, "GET", b"/v1/features/" + target).status == 200
            assert timed() > before
        assert fetch(port, "GET", b"/v1/features/customer_payments/c1?as_of=soon").status == 404


async def turns() -> None:
    """Let every task go as far as it can without the store."""
    for _ in range(50):
        await asyncio.sleep(0)


async def _all(app: FastAPI, paths: Sequence[str], store: Store) -> list[Told]:
    """Ask for the first alone, and for the others while it is being read."""
    first = asyncio.create_task(get(app, paths[0]))
    await asyncio.to_thread(store.entered.wait, 20)
    others = [asyncio.create_task(get(app, path)) for path in paths[1:]]
    await turns()
    store.open.set()
    return list(await asyncio.gather(first, *others))


def test_what_comes_while_others_are_read_is_read_together() -> None:
    store = Store()
    names = [f"c{number}" for number in range(10)]
    paths = ["/v1/features/customer_payments/c1"] + [
        f"/v1/features/{view}/{name}" for name in names for view in ("customer_payments", "merchant_payments")
    ]
    with reading(store) as reads:
        answers = asyncio.run(_all(application(reads), paths, store))
        alone = [asyncio.run(get(application(reads), path)) for path in paths]
    assert store.batches[:2] == [
        {"customer_payments": ["c1"]},
        {"customer_payments": names, "merchant_payments": names},
    ]
    assert answers == alone


def test_a_view_that_cannot_be_read_spares_its_neighbours() -> None:
    store = Store()
    store.failures["merchant_payments"] = ConfigurationError("raise its version")
    views = ["customer_payments", "customer_payments", "merchant_payments", "customer_payments"]
    with reading(store) as reads:
        answers = asyncio.run(_all(application(reads), [f"/v1/features/{view}/c1" for view in views], store))
    assert [status for status, _, _ in answers] == [200, 200, 500, 200]


def test_too_many_are_told_to_come_again() -> None:
    store = Store()
    with reading(store, max_waiting=3) as reads:
        answers = asyncio.run(_all(application(reads), ["/v1/features/customer_payments/c1"] * 6, store))
    assert [status for status, _, _ in answers] == [200] * 4 + [429] * 2
    assert (b"retry-after", b"1") in answers[-1][1]


def test_whoever_went_away_is_not_read_for() -> None:
    store = Store()

    async def story(reads: FeatureReads) -> bytes:
        first = asyncio.create_task(reads.read(PAYMENTS, "c1", NOW_US))
        await asyncio.to_thread(store.entered.wait, 20)
        gone, patient = [asyncio.create_task(reads.read(PAYMENTS, name, NOW_US)) for name in ("c2", "c3")]
        await turns()
        gone.cancel()
        await turns()
        store.open.set()
        await first
        return await patient

    with reading(store) as reads:
        assert b'"entity":"c3"' in asyncio.run(story(reads))
    assert store.batches == [{"customer_payments": ["c1"]}, {"customer_payments": ["c3"]}]


def test_once_it_stops_it_says_so(store: Store) -> None:
    with reading(store) as reads:
        reads.close()
        status, _, body = asyncio.run(get(application(reads), "/v1/features/customer_payments/c1"))
    assert (status, b"stopping" in body) == (503, True)


def ask_rows(reads: FeatureReads, **body: Any) -> httpx.Response:
    """Ask for several views of many entities."""

    async def story() -> httpx.Response:
        transport = httpx.ASGITransport(application(reads), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/v1/features", json=body)

    return asyncio.run(story())


def test_many_entities_are_read_together_and_as_one_by_one(store: Store) -> None:
    rows = [
        {"customer": "c1", "merchant": "m1"},
        {"customer": "nobody", "merchant": "a/b"},
        {"customer": "x~y", "merchant": ","},
    ]
    with reading(store) as reads:
        answer = ask_rows(reads, views=["lanes", "customer_payments"], entities=rows)
        assert len(store.batches) == 1, "one round trip"
        alone = [
            asyncio.run(get(application(reads, quick=True), f"/v1/features/{path}"))[2]
            for path in ("lanes/c1,m1", "customer_payments/nobody")
        ]
    assert answer.status_code == 200
    told = answer.json()
    assert [row["entities"] for row in told["rows"]] == rows
    one, other = (json.loads(body) for body in alone)
    assert told["as_of"] == one["as_of"]
    for single, row in ((one, 0), (other, 1)):
        served = told["rows"][row]["views"][single["view"]]
        assert served == {key: single[key] for key in ("version", "age_ms", "status", "values", "defaults")}
    assert [row["views"]["lanes"]["status"] for row in told["rows"]] == ["fresh", "missing", "missing"]


@pytest.mark.parametrize(
    ("body", "status", "complaint"),
    [
        (
            {"views": ["lanes"], "entities": [{"customer": "c1"}]},
            422,
            "body.entities.0.merchant: is missing; the views need it",
        ),
        (
            {"views": ["customer_payments"], "entities": [{"customer": "c1", "shop": "s"}]},
            422,
            "body.entities.0.shop: no view needs it; they need customer",
        ),
        ({"views": ["nothing"], "entities": [{}]}, 404, "no feature view is named 'nothing'"),
        ({"views": [], "entities": [{}]}, 422, "views"),
        ({"views": ["customer_payments"], "entities": []}, 422, "entities"),
        (
            {"views": ["customer_payments"], "entities": [{"customer": "c1"}], "as_of": "soon"},
            422,
            "body.as_of",
        ),
        ({"views": ["customer_payments"], "entities": [{"customer": 1}]}, 422, "customer"),
    ],
)
def test_what_is_wrong_with_many_is_told_by_its_place(
    store: Store, body: dict[str, Any], status: int, complaint: str
) -> None:
    with reading(store) as reads:
        answer = ask_rows(reads, **body)
    assert (answer.status_code, complaint in answer.json()["detail"]) == (status, True), answer.text
    assert store.batches == []


def test_no_call_holds_up_others_for_long_nor_reads_what_is_being_filled(store: Store) -> None:
    rows = [{"customer": str(row), "merchant": "m"} for row in range(1_000)]
    many = {f"v{number}": replace(LANES, name=f"v{number}") for number in range(11)}
    with pytest.MonkeyPatch.context() as patch, reading(store) as reads:
        for name, view in many.items():
            patch.setitem(VIEWS, name, view)
        answer = ask_rows(reads, views=list(many), entities=rows)
        assert f"more than {MOST_VALUES:,}" in answer.json()["detail"]
        patch.setattr(reads, "_incomplete", lambda: {"lanes@1": "it is being filled (43%)"})
        assert ask_rows(reads, views=["lanes"], entities=rows[:1]).status_code == 503
    assert store.batches == []
