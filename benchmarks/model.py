"""The bench project's model: boosting, trained on made-up rows, as a bundle and as the pipeline that it came from."""

from pathlib import Path

import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from benchmarks import events
from driftline.models.bundle import load_version, write_bundle
from driftline.models.conversion import Columns, convert
from driftline.models.standing import activate
from driftline.project import Project
from tests.small_model import write_model as write_small_model

_ROWS = 2_000
_VERSION = "2"


def write_model(project: Project, models: Path, pipeline_file: Path) -> None:
    """Write and activate the project's only model, and its pipeline as a joblib file."""
    (declaration,) = project.models.values()
    columns = Columns(numeric=declaration.numeric_columns, categorical=declaration.categorical_columns)
    rng = np.random.default_rng(3)
    numeric = rng.normal(50, 30, (_ROWS, len(columns.numeric))).astype(np.float32)
    numeric[rng.random(numeric.shape) < 0.1] = np.nan
    sensors = [f"sensor-{number:05d}" for number in rng.integers(0, events.SENSORS, _ROWS)]
    frame = columns.frame(numeric, {"sensor": sensors})
    pipeline = _fitted(columns, frame, np.nan_to_num(numeric[:, 0]) + np.nan_to_num(numeric[:, 1]) > 90)
    joblib.dump(pipeline, pipeline_file)
    onnx, proof = convert(pipeline, columns, frame)
    write_small_model(project, models)  # for what a manifest says beside the model
    manifest = load_version(models, declaration.name, "1").manifest
    manifest = manifest.model_copy(update={"version": _VERSION, "conversion": proof, "files": {}})
    write_bundle(models, manifest, model=onnx, card="# A model for benchmarks\n")
    activate(models, declaration.name, _VERSION)


def _fitted(columns: Columns, frame: pd.DataFrame, labels: NDArray[np.bool_]) -> Pipeline:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    steps = [
        ("numeric", "passthrough", list(columns.numeric)),
        ("categorical", encoder, list(columns.categorical)),
    ]
    boosting = HistGradientBoostingClassifier(max_iter=20, random_state=0)
    return Pipeline([("columns", ColumnTransformer(steps)), ("boosting", boosting)]).fit(frame, labels)
