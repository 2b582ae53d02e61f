"""The shop with a small model, for tests that predict without servers."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.project_schemas import prediction_request_schema
from driftline.project import Project, load_project
from driftline.runtime.clock import ManualClock
from driftline.serving.predict import PredictionEngine
from driftline.serving.rack import ModelRack
from tests.small_model import write_model
from tests.unit.serving.test_predict import NOW_US, SHOP, Features


@pytest.fixture(scope="module")
def project() -> Project:
    """The shop, with a view that refuses to be served stale."""
    shop = load_project(SHOP)
    views = {
        **shop.views,
        "merchant_payments": replace(shop.views["merchant_payments"], ttl="1h", on_stale="refuse"),
    }
    fraud = shop.models["fraud"]
    models = {"fraud": replace(fraud, views=tuple(views[view.name] for view in fraud.views))}
    models["abuse"] = replace(models["fraud"], name="abuse")
    return replace(shop, views=views, models=models)


@pytest.fixture(scope="module")
def models(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    for model in project.models.values():
        write_model(replace(project, models={model.name: model}), models)
    return models


@pytest.fixture(scope="module")
def rack(project: Project, models: Path) -> ModelRack:
    return ModelRack(models, project)


@pytest.fixture(scope="module")
def features() -> Features:
    return Features()


@pytest.fixture(scope="module")
def engine(project: Project, rack: ModelRack, features: Features) -> PredictionEngine:
    return PredictionEngine(project, features, rack, ManualClock(NOW_US))


@pytest.fixture(scope="module")
def requests(project: Project) -> pa.Schema:
    return arrow_schema(prediction_request_schema(project))
