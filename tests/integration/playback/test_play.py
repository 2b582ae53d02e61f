"""Some hours of real flights through the real services: everything adds up, and what does not is noticed."""

from datetime import UTC, datetime

import pytest

from driftline.contracts.topics import Topics
from driftline.playback.demonstration import demonstrate
from driftline.playback.faults import FaultRates
from driftline.playback.plan import make_plan
from driftline.playback.platform import Platform
from driftline.project import Project
from driftline.project.history import load_history


def test_a_morning_with_many_faults_reconciles_to_the_last_event_and_bit(
    flights: Project, topics: Topics, platform: Platform
) -> None:
    start = datetime(2013, 4, 1, 10, tzinfo=UTC)
    history = load_history(flights, start.date().replace(month=3, day=31), start.date().replace(day=2))
    rates = FaultRates(duplicate=0.1, late=0.2, malformed=0.05)
    plan = make_plan(history, start=start, end=start.replace(hour=13), rates=rates, seed=3)
    steps = []
    found = demonstrate(
        flights,
        "lateness",
        topics,
        platform,
        plan=plan,
        requests=history.requests,
        base_rate=0.2,
        progress=steps.append,
    )
    counts = found.counts
    assert counts.differences == ()
    assert counts.acknowledged == plan.sendings
    assert counts.acknowledged == counts.applied + counts.duplicates + counts.dead_letters
    assert counts.applied == sum(len(events.table) for events in plan.events.values())
    assert counts.dead_letters == sum(len(step.damaged) for step in plan.steps) > 10
    assert counts.duplicates > 10
    assert counts.requests == counts.predictions == len(plan.requests) > 100
    assert found.parity.compared > 1_000
    assert found.parity.mismatches == ()
    assert found.http.count == (len(plan.requests) + 9) // 10
    assert found.freshness.count > 0
    assert set(found.quality) == {"model", "constant", "moving_average"}
    assert found.quality["constant"].auc == pytest.approx(0.5)
    assert len(steps) == len(plan.steps)
