"""What the registry decides on a canary, from reports of predictors and from the log of predictions."""

import json
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from driftline.models.comparison import Decision
from driftline.models.lifecycle import ModelHistory, State
from driftline.models.model_event import Kind, ModelEvent
from driftline.models.trial import Steps, Trial
from driftline.project import CanaryRule, Promotion, PromotionRule, ServiceLevelRule
from driftline.serving.incidents import Incident, events_of
from services.model_registry.canaries import CanaryEvidence
from services.model_registry.decisions import decide, pairs_of
from services.model_registry.traffic import StepTraffic
from tests.unit.models_life.test_decisions import after, event, trained, verdict, with_challenger

RULE = PromotionRule(canary=CanaryRule(shares=(0.1, 0.5), hold_us=1_000, least_requests=100, sticky="shop"))
ASKING = replace(RULE, by=Promotion.APPROVAL)
LEVELS = ServiceLevelRule(latency_us=50_000, latency_share=0.95)


def begun(rule: PromotionRule = RULE, levels: ServiceLevelRule | None = None) -> ModelHistory:
    """v2 was shown to be better than v1."""
    history = with_challenger()
    (pair,) = pairs_of(history, rule)
    return after(history, decide(history, [verdict(Decision.PROMOTE, pair)], rule, 1, levels=levels))


def trial_of(history: ModelHistory) -> Trial:
    assert history.trial is not None
    return history.trial


def seen(history: ModelHistory, **more: int) -> CanaryEvidence:
    trial = trial_of(history)
    good = {"requests": 200, "first_us": trial.since_us, "last_us": trial.since_us + 1_000, **more}
    return CanaryEvidence(trial=trial.name, step=trial.step, **good)


def decided(
    history: ModelHistory, evidence: CanaryEvidence | None, rule: PromotionRule = RULE
) -> list[ModelEvent]:
    """The facts, the same whenever they are decided on."""
    (pair, *_) = pairs_of(history, rule)
    verdicts = [verdict(Decision.PROMOTE, pair)]
    facts = decide(history, verdicts, rule, 2, evidence=evidence)
    again = decide(history, verdicts, rule, 3, evidence=evidence)
    assert [one.event_id for one in again] == [one.event_id for one in facts]
    return facts


def test_what_is_better_begins_as_a_canary_with_the_evidence_and_the_rule_of_then() -> None:
    history = begun(levels=LEVELS)
    trial = trial_of(history)
    assert (history.champion, history.state_of("v2")) == ("v1", State.CHALLENGER)
    assert (trial.name, trial.arms[0].share, trial.sticky) == ("canary-v2", 0.1, "shop")
    assert trial.steps == Steps(
        shares=(0.1, 0.5),
        hold_us=1_000,
        least_requests=100,
        most_fallbacks=0.01,
        latency_us=50_000,
        late_share=pytest.approx(0.05),
    )
    (started,) = [one for one in history.events if one.kind is Kind.CANARY_STARTED]
    assert started.told["champion"] == "v1"
    assert started.effective_us == 90
    assert decided(history, None) == []  # the comparison says the same again


def test_without_a_rule_it_is_promoted_at_once() -> None:
    assert begun(PromotionRule()).champion == "v2"


def test_it_grows_step_by_step_and_is_promoted() -> None:
    history = begun()
    for share in (0.1, 0.5):
        assert trial_of(history).arms[0].share == share
        assert history.champion == "v1"
        history = after(history, decided(history, seen(history)))
    assert (history.champion, history.trial, history.previous) == ("v2", None, "v1")
    kinds = [one.kind for one in history.events if one.by == "model_registry"]
    assert kinds == [Kind.CANARY_STARTED, Kind.CANARY_STEPPED, Kind.PROMOTED]
    assert json.loads(history.events[-1].evidence)["canary"]["requests"] == 200


@pytest.mark.parametrize(
    "short",
    [{"requests": 99}, {"last_us": 1_089}, {"fallbacks": 3}],
    ids=["too few requests", "too soon", "too many fallbacks"],
)
def test_it_waits_where_a_step_is_not_proven(short: dict[str, int]) -> None:
    history = begun()
    assert decided(history, seen(history, **short)) == []
    assert decided(history, None) == []


def test_what_was_seen_of_another_step_or_trial_says_nothing() -> None:
    history = begun()
    assert decided(history, replace(seen(history), step=1)) == []
    assert decided(history, replace(seen(history), trial="canary-v9")) == []


def failing(arm: str, at: int = 200) -> ModelEvent:
    incident = Incident(
        model="returns",
        version="v2",
        reign="",
        champion=False,
        failing=True,
        reason="out of beans",
        answered_by="v1",
        event_us=at,
        at_us=at,
        arm=arm,
    )
    (report,) = events_of(incident, RULE, by="predictor-0")
    return report


def test_a_report_that_it_fails_ends_it_at_once() -> None:
    history = begun()
    reported = after(history, [failing("canary-v2/canary")])
    facts = decided(reported, seen(reported))
    assert [one.kind for one in facts] == [Kind.CANARY_ENDED]
    assert facts[0].reason.startswith("it fails in service: out of beans")
    over = after(reported, facts)
    assert (over.champion, over.trial, over.state_of("v2")) == ("v1", None, State.ROLLED_BACK)
    assert decide(over, [], RULE, 3) == []


@pytest.mark.parametrize("arm", ["", "canary-v1/canary", "canary-v2/champion"])
def test_reports_of_others_end_nothing(arm: str) -> None:
    history = begun()
    assert decided(after(history, [failing(arm)]), None) == []


