"""The steps of a training, each for itself: gather rows, judge candidates, learn from all rows, write the bundle."""

import contextlib
import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from driftline.models.bundle import BundleManifest, Decision, Quality, TrainingSet, write_bundle
from driftline.models.card import model_card
from driftline.models.conversion import Columns, convert, parts_of
from driftline.models.converters import package_of
from driftline.models.data_profile import DATA_PROFILE_FILE, profile_rows
from driftline.models.model_event import TrainingCause
from driftline.models.model_reference import REFERENCE_FILE, build_model_reference
from driftline.models.quality import moving_average, quality
from driftline.models.screening import Bounds, Finding, screen_types
from driftline.models.training_set import Rows, assemble, labelled_requests
from driftline.project.declaration import ModelDeclaration, Project
from driftline.project.deprecations import uses_of
from driftline.project.history import load_history
from driftline.project.modules import load_module
from driftline.runtime.errors import ConfigurationError

#: The share of the span, at its end, on which candidates are judged.
VALIDATION_SHARE = 0.2
_DAY_US = 86_400_000_000
_LIBRARIES = ("scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy", "driftline")
#: By the package that an estimator is of: what else a model is made with, by any of its names.
_LIBRARIES_OF: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "lightgbm": (("lightgbm",), ("onnxmltools",)),
    "xgboost": (("xgboost", "xgboost-cpu"), ("onnxmltools",)),
    "river": (("river",),),
}

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What can be learnt from: labelled requests in ``[start_us, until_us)`` with their features as of each.

    ``types`` are the request columns whose type is not the declared one.
    """

    rows: Rows
    request_ids: list[str]
    without_label: int
    start_us: int
    until_us: int
    types: tuple[Finding, ...] = ()

    @property
    def split_us(self) -> int:
        """Where the held-back part begins."""
        span = self.until_us - self.start_us
        return self.until_us - max(1, round(span / _DAY_US * VALIDATION_SHARE)) * _DAY_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Every candidate on the held-back rows: its quality, its scores there, the seconds that it took to learn.

    ``name`` is the best one; ``metrics`` are its quality (``model``) beside the baselines'.
    """

    name: str
    metrics: dict[str, Quality]
    candidates: dict[str, Quality]
    scored: dict[str, NDArray[np.float64]]
    seconds: dict[str, float]
    held_back: Rows

    @property
    def scores(self) -> NDArray[np.float64]:
        """The best candidate's scores."""
        return self.scored[self.name]


def declared_model(project: Project, name: str) -> ModelDeclaration:
    """Return a model of a project; ConfigurationError where it has none of this name."""
    if name not in project.models:
        known = ", ".join(sorted(project.models)) or "none"
        raise ConfigurationError(f"project {project.name!r} has no model {name!r}; its models: {known}")
    return project.models[name]


def candidates_of(model: ModelDeclaration) -> dict[str, Any]:
    """Return the estimators that the project wants tried, by name."""
    function = getattr(load_module(model.module), "candidates", None)
    if not callable(function):
        raise ConfigurationError(f"{model.module}: has no function candidates(numeric, categorical)")
    estimators: dict[str, Any] = function(model.numeric_columns, model.categorical_columns)
    if not estimators:
        raise ConfigurationError(f"{model.module}: candidates(numeric, categorical) returned none")
    for name, estimator in estimators.items():
        if not (hasattr(estimator, "fit") and hasattr(estimator, "predict_proba")):
            kind = f"{package_of(estimator)}'s {type(estimator).__name__}"
            raise ConfigurationError(
                f"{model.module}: candidate {name!r}, {kind}, has no fit and predict_proba as scikit-learn's classifiers "
                "have; a river model gets them from river.compat.convert_river_to_sklearn, as the last step of a Pipeline"
            )
    return estimators


def bounds_of(model: ModelDeclaration) -> dict[str, Bounds]:
    """Return what the project's model file says of its columns: ``BOUNDS = {"total": (0, None)}``."""
    declared = getattr(load_module(model.module), "BOUNDS", {})
    known = set(model.numeric_columns)
    unknown = sorted(set(declared) - known)
    if unknown:
        raise ConfigurationError(
            f"{model.module}: BOUNDS names {', '.join(unknown)}, which are no numeric columns"
        )
    return {name: Bounds(least=least, most=most) for name, (least, most) in declared.items()}


