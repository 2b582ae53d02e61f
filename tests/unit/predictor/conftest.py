"""A small shop with one model, and its predictor over HTTP."""

import time
from collections.abc import Iterator

import pytest

from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.project import Project, ServiceLevelRule, load_project
from driftline.runtime.clock import ManualClock
from driftline.runtime.health import Health
from driftline.runtime.http import create_app
from driftline.serving.predict import PredictionEngine
from driftline.serving.rack import ModelRack
from driftline.serving.service_levels import ServiceLevels
from services.predictor.api import PredictorState, predictor_routes
from services.predictor.batching import HttpBatches
from services.predictor.endpoint import QuickPredictions
from services.predictor.feature_reads import FeatureReads
from tests.serving import served
from tests.small_model import write_model
from tests.unit.predictor.harness import NOW_US, SHOP, Log, Service, Store


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
