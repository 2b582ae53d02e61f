"""On which days the registry can decide: a look's days after the comparison's begin, and the horizon."""

from driftline.models.lifecycle import fold
from driftline.models.model_event import Kind, ModelEvent, life_id
from driftline.playback.loop_watch import DAY_US, decision_days
from driftline.project import ComparisonRule

HORIZON = 2 * DAY_US
RULE = ComparisonRule(looks=(7, 14))


def fact(kind: Kind, version: str, day: float) -> ModelEvent:
    at = int(day * DAY_US)
    return ModelEvent(
        event_id=life_id(kind, version),
        model="m",
        kind=kind,
        version=version,
        effective_us=at,
        data_until_us=at,
        reason="",
        by="test",
        at_us=at,
    )


def life(version: str, day: float) -> list[ModelEvent]:
    return [fact(kind, version, day) for kind in (Kind.REGISTERED, Kind.VALIDATED)]


def test_a_champion_alone_is_compared_with_nothing() -> None:
    history = fold("m", [*life("v1", 0), fact(Kind.PROMOTED, "v1", 0)])
    assert decision_days(history, HORIZON, RULE) == set()


def test_a_challenger_is_decided_on_after_its_looks_and_the_horizon() -> None:
    history = fold(
        "m",
        [*life("v1", 0), fact(Kind.PROMOTED, "v1", 0), *life("v2", 10.5), fact(Kind.CHALLENGER, "v2", 10.5)],
    )
    # The day on which it begins counts as one.
    assert decision_days(history, HORIZON, RULE) == {(10 + 7 + 2) * DAY_US, (10 + 14 + 2) * DAY_US}


def test_a_new_champion_is_watched_from_its_promotion_on() -> None:
    history = fold(
        "m",
        [*life("v1", 0), fact(Kind.PROMOTED, "v1", 0), *life("v2", 10), fact(Kind.PROMOTED, "v2", 19)],
    )
    assert decision_days(history, HORIZON, RULE) == {(19 + 7 + 2) * DAY_US, (19 + 14 + 2) * DAY_US}
