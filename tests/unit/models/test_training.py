"""Training sees what was known, and nothing else; its result is an active bundle."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from driftline.cli import training as cli
from driftline.models.scoring import Scorer
from driftline.models.standing import active_version, load_active
from driftline.models.training import Trained, train
from driftline.models.training_set import assemble, labelled_requests
from driftline.project import Project, load_project
from driftline.project.history import History, load_history
from driftline.runtime.clock import ManualClock
from driftline.runtime.errors import ConfigurationError

DECLARATION = """
name: market
owner: someone@example.org
history: history.py
events:
  sales: {schema: sales.avsc, key: shop, event_time: sold_at}
models:
  returns:
    description: Will it come back?
    entities: [shop]
    views: [shop_sales]
    inputs:
      basket: {type: double}
      colour: {type: string}
    decision: {threshold: 0.5, above: returned, below: kept}
"""

SCHEMA = {
    "type": "record",
    "name": "Sale",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "sold_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "shop", "type": "string"},
        {"name": "price", "type": "double"},
    ],
}

FEATURES = """
from driftline.features import Entity, FeatureView, Source, count, mean

shop = Entity("shop")
sales = Source("sales", entity=shop, event_time="sold_at")
shop_sales = FeatureView("shop_sales", version=1, source=sales, features=[mean("price").over("6h"), count().over("6h")])
"""

MODEL = """
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder


def candidates(numeric, categorical):
    return {"one": boosting(categorical, 1), "forty": boosting(categorical, 40)}


def boosting(categorical, trees):
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    encode = ColumnTransformer([("codes", codes, list(categorical))], remainder="passthrough")
    classify = HistGradientBoostingClassifier(max_iter=trees, early_stopping=False, random_state=0)
    return Pipeline([("encode", encode), ("classify", classify)])
"""

# A price is known an hour after the sale; whether the thing comes back, six hours after the request.
HISTORY = """
import numpy as np
import pyarrow as pa
from driftline.project.history import History

HOUR = 3_600_000_000


def history(start, end):
    rng = np.random.default_rng(0)
    first, last = (int(np.datetime64(day, "us").astype(int)) for day in (start, end))
    sold = np.sort(rng.integers(first, last, 4000))
    shops = rng.choice(["north", "south"], 4000)
    price = np.where(shops == "north", 1.0, 0.0) + np.sin(sold / HOUR / 12)
    events = {"event_id": [str(i) for i in range(4000)], "sold_at": pa.array(sold, pa.timestamp("us")),
              "shop": shops.tolist(), "price": price, "known_at": pa.array(sold + HOUR, pa.timestamp("us"))}
    asked = np.sort(rng.integers(first, last, 3000))
    where = rng.choice(["north", "south"], 3000)
    truth = np.where(where == "north", 1.0, 0.0) + np.sin(asked / HOUR / 12) + rng.normal(size=3000) > 0.7
    label = pa.array(truth, mask=rng.random(3000) < 0.05)
    requests = {"request_id": [str(i) for i in range(3000)], "event_time": pa.array(asked, pa.timestamp("us")),
                "shop": where.tolist(), "basket": pa.array(rng.normal(size=3000), mask=rng.random(3000) < 0.1),
                "colour": ["red" if i % 3 else None for i in range(3000)], "label": label,
                "label_known_at": pa.array(asked + 6 * HOUR, pa.timestamp("us"))}
    return History(events={"sales": pa.table(events)}, requests=pa.table(requests))
