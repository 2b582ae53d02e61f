"""MLflow: a run per candidate, a registered version per bundle, the alias ``champion`` as the model events say.

Without a setting it is a SQLite file and a folder, so no server is needed; ``MLFLOW_TRACKING_URI`` names another. What
is kept here is for people to look at and compare: the truth of what was active when is the topic ``model-events``.

Everything is found by its tags before it is made, so that a training which is done again writes nothing twice.
"""

import json
import os
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

# Before MLflow is imported: nothing of a project goes to anyone.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.exceptions import MlflowException

from driftline.runtime.errors import UnavailableError

URI_SETTING = "MLFLOW_TRACKING_URI"
CHAMPION = "champion"
_VERSION, _CANDIDATE = "driftline.version", "driftline.candidate"
_PARAM_LIMIT = 6_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRun:
    """What is recorded of one candidate or baseline of a training."""

    name: str
    metrics: Mapping[str, float]
    params: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """What the runs of a training have in common: the version, the data and the code that it was made with."""

    model: str
    version: str
    data_sha256: str
    request_id: str
    cause: str
    environment: Mapping[str, str]
    runs: tuple[CandidateRun, ...]
    #: What is to be said of the deprecated views that it reads.
    deprecated: tuple[str, ...] = ()


def tracking_uri(state: Path) -> str:
    """Return where MLflow keeps its records: the environment's setting, else a SQLite file in the state folder."""
    return os.environ.get(URI_SETTING) or f"sqlite:///{(state / 'mlflow.db').resolve()}"


@cache
def code_version() -> str:
    """Return the Git commit of the checkout, ``-dirty`` where it was changed; else the installed version."""
    folder = Path(__file__).parents[3]
    if not (folder / ".git").exists():
        return f"driftline {installed_version('driftline')}"
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changes = (
            subprocess.run(one, cwd=folder, capture_output=True, text=True, timeout=10, check=True).stdout
            for one in commands
        )
    except (OSError, subprocess.SubprocessError):
        return f"driftline {installed_version('driftline')}"
    return commit.strip() + ("-dirty" if changes.strip() else "")


class Tracking:
    """A project's records in MLflow: an experiment and a registered model ``<project>.<model>`` per model."""

    def __init__(self, uri: str, artifacts: Path, project: str) -> None:
        self._uri = uri
        self._artifacts = artifacts
        self._project = project
        self._opened: MlflowClient | None = None

    def record(self, training: TrainingRecord) -> dict[str, str]:
        """Record a training's runs; return each run's id by candidate.

        Raises
        ------
        UnavailableError
            MLflow's server or database does not answer.
        """
        with self._answering():
            client = self._client()
            experiment = self._experiment(client, training.model)
            return {run.name: self._run(client, experiment, training, run) for run in training.runs}

    def register(self, model: str, version: str, bundle: Path, run_id: str | None) -> str:
        """Register a bundle as a version of the model, once; return MLflow's number for it."""
        with self._answering():
            client, name = self._client(), self._name(model)
            self._registered_model(client, name)
            found = self._found_version(client, name, version)
            if found is None:
                found = client.create_model_version(
                    name, source=bundle.resolve().as_uri(), run_id=run_id, tags={_VERSION: version}
                )
            return str(found.version)

    def mirror(self, model: str, champion: str | None, states: Mapping[str, str]) -> None:
        """Set the alias ``champion`` and each registered version's state as the model events say.

        Versions that MLflow does not know are passed over.
        """
        with self._answering():
            client, name = self._client(), self._name(model)
            self._registered_model(client, name)
            for version, state in states.items():
                found = self._found_version(client, name, version)
                if found is None:
                    continue
                if found.tags.get("driftline.state") != state:
                    client.set_model_version_tag(name, found.version, "driftline.state", state)
                if version == champion and CHAMPION not in found.aliases:
                    client.set_registered_model_alias(name, CHAMPION, found.version)

    def champion(self, model: str) -> str | None:
        """Return the version that has the alias; None where none has."""
        with self._answering():
            try:
                found = self._client().get_model_version_by_alias(self._name(model), CHAMPION)
            except MlflowException as error:
                if _absent(error):
                    return None
                raise
            return str(found.tags[_VERSION])

    def _run(self, client: MlflowClient, experiment: str, training: TrainingRecord, run: CandidateRun) -> str:
        known = self._found_run(client, experiment, training.version, run.name)
        if known is not None and known.info.status == "FINISHED":
            return str(known.info.run_id)
        tags = {
            _VERSION: training.version,
            _CANDIDATE: run.name,
            "driftline.request_id": training.request_id,
            "driftline.cause": training.cause,
            "driftline.data_sha256": training.data_sha256,
            "driftline.code": code_version(),
            "driftline.chosen": str(run.chosen).lower(),
        }
        if training.deprecated:
            tags["driftline.deprecated_views"] = "; ".join(training.deprecated)
        made = known or client.create_run(experiment, tags=tags, run_name=f"{training.version} {run.name}")
        run_id = str(made.info.run_id)
        if known is None:
            for name, text in run.params.items():
                client.log_param(run_id, name, text[:_PARAM_LIMIT])
        for name, number in run.metrics.items():
            client.log_metric(run_id, name, number)
        for file, content in {"environment.json": dict(training.environment), **run.artifacts}.items():
            client.log_text(run_id, json.dumps(content, indent=2), file)
        client.set_terminated(run_id)
        return run_id

    def _experiment(self, client: MlflowClient, model: str) -> str:
        name = self._name(model)
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = None
        if self._uri.startswith("sqlite:"):
            location = (self._artifacts / name).resolve().as_uri()
        return str(client.create_experiment(name, artifact_location=location))

    def _found_run(self, client: MlflowClient, experiment: str, version: str, candidate: str) -> Run | None:
        wanted = f"tags.`{_VERSION}` = '{version}' AND tags.`{_CANDIDATE}` = '{candidate}'"
        found = client.search_runs([experiment], wanted, max_results=1)
        return found[0] if found else None

    @staticmethod
    def _registered_model(client: MlflowClient, name: str) -> None:
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)

    @staticmethod
    def _found_version(client: MlflowClient, name: str, version: str) -> Any:
        found = client.search_model_versions(f"name = '{name}' AND tags.`{_VERSION}` = '{version}'")
        return found[0] if found else None

    def _name(self, model: str) -> str:
        return f"{self._project}.{model}"

    def _client(self) -> MlflowClient:
        if self._opened is None:
            if self._uri.startswith("sqlite:///"):
                Path(self._uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            self._opened = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        return self._opened

    @contextmanager
    def _answering(self) -> Iterator[None]:
        with warnings.catch_warnings():
            # MLflow and its database layer deprecate each other's calls; nothing here depends on it.
            warnings.simplefilter("ignore")
            try:
                yield
            except MlflowException as error:
                raise UnavailableError(f"MLflow at {self._uri} fails: {error}") from error


def _absent(error: MlflowException) -> bool:
    return error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
