"""Whatever comes, in whatever order, however often, and whoever is killed meanwhile."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.alerts.alert import AlertStatus, Severity
from driftline.alerts.book import advance
from driftline.alerts.inputs import Cause, Clearance, Input
from driftline.alerts.state import GroupState, Stage
from tests.unit.alerts.scenes import (
    GROUP,
    SECOND,
    Book,
    World,
    ack,
    cause,
    interleavings,
    over,
    route,
    rules,
    silence,
    unsilence,
)

PROBLEMS = ["v1||", "v1|origin=JFK|", "v2||"]
RULES = rules(
    route("chat"),
    route("pager", severities=["CRITICAL"], escalate={"after": "30s", "to": "boss"}),
    route("boss", severities=[]),
    repeat="60s",
    retry={"attempts": 50, "first": "1s", "longest": "4s"},
)

numbers = st.integers(0, 10_000)
causes = st.builds(
    lambda number, problem, severity: cause(f"s{number}", problem=problem, severity=severity),
    numbers,
    st.sampled_from(PROBLEMS),
    st.sampled_from([Severity.WARNING, Severity.CRITICAL]),
)
ends = st.builds(
    lambda number, problem: over(f"e{number}", problem=problem), numbers, st.sampled_from([*PROBLEMS, ""])
)
inputs = st.lists(causes | ends, min_size=1, max_size=25, unique_by=lambda one: one.input_id)


def in_another_group(event: Cause | Clearance) -> Input:
    if isinstance(event, Cause):
        return cause(event.input_id, problem=event.problem, severity=event.severity, group="other")
    return over(event.input_id, problem=event.problem, group="other")


@given(inputs, st.lists(st.tuples(st.integers(0, 24), st.integers(0, 10)), max_size=20))
def test_redelivery_changes_nothing(events: list[Input], again: list[tuple[int, int]]) -> None:
    once = Book(rules=RULES).tell(*events)
    sequence = list(events)
    for place, later in again:
        event = events[place % len(events)]
        sequence.insert(sequence.index(event) + 1 + later, event)
    twice = Book(rules=RULES).tell(*sequence)
    assert twice.state == once.state
    assert twice.alerts == once.alerts


@given(inputs, inputs, st.randoms(use_true_random=False))
def test_groups_do_not_touch_each_other(first: list, second: list, source: random.Random) -> None:  # type: ignore[type-arg]
    others = [in_another_group(event) for event in second]
    states = {GROUP: GroupState(group=GROUP), "other": GroupState(group="other")}
    for event in interleavings(first, others, lambda: source.random() < 0.5):
        states[event.group] = advance(states[event.group], event, now_us=0, rules=RULES).state
    assert states[GROUP] == Book(rules=RULES).tell(*first).state
    assert states["other"] == Book(rules=RULES, state=GroupState(group="other")).tell(*others).state


@given(
    st.lists(
        causes
        | ends
        | st.sampled_from(["ack", "deliver", unsilence()])
        | st.floats(0.1, 100.0)
        | st.builds(silence, st.integers(0, 600).map(lambda seconds: seconds * SECOND)),
        max_size=40,
    )
)
@settings(max_examples=300)
def test_people_and_time(script: list) -> None:  # type: ignore[type-arg]
    """Nobody is told of what is silenced or acknowledged, none twice; whoever heard of it hears of the end."""
    book = Book(rules=RULES)
    told: set[str] = set()
    book.wait(0)
    for line in script:
        if isinstance(line, float):
            book.wait(line)
        elif line == "ack":
            if book.state.current is not None:
                book.tell(ack(book.state.current.alert_id))
        elif line == "deliver":
            for notice in book.due:
                assert notice.notice_id not in told
                told.add(notice.notice_id)
                current = book.state.current
                if notice.status is AlertStatus.FIRING and current is not None:
                    owner = next(one for one, mine in book.state.notices if mine == notice)
                    assert owner.status not in (AlertStatus.SILENCED, AlertStatus.ACKNOWLEDGED)
            book.deliver()
        else:
            book.tell(line)
        assert sum(one.open for one in book.state.episodes) <= 1
    heard = {one.alert_id for one in book.alerts if one.notified and one.status is AlertStatus.FIRING}
    silenced = {one.alert_id for one in book.alerts if one.status is AlertStatus.SILENCED}
    book.tell(unsilence()).deliver()
    book.tell(over("the end", problem="")).wait(1000)
    book.deliver()
    assert book.state.episodes == ()
    ended = {one.alert_id for one in book.alerts if one.notified and one.status is AlertStatus.RESOLVED}
    assert heard - silenced <= ended


@given(inputs, st.integers(0, 2**32), st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 0.05, 0.3]))
@settings(max_examples=200, deadline=None)
def test_killed_anywhere_again_means_at_least_once(
    events: list[Input], seed: int, failing: float, dying: float
) -> None:
    world = World(rules=RULES, random=random.Random(seed), failing=failing, dying=dying)
    for event in events:
        world.publish(event)
        world.run(steps=world.random.randrange(6))
    world.publish(over("the end", problem=""))
    world.run(steps=20)
    world.settle()
    assert world.state.episodes == ()
    # Every alert that anybody heard of is over for everybody who heard of it.
    assert {one.alert_id for one in world.alerts if one.status is AlertStatus.RESOLVED} == {
        one.alert_id for one in world.alerts
    }
    if dying == 0:
        assert all(number == 1 for number in world.arrived.values())
    else:
        assert sum(world.arrived.values()) - len(world.arrived) <= world.kills


@given(inputs, st.integers(0, 2**32), st.sampled_from([0.05, 0.3]))
@settings(max_examples=200, deadline=None)
def test_killed_anywhere_skip_means_at_most_once(events: list[Input], seed: int, dying: float) -> None:
    once = RULES.model_copy(
        update={"routes": tuple(one.model_copy(update={"after_crash": "skip"}) for one in RULES.routes)}
    )
    world = World(rules=once, random=random.Random(seed), failing=0.2, dying=dying)
    for event in events:
        world.publish(event)
        world.run(steps=world.random.randrange(6))
    world.settle()
    assert all(number == 1 for number in world.arrived.values())
    assert all(number == 1 for number in world.tries.values())
    unknown = {mine.notice_id for _, mine in world.state.notices if mine.stage is Stage.UNKNOWN}
    assert world.kills or not unknown
    planned = {mine.notice_id for _, mine in world.state.notices}
    assert planned - set(world.arrived) <= unknown
