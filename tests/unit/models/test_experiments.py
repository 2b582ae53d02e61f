"""A/B tests: equal to scipy where it has the same, and no more false winners than promised however often one looks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.special import lambertw

from driftline.models.experiments import (
    Interval,
    Mean,
    Verdict,
    always_valid,
    best_rho,
    contrast,
    mean_of,
    needed_units,
    planned_information,
    sample_ratio_p,
    welch,
)
from driftline.models.trial import Metric, TestPlan

Floats = NDArray[np.float64]
PLAN = TestPlan(metric=Metric.VALUE, effect=0.1, alpha=0.05, power=0.8)
HALVES = (0.5, 0.5)


def alone(values: Floats) -> Mean:
    """One outcome for each unit."""
    return mean_of(values, np.ones(len(values)))


@pytest.mark.parametrize("sizes", [(150, 90), (20, 300), (1_000, 1_000)])
def test_with_one_outcome_each_it_is_welchs_test(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(sizes[0])
    first, second = rng.normal(0.2, 1, sizes[0]), rng.normal(0, 3, sizes[1])
    found = welch(alone(first), alone(second), 0.1)
    known = stats.ttest_ind(first, second, equal_var=False)
    bounds = known.confidence_interval(0.9)
    assert (found.p, found.lower, found.upper) == pytest.approx(
        (known.pvalue, bounds.low, bounds.high), rel=1e-9
    )


def test_the_error_of_clusters_is_that_of_repeated_experiments() -> None:
    rng = np.random.default_rng(5)
    means, errors = [], []
    for _ in range(400):
        sums, counts = clustered(rng, 300)
        found = mean_of(sums, counts)
        means.append(found.mean)
        errors.append(found.error)
    assert np.mean(errors) == pytest.approx(np.std(means, ddof=1), rel=0.1)
    sums, counts = clustered(rng, 300)
    naive = 1.0 / math.sqrt(counts.sum())
    assert mean_of(sums, counts).error > 2 * naive  # outcomes of one unit hang together


def clustered(rng: np.random.Generator, units: int, effect: float = 0.0) -> tuple[Floats, Floats]:
    """Units with some outcomes each, that are as alike within a unit as between units they differ."""
    counts = rng.poisson(5, units) + 1.0
    own = rng.normal(effect, 1, units)
    return own * counts + rng.normal(0, np.sqrt(counts)), counts


def test_nothing_is_known_of_nothing() -> None:
    nothing = alone(np.empty(0))
    some = alone(np.ones(200))
    assert (nothing.outcomes, math.isnan(nothing.mean)) == (0, True)
    assert welch(nothing, some, 0.05) == Interval(p=1.0, lower=-math.inf, upper=math.inf)
    found = contrast("b", nothing, some, HALVES, PLAN)
    assert (found.verdict_always, found.verdict_fixed, found.reached) == (Verdict.UNDECIDED,) * 2 + (False,)
    assert found.as_json()["always_valid"]["lower"] is None


def test_the_planned_sample_finds_the_effect_with_the_planned_power() -> None:
    plan = TestPlan(metric=Metric.VALUE, effect=0.25, alpha=0.05, power=0.8)
    rng = np.random.default_rng(11)
    pilot = alone(rng.normal(0, 1, 100_000))
    needed = needed_units(pilot, pilot, HALVES, plan, plan.alpha)
    assert needed[0] == pytest.approx(2 * (1.959964 + 0.841621) ** 2 / 0.25**2, rel=0.02)
    found = [
        welch(alone(rng.normal(0.25, 1, needed[0])), alone(rng.normal(0, 1, needed[1])), 0.05).decided
        for _ in range(600)
    ]
    assert abs(np.mean(found) - 0.8) < 4 * math.sqrt(0.8 * 0.2 / 600)


def test_an_uneven_split_needs_more_units() -> None:
    pilot = Mean(units=100, outcomes=100, mean=0.0, error=0.1)
    even, uneven = (
        needed_units(pilot, pilot, HALVES, PLAN, 0.05),
        needed_units(pilot, pilot, (0.1, 0.9), PLAN, 0.05),
    )
    assert sum(uneven) > 2.5 * sum(even)
    assert uneven[1] == pytest.approx(9 * uneven[0], rel=0.02)


def looks_of(rng: np.random.Generator, effect: float, *, units: bool) -> list[tuple[Mean, Mean]]:
    """Both arms at forty looks while they grow to 4,000 units; with ``units`` each unit has many outcomes."""
    arms = []
    for shift in (effect, 0.0):
        sums, counts = (
            clustered(rng, 4_000, shift) if units else (rng.normal(shift, 1, 4_000), np.ones(4_000))
        )
        arms.append([mean_of(sums[:end], counts[:end]) for end in range(100, 4_001, 100)])
    return list(zip(*arms, strict=True))


@pytest.mark.parametrize("units", [False, True], ids=["single outcomes", "clusters"])
def test_looking_all_the_time_finds_no_more_false_winners_than_promised(units: bool) -> None:
    rng = np.random.default_rng(2024)
    runs = [looks_of(rng, 0.0, units=units) for _ in range(400)]
    always = np.mean([any(_decided(*look) for look in looks) for looks in runs])
    naive = np.mean([any(welch(*look, 0.05).decided for look in looks) for looks in runs])
    assert always <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)
    assert naive > 0.15  # what peeking does to a test for one look


def test_a_difference_is_found_and_stays_found_within_its_interval() -> None:
    rng = np.random.default_rng(7)
    runs = [looks_of(rng, 0.2, units=False) for _ in range(100)]
    assert np.mean([_decided(*looks[-1]) for looks in runs]) > 0.95
    covered = [all(_bounds(*look).lower <= 0.2 <= _bounds(*look).upper for look in looks) for looks in runs]
    assert np.mean(covered) >= 0.9


def test_units_that_go_on_bringing_outcomes_give_no_more_false_winners_either() -> None:
    """The same customers order again and again: what grows is not the units but what they bring."""
    rng = np.random.default_rng(99)
    false = 0
    for _ in range(300):
        arms = []
        for _ in range(2):
            own = rng.normal(0, 1, 500)
            sums = np.cumsum(own[:, None] + rng.normal(0, 1, (500, 30)), axis=1)
            arms.append([mean_of(sums[:, end], np.full(500, end + 1.0)) for end in range(30)])
        false += any(_decided(*look) for look in zip(*arms, strict=True))
    assert false / 300 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)


def _bounds(arm: Mean, control: Mean) -> Interval:
    rho = best_rho(planned_information(0.1, 0.05, 0.8), 0.05)
    return always_valid(arm.mean - control.mean, math.hypot(arm.error, control.error), rho, 0.05)


def _decided(arm: Mean, control: Mean) -> bool:
    return _bounds(arm, control).decided


@given(st.floats(-3, 3), st.floats(0.001, 2), st.floats(0.1, 1e5), st.floats(0.001, 0.5))
def test_p_and_interval_say_the_same(difference: float, error: float, rho: float, alpha: float) -> None:
    found = always_valid(difference, error, rho, alpha)
    assert found.lower < difference < found.upper
    if abs(found.p - alpha) > 1e-9:
        assert found.decided == (found.p < alpha)


@given(st.floats(1, 1e6), st.sampled_from([0.1, 0.05, 0.01]))
def test_rho_is_where_the_interval_is_shortest(information: float, alpha: float) -> None:
    def length(rho: float) -> float:
        found = always_valid(0.0, 1 / math.sqrt(information), rho, alpha)
        return found.upper - found.lower

    best = best_rho(information, alpha)
    exact = information / (-float(lambertw(-(alpha**2) / math.e, -1).real) - 1)
    assert best == pytest.approx(exact, rel=0.06)
    assert length(best) == pytest.approx(length(exact), rel=1e-3)
    assert length(best) < min(length(best * 4), length(best / 4))


def test_shares_that_are_not_those_declared_are_noticed() -> None:
    assert sample_ratio_p([1_000, 9_000], [0.1, 0.9]) == 1.0
    assert sample_ratio_p([1_200, 9_000], [0.1, 0.9]) < 1e-6
    assert sample_ratio_p([0, 0], HALVES) == 1.0
    known = stats.chisquare([480, 520, 1_000], [500, 500, 1_000]).pvalue
    assert sample_ratio_p([480, 520, 1_000], [0.25, 0.25, 0.5]) == pytest.approx(known)


BETTER, WORSE = (Mean(units=5_000, outcomes=5_000, mean=mean, error=0.01) for mean in (1.0, 0.5))


@pytest.mark.parametrize(
    ("metric", "verdict"),
    [(Metric.VALUE, Verdict.BETTER), (Metric.LOG_LOSS, Verdict.WORSE), (Metric.LABEL, Verdict.HIGHER)],
)
def test_what_is_better_depends_on_the_metric(metric: Metric, verdict: Verdict) -> None:
    plan = TestPlan(metric=metric, effect=0.1)
    found = contrast("b", BETTER, WORSE, HALVES, plan)
    assert (found.verdict_always, found.verdict_fixed, found.difference) == (verdict, verdict, 0.5)
    unsound = contrast("b", BETTER, WORSE, HALVES, plan, sound=False)
    assert (unsound.verdict_always, unsound.reached) == (Verdict.UNDECIDED, False)


def test_too_few_units_say_nothing() -> None:
    few = Mean(units=99, outcomes=900, mean=1.0, error=0.01)
    found = contrast("b", few, WORSE, HALVES, TestPlan(metric=Metric.VALUE, effect=10.0))
    assert (found.verdict_always, found.verdict_fixed) == (Verdict.UNDECIDED, Verdict.UNDECIDED)


def test_before_the_planned_sample_the_fixed_horizon_says_nothing() -> None:
    found = contrast("b", BETTER, WORSE, HALVES, TestPlan(metric=Metric.VALUE, effect=0.01))
    assert (found.reached, found.verdict_fixed, found.verdict_always) == (
        False,
        Verdict.UNDECIDED,
        Verdict.BETTER,
    )


def test_several_arms_share_the_error_rate() -> None:
    one, two = (contrast("b", BETTER, WORSE, HALVES, PLAN, comparisons=number) for number in (1, 2))
    assert two.fixed.upper > one.fixed.upper
    assert two.always.upper > one.always.upper
    assert two.needed > one.needed
