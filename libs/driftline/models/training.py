"""Train a model: a point-in-time training set, candidates judged on the last weeks, ONNX proven equal.

1. Requests whose label was known by the end of the span, with their features as of each request.
2. The last ``VALIDATION_SHARE`` of the span is held out. Candidates learn from what was known before it.
3. The candidate with the lowest log loss wins, and learns again from all rows.
4. It is converted to ONNX, proven equal, written as a bundle and made the active version.
"""

import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from driftline.models.bundle import (
    Bundle,
    BundleManifest,
    Decision,
    Quality,
    TrainingSet,
    activate,
    write_bundle,
)
from driftline.models.card import model_card
from driftline.models.conversion import Columns, convert
from driftline.models.quality import moving_average, quality
from driftline.models.training_set import Rows, assemble, labelled_requests
from driftline.project.declaration import ModelDeclaration, Project
from driftline.project.history import load_history
from driftline.project.modules import load_module
from driftline.runtime.clock import Clock, SystemClock
from driftline.runtime.errors import ConfigurationError

#: The share of the span, at its end, on which candidates are judged.
VALIDATION_SHARE = 0.2
_DAY_US = 86_400_000_000
_LIBRARIES = ("scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy", "driftline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model that was trained and activated, and how long that took."""

    bundle: Bundle
    candidates: Mapping[str, Quality]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    name: str
    metrics: dict[str, Quality]
    candidates: dict[str, Quality]
    validation_rows: int


def train(
    project: Project,
    model_name: str,
    models_dir: Path,
    *,
    start: date,
    end: date,
    clock: Clock | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train a model of a project on ``[start, end)``, days in UTC, and make it the active version.

    Raises
    ------
    ConfigurationError
        Where the project has no such model, candidates or history, or the span holds too little.
    ConversionError
        Where the winning pipeline cannot be served as ONNX.
    """
    began = time.monotonic()
    model = _model(project, model_name)
    progress("history")
    history = load_history(project, start, end)
    requests = labelled_requests(history.requests, _midnight_us(end))
    rows = assemble(model, history, requests, progress)
    _check_labels(model, rows, start, end)

    columns = Columns(numeric=model.numeric_columns, categorical=model.categorical_columns)
    estimators = _candidates(model)
    split_us = _split_us(start, end)
    judged = _judge(estimators, columns, rows, split_us, progress)

    progress(f"{judged.name} on all {len(rows):,} rows")
    frame = columns.frame(rows.numeric, rows.categorical)
    pipeline = clone(estimators[judged.name]).fit(frame, rows.labels)
    progress("conversion to ONNX")
    onnx, proof = convert(pipeline, columns, frame[rows.as_of_us >= split_us])

    sha256 = rows.sha256()
    created = datetime.fromtimestamp((clock or SystemClock()).now_us() / 1e6, tz=UTC)
    manifest = BundleManifest(
        project=project.name,
        model=model.name,
        version=f"{created:%Y%m%dT%H%M%S%fZ}-{sha256[:8]}",
        created_at=created.isoformat(timespec="seconds"),
        description=model.description,
        owner=model.owner,
        numeric=columns.numeric,
        categorical=columns.categorical,
        views=tuple(view.ref for view in model.views),
        decision=Decision(
            threshold=model.decision.threshold, above=model.decision.above, below=model.decision.below
        ),
        candidate=judged.name,
        estimator=" ".join(repr(pipeline).split()),
        training=TrainingSet(
            start=start.isoformat(),
            end=end.isoformat(),
            rows=len(rows),
            validation_rows=judged.validation_rows,
            validation_start=_moment(split_us).isoformat(timespec="minutes"),
            positive_share=float(rows.labels.mean()),
            without_label=len(history.requests) - len(rows),
            sha256=sha256,
        ),
        metrics=judged.metrics,
        conversion=proof,
        environment=_environment(),
        files={},
    )
    write_bundle(models_dir, manifest, model=onnx, card=model_card(manifest))
    bundle = activate(models_dir, model.name, manifest.version)
    return Trained(bundle=bundle, candidates=judged.candidates, seconds=time.monotonic() - began)


def _judge(
    estimators: Mapping[str, Any],
    columns: Columns,
    rows: Rows,
    split_us: int,
    progress: Callable[[str], None],
) -> _Judged:
    """Measure every candidate and the baselines on the requests after the split."""
    before = rows.take(rows.label_known_us <= split_us)
    after = rows.take(rows.as_of_us >= split_us)
    for name, part in (("before", before), ("after", after)):
        if len(part) == 0 or before.labels.all() or not before.labels.any():
            msg = (
                f"there are too few labelled requests {name} {_moment(split_us):%d %B %Y %H:%M}, where validation "
                "starts: take a longer span"
            )
            raise ConfigurationError(msg)
    share = float(before.labels.mean())
    found: dict[str, Quality] = {}
    for name, estimator in estimators.items():
        progress(f"candidate {name}")
        fitted = clone(estimator).fit(columns.frame(before.numeric, before.categorical), before.labels)
        scores = fitted.predict_proba(columns.frame(after.numeric, after.categorical))[:, 1]
        found[name] = quality(after.labels, scores)
    best = min(found, key=lambda name: found[name].log_loss)
    averages = moving_average(rows.label_known_us, rows.labels, after.as_of_us, fallback=share)
    metrics = {
        "model": found[best],
        "moving_average": quality(after.labels, np.clip(averages, 1e-3, 1 - 1e-3)),
        "constant": quality(after.labels, np.full(len(after), share)),
    }
    return _Judged(name=best, metrics=metrics, candidates=found, validation_rows=len(after))


def _model(project: Project, name: str) -> ModelDeclaration:
    if name not in project.models:
        known = ", ".join(sorted(project.models)) or "none"
        raise ConfigurationError(f"project {project.name!r} has no model {name!r}; its models: {known}")
    return project.models[name]


def _candidates(model: ModelDeclaration) -> dict[str, Any]:
    function = getattr(load_module(model.module), "candidates", None)
    if not callable(function):
        raise ConfigurationError(f"{model.module}: has no function candidates(numeric, categorical)")
    estimators: dict[str, Any] = function(model.numeric_columns, model.categorical_columns)
    if not estimators:
        raise ConfigurationError(f"{model.module}: candidates(numeric, categorical) returned none")
    return estimators


def _check_labels(model: ModelDeclaration, rows: Rows, start: date, end: date) -> None:
    if len(rows) == 0 or rows.labels.all() or not rows.labels.any():
        msg = (
            f"model {model.name!r}: {len(rows):,} requests between {start} and {end} have a known label, and both "
            "outcomes must be among them; take a longer span"
        )
        raise ConfigurationError(msg)


def _split_us(start: date, end: date) -> int:
    days = max(1, round((end - start) / timedelta(days=1) * VALIDATION_SHARE))
    return _midnight_us(end) - days * _DAY_US


def _midnight_us(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000


def _moment(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, tz=UTC)


def _environment() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        found[name] = importlib.metadata.version(name)
    return found
