"""A retrain learns from what was known, refuses bad data, and tells the same however often it is done."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.alerts.alert import Alert, AlertStatus, Severity
from driftline.alerts.causes import Causes
from driftline.alerts.rules import AlertRules
from driftline.alerts.state import GroupState
from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.models.bundle import load_bundle, versions
from driftline.models.commands import answer
from driftline.models.comparison import Comparison, Decision
from driftline.models.fitting import declared_model, gather
from driftline.models.lifecycle import State, fold
from driftline.models.model_event import Kind, ModelEvent, TrainingCause
from driftline.models.retraining_job import (
    RetrainingJob,
    TrainingCancelledError,
    calibration_curve,
    data_profile,
)
from driftline.models.standing import activate, active_version, load_active
from driftline.models.tracking import Tracking, tracking_uri
from driftline.models.training import train
from driftline.project import Project, PromotionRule, ScreeningRule, load_project
from driftline.runtime.clock import ManualClock
from services.model_registry.decisions import Verdict, adopt, decide, pairs_of
from tests.unit.alerts.scenes import Book
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


def test_a_training_says_which_of_its_views_are_deprecated(
    project: Project, models: Path, tmp_path: Path
) -> None:
    model = project.models["returns"]
    views = tuple(replace(view, deprecated="2026-12-31", successor="sales@2") for view in model.views)
    going = replace(project, models={"returns": replace(model, views=views)})
    tracking = Tracking(tracking_uri(tmp_path), tmp_path / "mlflow", project.name)
    made, steps = ask(UNTIL, "s9"), []
    RetrainingJob(going, models, tracking, clock=ManualClock(7), progress=steps.append).run(made)
    line = "shop_sales@1 is deprecated, read it until 2026-12-31 at most; its successor is sales@2"
    bundle = load_bundle(models / "returns" / made.version)
    card = (bundle.path / "card.md").read_text()
    shutil.rmtree(bundle.path)
    assert line in steps
    assert f"**Deprecated**: {line}." in card
    assert bundle.manifest.deprecated == (line,)
    runs = tracking._client().search_runs([tracking._experiment(tracking._client(), "returns")])
    assert {run.data.tags.get("driftline.deprecated_views") for run in runs} == {line}


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


def with_rules(project: Project, *, promotion: PromotionRule | None = None, **retrain: Any) -> Project:
    """The project with other rules for its model ``returns``."""
    model = project.models["returns"]
    changed = replace(
        model, retrain=replace(model.retrain, **retrain), promotion=promotion or model.promotion
    )
    return replace(project, models={**project.models, "returns": changed})


def run_with(project: Project, models: Path, state: Path, name: str) -> list[ModelEvent]:
    """Work on a request beside a copy of the champion."""
    champion = active_version(models, "returns") or ""
    copy(models / "returns" / champion, state / "models" / "returns" / champion)
    activate(state / "models", "returns", champion)
    tracking = Tracking(tracking_uri(state), state / "mlflow", project.name)
    return RetrainingJob(project, state / "models", tracking).run(ask(UNTIL, name))


def test_the_span_is_the_champions_unless_the_model_says_otherwise(
    project: Project, models: Path, tmp_path: Path, facts: list[ModelEvent]
) -> None:
    assert facts[0].told["training"]["start"] == str(START)
    short = run_with(with_rules(project, span_days=30), models, tmp_path, "short")
    assert short[0].told["training"]["start"] == "2024-03-26"


def test_margins_and_screening_are_the_models_own(project: Project, models: Path, tmp_path: Path) -> None:
    rule = project.models["returns"].promotion
    margin = replace(rule, comparison=replace(rule.comparison, margin=0.9))
    found = run_with(with_rules(project, promotion=margin), models, tmp_path / "a", "margin")
    assert kinds(found) == [Kind.REGISTERED, Kind.REJECTED]
    assert "not better by more than 0.9" in found[1].reason
    assert found[1].told["alert"] is False
    strict = with_rules(project, screening=ScreeningRule(least_rows=100_000))
    refused = run_with(strict, models, tmp_path / "b", "rows")
    assert kinds(refused) == [Kind.DATA_REFUSED]
    assert "100,000 are needed" in refused[0].reason


def test_the_cause_is_known_to_the_end(job: RetrainingJob, facts: list[ModelEvent], models: Path) -> None:
    """From the request over the bundle and every fact to the promotion, by evidence or by a person."""
    asked = ask(UNTIL)
    cause = asked.training_cause
    assert (cause.cause, cause.cause_id, cause.requested_by) == ("DRIFT", "s1", "test")
    bundle = load_bundle(models / "returns" / asked.version)
    assert bundle.manifest.cause == cause
    assert (
        f"Cause: drift, log loss rose (request `{asked.request_id}` by test)."
        in (bundle.path / "card.md").read_text()
    )
    told = [job.started(asked), *facts]
    assert {TrainingCause.of(fact.told) for fact in told} == {cause}

    champion = load_active(models, "returns")
    assert champion is not None
    assert champion.manifest.cause is None
    adopted = adopt(fold("returns", told), champion.manifest, at_us=1, sha256=champion.sha256)
    history = fold("returns", [*adopted, *told])
    assert history.cause_of(champion.manifest.version) is None
    assert history.cause_of(asked.version) == cause

    (pair,) = pairs_of(history, PromotionRule())
    comparison = Comparison(decision=Decision.PROMOTE, reason="better: ...")
    verdict = Verdict(pair=pair, comparison=comparison, known_us=UNTIL)
    (promoted,) = decide(history, [verdict], PromotionRule(), at_us=1)
    assert promoted.kind is Kind.PROMOTED
    assert promoted.cause_id == asked.request_id
    assert TrainingCause.of(promoted.told) == cause
    assert promoted.told["champion"] == champion.manifest.version

    command = ModelEvent(
        event_id="c1", model="returns", version=asked.version, kind=Kind.PROMOTE, reason="", effective_us=UNTIL,
        by="ann", at_us=1,
    )  # fmt: skip
    by_hand = answer(history, command, by="model_registry", at_us=1)
    assert by_hand is not None
    assert by_hand.cause_id == "c1"
    assert TrainingCause.of(by_hand.told) == cause


def alerts_of(facts: list[ModelEvent]) -> list[Alert]:
    """What the alerter makes of facts, as they come off their topic."""
    codec = RecordCodec(platform_schema("model_event"))
    causes = Causes(prefix="market", team="ops")
    groups: dict[str, Book] = {}
    for fact in facts:
        for found in causes.of_model_event(codec.decode(codec.encode(fact.record()))):
            state = GroupState(group=found.group)
            groups.setdefault(found.group, Book(rules=AlertRules(), state=state)).tell(found)
    return [alert for book in groups.values() for alert in book.alerts]


def test_a_winning_baseline_is_a_critical_alert(job: RetrainingJob) -> None:
    (alert,) = alerts_of(job.run(ask(UNTIL, model="overfitted")))
    assert (alert.group, alert.status) == ("market/overfitted/promotion", AlertStatus.FIRING)
    assert alert.severity is Severity.CRITICAL
    assert "a baseline won" in alert.title
    assert "the baseline" in alert.text


def test_refused_data_are_a_critical_alert(job: RetrainingJob) -> None:
    (alert,) = alerts_of(job.run(ask(day_us(2024, 5, 20), "s2")))
    assert (alert.group, alert.status) == ("market/returns/training", AlertStatus.FIRING)
    assert alert.severity is Severity.CRITICAL
    assert "training data refused" in alert.title
    assert "basket is -1 in" in alert.text


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
