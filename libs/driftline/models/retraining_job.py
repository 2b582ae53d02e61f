"""Work on one retrain request, from rows to facts for ``model-events``; what it decides stands on stored evidence.

1. Gather what was known before ``data_until``, and screen it. Bad data end the request: DATA_REFUSED, with the report.
2. Train every candidate and the baselines on the time before the held-back rows, and measure them there.
3. Hold the best candidate against the baselines and against the champion on these rows.
4. Record the runs in MLflow, let the best one learn from all rows, prove its ONNX, write the bundle with the evidence.
5. The facts: REGISTERED; then REJECTED, or VALIDATED and CHALLENGER (VALIDATED alone where there is no champion yet).

The version's name comes from the request, and everything before 4 changes nothing, so a request that is worked on
again after a crash makes the same version: before the bundle is written it starts anew, afterwards it only tells.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.models.bundle import Bundle, BundleManifest, Quality, load_bundle
from driftline.models.data_profile import DATA_PROFILE_FILE, DataProfile
from driftline.models.fitting import (
    Gathered,
    Judged,
    bounds_of,
    candidates_of,
    columns_of,
    declared_model,
    environment,
    gather,
    judge,
    moment,
    write_version,
)
from driftline.models.gates import Gate, HeldBack, baseline_gate, champion_gate
from driftline.models.model_event import Kind, ModelEvent, life_id
from driftline.models.retraining import RetrainRequest
from driftline.models.scoring import Scorer
from driftline.models.screening import ScreeningReport, screen
from driftline.models.standing import load_active
from driftline.models.tracking import CandidateRun, Tracking, TrainingRecord
from driftline.models.training_set import Rows
from driftline.project.declaration import ModelDeclaration, Project
from driftline.project.deprecations import uses_of
from driftline.runtime.clock import Clock, SystemClock, text_us
from driftline.runtime.errors import ConfigurationError, DriftlineError

#: The evidence of a retrain, in its bundle.
EVIDENCE_FILE = "evidence.json"
BY = "trainer"
_CURVE_BINS = 10
_EVER = date(1970, 1, 1)


class TrainingCancelledError(DriftlineError):
    """A person has stopped this training; the message says who and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a new version's facts stand on, as its bundle keeps it."""

    screening: dict[str, Any]
    candidates: dict[str, Any]
    gates: list[dict[str, Any]]
    champion: str | None

    @property
    def refusal(self) -> dict[str, Any] | None:
        """The first gate that was not passed."""
        return next((gate for gate in self.gates if not gate["passed"]), None)


