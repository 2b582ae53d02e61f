"""Simulated windows are what evaluation would measure on the rows that were drawn."""

import numpy as np
import pytest

from driftline.monitoring.checks import Check, check_keys, evaluate
from driftline.monitoring.sample_distances import SortedSample
from driftline.monitoring.simulation import Population, simulate


def test_distances_of_weights_are_those_of_the_rows(reference):
    population = Population.of(reference)
    g = np.random.default_rng(0)
    expected, current = population.drawn(2000, 4, g), population.drawn(150, 4, g)
    smirnov, moved = population.distances(expected, current)
    for replicate in range(4):
        before = np.repeat(reference.sample[:, :-1], expected[:, replicate].astype(int), axis=0)
        after = np.repeat(reference.sample[:, :-1], current[:, replicate].astype(int), axis=0)
        oracle = SortedSample.of(before).distances(after)
        assert smirnov[replicate] == pytest.approx(oracle.kolmogorov_smirnov, abs=1e-5)
        assert moved[replicate] == pytest.approx(oracle.wasserstein, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("size", [0, 30, 5000])
def test_every_replicate_draws_the_whole_window(reference, size):
    drawn = Population.of(reference).drawn(size, 7, np.random.default_rng(0))
    assert drawn.sum(axis=0).tolist() == [size] * 7


def test_simulated_values_are_distributed_as_those_of_real_windows(reference, drawn):
    """Means over simulated windows against windows from the population that the reference was drawn from."""
    rng = np.random.default_rng(0)
    (simulated,) = simulate(reference, [300], sample_rows=500, replicates=500, rng=rng)
    real = np.array(
        [
            [item.value for item in evaluate(reference, drawn(1000 + number, 300).profile(reference))]
            for number in range(200)
        ]
    )
    for place, key in enumerate(check_keys(reference)):
        # One reference is one draw: its windows may be a little nearer or farther than the average one's.
        tolerance = 0.35 * real[:, place].std() + 0.15 * abs(real[:, place].mean())
        if key[0] in {Check.UNSEEN, Check.OUT_OF_RANGE, Check.MISSING_CHANGE}:
            tolerance += 0.001
        assert simulated[:, place].mean() == pytest.approx(real[:, place].mean(), abs=tolerance), key


def test_a_value_that_is_rarer_than_the_sample_is_simulated(build, drawn):
    """One missing value among 20,000 rows is in no sample of 2,000, yet it may come."""
    rows = drawn(6, 20_000)
    rows.numeric["wind"][123] = np.nan
    reference = build(rows)
    (values,) = simulate(reference, [5000], sample_rows=500, replicates=300, rng=np.random.default_rng(0))
    place = check_keys(reference).index((Check.MISSING_CHANGE, "wind"))
    assert len(np.unique(values[:, place])) > 2