"""

START, END = date(2024, 1, 1), date(2024, 1, 31)
HOUR = 3_600_000_000


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("market")
    (folder / "driftline.yaml").write_text(DECLARATION)
    (folder / "sales.avsc").write_text(json.dumps(SCHEMA))
    for name, text in (("features", FEATURES), ("model", MODEL), ("history", HISTORY)):
        (folder / f"{name}.py").write_text(text)
    return load_project(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def trained(project: Project, models: Path) -> Trained:
    return train(project, "returns", models, start=START, end=END, clock=ManualClock(1_700_000_000_000_000))


def test_the_result_is_the_active_bundle(trained: Trained, models: Path) -> None:
    manifest = trained.bundle.manifest
    assert active_version(models, "returns") == manifest.version
    assert load_active(models, "returns") == trained.bundle
    assert manifest.version == f"20231114T221320000000Z-{manifest.training.sha256[:8]}"
    assert manifest.numeric == ("basket", "shop_sales__mean_price_6h", "shop_sales__count_6h")
    assert manifest.categorical == ("shop", "colour")
    assert manifest.views == ("shop_sales@1",)
    card = (trained.bundle.path / "card.md").read_text()
    assert manifest.ref in card
    assert f"{manifest.metrics['model'].log_loss:.4f}" in card


def test_the_better_candidate_wins_and_beats_the_baselines(trained: Trained) -> None:
    manifest = trained.bundle.manifest
    assert manifest.candidate == "forty"
    assert manifest.metrics["model"] == trained.candidates["forty"]
    assert trained.candidates["forty"].log_loss < trained.candidates["one"].log_loss
    assert manifest.metrics["model"].log_loss < manifest.metrics["moving_average"].log_loss
    assert manifest.metrics["constant"].auc == 0.5


def test_the_bundle_scores(trained: Trained) -> None:
    numeric = np.array([[0.0, 1.8, 30.0], [0.0, -0.9, 30.0], [np.nan] * 3])
    scores = Scorer(trained.bundle).score(
        numeric, {"shop": ["north", "south", None], "colour": ["red", None, "blue"]}
    )
    assert scores[0] > 0.6
    assert scores[1] < 0.3


def test_the_same_past_makes_the_same_model(project: Project, trained: Trained, tmp_path: Path) -> None:
    again = train(project, "returns", tmp_path, start=START, end=END)
    assert again.bundle.manifest.files["model.onnx"] == trained.bundle.manifest.files["model.onnx"]
    assert again.bundle.manifest.training == trained.bundle.manifest.training


def test_labels_that_were_not_known_by_the_end_are_left_out(project: Project, trained: Trained) -> None:
    history = load_history(project, START, END)
    end_us = int(np.datetime64(END, "us").astype(int))
    found = labelled_requests(history.requests, end_us)
    asked = found["event_time"].cast(pa.int64()).to_numpy()
    assert asked.max() <= end_us - 6 * HOUR
    assert found["label"].null_count == 0
    assert trained.bundle.manifest.training.rows == len(found)
    assert trained.bundle.manifest.training.without_label == 3000 - len(found)


def test_a_fact_counts_from_the_moment_it_was_known(project: Project) -> None:
    history = load_history(project, START, END)
    requests = labelled_requests(history.requests, 2**62)
    rows = assemble(project.models["returns"], history, requests)

    events = history.events["sales"]
    known = events["known_at"].cast(pa.int64()).to_numpy()
    sold = events["sold_at"].cast(pa.int64()).to_numpy()
    shops = np.array(events["shop"].to_pylist())
    slack = HOUR  # a window is read in whole tiles
    for row in range(0, len(rows), 97):
        instant, shop = rows.as_of_us[row], rows.categorical["shop"][row]
        mine = (shops == shop) & (known <= instant)
        outer = np.sum(mine & (sold > instant - 6 * HOUR))
        inner = np.sum(mine & (sold > instant - 6 * HOUR + slack))
        assert inner <= np.nan_to_num(rows.numeric[row, 2]) <= outer


def test_events_that_were_never_known_change_nothing(project: Project) -> None:
    history = load_history(project, START, END)
    requests = labelled_requests(history.requests, 2**62)
    last = int(requests["event_time"].cast(pa.int64()).to_numpy().max())
    events = history.events["sales"]
    known = events["known_at"].cast(pa.int64()).to_numpy()
    assert (known > last).any()
    before = History(events={"sales": events.filter(pa.array(known <= last))}, requests=requests)
    model = project.models["returns"]
    assert assemble(model, before, requests).sha256() == assemble(model, history, requests).sha256()


@pytest.mark.parametrize(
    ("name", "span", "complaint"),
    [
        ("refunds", (START, END), "has no model 'refunds'; its models: returns"),
        ("returns", (END, START), r"span .* is empty"),
    ],
)
def test_what_cannot_be_trained_is_told(
    project: Project, tmp_path: Path, name: str, span: tuple[date, date], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        train(project, name, tmp_path, start=span[0], end=span[1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        ("", r"no function candidates\(numeric, categorical\)"),
        ("def candidates(numeric, categorical):\n    return {}\n", "returned none"),
        (
            "from river.linear_model import LogisticRegression\n\n\n"
            "def candidates(numeric, categorical):\n    return {'online': LogisticRegression()}\n",
            r"'online', river's LogisticRegression, has no fit.*convert_river_to_sklearn",
        ),
    ],
)
def test_a_project_without_candidates_is_told(
    project: Project, tmp_path: Path, module: str, complaint: str
) -> None:
    for file in project.folder.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.py").write_text(module)
    with pytest.raises(ConfigurationError, match=complaint):
        train(load_project(tmp_path), "returns", tmp_path / "models", start=START, end=END)


ELSEWHERE = """
from lightgbm import LGBMClassifier
from river import linear_model, preprocessing
from river.compat import River2SKLClassifier
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder
from xgboost import XGBClassifier