class RetrainingJob:
    """Works on requests of one project, as its models' ``retrain:`` and ``promotion:`` sections say.

    ``progress`` is called with each step in words; whatever it raises ends the job between two steps.
    """

    def __init__(
        self,
        project: Project,
        models_dir: Path,
        tracking: Tracking,
        *,
        clock: Clock | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._project = project
        self._models_dir = models_dir
        self._tracking = tracking
        self._clock = clock or SystemClock()
        self._progress = progress

    def started(self, request: RetrainRequest) -> ModelEvent:
        """Return the fact that the training has begun."""
        return self._fact(request, Kind.TRAINING_STARTED, request.reason, {})

    def run(self, request: RetrainRequest) -> list[ModelEvent]:
        """Do all that a request asks for, and return the facts in order.

        A training that cannot be done (the project's mistake, or a person stopped it) is the fact TRAINING_FAILED.

        Raises
        ------
        UnavailableError
            MLflow does not answer: work on the request again.
        """
        try:
            return self._run(request)
        except (ConfigurationError, TrainingCancelledError) as error:
            return [self._fact(request, Kind.TRAINING_FAILED, str(error), {})]

    def _run(self, request: RetrainRequest) -> list[ModelEvent]:
        model = declared_model(self._project, request.model)
        folder = self._models_dir / model.name / request.version
        if folder.exists():
            self._progress("the version is there already")
            return self._facts(request, load_bundle(folder))
        champion = load_active(self._models_dir, model.name)
        gathered = gather(
            self._project,
            model,
            start=_start(request, model, champion),
            until_us=request.data_until_us,
            known_by_us=request.data_until_us - 1,
            progress=self._progress,
        )
        self._progress("screening")
        report = self._screened(model, gathered, champion)
        if report.refused:
            told = {
                "alert": True,
                "screening": report.as_json(),
                "text": report.text(),
            }
            return [self._fact(request, Kind.DATA_REFUSED, "; ".join(report.refused), told)]
        estimators = candidates_of(model)
        columns = columns_of(model)
        judged = judge(estimators, columns, gathered.rows, gathered.split_us, self._progress)
        self._progress("gates")
        gates = self._gates(model, judged, gathered.split_us, champion)
        evidence = Evidence(
            screening=report.as_json(),
            candidates={name: found.model_dump(mode="json") for name, found in judged.candidates.items()},
            gates=[gate.as_json() for gate in gates],
            champion=None if champion is None else champion.manifest.version,
        )
        self._progress("records in MLflow")
        runs = self._tracking.record(self._record(request, gathered, judged, estimators))
        write_version(
            self._project,
            model,
            self._models_dir,
            gathered,
            judged,
            estimators[judged.name],
            version=request.version,
            created=datetime.fromtimestamp(self._clock.now_us() / 1e6, tz=UTC),
            cause=request.training_cause,
            extra={EVIDENCE_FILE: _json(evidence)},
            progress=self._progress,
        )
        self._tracking.register(model.name, request.version, folder, runs[judged.name])
        return self._facts(request, load_bundle(folder))

    def _screened(
        self, model: ModelDeclaration, gathered: Gathered, champion: Bundle | None
    ) -> ScreeningReport:
        before = data_profile(champion) if champion is not None else None
        if champion is not None and before is not None:
            before = before.spoken(model.coded_inputs, champion.manifest.codes)
        return screen(
            gathered.rows,
            model.numeric_columns,
            model.categorical_columns,
            request_ids=gathered.request_ids,
            before=before,
            before_name=champion.manifest.version if champion is not None else None,
            bounds=bounds_of(model),
            rule=model.retrain.screening,
            types=gathered.types,
        )

    @staticmethod
    def _gates(model: ModelDeclaration, judged: Judged, split_us: int, champion: Bundle | None) -> list[Gate]:
        rows = judged.held_back
        held_back = HeldBack(as_of_us=rows.as_of_us, labels=rows.labels, scores=judged.scores)
        scores = until = None
        if champion is not None:
            scores = champion_scores(champion, rows, model)
            until = text_us(champion.manifest.training.end)
        rule = model.promotion
        against_champion = champion_gate(
            held_back,
            scores,
            champion_until_us=until,
            candidate_until_us=split_us,
            least_rows=rule.least_held_back,
            margin=rule.comparison.margin,
        )
        return [baseline_gate(judged.metrics, margin=rule.baseline_margin), against_champion]

    def _record(
        self, request: RetrainRequest, gathered: Gathered, judged: Judged, estimators: Mapping[str, Any]
    ) -> TrainingRecord:
        labels = judged.held_back.labels
        runs = [
            CandidateRun(
                name=name,
                metrics={
                    **_numbers(found),
                    "seconds": round(judged.seconds[name], 3),
                    "rows": len(gathered.rows),
                },
                params=_params(estimators[name]),
                artifacts={"calibration.json": calibration_curve(labels, judged.scored[name])},
                chosen=name == judged.name,
            )
            for name, found in judged.candidates.items()
        ]
        baselines = {name: found for name, found in judged.metrics.items() if name != "model"}
        runs += [
            CandidateRun(name=f"baseline {name}", metrics=_numbers(found))
            for name, found in baselines.items()
        ]
        return TrainingRecord(
            model=request.model,
            version=request.version,
            data_sha256=gathered.rows.sha256(),
            request_id=request.request_id,
            cause=request.cause.value,
            environment=environment(),
            runs=tuple(runs),
            deprecated=tuple(map(str, uses_of(declared_model(self._project, request.model)))),
        )

    def _facts(self, request: RetrainRequest, bundle: Bundle) -> list[ModelEvent]:
        evidence = read_evidence(bundle.path)
        manifest = bundle.manifest
        registered = self._fact(
            request,
            Kind.REGISTERED,
            f"candidate {manifest.candidate} of a retrain: {request.reason}",
            _told(bundle),
        )
        refusal = evidence.refusal
        if refusal is not None:
            told = {"alert": refusal["alert"], "gate": refusal["name"], "gates": evidence.gates}
            return [registered, self._fact(request, Kind.REJECTED, refusal["reason"], told)]
        reasons = "; ".join(gate["reason"] for gate in evidence.gates)
        facts = [registered, self._fact(request, Kind.VALIDATED, reasons, {"gates": evidence.gates})]
        if evidence.champion is not None:
            reason = f"in shadow against {evidence.champion}"
            facts.append(self._fact(request, Kind.CHALLENGER, reason, {"champion": evidence.champion}))
        return facts

    def _fact(
        self, request: RetrainRequest, kind: Kind, reason: str, evidence: Mapping[str, Any]
    ) -> ModelEvent:
        return ModelEvent(
            event_id=life_id(request.request_id, kind),
            model=request.model,
            version=request.version,
            kind=kind,
            cause_id=request.request_id,
            reason=reason,
            evidence=json.dumps({"cause": request.training_cause.as_json(), **evidence}, default=str),
            data_until_us=request.data_until_us,
            effective_us=request.data_until_us,
            by=BY,
            at_us=self._clock.now_us(),
        )


def _start(request: RetrainRequest, model: ModelDeclaration, champion: Bundle | None) -> date:
    """Return the first day to learn from."""
    if request.data_from_us is not None:
        return moment(request.data_from_us).date()
    if model.retrain.span_days is not None:
        return moment(request.data_until_us).date() - timedelta(days=model.retrain.span_days)
    return moment(text_us(champion.manifest.training.start)).date() if champion else _EVER


def champion_scores(champion: Bundle, rows: Rows, model: ModelDeclaration) -> NDArray[np.float64] | None:
    """Return the champion's scores of rows; None where it needs columns that are not there."""
    manifest = champion.manifest
    names = {name: at for at, name in enumerate(model.numeric_columns)}
    if not set(manifest.numeric) <= set(names) or not set(manifest.categorical) <= set(rows.categorical):
        return None
    numeric = rows.numeric[:, [names[name] for name in manifest.numeric]]
    categorical = {name: rows.categorical[name] for name in manifest.categorical}
    for one in model.coded_inputs:
        if one.field in categorical:
            written = np.full(len(rows), one.codes.reads)
            texts = pa.array(categorical[one.field], pa.string())
            known = one.codes.between(texts, written, manifest.codes.get(one.field, 1))
            categorical[one.field] = known.texts.to_pylist()
    return Scorer(champion).score(numeric, categorical)


def data_profile(bundle: Bundle) -> DataProfile | None:
    """Return the profile of the data that a bundle was trained on; None where it was made without one."""
    path = bundle.path / DATA_PROFILE_FILE
    return DataProfile.from_bytes(path.read_bytes()) if path.is_file() else None


def read_evidence(folder: Path) -> Evidence:
    """Return what a retrained version's facts stand on; ConfigurationError where no retrain made the bundle."""
    path = folder / EVIDENCE_FILE
    if not path.is_file():
        raise ConfigurationError(
            f"{folder}: has no {EVIDENCE_FILE}; another version has taken this name, remove it"
        )
    return Evidence(**json.loads(path.read_bytes()))


def calibration_curve(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> list[dict[str, float]]:
    """Return mean score, share of true labels and rows for ten parts of equally many scores, ascending."""
    parts = np.array_split(np.argsort(scores, kind="stable"), _CURVE_BINS)
    return [
        {"score": float(scores[part].mean()), "true": float(labels[part].mean()), "rows": len(part)}
        for part in parts
        if len(part)
    ]


def _told(bundle: Bundle) -> dict[str, Any]:
    manifest: BundleManifest = bundle.manifest
    return {
        "sha256": bundle.sha256,
        "candidate": manifest.candidate,
        "metrics": {name: found.model_dump(mode="json") for name, found in manifest.metrics.items()},
        "training": manifest.training.model_dump(mode="json"),
        "conversion": manifest.conversion.model_dump(mode="json"),
        "views": list(manifest.views),
        "deprecated": list(manifest.deprecated),
    }


def _params(estimator: Any) -> dict[str, str]:
    """Return an estimator's plain parameters, those of a pipeline's steps by their names."""
    return {
        name: str(value)
        for name, value in sorted(estimator.get_params().items())
        if isinstance(value, str | int | float | bool | None.__class__)
    }


def _numbers(found: Quality) -> dict[str, float]:
    return {name: value for name, value in found.model_dump().items() if np.isfinite(value)}


def _json(evidence: Evidence) -> bytes:
    content = {name: getattr(evidence, name) for name in ("screening", "candidates", "gates", "champion")}
    return (json.dumps(content, indent=1) + "\n").encode()
