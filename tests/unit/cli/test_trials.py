"""`driftline models canary` and `ab`: what is wrong is told at once, and a result is told in plain sentences."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from driftline.cli import trials
from driftline.cli.ab_analysis import print_test, told_test
from driftline.cli.model_desk import Desk
from driftline.cli.models import app
from driftline.models.lifecycle import ModelHistory, fold
from driftline.models.model_event import Kind
from driftline.models.trial import Metric, TestPlan, Trial, TrialArm, TrialKind
from driftline.project import CanaryRule, Project, PromotionRule, load_project
from driftline.replay.ab_outcomes import AbOutcomes
from driftline.runtime.errors import ConfigurationError
from tests.unit.replay.test_ab_outcomes import SHOP, outcome, table

Asked = dict[str, Any]


@pytest.fixture
def project() -> Project:
    return load_project(SHOP)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, project: Project) -> Callable[..., Asked]:
    """Run a command up to what it would send: the kind, the version and the trial."""
    sent: list[Asked] = []

    def ask(kind: Kind, version: str, model: str, *_: object, evidence: Any = None, as_json: bool) -> None:
        made = "{}" if evidence is None else evidence(FakeDesk(project), NOTHING)
        sent.append({"kind": kind, "version": version, "model": model, **json.loads(made)})

    monkeypatch.setattr(trials, "ask_registry", ask)

    def run(*arguments: str) -> Asked:
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return sent.pop()

    return run


NOTHING: ModelHistory = fold("fraud", [])


class FakeDesk(Desk):
    """A desk of which only the project is asked."""

    def __init__(self, project: Project) -> None:
        object.__setattr__(self, "project", project)


def test_a_canary_follows_the_rule_and_what_is_said(asked: Callable[..., Asked]) -> None:
    usual = asked("canary", "v2", "fraud")
    assert (usual["kind"], usual["version"], usual["model"]) == (Kind.START_CANARY, "v2", "fraud")
    assert usual["trial"]["name"] == "canary-v2"
    assert usual["trial"]["steps"]["shares"] == list(CanaryRule().shares)
    said = asked(
        "canary",
        "v2",
        "fraud",
        "--shares",
        "0.1, 0.9",
        "--hold",
        "2d",
        "--sticky",
        "customer",
        "--least-requests",
        "7",
    )
    assert said["trial"]["arms"] == [{"name": "canary", "version": "v2", "share": 0.1}]
    assert said["trial"]["sticky"] == "customer"
    steps = said["trial"]["steps"]
    assert (steps["shares"], steps["hold_us"], steps["least_requests"]) == ([0.1, 0.9], 172_800_000_000, 7)
    assert asked("stop-canary", "fraud")["kind"] is Kind.STOP_CANARY


def test_the_projects_rule_is_what_a_canary_begins_with(project: Project) -> None:
    rule = CanaryRule(shares=(0.5,), sticky="customer")
    model = replace(project.models["fraud"], promotion=PromotionRule(canary=rule))
    assert trials._rule(model, "", "", 0, "") == rule


def test_an_ab_test_fixes_what_is_to_be_found(asked: Callable[..., Asked]) -> None:
    found = asked(
        "ab",
        "start",
        "fraud",
        "--arm",
        "v2=0.3",
        "--arm",
        "v3=0.2",
        "--metric",
        "value",
        "--effect",
        "2",
        "--sticky",
        "merchant",
    )
    trial = found["trial"]
    assert [(one["name"], one["version"], one["share"]) for one in trial["arms"]] == [
        ("v2", "v2", 0.3),
        ("v3", "v3", 0.2),
    ]
    assert trial["plan"] == {"metric": "value", "effect": 2.0, "alpha": 0.05, "power": 0.8}
    assert (trial["name"], trial["sticky"], trial["steps"]) == ("ab-v2", "merchant", None)
    assert asked("ab", "start", "--arm", "v2=0.5")["trial"]["plan"]["effect"] == 0.01
    assert asked("ab", "stop", "fraud")["kind"] is Kind.STOP_AB


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("canary", "v2", "fraud", "--shares", "0.5,0.1"), "must grow"),
        (("canary", "v2", "fraud", "--shares", "a"), "'a' is no share"),
        (("canary", "v2", "fraud", "--hold", "soon"), "--hold 'soon' is not a duration"),
        (
            ("canary", "v2", "fraud", "--sticky", "courier"),
            "has no such entity; its entities: customer, merchant",
        ),
        (("canary", "v2", "fraud", "--name", "a/b"), "'a/b' is no name"),
        (("ab", "start", "fraud", "--arm", "v2"), "write VERSION=SHARE"),
        (("ab", "start", "fraud", "--arm", "v2=x"), "'x' is no share"),
        (("ab", "start", "fraud", "--arm", "v2=0.5", "--arm", "v3=0.5"), "champion needs a share"),
        (("ab", "start", "fraud", "--arm", "v2=0.5", "--metric", "value"), "say with --effect"),
        (("ab", "start", "fraud", "--arm", "v2=0.5", "--alpha", "5"), "probabilities"),
    ],
)
def test_what_cannot_be_is_told(
    asked: Callable[..., Asked], arguments: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        asked(*arguments)


def test_of_a_model_without_label_or_value_there_is_nothing_to_judge_by(project: Project) -> None:
    fraud = project.models["fraud"]
    with pytest.raises(ConfigurationError, match="declares no label"):
        trials._plan(replace(fraud, label=None), Metric.LOG_LOSS, 0.0, 0.05, 0.8)
    with pytest.raises(ConfigurationError, match="declares no `value:`"):
        trials._plan(replace(fraud, value={}), Metric.VALUE, 1.0, 0.05, 0.8)


def result_of(
    project: Project, *, units: int, better: float, lost: int = 0, effect: float = 0.1
) -> tuple[dict[str, Any], str]:
    """The result of a test whose arm has so much less log loss; some of its predictions are lost."""
    trial = Trial(
        kind=TrialKind.AB,
        name="ab",
        arms=(TrialArm(name="v2", version="v2", share=0.5),),
        sticky="customer",
        plan=TestPlan(metric=Metric.LOG_LOSS, effect=effect),
        began_us=1_750_000_000_000_000,
    )
    rng = np.random.default_rng(3)
    found = AbOutcomes(project.models["fraud"], trial)
    rows = []
    for number in range(2 * units):
        name = "v2" if number % 2 else "champion"
        for again in range(2):
            loss = float(rng.gamma(4, 0.1)) - (better if number % 2 else 0.0)
            rows.append(outcome(f"{number}-{again}", name, f"c{number}", loss, number, model_version="v2"))
    found.add_outcomes(table(*rows))
    kept = [one for at, one in enumerate(rows) if one["arm"] == "ab/champion" or at >= 4 * lost]
    found.add_predictions(table(*kept))
    told = told_test("fraud", trial, found, ["a note"])
    out = io.StringIO()
    print_test(Console(file=out, width=200), told)
    return told, out.getvalue()


def test_a_winner_is_named_with_confidence_and_sample(project: Project) -> None:
    told, text = result_of(project, units=600, better=0.1)
    assert "v2 against champion: better, -0.08" in text
    assert "with 0.95 confidence" in text
    assert "the test may be stopped" in text
    assert "at the planned sample: better" in text
    assert "note: a note" in text
    (result,) = told["result"]
    assert result["always_valid"]["upper"] < 0
    assert result["always_valid"]["p"] < 0.05
    assert result["fixed_horizon"]["planned_sample_reached"] is True
    arms = {one["arm"]: one for one in told["arms"]}
    assert (arms["v2"]["requests"], arms["v2"]["units"]) == (1_200, 600)
    assert arms["v2"]["metrics"]["log_loss"]["outcomes"] == 1_200
    assert set(told["beside"]) == {"label", "value"}
    assert json.loads(json.dumps(told, allow_nan=False))["sample_ratio"]["sound"] is True


def test_too_small_a_sample_is_told_and_nobody_wins(project: Project) -> None:
    told, text = result_of(project, units=150, better=0.001, effect=0.005)
    assert "no difference is shown so far" in text
    assert "the planned sample is not reached" in text
    assert [one["always_valid"]["verdict"] for one in told["result"]] == ["undecided"]


def test_arms_that_lost_requests_have_no_winner(project: Project) -> None:
    told, text = result_of(project, units=600, better=0.3, lost=150)
    assert told["sample_ratio"]["sound"] is False
    assert "no winner is named" in text
    assert [one["always_valid"]["verdict"] for one in told["result"]] == ["undecided"]


def test_a_test_of_which_nothing_is_in_the_log_yet(project: Project) -> None:
    trial = Trial(
        kind=TrialKind.AB, name="ab", arms=(TrialArm(name="v2", version="v2", share=0.5),), plan=TestPlan()
    )
    told = told_test("fraud", trial, AbOutcomes(project.models["fraud"], trial), [])
    out = io.StringIO()
    print_test(Console(file=out, width=200), told)
    assert "no difference is shown so far" in out.getvalue()