CLASSIFIERS = {
    "lightgbm": LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1),
    "xgboost": XGBClassifier(n_estimators=20, n_jobs=1),
    "river": River2SKLClassifier(preprocessing.StandardScaler() | linear_model.LogisticRegression()),
}


def candidates(numeric, categorical):
    codes = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encode = ColumnTransformer([("codes", codes, list(categorical)), ("fill", SimpleImputer(), list(numeric))])
    return {NAME: Pipeline([("encode", encode), ("classify", CLASSIFIERS[NAME])])}
"""


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "river"])
def test_models_of_other_libraries_become_bundles(project: Project, tmp_path: Path, name: str) -> None:
    for file in project.folder.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.py").write_text(f"NAME = {name!r}\n{ELSEWHERE}")
    trained = train(load_project(tmp_path), "returns", tmp_path / "models", start=START, end=END)
    manifest = trained.bundle.manifest
    assert manifest.conversion.max_difference <= 1e-5
    assert any(library.startswith(name) for library in manifest.environment)
    found = Scorer(trained.bundle).score(
        np.array([[1.0, 2.0, 3.0], [np.nan] * 3]), {"shop": ["north", None], "colour": ["red", "new"]}
    )
    assert np.isfinite(found).all()


@pytest.fixture
def command() -> Callable[..., object]:
    app = typer.Typer()
    app.command()(cli.train)
    return lambda *arguments: CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_prints_json(project: Project, tmp_path: Path, command: Callable[..., object]) -> None:
    result = command(
        "--project", project.folder, "--models", tmp_path, "--from", START, "--to", END, "--json"
    )  # fmt: skip
    assert result.exit_code == 0, result.output  # type: ignore[attr-defined]
    found = json.loads(result.stdout)  # type: ignore[attr-defined]
    assert found["version"] == active_version(tmp_path, "returns")
    assert set(found["metrics"]) == {"model", "moving_average", "constant"}


def test_the_command_prints_a_table(project: Project, tmp_path: Path, command: Callable[..., object]) -> None:
    result = command("--project", project.folder, "--models", tmp_path, "--from", START, "--to", END)
    assert result.exit_code == 0, result.output  # type: ignore[attr-defined]
    assert "moving average" in result.stdout  # type: ignore[attr-defined]