def columns_of(model: ModelDeclaration) -> Columns:
    """Return a model's columns in declared order."""
    return Columns(numeric=model.numeric_columns, categorical=model.categorical_columns)


def gather(
    project: Project,
    model: ModelDeclaration,
    *,
    start: date,
    until_us: int,
    known_by_us: int,
    progress: Progress = lambda _: None,
) -> Gathered:
    """Gather the requests from ``start`` (a day, UTC) to ``until_us`` whose label was known at ``known_by_us``.

    Raises
    ------
    ConfigurationError
        The project has no history, or both outcomes are not among the rows.
    """
    for use in uses_of(model):
        progress(str(use))
    progress("history")
    history = load_history(project, start, _day_after(until_us))
    requests = history.requests
    asked = requests["event_time"].cast("int64").to_numpy()
    if len(asked) and asked[-1] >= until_us:
        requests = requests.slice(0, int(np.searchsorted(asked, until_us, side="left")))
    types = tuple(screen_types(model, requests))
    labelled = labelled_requests(requests, known_by_us)
    if types:  # they cannot be read as what they should be; the screening refuses them
        labelled = labelled.slice(0, 0)
    rows = assemble(model, history, labelled, progress)
    start_us = midnight_us(start)
    if start_us < 0 or start.year <= 1970:  # "as far back as there is anything"
        start_us = int(asked[0]) // _DAY_US * _DAY_US if len(asked) else until_us
    return Gathered(
        rows=rows,
        request_ids=labelled["request_id"].to_pylist(),
        without_label=len(requests) - len(rows),
        start_us=start_us,
        until_us=until_us,
        types=types,
    )


def check_labels(model: ModelDeclaration, gathered: Gathered) -> None:
    """Raise ConfigurationError where nothing can be learnt: no row, or one outcome only."""
    rows = gathered.rows
    if len(rows) == 0 or rows.labels.all() or not rows.labels.any():
        msg = (
            f"model {model.name!r}: {len(rows):,} requests between {moment_text(gathered.start_us)} and "
            f"{moment_text(gathered.until_us)} have a known label, and both outcomes must be among them; take a "
            "longer span"
        )
        raise ConfigurationError(msg)


def judge(
    estimators: Mapping[str, Any],
    columns: Columns,
    rows: Rows,
    split_us: int,
    progress: Progress = lambda _: None,
) -> Judged:
    """Measure every candidate and the baselines on the requests after the split, in the order of time."""
    before = rows.take(rows.label_known_us <= split_us)
    after = rows.take(rows.as_of_us >= split_us)
    for name, part in (("before", before), ("after", after)):
        if len(part) == 0 or before.labels.all() or not before.labels.any():
            msg = (
                f"there are too few labelled requests {name} {moment(split_us):%d %B %Y %H:%M}, where validation "
                "starts: take a longer span"
            )
            raise ConfigurationError(msg)
    share = float(before.labels.mean())
    found: dict[str, Quality] = {}
    scored: dict[str, NDArray[np.float64]] = {}
    seconds: dict[str, float] = {}
    frame, later = (columns.frame(part.numeric, part.categorical) for part in (before, after))
    for name, estimator in estimators.items():
        progress(f"candidate {name}")
        began = time.monotonic()
        fitted = clone(estimator).fit(frame, before.labels)
        scored[name] = fitted.predict_proba(later)[:, 1].astype(np.float64)
        seconds[name] = time.monotonic() - began
        found[name] = quality(after.labels, scored[name])
    best = min(found, key=lambda name: found[name].log_loss)
    averages = moving_average(rows.label_known_us, rows.labels, after.as_of_us, fallback=share)
    metrics = {
        "model": found[best],
        "moving_average": quality(after.labels, np.clip(averages, 1e-3, 1 - 1e-3)),
        "constant": quality(after.labels, np.full(len(after), share)),
    }
    return Judged(
        name=best, metrics=metrics, candidates=found, scored=scored, seconds=seconds, held_back=after
    )


