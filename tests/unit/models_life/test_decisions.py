"""The registry's decisions, from a history and evidence to the next facts."""

import json

import pytest

from driftline.models.comparison import Comparison, Decision
from driftline.models.lifecycle import ModelHistory, State, fold
from driftline.models.model_event import Kind, ModelEvent, life_id
from driftline.models.shadow import Pair
from driftline.project import Promotion, PromotionRule
from services.model_registry.decisions import Verdict, adopt, decide, pairs_of
from tests.unit.models.conftest import make_manifest

PLAIN, ASKING = PromotionRule(), PromotionRule(by=Promotion.APPROVAL)


def event(kind: Kind, version: str, at: int, until: int | None = None) -> ModelEvent:
    return ModelEvent(
        event_id=life_id(kind, version, at),
        model="returns",
        kind=kind,
        version=version,
        cause_id=f"cause of {version}",
        reason="",
        by="test",
        effective_us=at,
        at_us=at,
        data_until_us=until,
    )


def trained(version: str, at: int, *, challenger: bool = True) -> list[ModelEvent]:
    kinds = [Kind.REGISTERED, Kind.VALIDATED, *([Kind.CHALLENGER] if challenger else [])]
    return [event(kind, version, at, until=at) for kind in kinds]


def with_challenger(*more: ModelEvent) -> ModelHistory:
    events = [*trained("v1", 10, challenger=False), event(Kind.PROMOTED, "v1", 10), *trained("v2", 50)]
    return fold("returns", [*events, *more])


def verdict(decision: Decision, pair: Pair) -> Verdict:
    return Verdict(pair=pair, comparison=Comparison(decision=decision, reason="better: ..."), known_us=90)


def after(history: ModelHistory, facts: list[ModelEvent]) -> ModelHistory:
    found = fold("returns", [*history.events, *facts])
    assert found.ignored == ()
    return found


def test_the_challenger_is_compared_on_what_neither_knew() -> None:
    assert pairs_of(with_challenger(), PLAIN) == [
        Pair(model="returns", champion="v1", challenger="v2", start_us=50)
    ]
    assert pairs_of(fold("returns", trained("v1", 10)), PLAIN) == []


@pytest.mark.parametrize(
    ("decision", "policy", "state", "champion"),
    [
        (Decision.PROMOTE, PLAIN, State.CHAMPION, "v2"),
        (Decision.PROMOTE, ASKING, State.PENDING, "v1"),
        (Decision.REJECT, PLAIN, State.REJECTED, "v1"),
        (Decision.WAIT, PLAIN, State.CHALLENGER, "v1"),
    ],
)
def test_a_comparison_becomes_a_fact(
    decision: Decision, policy: PromotionRule, state: State, champion: str
) -> None:
    history = with_challenger()
    verdicts = [verdict(decision, pairs_of(history, policy)[0])]
    facts = decide(history, verdicts, policy, at_us=1)
    found = after(history, facts)
    assert found.state_of("v2") is state
    assert found.champion == champion
    assert [fact.event_id for fact in facts] == [
        fact.event_id for fact in decide(history, verdicts, policy, at_us=2)
    ]
    if facts:
        assert facts[0].cause_id == "cause of v2"
        assert facts[0].effective_us == 90
        assert json.loads(facts[0].evidence)["champion"] == "v1"


def test_a_verdict_on_another_champion_says_nothing() -> None:
    history = with_challenger()
    old = Pair(model="returns", champion="v0", challenger="v2", start_us=50)
    assert decide(history, [verdict(Decision.PROMOTE, old)], PLAIN, at_us=1) == []


def test_a_new_champion_is_watched_and_rolled_back_where_the_former_is_better() -> None:
    history = with_challenger(event(Kind.PROMOTED, "v2", 70))
    (pair,) = pairs_of(history, PLAIN)
    assert pair == Pair(model="returns", champion="v2", challenger="v1", start_us=70)
    assert decide(history, [verdict(Decision.REJECT, pair)], PLAIN, at_us=1) == []
    found = after(history, decide(history, [verdict(Decision.PROMOTE, pair)], PLAIN, at_us=1))
    assert found.champion == "v1"
    assert found.state_of("v2") is State.ROLLED_BACK
    assert pairs_of(history, PromotionRule(watch=False)) == []


def test_at_most_one_decision_changes_the_champion() -> None:
    history = with_challenger(event(Kind.PROMOTED, "v2", 70), *trained("v3", 75))
    verdicts = [verdict(Decision.PROMOTE, pair) for pair in pairs_of(history, PLAIN)]
    assert len(verdicts) == 2
    facts = decide(history, verdicts, PLAIN, at_us=1)
    assert [fact.kind for fact in facts] == [Kind.PROMOTED]
    assert after(history, facts).champion == "v3"


def test_a_newer_challenger_takes_the_place_of_the_older() -> None:
    history = with_challenger(*trained("v3", 60))
    facts = decide(history, [], PLAIN, at_us=1)
    assert [(fact.kind, fact.version) for fact in facts] == [(Kind.RETIRED, "v2")]
    found = after(history, facts)
    assert found.challenger == "v3"
    assert decide(found, [], PLAIN, at_us=1) == []


@pytest.mark.parametrize(("policy", "state"), [(PLAIN, State.CHAMPION), (ASKING, State.PENDING)])
def test_the_first_version_needs_no_comparison(policy: PromotionRule, state: State) -> None:
    history = fold("returns", trained("v1", 10, challenger=False))
    found = after(history, decide(history, [], policy, at_us=1))
    assert found.state_of("v1") is state
    assert decide(found, [], policy, at_us=1) == []


def test_what_a_person_trained_is_adopted_once_and_reigns_from_the_end_of_its_data() -> None:
    nothing = fold("returns", [])
    found = after(nothing, adopt(nothing, make_manifest("1"), at_us=1, sha256="a" * 64))
    assert found.champion == "1"
    registered = next(event for event in found.events if event.kind is Kind.REGISTERED)
    assert registered.told["sha256"] == "a" * 64
    until = 1_364_774_400_000_000  # 2013-04-01
    assert found.reigns[0].since_us == until
    assert found.versions["1"].data_until_us == until
    assert adopt(found, make_manifest("1"), at_us=2, sha256="a" * 64) == []
    again = after(found, adopt(found, make_manifest("2"), at_us=2, sha256="b" * 64))
    assert (again.champion, again.previous) == ("2", "1")
    assert again.reigns[1].since_us == until + 1


def test_nothing_to_decide() -> None:
    assert decide(fold("returns", []), [], PLAIN, at_us=1) == []


def test_out_of_service_nothing_is_compared_and_a_person_is_asked_for_what_passed_its_gates() -> None:
    history = with_challenger(event(Kind.PULLED, "v1", 60))
    assert (history.serving, pairs_of(history, PLAIN)) == (None, [])
    facts = decide(history, [], PLAIN, at_us=1)
    assert [(one.kind, one.version) for one in facts] == [(Kind.APPROVAL_WANTED, "v2")]
    waiting = after(history, facts)
    assert decide(waiting, [], PLAIN, at_us=1) == []
    assert waiting.serving is None
