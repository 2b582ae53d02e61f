"""Over HTTP without the store: whose model can do without it is answered and told so, the others are refused."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from driftline.archive.columns import fitted, placed, storage_schema
from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.features import FeatureView
from driftline.features.read import FRESH, ViewValues
from driftline.project import Project, ServiceLevelRule, StoreRule, Unavailable, load_project
from driftline.replay.bundles import Bundles
from driftline.replay.replaying import Replay
from driftline.runtime import metrics
from driftline.runtime.clock import ManualClock
from driftline.runtime.errors import UnavailableError
from driftline.runtime.health import Health
from driftline.runtime.http import create_app
from driftline.serving.bounded_reads import BoundedReads
from driftline.serving.predict import PredictionEngine
from driftline.serving.rack import ModelRack
from driftline.serving.service_levels import ServiceLevels
from services.predictor.api import PredictorState, predictor_routes
from services.predictor.batching import HttpBatches
from tests.serving import served as serve
from tests.small_model import write_model
from tests.unit.predictor.harness import GOOD, NOW_US, SHOP, Log, Service

LENIENT, STRICT = "/v1/models/fraud/predictions", "/v1/models/abuse/predictions"


class Store:
    """A store that knows everybody, until it fails or falls silent."""

    def __init__(self) -> None:
        self.open, self.entered = threading.Event(), threading.Event()
        self.open.set()
        self.failure: Exception | None = None

    def read(
        self, requests: Sequence[tuple[FeatureView, Any]], as_of_us: NDArray[np.int64]
    ) -> list[ViewValues]:
        self.entered.set()
        assert self.open.wait(20)
        if self.failure is not None:
            raise self.failure
        count = len(as_of_us)
        return [
            ViewValues(
                values=np.full((count, len(view.features)), 3.0),
                age_us=np.full(count, 1_500, np.int64),
                status=np.full(count, FRESH, np.uint8),
            )
            for view, _ in requests
        ]


@pytest.fixture(scope="module")
def project() -> Project:
    """The shop, with a model that does without the store after 60 ms, and one that refuses."""
    return waiting(load_project(SHOP), 60)


def waiting(shop: Project, wait_ms: int) -> Project:
    """Return the shop with two models that wait so long."""
    rule = StoreRule(wait_us=wait_ms * 1_000, unavailable=Unavailable.DEFAULTS)
    fraud = replace(shop.models["fraud"], store=rule)
    strict = replace(rule, unavailable=Unavailable.REFUSE)
    return replace(shop, models={"fraud": fraud, "abuse": replace(fraud, name="abuse", store=strict)})


@pytest.fixture(scope="module")
def models(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    for model in project.models.values():
        write_model(replace(project, models={model.name: model}), models)
    return models


@pytest.fixture
def service(project: Project, models: Path) -> Iterator[Service]:
    with served(project, models) as service:
        yield service


@contextmanager
def served(project: Project, models: Path) -> Iterator[Service]:
    store, log, clock, rack = Store(), Log(), ManualClock(NOW_US), ModelRack(models, project)
    schema = prediction_schema(project)
    levels = ServiceLevels(
        {"fraud": ServiceLevelRule(latency_us=60_000_000)}, now=time.monotonic, degrading=["fraud"]
    )
    bounded = BoundedReads(store, project.models.values())
    state = PredictorState(project, store, rack, clock)  # type: ignore[arg-type]
    state.batches = HttpBatches(
        PredictionEngine(project, store, rack, clock, bounded=bounded),
        project,
        schema,
        7,
        log,  # type: ignore[arg-type]
        levels=levels,
        log="log",
        max_batch=64,
        max_waiting=64,
    )
    app = create_app(title="test", service="test", health=Health("test", "test-0"))
    app.include_router(predictor_routes(state))
    with serve(app) as port:
        yield Service(app, state.batches, store, log, RecordCodec(schema), levels, port)  # type: ignore[arg-type]
        store.open.set()
    state.batches.close()
    bounded.close()


def test_with_the_store_nothing_is_degraded(service: Service) -> None:
    answer = service.ask(path=LENIENT).json()
    assert answer["degraded"] is None
    assert {view["status"] for view in answer["features"].values()} == {"fresh"}
    assert service.logged[0]["degraded"] is None


@pytest.mark.parametrize("silent", [True, False])
def test_without_the_store_one_model_answers_and_says_so_and_the_other_refuses(
    service: Service, silent: bool
) -> None:
    views = [
        metrics.FEATURES_SERVED.labels(f"{name}_payments@1", "degraded") for name in ("customer", "merchant")
    ]
    before = [one._value.get() for one in views]
    if silent:
        service.store.open.clear()
    else:
        service.store.failure = UnavailableError("no Redis")

    async def story(client: httpx.AsyncClient) -> list[httpx.Response]:
        paths = [LENIENT, STRICT] * 3
        return await asyncio.gather(*(client.post(path, json=GOOD) for path in paths))

    answers = service.run(story)
    assert [one.status_code for one in answers] == [200, 503] * 3
    assert all(one.headers["retry-after"] for one in answers[1::2])
    for answer in (one.json() for one in answers[::2]):
        assert ("did not answer" if silent else "no Redis") in answer["degraded"]
        customer = answer["features"]["customer_payments"]
        assert (customer["status"], customer["age_ms"]) == ("degraded", None)
        assert (customer["values"]["count_1h"], customer["values"]["last_amount"]) == (0.0, None)
    by_id = {one["request_id"]: one for one in service.logged}
    for answer in (one.json() for one in answers[::2]):
        logged = by_id[answer["request_id"]]
        assert (logged["degraded"], logged["status"]) == (answer["degraded"], "ANSWERED")
    failed = [one for one in service.logged if one["model"] == "abuse"]
    assert {(one["status"], one["degraded"], one["score"]) for one in failed} == {("FAILED", None, None)}
    assert [one._value.get() - was for one, was in zip(views, before, strict=True)] == [3, 3]
    levels = {one.objective: (one.requests, one.good) for one in service.levels.levels()}
    assert levels == {"availability": (3, 1.0), "latency": (3, 1.0), "completeness": (3, 0.0)}


def test_who_leaves_less_time_than_the_model_waits_hurries_nobody_else(
    project: Project, models: Path
) -> None:
    """The store answers once the caller in a hurry has its answer: the others of its batch get the store's values."""

    async def story(client: httpx.AsyncClient) -> list[Any]:
        hurried = {"x-request-timeout-ms": "1000"}
        others = [asyncio.create_task(client.post(LENIENT, json=GOOD)) for _ in range(2)]
        late = await client.post(LENIENT, json=GOOD, headers=hurried)
        service.store.open.set()
        return [one.json()["degraded"] for one in (late, *[await other for other in others])]

    with served(waiting(project, 1_900), models) as service:
        service.store.open.clear()
        late, *others = service.run(story)
    assert "did not answer within" in late
    assert others == [None, None]


def test_a_degraded_prediction_is_replayed_to_the_bit(
    service: Service, project: Project, models: Path
) -> None:
    service.ask(path=LENIENT)
    service.store.failure = UnavailableError("no Redis")
    service.ask(path=LENIENT)
    assert [one["degraded"] for one in service.logged] == [None, "no Redis"]
    schema = arrow_schema(prediction_schema(project))
    table = pa.Table.from_pylist(service.logged, schema=schema)
    log = placed(
        fitted(table, storage_schema(schema)),
        partition=0,
        offsets=range(2),
        timestamps_ms=np.full(2, NOW_US // 1_000),
        event_times=("event_time",),
    )
    rows = Replay(Bundles(models), {}).score(log).to_pylist()
    assert [one["result"] for one in rows] == ["equal", "equal"]
    assert rows[0]["score"] != rows[1]["score"], "the features differ, so the equality says something"
