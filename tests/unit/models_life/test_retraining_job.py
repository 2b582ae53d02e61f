"""A retrain learns from what was known, refuses bad data, and tells the same however often it is done."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from driftline.models.bundle import active_version, load_active, load_bundle, versions
from driftline.models.fitting import declared_model, gather
from driftline.models.lifecycle import State, fold
from driftline.models.model_event import Kind, ModelEvent
from driftline.models.retraining_job import (
    JobRule,
    RetrainingJob,
    TrainingCancelledError,
    calibration_curve,
    data_profile,
)
from driftline.models.tracking import Tracking, tracking_uri
from driftline.models.training import train
from driftline.project import Project, load_project
from driftline.runtime.clock import ManualClock
from tests.unit.models_life.market import START, TURN, ask, day_us, write_market

UNTIL = day_us(2024, 4, 25)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return load_project(write_market(tmp_path_factory.mktemp("market")))


@pytest.fixture(scope="module")
def models(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a champion that knows the time before the turn."""
    folder = tmp_path_factory.mktemp("models")
    train(project, "returns", folder, start=START, end=TURN)
    return folder


@pytest.fixture(scope="module")
def steps() -> list[str]:
    return []


@pytest.fixture(scope="module")
def job(
    project: Project, models: Path, tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> RetrainingJob:
    state = tmp_path_factory.mktemp("state")
    tracking = Tracking(tracking_uri(state), state / "mlflow", project.name)
    return RetrainingJob(project, models, tracking, clock=ManualClock(7), progress=steps.append)


@pytest.fixture(scope="module")
def facts(job: RetrainingJob) -> list[ModelEvent]:
    return job.run(ask(UNTIL))


def kinds(facts: list[ModelEvent]) -> list[Kind]:
    return [fact.kind for fact in facts]


def test_a_better_version_becomes_a_challenger_and_nothing_more(
    facts: list[ModelEvent], job: RetrainingJob, models: Path
) -> None:
    champion = active_version(models, "returns")
    version = ask(UNTIL).version
    assert kinds(facts) == [Kind.REGISTERED, Kind.VALIDATED, Kind.CHALLENGER]
    assert {fact.version for fact in facts} == {version}
    assert {fact.cause_id for fact in facts} == {ask(UNTIL).request_id}
    assert {fact.data_until_us for fact in facts} == {UNTIL}
    assert versions(models, "returns") == sorted([champion, version])
    assert champion != version
    told = json.loads(facts[0].evidence)
    bundle = load_bundle(models / "returns" / version)
    assert told["sha256"] == bundle.sha256
    assert told["metrics"]["model"]["log_loss"] == bundle.manifest.metrics["model"].log_loss
    assert "better: log loss" in facts[1].reason
    history = fold("returns", [job.started(ask(UNTIL)), *facts])
    assert history.state_of(version) is State.CHALLENGER
    assert history.ignored == ()


def test_the_champion_is_measured_on_rows_that_are_new_to_it(facts: list[ModelEvent]) -> None:
    gates = {gate["name"]: gate for gate in json.loads(facts[1].evidence)["gates"]}
    champion = gates["champion"]["measured"]
    assert champion["challenger_log_loss"] < champion["champion_log_loss"]
    assert champion["outcomes"] == pytest.approx(23 * 60, abs=60)  # the last fifth of 115 days


def test_only_what_was_known_is_learnt_from(project: Project, facts: list[ModelEvent], models: Path) -> None:
    manifest = load_bundle(models / "returns" / ask(UNTIL).version).manifest
    model = declared_model(project, "returns")
    everything = gather(project, model, start=START, until_us=UNTIL, known_by_us=2**62)
    known = everything.rows.label_known_us < UNTIL
    assert 0 < np.sum(~known) < 60
    assert manifest.training.rows == np.sum(known)
    assert manifest.training.sha256 == everything.rows.take(known).sha256()
    assert (manifest.training.start, manifest.training.end) == ("2024-01-01", "2024-04-25")


def test_a_request_says_from_when_on_to_learn(
    project: Project, models: Path, tmp_path: Path, facts: list[ModelEvent]
) -> None:
    since = day_us(2024, 3, 1)
    made = replace(ask(UNTIL, "s7"), data_from_us=since)
    tracking = Tracking(tracking_uri(tmp_path), tmp_path / "mlflow", project.name)
    RetrainingJob(project, models, tracking, clock=ManualClock(7)).run(made)
    training = load_bundle(models / "returns" / made.version).manifest.training
    assert (training.start, training.end) == ("2024-03-01", "2024-04-25")
    shutil.rmtree(models / "returns" / made.version)


def test_soon_after_the_champion_shadow_decides(
    project: Project, models: Path, tmp_path: Path, facts: list[ModelEvent]
) -> None:
    """The last fifth is held back, and with it all that the champion does not know: no reason to refuse."""
    made = ask(day_us(2024, 3, 13), "s8")
    tracking = Tracking(tracking_uri(tmp_path), tmp_path / "mlflow", project.name)
    told = RetrainingJob(project, models, tracking, clock=ManualClock(7)).run(made)
    shutil.rmtree(models / "returns" / made.version)
    assert kinds(told) == [Kind.REGISTERED, Kind.VALIDATED, Kind.CHALLENGER]
    assert "there is nothing to compare yet" in told[1].reason


def test_an_instant_within_a_day_cuts_there(project: Project) -> None:
    model = declared_model(project, "returns")
    until = day_us(2024, 2, 10) + 13 * 3_600_000_000
    found = gather(project, model, start=START, until_us=until, known_by_us=until - 1)
    assert found.rows.as_of_us.max() < until - 6 * 3_600_000_000
    assert found.rows.label_known_us.max() < until
    assert len(found.request_ids) == len(found.rows)


def test_a_request_worked_on_again_tells_the_same(
    job: RetrainingJob, facts: list[ModelEvent], models: Path, steps: list[str]
) -> None:
    before = len(steps)
    assert job.run(ask(UNTIL)) == facts
    assert steps[before:] == ["the version is there already"]
    assert len(versions(models, "returns")) == 2


def test_a_request_interrupted_before_its_bundle_makes_the_same_version(
    project: Project, models: Path, tmp_path: Path, facts: list[ModelEvent]
) -> None:
    """Killed at the worst moment: everything is done but the bundle."""
    for path in (models / "returns").iterdir():
        target = tmp_path / "models" / "returns" / path.name
        if path.name != ask(UNTIL).version:
            copy(path, target)

    def killed(step: str) -> None:
        if step.startswith("conversion"):
            raise KeyboardInterrupt

    tracking = Tracking(tracking_uri(tmp_path), tmp_path / "mlflow", project.name)
    first = RetrainingJob(project, tmp_path / "models", tracking, clock=ManualClock(7), progress=killed)
    with pytest.raises(KeyboardInterrupt):
        first.run(ask(UNTIL))
    second = RetrainingJob(project, tmp_path / "models", tracking, clock=ManualClock(7))
    again = second.run(ask(UNTIL))
    ids = [(fact.event_id, fact.kind, fact.version) for fact in facts]
    assert [(fact.event_id, fact.kind, fact.version) for fact in again] == ids
    same = [load_bundle(folder / "returns" / ask(UNTIL).version) for folder in (models, tmp_path / "models")]
    assert same[0].model == same[1].model
    runs = tracking._client().search_runs(["1"])
    assert sorted(run.data.tags["driftline.candidate"] for run in runs) == [
        "baseline constant",
        "baseline moving_average",
        "forty",
        "one",
    ]


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        target.mkdir()
        for item in source.iterdir():
            copy(item, target / item.name)
    else:
        target.write_bytes(source.read_bytes())


def test_bad_data_stop_it_with_a_report(job: RetrainingJob, models: Path) -> None:
    before = versions(models, "returns")
    facts = job.run(ask(day_us(2024, 5, 20), "s2"))
    assert kinds(facts) == [Kind.DATA_REFUSED]
    assert "basket is -1 in" in facts[0].reason
    told = json.loads(facts[0].evidence)
    assert told["alert"] is True
    assert told["text"].startswith("Training data refused: ")
    assert told["screening"]["compared_to"] == active_version(models, "returns")
    assert versions(models, "returns") == before


def test_a_baseline_that_wins_blocks_and_is_told(job: RetrainingJob, models: Path) -> None:
    facts = job.run(ask(UNTIL, model="overfitted"))
    assert kinds(facts) == [Kind.REGISTERED, Kind.REJECTED]
    told = json.loads(facts[1].evidence)
    assert (told["alert"], told["gate"]) == (True, "baselines")
    assert "the baseline" in facts[1].reason
    assert active_version(models, "overfitted") is None


def test_the_span_is_the_champions_unless_a_setting_says_otherwise(
    project: Project, models: Path, tmp_path: Path
) -> None:
    tracking = Tracking(tracking_uri(tmp_path), tmp_path / "mlflow", project.name)
    champion = load_active(models, "returns")
    short = RetrainingJob(project, models, tracking, rule=JobRule(span_days=12))
    plain = RetrainingJob(project, models, tracking)
    assert short._start(ask(UNTIL), champion) == date(2024, 4, 13)
    assert plain._start(ask(UNTIL), champion) == START
    assert plain._start(ask(UNTIL), None) < START


def test_what_cannot_be_trained_is_a_fact(project: Project, models: Path, job: RetrainingJob) -> None:
    facts = job.run(ask(day_us(2023, 1, 1), "s3"))
    assert kinds(facts) in ([Kind.TRAINING_FAILED], [Kind.DATA_REFUSED])


def test_a_stopped_training_is_a_fact(project: Project, models: Path, tmp_path: Path) -> None:
    def stop(step: str) -> None:
        if step == "screening":
            raise TrainingCancelledError("stopped by ann: not now")

    tracking = Tracking(tracking_uri(tmp_path), tmp_path / "mlflow", project.name)
    facts = RetrainingJob(project, models, tracking, progress=stop).run(ask(UNTIL, "s4"))
    assert kinds(facts) == [Kind.TRAINING_FAILED]
    assert facts[0].reason == "stopped by ann: not now"


def test_every_bundle_carries_the_profile_of_its_data(models: Path) -> None:
    profile = data_profile(load_bundle(models / "returns" / (active_version(models, "returns") or "")))
    assert profile is not None
    assert 59 * 60 < profile.rows < 60 * 60
    assert set(profile.numeric) == {"basket", "shop_sales__mean_price_6h", "shop_sales__count_6h"}


@pytest.fixture(autouse=True)
def nobody_else_activates(models: Path) -> Iterator[None]:
    before = active_version(models, "returns")
    yield
    assert active_version(models, "returns") == before


def test_the_calibration_curve_holds_every_row() -> None:
    rng = np.random.default_rng(1)
    scores = rng.random(1003)
    labels = rng.random(1003) < scores
    curve = calibration_curve(labels, scores)
    assert sum(part["rows"] for part in curve) == 1003
    assert [part["score"] for part in curve] == sorted(part["score"] for part in curve)
    assert all(abs(part["score"] - part["true"]) < 0.15 for part in curve)
