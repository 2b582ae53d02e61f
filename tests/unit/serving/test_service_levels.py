"""Burn rates of error budgets, against the workbook's own arithmetic."""

from dataclasses import replace

import pytest

from driftline.project import ServiceLevelRule
from driftline.serving.service_levels import Burning, ServiceLevel, ServiceLevels

RULE = ServiceLevelRule(latency_us=100_000, latency_share=0.99, availability=0.999)


class Clock:
    """Seconds that go on when told to."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


class Traffic:
    """A steady hundred requests every ten seconds, of which so many fail and so many are late."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.levels = ServiceLevels({"m": RULE}, now=self.clock)

    def run(self, minutes: int, *, failed: int = 0, late: int = 0) -> "Traffic":
        for _ in range(minutes * 6):
            for _ in range(failed):
                self.levels.failed("m")
            for number in range(100 - failed):
                self.levels.answered("m", 0.2 if number < late else 0.01)
            self.clock.seconds += 10
        return self

    def level(self, objective: str) -> ServiceLevel:
        return next(level for level in self.levels.levels() if level.objective == objective)


def test_nothing_asked_is_nothing_burnt() -> None:
    level = Traffic().level("availability")
    assert (level.good, level.requests, level.burning) == (None, 0, Burning.NO)


def test_good_answers_burn_nothing() -> None:
    traffic = Traffic().run(30)
    for objective in ("availability", "latency"):
        level = traffic.level(objective)
        assert (level.good, level.burning) == (1.0, Burning.NO)
        assert set(level.rates.values()) == {0.0}


def test_a_rate_of_one_uses_the_budget_up_exactly() -> None:
    """One late answer in a hundred, where one is allowed."""
    level = Traffic().run(400, late=1).level("latency")
    assert level.rates["360"] == pytest.approx(1.0, rel=0.01)
    assert level.burning is Burning.NO


def test_failures_burn_availability_fast_and_then_end_with_the_short_window() -> None:
    traffic = Traffic().run(60)
    assert traffic.run(10, failed=20).level("availability").burning is Burning.FAST
    assert traffic.level("latency").burning is Burning.NO
    traffic.run(6)
    assert traffic.level("availability").burning is not Burning.FAST  # the last five minutes were good
    level = traffic.level("availability")
    assert level.rates["60"] > 14.4
    assert level.rates["5"] == 0.0


def test_a_small_leak_burns_slowly() -> None:
    """Eight late of a hundred: eight times the budget, too little for a pager."""
    level = Traffic().run(360, late=8).level("latency")
    assert level.burning is Burning.SLOWLY


def test_what_failed_is_not_late_too() -> None:
    level = Traffic().run(60, failed=50).level("latency")
    assert level.good == 1.0
    assert level.requests == 60 * 6 * 50


def test_a_few_failures_of_few_requests_are_no_trend() -> None:
    traffic = Traffic()
    for _ in range(9):
        traffic.levels.failed("m")
    assert traffic.level("availability").burning is Burning.NO
    traffic.levels.failed("m")
    assert traffic.level("availability").burning is Burning.FAST


def test_six_hours_later_it_is_forgotten() -> None:
    traffic = Traffic().run(10, failed=50)
    traffic.clock.seconds += 6 * 3_600 + 10
    assert traffic.level("availability").requests == 0


def test_an_answer_without_the_store_is_available_and_not_complete() -> None:
    clock = Clock()
    levels = ServiceLevels({"m": RULE, "plain": RULE}, now=clock, degrading=["m"])
    for number in range(100):
        levels.answered("m", 0.01, degraded=number < 20)
        levels.answered("plain", 0.01)
    levels.failed("m")
    found = {(level.model, level.objective): (level.good, level.burning) for level in levels.levels()}
    assert found["m", "completeness"] == (0.8, Burning.FAST)
    assert found["m", "latency"] == (1.0, Burning.NO)
    assert found["m", "availability"] == (pytest.approx(100 / 101), Burning.NO)
    assert ("plain", "completeness") not in found


def test_each_model_by_its_own_rule_and_no_other() -> None:
    clock = Clock()
    levels = ServiceLevels({"strict": replace(RULE, latency_us=1_000), "lax": RULE}, now=clock)
    for model in ("strict", "lax", "unknown"):
        levels.answered(model, 0.05)
        levels.failed(model)
    found = {(level.model, level.objective): level.good for level in levels.levels()}
    assert found == {
        ("strict", "availability"): 0.5,
        ("strict", "latency"): 0.0,
        ("lax", "availability"): 0.5,
        ("lax", "latency"): 1.0,
    }


def test_looks_between_answers_change_nothing() -> None:
    clock = Clock()
    looked, quiet = (ServiceLevels({"m": RULE}, now=clock) for _ in range(2))
    for number in range(100):
        for levels in (looked, quiet):
            levels.answered("m", 0.2 if number % 3 == 0 else 0.01, degraded=number % 5 == 0)
            if number % 7 == 0:
                levels.failed("m")
        looked.levels()
        clock.seconds += 3
    assert looked.levels() == quiet.levels()
    assert quiet.levels()[0].requests == 115
