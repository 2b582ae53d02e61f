"""Promotion by evidence: differences by day, looks at fixed days, few false promotions."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from driftline.models.comparison import Block, Decision, compare, look_level, measure, paired_blocks
from driftline.project import ComparisonRule
from driftline.runtime.durations import DAY_US

RULE = ComparisonRule(looks=(7, 14, 21, 28), alpha=0.05, least_outcomes=100)


def days(advantages: list[float], rows: int = 50) -> list[Block]:
    return [
        Block(day=day, rows=rows, champion_loss=rows * 0.5, challenger_loss=rows * (0.5 - advantage))
        for day, advantage in enumerate(advantages)
    ]


def test_equal_days_give_the_t_test_of_their_means() -> None:
    rng = np.random.default_rng(1)
    means = rng.normal(0.01, 0.02, 20)
    found = measure(days(means.tolist()), level=0.05)
    oracle = stats.ttest_1samp(means, 0.0, alternative="greater")
    assert found.p_better == pytest.approx(oracle.pvalue)
    assert found.p_worse == pytest.approx(1 - oracle.pvalue)
    assert found.mean == pytest.approx(means.mean())
    assert found.standard_error == pytest.approx(stats.sem(means))
    assert found.lower == pytest.approx(
        stats.ttest_1samp(means, 0.0, alternative="greater").confidence_interval(0.95).low
    )


def test_unequal_days_give_the_cluster_robust_error_of_a_mean() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.integers(5, 80, 15)
    rows = [rng.normal(rng.normal(0, 0.05), 0.3, size) for size in sizes]
    blocks = [
        Block(day=day, rows=len(one), champion_loss=float(one.sum()), challenger_loss=0.0)
        for day, one in enumerate(rows)
    ]
    found = measure(blocks)
    everything = np.concatenate(rows)
    residual_sums = np.array([(one - everything.mean()).sum() for one in rows])
    meat = (residual_sums**2).sum() * 15 / 14
    assert found.mean == pytest.approx(everything.mean())
    assert found.standard_error == pytest.approx(math.sqrt(meat) / len(everything))


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.floats(0.01, 0.99), st.floats(0.01, 0.99)), min_size=1
    )
)
def test_blocks_hold_every_outcome_once(rows: list[tuple[int, bool, float, float]]) -> None:
    day, label, first, second = map(np.array, zip(*rows, strict=True))
    blocks = paired_blocks(day.astype(np.int64) * DAY_US + 7, label, first, second)
    assert [block.day for block in blocks] == sorted(set(day.tolist()))
    assert sum(block.rows for block in blocks) == len(rows)
    losses = -np.log(np.where(label, first, 1 - first)), -np.log(np.where(label, second, 1 - second))
    assert sum(block.champion_loss for block in blocks) == pytest.approx(losses[0].sum())
    assert sum(block.difference for block in blocks) == pytest.approx((losses[0] - losses[1]).sum(), abs=1e-9)


def test_a_clear_advantage_is_promoted_at_the_first_look_and_not_before() -> None:
    blocks = days([0.03, 0.04, 0.02, 0.05, 0.03, 0.04, 0.03, 0.02])
    assert compare(blocks[:6], RULE).decision is Decision.WAIT
    found = compare(blocks, RULE)
    assert found.decision is Decision.PROMOTE
    assert found.difference is not None
    assert found.difference.days == 7
    assert found.last_day == 6
    assert "better: log loss 0.4657 against the champion's 0.5000 on 350 paired outcomes" in found.reason


def test_a_clear_disadvantage_is_rejected_at_once() -> None:
    found = compare(days([-0.03, -0.04, -0.02, -0.05, -0.03, -0.04, -0.03]), RULE)
    assert found.decision is Decision.REJECT
    assert found.reason.startswith("worse")


def test_no_difference_is_rejected_at_the_last_look() -> None:
    blocks = days([0.02, -0.02] * 14)
    assert [compare(blocks[:n], RULE).decision for n in (7, 14, 21, 27)] == [Decision.WAIT] * 4
    found = compare(blocks, RULE)
    assert found.decision is Decision.REJECT
    assert found.reason.startswith("not shown to be better")


def test_few_outcomes_decide_nothing_until_the_end() -> None:
    blocks = days([0.03, 0.04] * 14, rows=1)
    assert compare(blocks[:21], RULE).decision is Decision.WAIT
    found = compare(blocks, RULE)
    assert found.decision is Decision.REJECT
    assert "only 28 paired outcomes" in found.reason


def test_an_advantage_within_the_margin_is_no_promotion() -> None:
    blocks = days([0.03, 0.04, 0.02, 0.05, 0.03, 0.04, 0.03] * 4)
    assert compare(blocks, replace(RULE, margin=0.03)).decision is Decision.PROMOTE
    found = compare(blocks, replace(RULE, margin=0.04))
    assert found.decision is Decision.REJECT
    assert found.reason.startswith("not shown to be better by more than 0.04: ")
    assert found.difference is not None
    assert found.difference.days == 28  # an advantage is no disadvantage: it is looked at to the end
    assert found.difference.p_worse > 0.99


def test_the_margin_is_the_tests_null_hypothesis() -> None:
    means = np.random.default_rng(1).normal(0.01, 0.02, 20)
    found = measure(days(means.tolist()), margin=0.004)
    assert found.p_better == pytest.approx(stats.ttest_1samp(means, 0.004, alternative="greater").pvalue)
    assert found.p_worse == pytest.approx(stats.ttest_1samp(means, 0.0, alternative="less").pvalue)


def test_a_comparison_without_outcomes_ends_at_its_limit() -> None:
    rule = replace(RULE, limit_days=30)
    blocks = [replace(block, day=100 + 5 * block.day) for block in days([0.03] * 8)]
    waiting = compare(blocks[:6], rule, first_day=100, closed_day=128)
    assert waiting.decision is Decision.WAIT
    found = compare(blocks[:6], rule, first_day=100, closed_day=129)
    assert found.decision is Decision.REJECT
    assert found.reason == "not decided within 30 days: only 6 of them have outcomes"
    assert found.last_day == 129
    assert compare(blocks, rule, first_day=100, closed_day=140) == found  # what comes later changes nothing
    assert compare(blocks[:7], replace(rule, limit_days=31), first_day=100).decision is Decision.PROMOTE
    assert RULE.longest_days == 56


def test_the_same_model_is_never_promoted() -> None:
    assert compare(days([0.0] * 40), RULE).decision is Decision.REJECT


@given(st.lists(st.floats(-0.1, 0.1), min_size=7, max_size=40), st.integers(0, 33))
def test_later_days_never_change_a_decision(advantages: list[float], more: int) -> None:
    blocks = days(advantages)
    early = compare(blocks[: 7 + more], RULE)
    if early.decision is not Decision.WAIT:
        assert compare(blocks, RULE) == early


@pytest.mark.parametrize("day_share", [0.0, 0.8])
def test_a_challenger_that_is_only_as_good_is_seldom_promoted(day_share: float) -> None:
    """Also where the outcomes of a day hang together, which would fool a test on single outcomes."""
    rng = np.random.default_rng(3)
    runs, rows = 1500, 40
    promoted = 0
    for _ in range(runs):
        common = rng.normal(0, math.sqrt(day_share), 28)
        own = rng.normal(0, math.sqrt((1 - day_share) / rows), 28)
        promoted += compare(days((0.1 * (common + own)).tolist(), rows), RULE).decision is Decision.PROMOTE
    assert promoted / runs < 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert promoted / runs > 0.02  # the rate is used, not avoided


@pytest.mark.parametrize(("looks", "errors"), [(1, 1.645), (2, 1.875), (3, 1.992), (4, 2.067), (5, 2.122)])
def test_levels_are_pococks(looks: int, errors: float) -> None:
    """Jennison and Turnbull (1999), table 2.1, two-sided .1."""
    level = look_level(tuple(range(1, looks + 1)), 0.05)
    assert stats.norm.isf(level) == pytest.approx(errors, abs=0.001)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=4, unique=True).map(sorted))
def test_more_looks_are_held_to_more(looks: list[int]) -> None:
    level = look_level(tuple(looks), 0.05)
    assert 0.05 / len(looks) - 1e-4 <= level <= 0.05 + 1e-4
