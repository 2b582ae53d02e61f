"""Trials in a model's life: one at a time, begun and ended by facts, and over with whatever changes the champion."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.models.commands import answer
from driftline.models.lifecycle import ModelHistory, State, fold
from driftline.models.model_event import COMMANDS, Kind, ModelEvent
from driftline.models.standing import Pinned
from driftline.models.trial import (
    Metric,
    Steps,
    TestPlan,
    Trial,
    TrialArm,
    TrialKind,
    canary,
    free_name,
    stepping,
    trial_of,
)
from driftline.runtime.errors import RefusedError
from services.model_registry.pointing import standing_of
from tests.unit.models_life.test_lifecycle import FACTS, born, event, reigned
from tests.unit.models_life.test_pointing import bundles

STEPS = Steps(shares=(0.05, 0.25, 0.5), hold_us=100, least_requests=10, most_fallbacks=0.01)
CANARY = canary("v2", "canary-v2", STEPS, "shop")
AB = Trial(
    kind=TrialKind.AB,
    name="ab",
    arms=(TrialArm(name="v2", version="v2", share=0.3), TrialArm(name="v3", version="v3", share=0.3)),
    plan=TestPlan(metric=Metric.VALUE, effect=2.0),
)


def fact(kind: Kind, trial: Trial, at: int, step: int = 0) -> ModelEvent:
    started = kind in {Kind.CANARY_STARTED, Kind.AB_STARTED}
    told = trial.evidence() if started else stepping(trial, step, {})
    return event(kind, trial.version, at, evidence=json.dumps(told))


def tried(*more: ModelEvent, trial: Trial = CANARY) -> ModelHistory:
    """v1 reigns, v2 and v3 are challengers, and a trial has begun at 20."""
    kind = Kind.CANARY_STARTED if trial.kind is TrialKind.CANARY else Kind.AB_STARTED
    before = reigned((Kind.PROMOTED, "v1", 10)).events
    return fold("lateness", [*before, fact(kind, trial, 20), *more])


def test_a_canary_grows_by_its_facts_and_its_version_stays_what_it_was() -> None:
    history = tried(fact(Kind.CANARY_STEPPED, CANARY, 30, step=1))
    assert history.trial is not None
    assert (history.trial.step, history.trial.arms[0].share, history.trial.since_us) == (1, 0.25, 30)
    assert (history.trial.began_us, history.trial.sticky, history.trial.steps) == (20, "shop", STEPS)
    assert (history.champion, history.state_of("v2")) == ("v1", State.CHALLENGER)
    assert not history.trial.last_step
    last = tried(*(fact(Kind.CANARY_STEPPED, CANARY, 30 + step, step=step) for step in (1, 2))).trial
    assert last is not None
    assert last.last_step


def test_a_canary_that_ends_is_rolled_back_and_can_be_tried_again_under_another_name() -> None:
    history = tried(fact(Kind.CANARY_ENDED, CANARY, 30))
    assert (history.trial, history.state_of("v2"), history.champion) == (None, State.ROLLED_BACK, "v1")
    assert (history.trials[0].until_us, history.trials_until_us) == (30, 30)
    again = replace(CANARY, name=free_name("canary-v2", history.trials))
    found = fold("lateness", [*history.events, fact(Kind.CANARY_STARTED, again, 40)])
    assert found.trial is not None
    assert (found.trial.name, found.ignored) == ("canary-v2.2", ())


def test_an_ab_test_ends_and_nothing_else_changes() -> None:
    history = tried(fact(Kind.AB_ENDED, AB, 30), trial=AB)
    assert history.trial is None
    assert history.trials[0].plan == AB.plan
    assert [history.state_of(version) for version in ("v1", "v2", "v3")] == [
        State.CHAMPION,
        State.CHALLENGER,
        State.CHALLENGER,
    ]


@pytest.mark.parametrize(
    ("ending", "champion"),
    [
        (event(Kind.PROMOTED, "v2", 30), "v2"),
        (event(Kind.PROMOTED, "v3", 30), "v3"),
        (event(Kind.PULLED, "v1", 30), "v1"),
        (event(Kind.PULLED, "v2", 30), "v1"),
        (event(Kind.REJECTED, "v2", 30), "v1"),
        (event(Kind.RETIRED, "v2", 30), "v1"),
    ],
    ids=lambda found: f"{found.kind} {found.version}" if isinstance(found, ModelEvent) else found,
)
@pytest.mark.parametrize("trial", [CANARY, AB], ids=["canary", "ab"])
def test_a_trial_is_over_with_what_leaves_nothing_to_try(
    trial: Trial, ending: ModelEvent, champion: str
) -> None:
    history = tried(ending, trial=trial)
    assert (history.trial, history.champion, history.ignored) == (None, champion, ())
    assert history.trials[0].ended


def test_what_waits_for_approval_goes_on_being_tried() -> None:
    history = tried(event(Kind.APPROVAL_WANTED, "v2", 30))
    assert history.trial is not None
    assert history.pending == "v2"


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (fact(Kind.AB_STARTED, AB, 30), "canary-v2 runs"),
        (fact(Kind.CANARY_STEPPED, CANARY, 30, step=2), "step 2 does not follow"),
        (fact(Kind.CANARY_STEPPED, replace(CANARY, name="other"), 30, step=1), "no trial 'other'"),
        (fact(Kind.AB_ENDED, CANARY, 30), "no such trial"),
        (event(Kind.CANARY_ENDED, "v2", 30), "no trial ''"),
    ],
)
def test_what_does_not_follow_is_ignored(more: ModelEvent, complaint: str) -> None:
    history = tried(more)
    assert history.trial is not None
    assert complaint in history.ignored[-1].why


@pytest.mark.parametrize(
    ("started", "complaint"),
    [
        (event(Kind.CANARY_STARTED, "v2", 20), "holds no trial"),
        (event(Kind.CANARY_STARTED, "v2", 20, evidence='{"trial": {"kind": "canary"}}'), "holds no trial"),
        (fact(Kind.AB_STARTED, CANARY, 20), "another kind of trial"),
        (fact(Kind.CANARY_STARTED, canary("v1", "c", STEPS), 20), "v1 is champion, so it cannot be tried"),
        (fact(Kind.CANARY_STARTED, canary("v9", "c", STEPS), 20), "v9 is unknown, so it cannot be tried"),
        (fact(Kind.CANARY_STARTED, CANARY, 5), "no champion answers"),
    ],
)
def test_what_cannot_begin_is_ignored(started: ModelEvent, complaint: str) -> None:
    history = fold("lateness", [*reigned((Kind.PROMOTED, "v1", 10)).events, started])
    assert history.trials == ()
    assert complaint in history.ignored[-1].why


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": "a/b"}, "'a/b' is no name"),
        ({"arms": ()}, "names of their own"),
        ({"arms": (TrialArm(name="champion", version="v2", share=0.1),)}, "names of their own"),
        ({"arms": (TrialArm(name="v2", version="v2", share=0.0),)}, "more than 0"),
        ({"arms": (TrialArm(name="v2", version="v2", share=1.0),)}, "champion needs a share"),
        ({"arms": tuple(TrialArm(name=n, version="v2", share=0.1) for n in "ab")}, "a version of its own"),
    ],
)
def test_trials_that_cannot_be(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(AB, **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must grow"):
        canary("v2", "c", replace(STEPS, shares=(0.5, 0.1)))
    with pytest.raises(ValueError, match="probabilities"):
        TestPlan(alpha=1.0)


@pytest.mark.parametrize("trial", [CANARY, AB], ids=["canary", "ab"])
def test_a_trial_survives_its_record(trial: Trial) -> None:
    kind = Kind.CANARY_STARTED if trial is CANARY else Kind.AB_STARTED
    codec = RecordCodec(platform_schema("model_event"))
    started = fact(kind, trial, 20)
    read = ModelEvent.of(codec.decode(codec.encode(started.record())))
    expected = replace(trial, began_us=20, since_us=20, began_at_us=20, since_at_us=20)
    assert trial_of(read) == expected


def test_every_kind_can_be_written() -> None:
    (field,) = [one for one in platform_schema("model_event")["fields"] if one["name"] == "kind"]
    assert set(field["type"]["symbols"]) == {kind.value for kind in Kind}


def command(kind: Kind, trial: Trial | None = None, at: int = 0) -> ModelEvent:
    evidence = {} if trial is None else trial.evidence()
    return event(kind, None if trial is None else trial.version, at, evidence=json.dumps(evidence))


def test_commands_begin_and_end_trials() -> None:
    history = reigned((Kind.PROMOTED, "v1", 10))
    for start, trial, stop in [
        (Kind.START_CANARY, CANARY, Kind.STOP_CANARY),
        (Kind.START_AB, AB, Kind.STOP_AB),
    ]:
        began = answer(history, command(start, trial), by="model_registry", at_us=1)
        assert began is not None
        history = fold("lateness", [*history.events, began])
        assert history.trial is not None
        assert history.trial.name == trial.name
        ended = answer(history, command(stop), by="model_registry", at_us=1)
        assert ended is not None
        history = fold("lateness", [*history.events, ended])
        assert (history.trial, history.ignored) == (None, ())


def test_an_end_never_lies_before_what_it_ends() -> None:
    """A person's clock is that of labels, which lags behind that of requests by which canaries step."""
    history = tried(fact(Kind.CANARY_STEPPED, CANARY, 5_000, step=1))
    ended = answer(history, command(Kind.STOP_CANARY, at=100), by="model_registry", at_us=1)
    promoted = answer(history, event(Kind.PROMOTE, "v3", 100), by="model_registry", at_us=1)
    for made in (ended, promoted):
        assert made is not None
        assert made.effective_us >= 5_000
        assert fold("lateness", [*history.events, made]).trial is None


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (command(Kind.START_AB, AB), "canary-v2 of 'lateness' runs; stop that canary first"),
        (command(Kind.STOP_AB), "has no A/B test that runs"),
    ],
)
def test_impossible_commands_are_told(asked: ModelEvent, complaint: str) -> None:
    with pytest.raises(RefusedError, match=complaint):
        answer(tried(), asked, by="model_registry", at_us=1)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (command(Kind.START_CANARY), "no trial can begin"),
        (command(Kind.START_CANARY, AB), "needs a canary"),
        (command(Kind.START_CANARY, canary("v1", "c", STEPS)), "v1 is champion, so it cannot be tried"),
        (command(Kind.START_CANARY, canary("v7", "c", STEPS)), "has no version 'v7'"),
        (command(Kind.STOP_CANARY), "has no canary that runs"),
    ],
)
def test_impossible_beginnings_are_told(asked: ModelEvent, complaint: str) -> None:
    with pytest.raises(RefusedError, match=complaint):
        answer(reigned((Kind.PROMOTED, "v1", 10)), asked, by="model_registry", at_us=1)
    with pytest.raises(RefusedError, match="no champion"):
        answer(
            fold("lateness", born("v2", 0)), command(Kind.START_CANARY, CANARY), by="model_registry", at_us=1
        )
    over = tried(fact(Kind.CANARY_ENDED, CANARY, 30))
    with pytest.raises(RefusedError, match="name it otherwise"):
        answer(over, command(Kind.START_CANARY, CANARY), by="model_registry", at_us=1)


