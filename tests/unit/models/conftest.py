"""A small pipeline, and the bundle that is made of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from driftline.models.bundle import (
    Bundle,
    BundleManifest,
    Conversion,
    Decision,
    Quality,
    TrainingSet,
    load_bundle,
    write_bundle,
)
from driftline.models.conversion import Columns, convert

COLUMNS = Columns(numeric=("size", "age", "price"), categorical=("shop", "colour"))


@dataclass(frozen=True, slots=True)
class Sample:
    numeric: NDArray[np.float32]
    categorical: dict[str, list[str | None]]
    labels: NDArray[np.bool_]

    @property
    def frame(self) -> pd.DataFrame:
        return COLUMNS.frame(self.numeric, self.categorical)


@dataclass(frozen=True, slots=True)
class Converted:
    pipeline: Pipeline
    model: bytes
    conversion: Conversion


def boosting(**options: object) -> Pipeline:
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    encode = ColumnTransformer([("codes", codes, list(COLUMNS.categorical))], remainder="passthrough")
    classify = HistGradientBoostingClassifier(max_iter=40, early_stopping=False, random_state=0, **options)
    return Pipeline([("encode", encode), ("classify", classify)])


@pytest.fixture(scope="session")
def sample() -> Sample:
    rng = np.random.default_rng(7)
    rows = 3000
    numeric = rng.normal(size=(rows, 3)).astype(np.float32)
    numeric[rng.random(numeric.shape) < 0.1] = np.nan
    shops: list[str | None] = rng.choice(["north", "south", "east"], rows).tolist()
    colours: list[str | None] = [None if rng.random() < 0.1 else "red" for _ in range(rows)]
    lift = np.array([shop == "north" for shop in shops]) + np.nan_to_num(numeric[:, 0])
    labels = lift + rng.normal(size=rows) > 0.5
    return Sample(numeric, {"shop": shops, "colour": colours}, labels)


@pytest.fixture(scope="session")
def converted(sample: Sample) -> Converted:
    pipeline = boosting().fit(sample.frame, sample.labels)
    return Converted(pipeline, *convert(pipeline, COLUMNS, sample.frame))


@pytest.fixture
def manifest() -> Callable[..., BundleManifest]:
    return make_manifest


def make_manifest(version: str = "1") -> BundleManifest:
    return BundleManifest(
        project="market",
        model="returns",
        version=version,
        created_at="2013-04-01T00:00:00+00:00",
        description="Will it come back?",
        owner="someone@example.org",
        numeric=COLUMNS.numeric,
        categorical=COLUMNS.categorical,
        views=("shop_sales@1",),
        decision=Decision(threshold=0.5, above="returned", below="kept"),
        candidate="boosting",
        estimator="Pipeline(...)",
        training=TrainingSet(
            start="2013-01-01",
            end="2013-04-01",
            rows=3000,
            validation_rows=600,
            validation_start="2013-03-14T00:00+00:00",
            positive_share=0.25,
            without_label=10,
            sha256="0" * 64,
        ),
        metrics={"model": Quality(auc=0.8, log_loss=0.4, brier=0.1)},
        conversion=Conversion(rows=3000, max_difference=1e-7, tolerance=1e-5),
        environment={"python": "3.11"},
        files={},
    )


@pytest.fixture
def models_dir(tmp_path: Path, converted: Converted) -> Path:
    folder = tmp_path / "models"
    write_bundle(folder, make_manifest("1"), model=converted.model, card="# returns\n")
    return folder


@pytest.fixture
def bundle(models_dir: Path) -> Bundle:
    return load_bundle(models_dir / "returns" / "1")
