"""Train a model: a point-in-time training set, candidates judged on the last weeks, ONNX proven equal.

1. Requests whose label was known by the end of the span, with their features as of each request.
2. The last ``VALIDATION_SHARE`` of the span is held out. Candidates learn from what was known before it.
3. The candidate with the lowest log loss wins, and learns again from all rows.
4. It is converted to ONNX, proven equal, written as a bundle and made the active version.

The steps are in ``fitting``; ``retraining_job`` puts them together for a retrain, with a screening and gates.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from driftline.models.bundle import Bundle, Quality
from driftline.models.fitting import (
    candidates_of,
    check_labels,
    columns_of,
    declared_model,
    gather,
    judge,
    midnight_us,
    write_version,
)
from driftline.models.standing import activate
from driftline.project.declaration import Project
from driftline.runtime.clock import Clock, SystemClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model that was trained and activated, and how long that took."""

    bundle: Bundle
    candidates: Mapping[str, Quality]
    seconds: float


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
    model = declared_model(project, model_name)
    end_us = midnight_us(end)
    gathered = gather(project, model, start=start, until_us=end_us, known_by_us=end_us, progress=progress)
    check_labels(model, gathered)
    estimators = candidates_of(model)
    judged = judge(estimators, columns_of(model), gathered.rows, gathered.split_us, progress)
    created = datetime.fromtimestamp((clock or SystemClock()).now_us() / 1e6, tz=UTC)
    version = f"{created:%Y%m%dT%H%M%S%fZ}-{gathered.rows.sha256()[:8]}"
    write_version(
        project,
        model,
        models_dir,
        gathered,
        judged,
        estimators[judged.name],
        version=version,
        created=created,
        progress=progress,
    )
    bundle = activate(models_dir, model.name, version)
    return Trained(bundle=bundle, candidates=judged.candidates, seconds=time.monotonic() - began)
