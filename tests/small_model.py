"""A small real model for the shop: trained on made-up rows, converted and written as any other."""

from pathlib import Path

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from driftline.models.bundle import BundleManifest, Decision, Quality, TrainingSet, write_bundle
from driftline.models.conversion import Columns, convert
from driftline.models.model_reference import REFERENCE_FILE, build_model_reference
from driftline.models.standing import activate
from driftline.project import Project

_ROWS = 400


def write_model(
    project: Project,
    models: Path,
    version: str = "1",
    *,
    model: str = "",
    reference: bool = False,
    seed: int = 3,
) -> None:
    """Train, convert, write and activate a model, the project's only one unless named; with a reference if asked.

    Another seed makes another model.
    """
    (declaration,) = (one for one in project.models.values() if model in {"", one.name})
    columns = Columns(numeric=declaration.numeric_columns, categorical=declaration.categorical_columns)
    rng = np.random.default_rng(seed)
    numeric = rng.normal(50, 30, (_ROWS, len(columns.numeric)))
    numeric[rng.random(numeric.shape) < 0.1] = np.nan
    categorical = {
        name: [f"{name}-{number}" for number in rng.integers(0, 20, _ROWS)] for name in columns.categorical
    }
    labels = np.nan_to_num(numeric[:, 0]) + np.nan_to_num(numeric[:, 1]) > 90
    frame = columns.frame(numeric, categorical)
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    pipeline = Pipeline(
        [
            (
                "columns",
                ColumnTransformer(
                    [
                        ("numeric", "passthrough", list(columns.numeric)),
                        ("categorical", encoder, list(columns.categorical)),
                    ]
                ),
            ),
            ("boosting", HistGradientBoostingClassifier(max_iter=20, random_state=0)),
        ]
    ).fit(frame, labels)
    onnx, proof = convert(pipeline, columns, frame)
    nothing = Quality(auc=0.5, log_loss=0.7, brier=0.25)
    manifest = BundleManifest(
        project=project.name,
        model=declaration.name,
        version=version,
        created_at="2026-01-01T00:00:00+00:00",
        description=declaration.description,
        owner=declaration.owner,
        numeric=columns.numeric,
        categorical=columns.categorical,
        views=tuple(view.ref for view in declaration.views),
        decision=Decision(
            threshold=declaration.decision.threshold,
            above=declaration.decision.above,
            below=declaration.decision.below,
        ),
        candidate="boosting",
        estimator="HistGradientBoostingClassifier",
        training=TrainingSet(
            start="2026-01-01",
            end="2026-01-02",
            rows=_ROWS,
            validation_rows=_ROWS,
            validation_start="2026-01-01",
            positive_share=float(labels.mean()),
            without_label=0,
            sha256="0" * 64,
        ),
        metrics={"model": nothing},
        conversion=proof,
        environment={},
        files={},
    )
    extra = {}
    if reference:
        scores = pipeline.predict_proba(frame)[:, 1]
        found = build_model_reference(declaration, numeric, categorical, scores, labels)
        extra[REFERENCE_FILE] = found.to_bytes()
    write_bundle(models, manifest, model=onnx, card="# A model for tests\n", extra=extra)
    activate(models, declaration.name, version)
