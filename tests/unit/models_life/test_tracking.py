"""Runs and versions in a real MLflow store, each once."""

from dataclasses import replace
from pathlib import Path

import pytest

from driftline.models.tracking import CandidateRun, Tracking, TrainingRecord, code_version, tracking_uri
from driftline.runtime.errors import UnavailableError


@pytest.fixture
def tracking(tmp_path: Path) -> Tracking:
    return Tracking(tracking_uri(tmp_path), tmp_path / "artifacts", "flights")


def training(version: str = "v1") -> TrainingRecord:
    return TrainingRecord(
        model="lateness",
        version=version,
        data_sha256="ab" * 32,
        request_id="r1",
        cause="DRIFT",
        environment={"python": "3.11"},
        runs=(
            CandidateRun(
                name="boosting",
                metrics={"log_loss": 0.45},
                params={"max_iter": "120"},
                artifacts={"calibration.json": [[0.1, 0.12, 50]]},
                chosen=True,
            ),
            CandidateRun(name="constant", metrics={"log_loss": 0.56}),
        ),
    )


def test_a_training_is_recorded_once(tracking: Tracking, tmp_path: Path) -> None:
    first = tracking.record(training())
    assert set(first) == {"boosting", "constant"}
    assert tracking.record(training()) == first
    assert tracking.record(training("v2")) != first
    client = tracking._client()
    run = client.get_run(first["boosting"])
    assert run.data.metrics == {"log_loss": 0.45}
    assert run.data.params == {"max_iter": "120"}
    assert run.data.tags["driftline.data_sha256"] == "ab" * 32
    assert run.data.tags["driftline.code"] == code_version()
    assert "driftline.deprecated_views" not in run.data.tags
    assert run.info.status == "FINISHED"
    kept = {path.name for path in (tmp_path / "artifacts").rglob("*.json")}
    assert kept == {"calibration.json", "environment.json"}
    assert (tmp_path / "mlflow.db").is_file()


def test_deprecated_views_are_a_tag_of_every_run(tracking: Tracking) -> None:
    deprecated = replace(training(), deprecated=("a@1 is deprecated", "b@2 is deprecated"))
    for run_id in tracking.record(deprecated).values():
        tags = tracking._client().get_run(run_id).data.tags
        assert tags["driftline.deprecated_views"] == "a@1 is deprecated; b@2 is deprecated"


def test_the_alias_follows_the_events(tracking: Tracking, tmp_path: Path) -> None:
    assert tracking.champion("lateness") is None
    for version in ("v1", "v2"):
        number = tracking.register("lateness", version, tmp_path, None)
        assert tracking.register("lateness", version, tmp_path, None) == number
    tracking.mirror("lateness", "v1", {"v1": "champion", "v2": "challenger", "unheard": "failed"})
    assert tracking.champion("lateness") == "v1"
    tracking.mirror("lateness", "v2", {"v1": "former champion", "v2": "champion"})
    assert tracking.champion("lateness") == "v2"


def test_a_store_that_does_not_answer_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    broken = Tracking("http://127.0.0.1:9", tmp_path, "flights")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UnavailableError, match="MLflow at http"):
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        broken.record(training())


def test_a_server_of_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_uri(tmp_path) == "http://mlflow:5000"