def test_requests_that_others_must_answer_end_it_where_there_is_no_doubt() -> None:
    history = begun()
    (ended,) = decided(history, seen(history, fallbacks=20))
    assert (ended.kind, ended.reason) == (Kind.CANARY_ENDED, "others had to answer 20 of its 200 requests")
    assert decided(history, seen(history, requests=4, fallbacks=4)) == []  # four may be bad luck


def test_late_answers_end_it_unless_the_champion_is_as_late() -> None:
    history = begun(levels=LEVELS)
    (ended,) = decided(history, seen(history, timed=200, late=60, champion_timed=2_000, champion_late=40))
    assert ended.reason == "60 of its 200 answers were late, of the champion's 40 of 2,000"
    (stepped,) = decided(history, seen(history, timed=200, late=60, champion_timed=2_000, champion_late=700))
    assert stepped.kind is Kind.CANARY_STEPPED
    assert decided(history, seen(history, timed=200, late=15, champion_timed=2_000, champion_late=40)) == []
    unpromised = begun()
    assert decided(unpromised, seen(unpromised, timed=200, late=200))[0].kind is Kind.CANARY_STEPPED


def test_with_approval_a_person_is_asked_at_the_end_and_it_goes_on_meanwhile() -> None:
    history = begun(ASKING)
    for _ in range(2):
        history = after(history, decided(history, seen(history), ASKING))
    assert (history.pending, history.champion, trial_of(history).arms[0].share) == ("v2", "v1", 0.5)
    assert decide(history, [], ASKING, 4, evidence=seen(history)) == []
    (ended,) = decide(after(history, [failing("canary-v2/canary", 9_999)]), [], ASKING, 5)
    assert ended.kind is Kind.CANARY_ENDED


def test_a_challenger_that_proves_worse_after_all_leaves_its_canary() -> None:
    history = begun()
    (pair, *_) = pairs_of(history, RULE)
    found = after(history, decide(history, [verdict(Decision.REJECT, pair)], RULE, 2))
    assert (found.state_of("v2"), found.trial) == (State.REJECTED, None)


def test_a_newer_challenger_does_not_retire_one_that_is_tried_nor_take_its_place() -> None:
    history = begun()
    both = after(history, trained("v3", 95))
    assert decide(both, [], RULE, 2) == []
    (newer,) = pairs_of(both, RULE)
    assert newer.challenger == "v3"
    assert decide(both, [verdict(Decision.PROMOTE, newer)], RULE, 2) == []


def test_under_another_champion_it_begins_anew() -> None:
    """The same pair under another reign is another canary: its fact is not the old one."""
    history = begun()
    changed = after(history, trained("v3", 95))
    crowned = after(changed, [event(Kind.PROMOTED, "v3", 300), event(Kind.ROLLED_BACK, "v3", 400)])
    assert (crowned.champion, crowned.trial) == ("v1", None)
    pair = next(one for one in pairs_of(crowned, RULE) if one.challenger == "v2")
    (started,) = [
        one
        for one in decide(crowned, [verdict(Decision.PROMOTE, pair)], RULE, 5)
        if one.kind is Kind.CANARY_STARTED
    ]
    assert trial_of(after(crowned, [started])).name == "canary-v2.2"


def test_a_fact_that_is_in_the_log_is_not_made_again() -> None:
    history = begun()
    (pair, *_) = pairs_of(history, RULE)
    lost = replace(history, trials=())  # as where the fold ignored it
    assert decide(lost, [verdict(Decision.PROMOTE, pair)], RULE, 2) == []


def logged(arm: str | None, version: str | None = "v2", at: int = 100, **more: Any) -> dict[str, Any]:
    return {
        "model": "returns",
        "arm": arm,
        "model_version": version,
        "status": "ANSWERED",
        "channel": "HTTP",
        "event_time": at,
        "predicted_at": 10_000,
        "duration_us": 1_000,
        **more,
    }


def test_the_log_is_counted_by_arm() -> None:
    history = begun(levels=LEVELS)
    traffic = StepTraffic("returns", trial_of(history))
    own, other = "canary-v2/canary", "canary-v2/champion"
    rows = [
        logged(None, "v1"),
        logged("canary-v9/canary"),
        logged(own, model="other"),
        logged(own, at=89),  # before the step
        logged(own, at=90),
        logged(own, "v1", at=500),  # another version answered
        logged(own, at=400, status="FAILED"),
        logged(own, at=300, duration_us=50_001),
        logged(own, at=310, duration_us=50_001, channel="TOPIC"),
        logged(own, at=99_999),  # ahead of its time: counts as of its answer
        logged(other, "v1"),
        logged(other, "v1", duration_us=60_000),
    ]
    for chosen in (rows[:5], rows[5:], []):
        traffic.add(batch(chosen))
    assert traffic.evidence == CanaryEvidence(
        trial="canary-v2",
        step=0,
        requests=6,
        fallbacks=1,
        failed=1,
        timed=4,
        late=1,
        champion_timed=2,
        champion_late=1,
        first_us=90,
        last_us=10_000,
    )


def batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("model", "arm", "model_version", "status", "channel")),
            *((name, pa.timestamp("us")) for name in ("event_time", "predicted_at")),
            ("duration_us", pa.int64()),
        ]
    )
    return pa.RecordBatch.from_pylist(rows, schema=schema)
