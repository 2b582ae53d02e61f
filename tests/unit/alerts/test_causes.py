"""From signals, model events and outages to causes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from driftline.alerts.alert import AlertStatus, Severity, stable_id
from driftline.alerts.causes import Causes
from driftline.alerts.inputs import Cause, Clearance
from driftline.alerts.kinds import KINDS
from driftline.alerts.rules import AlertRules
from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.record_codec import RecordCodec
from tests.unit.alerts.scenes import Book, rules

ROOT = Path(__file__).parents[3]
CAUSES = Causes(prefix="flights", team="flights-team", teams={"lateness": "model-team"})


def example(name: str, **changes: Any) -> dict[str, Any]:
    text = (ROOT / "schemas" / "examples" / f"{name}.json").read_text()
    return {**RecordCodec(platform_schema(name)).from_json(json.loads(text)), **changes}


def signal(level: str = "ALERT", **changes: Any) -> Cause | Clearance:
    (found,) = CAUSES.of_signal(example("drift_signal", level=level, **changes))
    return found


def model_event(kind: str, **changes: Any) -> list[Cause | Clearance]:
    return CAUSES.of_model_event(example("model_event", kind=kind, **changes))


@pytest.mark.parametrize(
    ("level", "severity"),
    [("WARNING", Severity.WARNING), ("ALERT", Severity.CRITICAL), ("RETRAIN", Severity.CRITICAL)],
)
def test_a_signal_is_a_cause(level: str, severity: Severity) -> None:
    found = signal(level)
    assert isinstance(found, Cause)
    assert (found.severity, found.group, found.team) == (severity, "flights/lateness/drift", "model-team")
    assert found.title == "lateness: psi of origin_weather__last_temperature"
    assert "951 rows until 2013-06-11T00:00:00Z, since 2013-06-09T00:00:00Z" in found.text
    assert "+0.0410 nats" in found.text
    assert found.runbook == "services/alerter/README.md#drift"
    assert ("retrain" in found.text) is (level == "RETRAIN")


def test_a_problem_that_changes_its_worst_check_is_one_and_ends() -> None:
    book = Book(rules=rules()).tell(
        signal(signal_id="s1"),
        signal(signal_id="s2", check="ks", column="distance"),
        signal(signal_id="s3", segment="origin=JFK"),
    )
    assert book.last.title.endswith("(and 1 more)")
    book.tell(signal("RESOLVED", signal_id="s4", check="log_loss", column=None))
    assert book.last.status is AlertStatus.FIRING
    book.tell(signal("RESOLVED", signal_id="s5", check="psi", segment="origin=JFK"))
    assert book.last.status is AlertStatus.RESOLVED


def test_a_promotion_ends_the_drift_of_the_versions_before_and_other_troubles() -> None:
    ends = [one for one in model_event("PROMOTED", version="v2") if isinstance(one, Clearance)]
    assert {one.group for one in ends} == {
        f"flights/lateness/{kind}" for kind in ("training", "promotion", "champion", "drift")
    }
    book = Book(rules=rules()).tell(
        signal(signal_id="s1", model_version="v1"), signal(signal_id="s2", model_version="v2")
    )
    book.tell(next(one for one in ends if one.group == "flights/lateness/drift"))
    assert [one.key for one in book.state.episodes[0].problems] == ["v2||"]


@pytest.mark.parametrize(
    ("kind", "group", "severity", "lasting"),
    [
        ("TRAINING_FAILED", "training", Severity.CRITICAL, True),
        ("DATA_REFUSED", "training", Severity.CRITICAL, True),
        ("REJECTED", "promotion", Severity.WARNING, False),
        ("APPROVAL_WANTED", "promotion", Severity.WARNING, True),
        ("PULLED", "champion", Severity.CRITICAL, True),
        ("FAILING", "champion", Severity.CRITICAL, True),
        ("ROLLED_BACK", "champion", Severity.CRITICAL, False),
        ("CANARY_ENDED", "promotion", Severity.WARNING, False),
        ("PROMOTED", "activity", Severity.INFO, False),
    ],
)
def test_model_events_that_people_hear_of(kind: str, group: str, severity: Severity, lasting: bool) -> None:
    (found,) = [one for one in model_event(kind) if isinstance(one, Cause)]
    assert (found.group, found.severity, found.lasting) == (f"flights/lateness/{group}", severity, lasting)
    assert "better than the champion" in found.text


@pytest.mark.parametrize("kind", ["TRAINING_STARTED", "CHALLENGER", "PROMOTE", "PULL"])
def test_model_events_that_nobody_needs_to_hear_of(kind: str) -> None:
    assert model_event(kind) == []


def test_a_baseline_that_won_is_critical_until_a_version_passes_the_gates() -> None:
    won = model_event("REJECTED", event_id="e1", evidence='{"alert": true, "gate": "baselines"}')
    (found,) = [one for one in won if isinstance(one, Cause)]
    assert (found.group, found.severity, found.lasting) == (
        "flights/lateness/promotion", Severity.CRITICAL, True,
    )  # fmt: skip
    assert found.title == "lateness 20130611T000000Z-4d5e6f: a baseline won"
    book = Book(rules=rules()).tell(*won, *model_event("REGISTERED", event_id="e2", version="v3")[1:])
    assert book.last.status is AlertStatus.FIRING
    book.tell(*model_event("VALIDATED", event_id="e3", version="v3"))
    assert book.last.status is AlertStatus.RESOLVED


@pytest.mark.parametrize("evidence", ['{"alert": false}', "{}", '"alert"', "nonsense"])
def test_another_rejection_is_a_warning(evidence: str) -> None:
    found = model_event("REJECTED", evidence=evidence)[-1]
    assert isinstance(found, Cause)
    assert (found.severity, found.lasting) == (Severity.WARNING, False)


def test_a_refusal_answers_the_wait_and_is_told_itself() -> None:
    book = Book(rules=rules()).tell(*model_event("APPROVAL_WANTED", event_id="e1"))
    book.tell(*model_event("REJECTED", event_id="e2"))
    assert [one.key for one in book.state.episodes[0].problems] == ["REJECTED|20130611T000000Z-4d5e6f|"]


def test_a_failed_training_is_over_when_one_succeeds() -> None:
    book = Book(rules=rules()).tell(*model_event("TRAINING_FAILED", event_id="e1", version=None))
    book.tell(*model_event("REGISTERED", event_id="e2"))
    assert book.last.status is AlertStatus.RESOLVED


def test_an_outage_and_its_end() -> None:
    down = CAUSES.of_outage(
        service="predictor", instance="predictor-0", detail="broker: silent", since=5, at=9
    )
    assert (down.group, down.model, down.team) == ("flights/services/predictor", None, "flights-team")
    assert "broker: silent" in down.text
    other = replace(down, input_id="other", problem="predictor-1|")
    book = Book(rules=rules()).tell(down, other)
    book.tell(CAUSES.of_recovery(service="predictor", instance="predictor-0", at=20))
    assert book.last.status is AlertStatus.FIRING
    book.tell(CAUSES.of_recovery(service="predictor", instance="predictor-1", at=20))
    assert book.last.status is AlertStatus.RESOLVED


def test_runbooks_and_severities_are_the_projects_to_choose() -> None:
    own = AlertRules.model_validate(
        {"runbooks": {"psi": "wiki/psi", "training": "wiki/t"}, "severities": {"REJECTED": "CRITICAL"}}
    )
    causes = replace(CAUSES, rules=own)
    (drift,) = causes.of_signal(example("drift_signal"))
    (training,) = causes.of_model_event(example("model_event", kind="TRAINING_FAILED"))
    rejected = causes.of_model_event(example("model_event", kind="REJECTED"))[-1]
    assert isinstance(drift, Cause) and isinstance(training, Cause) and isinstance(rejected, Cause)
    assert (drift.runbook, training.runbook, rejected.severity) == ("wiki/psi", "wiki/t", Severity.CRITICAL)


def test_every_runbook_is_written() -> None:
    headings = {
        line.removeprefix("### ").strip().lower()
        for line in (ROOT / "services" / "alerter" / "README.md").read_text().splitlines()
        if line.startswith("### ")
    }
    assert set(KINDS) <= headings


def test_the_same_event_is_the_same_cause() -> None:
    assert model_event("PROMOTED") == model_event("PROMOTED")
    assert len({one.input_id for one in model_event("PROMOTED")}) == len(model_event("PROMOTED"))
    assert stable_id("a") != stable_id("b")


def failing(by: str, event_id: str, kind: str = "FAILING", version: str = "v2") -> list[Cause | Clearance]:
    return model_event(kind, by=by, event_id=event_id, version=version)


def test_a_version_fails_until_every_process_that_saw_it_has_it_back() -> None:
    book = Book(rules=rules()).tell(*failing("predictor a", "e1"), *failing("predictor b", "e2"))
    assert book.last.severity is Severity.CRITICAL
    book.tell(*failing("predictor a", "e3", "RECOVERED"))
    assert book.last.status is AlertStatus.FIRING
    book.tell(*failing("predictor b", "e4", "RECOVERED"))
    assert book.last.status is AlertStatus.RESOLVED


@pytest.mark.parametrize("kind", ["ROLLED_BACK", "PULLED", "RETIRED", "CANARY_ENDED"])
def test_a_version_that_leaves_fails_no_more(kind: str) -> None:
    book = Book(rules=rules()).tell(
        *failing("predictor a", "e1"), *failing("predictor a", "e2", version="v1")
    )
    end = [one for one in failing("model_registry", "e3", kind) if isinstance(one, Clearance)]
    book.tell(*end)
    assert [one.key for one in book.state.episodes[0].problems] == ["FAILING|v1|predictor a|"]


def test_a_burning_budget_is_a_cause_and_its_end_ends_it() -> None:
    level = {
        "model": "lateness",
        "objective": "latency",
        "target": 0.99,
        "requests": 1200,
        "good": 0.8,
        "rates": {"5": 20.0, "30": 20.0, "60": 16.0, "360": 16.0},
        "burning": "fast",
    }
    where = {"service": "predictor", "instance": "predictor-0"}
    found = CAUSES.of_burn(level, **where, at=5_000_000)
    assert isinstance(found, Cause)
    assert (found.severity, found.group, found.team) == (
        Severity.CRITICAL,
        "flights/lateness/levels",
        "model-team",
    )
    assert "80.000% were good, 99.000% are promised" in found.text
    assert found.runbook == "services/alerter/README.md#levels"
    slowly = CAUSES.of_burn({**level, "burning": "slowly"}, **where, at=6_000_000)
    other = CAUSES.of_burn({**level, "objective": "availability"}, **where, at=6_000_000)
    book = Book(rules=rules()).tell(found, slowly, other)
    assert book.last.status is AlertStatus.FIRING
    book.tell(CAUSES.of_burn({**level, "burning": "no"}, **where, at=7_000_000))
    assert book.last.status is AlertStatus.FIRING  # availability burns on
    book.tell(CAUSES.of_burn({**level, "objective": "availability", "burning": "no"}, **where, at=8_000_000))
    assert book.last.status is AlertStatus.RESOLVED
