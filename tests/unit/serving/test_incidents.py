"""An incident is a report; of a champion that another version answers for, a command to roll back as well, once."""

from dataclasses import replace

import pytest

from driftline.models.commands import answer
from driftline.models.lifecycle import State, fold
from driftline.models.model_event import Kind, ModelEvent, life_id
from driftline.project import PromotionRule
from driftline.runtime.errors import RefusedError
from driftline.serving.incidents import Incident, events_of

INCIDENT = Incident(
    model="lateness",
    version="v2",
    reign="e2",
    champion=True,
    failing=True,
    reason="out of beans",
    answered_by="v1",
    event_us=50,
    at_us=900,
)
RULE = PromotionRule()


def fact(kind: Kind, version: str, at: int) -> ModelEvent:
    return ModelEvent(
        event_id=life_id(kind, version, at),
        model="lateness",
        version=version,
        kind=kind,
        reason="",
        effective_us=at,
        by="test",
        at_us=at,
    )


def reigned(*promoted: str) -> list[ModelEvent]:
    born = [fact(kind, one, 0) for one in ("v1", "v2") for kind in (Kind.REGISTERED, Kind.VALIDATED)]
    return born + [fact(Kind.PROMOTED, one, at) for at, one in enumerate(promoted, 10)]


def test_a_failing_champion_is_reported_and_rolled_back() -> None:
    report, command = events_of(INCIDENT, RULE, by="predictor a")
    assert (report.kind, report.version, report.by) == (Kind.FAILING, "v2", "predictor a")
    assert report.reason == "out of beans; v1 answers instead"
    assert (command.kind, command.version, command.effective_us) == (Kind.ROLL_BACK, "v2", 50)
    assert command.cause_id == report.event_id


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"champion": False}, RULE),
        ({"answered_by": None}, RULE),
        ({"failing": False}, RULE),
        ({}, PromotionRule(rollback_on_failure=False)),
    ],
)
def test_nothing_else_rolls_back(changes: dict[str, object], rule: PromotionRule) -> None:
    (report,) = events_of(replace(INCIDENT, **changes), rule, by="predictor a")  # type: ignore[arg-type]
    assert report.kind is (Kind.RECOVERED if changes == {"failing": False} else Kind.FAILING)


def test_many_processes_and_times_make_one_fact_and_another_reign_another() -> None:
    log = reigned("v1", "v2")
    for by, at in (("a", 900), ("b", 905), ("a", 990)):
        for event in events_of(replace(INCIDENT, at_us=at), RULE, by=by):
            if event.kind is Kind.ROLL_BACK and all(one.event_id != event.event_id for one in log):
                made = answer(fold("lateness", log), event, by="model_registry", at_us=1)
                assert made is not None
                log.append(made)
            log.append(event)
    found = fold("lateness", log)
    assert (found.champion, found.state_of("v2"), found.ignored) == ("v1", State.ROLLED_BACK, ())
    assert [one.kind for one in found.events].count(Kind.ROLLED_BACK) == 1
    assert [one.kind for one in found.events].count(Kind.FAILING) == 3
    assert next(one for one in found.events if one.kind is Kind.ROLLED_BACK).effective_us == 50
    later = events_of(replace(INCIDENT, reign="e9"), RULE, by="a")[1]
    assert later.event_id not in {one.event_id for one in found.events}


def test_a_command_about_a_reign_that_is_over_is_refused() -> None:
    (_, command) = events_of(INCIDENT, RULE, by="a")
    with pytest.raises(RefusedError, match="former champion, so it cannot be rolled back"):
        answer(fold("lateness", reigned("v2", "v1")), command, by="model_registry", at_us=1)


def test_a_version_that_never_served_is_rolled_back_from_its_promotion_on() -> None:
    (_, command) = events_of(replace(INCIDENT, event_us=0), RULE, by="a")
    made = answer(fold("lateness", reigned("v1", "v2")), command, by="model_registry", at_us=1)
    assert made is not None
    assert made.effective_us == 12