def test_commands_are_commands() -> None:
    assert {Kind.START_CANARY, Kind.STOP_CANARY, Kind.START_AB, Kind.STOP_AB} < COMMANDS
    assert {Kind.CANARY_STARTED, Kind.CANARY_ENDED, Kind.AB_STARTED, Kind.AB_ENDED} < set(FACTS)


facts_of_a_trial = st.one_of(
    st.builds(fact, st.just(Kind.CANARY_STARTED), st.just(CANARY), st.integers(0, 30)),
    st.builds(
        fact, st.just(Kind.CANARY_STEPPED), st.just(CANARY), st.integers(0, 30), step=st.integers(0, 3)
    ),
    st.builds(
        fact,
        st.sampled_from([Kind.CANARY_ENDED, Kind.AB_ENDED]),
        st.sampled_from([CANARY, AB]),
        st.integers(0, 30),
    ),
    st.builds(fact, st.just(Kind.AB_STARTED), st.just(AB), st.integers(0, 30)),
    st.builds(event, st.sampled_from(FACTS), st.sampled_from(["v1", "v2", "v3"]), st.integers(0, 30)),
)


@given(st.lists(facts_of_a_trial, max_size=25), st.randoms(use_true_random=False))
def test_the_order_of_deliveries_changes_no_trial_and_a_trial_has_a_champion_beside_it(
    facts: list[ModelEvent], source: random.Random
) -> None:
    events = [
        *(one for version in ("v1", "v2", "v3") for one in born(version, 0)),
        event(Kind.PROMOTED, "v1", 0),
        *facts,
    ]
    history = fold("lateness", events)
    source.shuffle(events)
    assert fold("lateness", events) == history
    if history.trial is not None:
        assert history.serving is not None
        assert history.champion not in history.trial.versions
        assert not {history.state_of(one) for one in history.trial.versions} & {State.REJECTED, State.PULLED}
    assert all(one.until_us is not None for one in history.trials[:-1])


def test_predictors_are_told_the_arms(tmp_path: Path) -> None:
    models = bundles(tmp_path, "v1", "v2")
    history = tried(fact(Kind.CANARY_STEPPED, CANARY, 30, step=1))
    found = standing_of(history, models, None)
    assert found.split is not None
    (arm,) = found.split.arms
    assert (found.split.trial, found.split.sticky, found.split.control) == ("canary-v2", "shop", "champion")
    assert (arm.name, arm.share, arm.pinned.version, len(arm.pinned.sha256)) == ("canary", 0.25, "v2", 64)
    assert standing_of(history, models, found) == found
    assert standing_of(tried(event(Kind.PULLED, "v1", 30)), models, found).split is None


def test_an_arm_without_a_bundle_is_named_and_held_to_it_when_it_comes(tmp_path: Path) -> None:
    models = bundles(tmp_path, "v1")
    before = standing_of(tried(), models, None)
    assert before.split is not None
    assert before.split.arms[0].pinned == Pinned(version="v2", sha256="")
    bundles(tmp_path, "v2")
    after = standing_of(tried(), models, before)
    assert after.split is not None
    assert len(after.split.arms[0].pinned.sha256) == 64
