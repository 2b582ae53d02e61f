"""The plan of a play: nothing is lost, nothing is early."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from driftline.playback.faults import FaultRates
from driftline.playback.plan import Plan, make_plan
from driftline.project.history import History

MINUTE = 60_000_000
START = datetime(2013, 4, 1, tzinfo=UTC)
END = datetime(2013, 4, 2, tzinfo=UTC)
START_US = int(START.timestamp()) * 1_000_000
END_US = int(END.timestamp()) * 1_000_000
CALM = FaultRates(duplicate=0, late=0, malformed=0)


def history(known_minutes: list[float], asked_minutes: list[float]) -> History:
    known = sorted(START_US + int(minute * MINUTE) for minute in known_minutes)
    asked = sorted(START_US + int(minute * MINUTE) for minute in asked_minutes)
    return History(
        events={
            "arrivals": pa.table(
                {
                    "event_id": pa.array([f"event-{i}" for i in range(len(known))], pa.string()),
                    "known_at": pa.array(known, pa.timestamp("us")),
                }
            )
        },
        requests=pa.table(
            {
                "request_id": pa.array([f"request-{i}" for i in range(len(asked))], pa.string()),
                "event_time": pa.array(asked, pa.timestamp("us")),
            }
        ),
    )


def plan_of(known: list[float], asked: list[float], rates: FaultRates = CALM, seed: int = 0) -> Plan:
    return make_plan(history(known, asked), start=START, end=END, rates=rates, seed=seed)


def test_minutes_without_requests_are_merged_into_the_next_one_that_has_some() -> None:
    plan = plan_of([-5, 1, 2, 3, 30], [10, 10.5, 20])
    assert [(step.at_us - START_US) // MINUTE for step in plan.steps] == [0, 10, 20, 24 * 60]
    assert [step.events.get("arrivals", []) for step in plan.steps] == [[0], [1, 2, 3], [], [4]]
    assert [len(step.requests) for step in plan.steps] == [0, 2, 1, 0]


def test_an_event_known_within_a_requests_minute_comes_after_it() -> None:
    plan = plan_of([10.2], [10.5, 11])
    assert [step.events.get("arrivals", []) for step in plan.steps] == [[], [], [0], []]


def test_requests_before_and_after_the_span_are_left_out() -> None:
    assert len(plan_of([], [-1, 0, 24 * 60 - 1, 24 * 60]).requests) == 2


MINUTES = st.lists(st.floats(-2000, 1500, allow_nan=False), max_size=60)


@given(MINUTES, MINUTES, st.integers(0, 50))
def test_every_event_is_sent_and_none_before_it_was_known(
    known: list[float], asked: list[float], seed: int
) -> None:
    rates = FaultRates(duplicate=0.3, late=0.3, malformed=0.3)
    plan = plan_of(known, asked, rates, seed)
    planned = plan.events["arrivals"]
    known_us = planned.table["known_at"].cast(pa.int64()).to_numpy()
    assert len(planned.table) == sum(minute * MINUTE + START_US <= END_US for minute in map(float, known))
    first_sent: dict[int, int] = {}
    for step in plan.steps:
        for row in step.events.get("arrivals", []):
            first_sent.setdefault(row, step.at_us)
            assert known_us[row] <= step.at_us
        for row in step.requests:
            asked_us = plan.requests["event_time"].cast(pa.int64())[row].as_py()
            assert step.at_us <= asked_us < step.at_us + MINUTE
    assert sorted(first_sent) == list(range(len(planned.table)))
    assert [first_sent[row] for row in range(len(planned.table))] == planned.published_at_us.tolist()
    assert np.all(planned.published_at_us <= END_US)
    assert [step.at_us for step in plan.steps] == sorted(step.at_us for step in plan.steps)
    assert [row for step in plan.steps for row in step.requests] == list(range(len(plan.requests)))


def test_the_same_seed_makes_the_same_plan() -> None:
    rates = FaultRates(duplicate=0.2, late=0.2, malformed=0.2)
    known, asked = list(np.linspace(-100, 900, 300)), list(np.linspace(0, 900, 80))
    assert plan_of(known, asked, rates, 7).steps == plan_of(known, asked, rates, 7).steps
    assert plan_of(known, asked, rates, 7).steps != plan_of(known, asked, rates, 8).steps
    assert plan_of(known, asked, rates, 7).sendings > len(known)
