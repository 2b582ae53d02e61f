"""The history of a model is a function of the set of its events, and has exactly one champion at any time."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.models.commands import answer, change_instant
from driftline.models.lifecycle import ModelHistory, State, fold, fold_all
from driftline.models.model_event import Kind, ModelEvent, life_id
from driftline.runtime.errors import RefusedError

FACTS = [kind for kind in Kind if kind.is_fact]


def event(kind: Kind, version: str | None = "v1", at: int = 0, **more: object) -> ModelEvent:
    given_ = {"reason": "", "by": "test", "at_us": at, "effective_us": at, **more}
    return ModelEvent(
        event_id=life_id(kind, version or "", at),
        model="lateness",
        kind=kind,
        version=version,
        **given_,  # type: ignore[arg-type]
    )


def born(version: str, at: int) -> list[ModelEvent]:
    return [event(kind, version, at) for kind in (Kind.REGISTERED, Kind.VALIDATED, Kind.CHALLENGER)]


def reigned(*changes: tuple[Kind, str, int]) -> ModelHistory:
    events = [one for version in ("v1", "v2", "v3") for one in born(version, 0)]
    return fold("lateness", events + [event(kind, version, at) for kind, version, at in changes])


def test_who_was_champion_when() -> None:
    history = reigned((Kind.PROMOTED, "v1", 10), (Kind.PROMOTED, "v2", 20), (Kind.PROMOTED, "v3", 30))
    assert [history.champion_at(at) for at in (9, 10, 19, 20, 29, 30, 99)] == [
        None,
        "v1",
        "v1",
        "v2",
        "v2",
        "v3",
        "v3",
    ]
    assert history.champion == "v3"
    assert history.previous == "v2"
    assert history.state_of("v1") is State.FORMER


def test_a_rollback_brings_the_former_champion_back_and_the_next_one_the_one_before() -> None:
    changes = [(Kind.PROMOTED, "v1", 10), (Kind.PROMOTED, "v2", 20), (Kind.PROMOTED, "v3", 30)]
    once = reigned(*changes, (Kind.ROLLED_BACK, "v3", 40))
    assert once.champion == "v2"
    assert once.state_of("v3") is State.ROLLED_BACK
    twice = reigned(*changes, (Kind.ROLLED_BACK, "v3", 40), (Kind.ROLLED_BACK, "v2", 50))
    assert twice.champion == "v1"
    thrice = reigned(
        *changes, (Kind.ROLLED_BACK, "v3", 40), (Kind.ROLLED_BACK, "v2", 50), (Kind.ROLLED_BACK, "v1", 60)
    )
    assert thrice.champion == "v1"
    assert "no former champion" in thrice.ignored[-1].why


def test_a_pulled_champion_falls_back_and_never_returns() -> None:
    history = reigned(
        (Kind.PROMOTED, "v1", 10),
        (Kind.PROMOTED, "v2", 20),
        (Kind.PULLED, "v2", 30),
        (Kind.PROMOTED, "v2", 40),
    )
    assert history.champion == "v1"
    assert history.state_of("v2") is State.PULLED
    assert [one.event.kind for one in history.ignored] == [Kind.PROMOTED]


def test_the_only_champion_pulled_keeps_its_title_and_scores_no_more() -> None:
    changes = [(Kind.PROMOTED, "v1", 10), (Kind.PULLED, "v1", 20)]
    history = reigned(*changes)
    assert (history.champion, history.serving, history.ignored) == ("v1", None, ())
    again = reigned(*changes, (Kind.PULLED, "v1", 30), (Kind.ROLLED_BACK, "v1", 40))
    assert (again.serving, len(again.ignored)) == (None, 2)
    assert "is pulled" in again.ignored[0].why
    after = reigned(*changes, (Kind.PROMOTED, "v2", 30))
    assert (after.serving, after.formers, after.state_of("v1")) == ("v2", (), State.PULLED)
    assert reigned(*changes, (Kind.PROMOTED, "v2", 30), (Kind.PROMOTED, "v1", 40)).serving == "v2"


def test_reports_change_nothing() -> None:
    before = reigned((Kind.PROMOTED, "v1", 10), (Kind.PROMOTED, "v2", 20))
    reports = [event(kind, "v2", 30) for kind in (Kind.FAILING, Kind.RECOVERED)]
    after = fold("lateness", [*before.events, *reports])
    assert (after.versions, after.reigns, after.ignored) == (before.versions, before.reigns, ())
    assert after.events[-2:] == tuple(reports)


def test_what_was_refused_or_never_registered_is_not_promoted() -> None:
    events = [
        event(Kind.DATA_REFUSED, "bad", 1),
        event(Kind.REGISTERED, "worse", 1),
        event(Kind.REJECTED, "worse", 2),
        *(event(Kind.PROMOTED, version, 3) for version in ("bad", "worse", "unheard")),
    ]
    history = fold("lateness", events)
    assert history.champion is None
    assert len(history.ignored) == 3


def test_a_late_training_does_not_unseat_anyone() -> None:
    """Its facts hold from before the promotion, and arrive after it."""
    before = reigned((Kind.PROMOTED, "v1", 10), (Kind.PROMOTED, "v2", 20))
    late = [*before.events, *born("v9", 15)]
    after = fold("lateness", late)
    assert after.reigns == before.reigns
    assert after.challenger == "v9"


def test_an_event_counts_once_and_its_first_writing_stands() -> None:
    first = event(Kind.REGISTERED, "v1", 5)
    again = replace(first, at_us=99, reason="again")
    for order in ([first, again], [again, first], [again, first, again]):
        history = fold("lateness", order)
        assert history.events == (first,)


def test_models_are_kept_apart() -> None:
    other = replace(event(Kind.REGISTERED, "v1"), model="fraud")
    histories = fold_all([other, *born("v2", 1)])
    assert list(histories) == ["fraud", "lateness"]
    assert list(histories["fraud"].versions) == ["v1"]
    assert list(histories["lateness"].versions) == ["v2"]


events_of_a_model = st.lists(
    st.builds(
        event,
        st.sampled_from([*FACTS, *[Kind.PROMOTED, Kind.ROLLED_BACK, Kind.PULLED] * 3]),
        st.sampled_from(["v1", "v2", "v3", "v4"]),
        st.integers(0, 30),
    ),
    max_size=40,
).map(lambda found: [*born("v1", 0), *born("v2", 0), *found])


@given(events_of_a_model, st.randoms(use_true_random=False), st.integers(0, 5))
def test_the_order_and_number_of_deliveries_change_nothing(
    events: list[ModelEvent], source: random.Random, copies: int
) -> None:
    delivered = events + [source.choice(events) for _ in range(copies)]
    source.shuffle(delivered)
    assert fold("lateness", delivered) == fold("lateness", events)


@given(events_of_a_model)
def test_there_is_exactly_one_champion_from_the_first_promotion_on(events: list[ModelEvent]) -> None:
    history = fold("lateness", events)
    champions = history.in_state(State.CHAMPION)
    assert champions == ([history.champion] if history.reigns else [])
    for earlier, later in zip(history.reigns, history.reigns[1:], strict=False):
        assert earlier.until_us == later.since_us
        assert earlier.version != later.version
    if history.reigns:
        assert history.reigns[-1].until_us is None
        assert all(history.champion_at(at) for at in range(history.reigns[0].since_us, 32))
        assert history.champion_at(history.reigns[0].since_us - 1) is None
    assert set(history.formers) == set(history.in_state(State.FORMER))
    pulled = {one.version: one.effective_us for one in history.events if one.kind is Kind.PULLED}
    assert history.serving in {history.champion, None}
    if history.withdrawal is not None:
        assert (history.serving, history.withdrawal.version) == (None, history.champion)
    for version in history.in_state(State.PULLED):
        assert version in pulled
        assert history.champion != version


@given(events_of_a_model)
def test_a_fact_is_applied_or_told_to_be_ignored(events: list[ModelEvent]) -> None:
    history = fold("lateness", events)
    legal = len(history.events) - len(history.ignored)
    assert legal >= len(history.versions)
    assert all(one.why for one in history.ignored)


def command(kind: Kind, version: str | None = None, at: int = 100) -> ModelEvent:
    return event(kind, version, at, by="ann")


def ask(history: ModelHistory, kind: Kind, version: str | None = None) -> ModelEvent:
    made = answer(history, command(kind, version), by="model_registry", at_us=1)
    assert made is not None
    return made


def test_commands_become_facts_that_the_fold_accepts() -> None:
    history = reigned((Kind.PROMOTED, "v1", 10), (Kind.APPROVAL_WANTED, "v2", 20))
    for kind, version, champion in [
        (Kind.APPROVE, None, "v2"),
        (Kind.PROMOTE, "v3", "v3"),
        (Kind.REJECT, "v3", "v1"),
        (Kind.PULL, "v3", "v1"),
    ]:
        made = ask(history, kind, version)
        after = fold("lateness", [*history.events, made])
        assert after.ignored == history.ignored
        assert after.champion == champion
        assert made.cause_id == command(kind, version).event_id
        assert made == ask(history, kind, version)


def test_a_rollback_by_command() -> None:
    history = reigned((Kind.PROMOTED, "v1", 10), (Kind.PROMOTED, "v2", 20))
    assert fold("lateness", [*history.events, ask(history, Kind.ROLL_BACK)]).champion == "v1"
    assert fold("lateness", [*history.events, ask(history, Kind.PULL)]).state_of("v2") is State.PULLED


@pytest.mark.parametrize(
    ("kind", "version", "complaint"),
    [
        (Kind.APPROVE, None, "no version waits"),
        (Kind.PROMOTE, None, "name the version"),
        (Kind.PROMOTE, "v1", "is champion, so it cannot be promoted"),
        (Kind.PROMOTE, "v7", "has no version 'v7'; its versions: v1, v2, v3"),
        (Kind.REJECT, "v1", "is champion, so it cannot be rejected"),
        (Kind.ROLL_BACK, None, "no former champion"),
        (Kind.REGISTERED, "v1", "a fact, not a command"),
    ],
)
def test_impossible_commands_are_told(kind: Kind, version: str | None, complaint: str) -> None:
    history = reigned((Kind.PROMOTED, "v1", 10))
    with pytest.raises(RefusedError, match=complaint):
        answer(history, command(kind, version), by="model_registry", at_us=1)


def test_the_only_champion_is_pulled_by_command_once() -> None:
    history = reigned((Kind.PROMOTED, "v1", 10))
    after = fold("lateness", [*history.events, ask(history, Kind.PULL)])
    assert (after.serving, after.ignored) == (None, ())
    with pytest.raises(RefusedError, match="v1 is pulled"):
        answer(after, command(Kind.PULL, None, 200), by="model_registry", at_us=1)
    brought = fold("lateness", [*after.events, ask(after, Kind.PROMOTE, "v2")])
    assert brought.serving == "v2"


def test_a_training_is_stopped_by_the_trainer() -> None:
    history = fold("lateness", [event(Kind.TRAINING_STARTED, "v1")])
    assert answer(history, command(Kind.REJECT, "v1"), by="model_registry", at_us=1) is None


def test_decisions_never_hold_from_before_what_they_stand_on() -> None:
    history = reigned((Kind.PROMOTED, "v1", 10), (Kind.APPROVAL_WANTED, "v2", 20))
    assert change_instant(history, "v3", 3) == 11
    assert change_instant(history, "v2", 3) == 20
    assert change_instant(history, "v2", 30) == 30
    assert change_instant(fold("lateness", []), "v1", 3) == 3
    early = answer(history, command(Kind.APPROVE, at=0), by="model_registry", at_us=1)
    assert early is not None
    assert fold("lateness", [*history.events, early]).champion == "v2"


def test_events_survive_their_record() -> None:
    codec = RecordCodec(platform_schema("model_event"))
    for one in (event(Kind.PROMOTED, at=7, data_until_us=5), event(Kind.TRAINING_FAILED, None, cause_id="c")):
        assert ModelEvent.of(codec.decode(codec.encode(one.record()))) == one