def write_version(
    project: Project,
    model: ModelDeclaration,
    models_dir: Path,
    gathered: Gathered,
    judged: Judged,
    estimator: Any,
    *,
    version: str,
    created: datetime,
    cause: TrainingCause | None = None,
    extra: Mapping[str, bytes] | None = None,
    progress: Progress = lambda _: None,
) -> BundleManifest:
    """Let the best candidate learn from all rows, prove its ONNX equal, and write the bundle; activate nothing.

    Raises
    ------
    ConversionError
        The pipeline cannot be served as ONNX.
    BundleError
        The version exists.
    """
    rows, columns = gathered.rows, columns_of(model)
    progress(f"{judged.name} on all {len(rows):,} rows")
    frame = columns.frame(rows.numeric, rows.categorical)
    pipeline = clone(estimator).fit(frame, rows.labels)
    progress("conversion to ONNX")
    onnx, proof = convert(pipeline, columns, frame[rows.as_of_us >= gathered.split_us])
    manifest = BundleManifest(
        project=project.name,
        model=model.name,
        version=version,
        created_at=created.isoformat(timespec="seconds"),
        description=model.description,
        owner=model.owner,
        numeric=columns.numeric,
        categorical=columns.categorical,
        views=tuple(view.ref for view in model.views),
        deprecated=tuple(map(str, uses_of(model))),
        codes={one.field: one.codes.reads for one in model.coded_inputs},
        decision=Decision(
            threshold=model.decision.threshold, above=model.decision.above, below=model.decision.below
        ),
        candidate=judged.name,
        estimator=" ".join(repr(pipeline).split()),
        training=TrainingSet(
            start=moment_text(gathered.start_us),
            end=moment_text(gathered.until_us),
            rows=len(rows),
            validation_rows=len(judged.held_back),
            validation_start=moment(gathered.split_us).isoformat(timespec="minutes"),
            positive_share=float(rows.labels.mean()),
            without_label=gathered.without_label,
            sha256=rows.sha256(),
        ),
        metrics=judged.metrics,
        conversion=proof,
        environment=environment(pipeline),
        cause=cause,
        files={},
    )
    progress("reference for drift")
    held_back = judged.held_back
    reference = build_model_reference(
        model, held_back.numeric, held_back.categorical, judged.scores, held_back.labels
    )
    profile = profile_rows(rows, columns.numeric, columns.categorical)
    files = {REFERENCE_FILE: reference.to_bytes(), DATA_PROFILE_FILE: profile.to_bytes(), **(extra or {})}
    write_bundle(models_dir, manifest, model=onnx, card=model_card(manifest), extra=files)
    return manifest


def environment(pipeline: Any = None) -> dict[str, str]:
    """Return the versions of Python and of what a model is made with; of a pipeline's own libraries too."""
    found = {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _LIBRARIES},
    }
    packages = {package_of(part) for part in parts_of(pipeline)}
    for package in sorted(packages & _LIBRARIES_OF.keys()):
        for names in _LIBRARIES_OF[package]:
            for name in names:
                with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                    found[name] = importlib.metadata.version(name)
    return found


def midnight_us(day: date) -> int:
    """Return the begin of a day in UTC, in microseconds since the epoch."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000


def moment(us: int) -> datetime:
    """Return an instant as an aware datetime."""
    return datetime.fromtimestamp(us / 1e6, tz=UTC)


def moment_text(us: int) -> str:
    """Return an instant as ISO text: a day where it is midnight.

    >>> moment_text(0), moment_text(3_600_000_000)
    ('1970-01-01', '1970-01-01T01:00:00+00:00')
    """
    return moment(us).date().isoformat() if us % _DAY_US == 0 else moment(us).isoformat()


def _day_after(us: int) -> date:
    """Return the first day that begins at an instant or after it."""
    return (moment(us - 1) + timedelta(days=1)).date() if us % _DAY_US else moment(us).date()
