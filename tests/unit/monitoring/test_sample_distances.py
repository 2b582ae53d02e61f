"""Exact distances of many columns at once are SciPy's, column by column."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from driftline.monitoring.sample_distances import SortedSample

CONTINUOUS = st.floats(-1e3, 1e3, allow_subnormal=False)
# Few distinct values make ties within and between the samples.
VALUES = st.one_of(st.sampled_from([0.0, 1.0, 2.0, 5.0]), CONTINUOUS, st.just(np.nan))


def samples():
    return st.integers(1, 25).flatmap(lambda rows: arrays(np.float64, (rows, 3), elements=VALUES))


def _smirnov(before, after):
    """SciPy's statistic, without its p-value, which fails for samples of a few rows."""
    points = np.concatenate([before, after])
    shares = [
        np.searchsorted(np.sort(values), points, side="right") / len(values) for values in (before, after)
    ]
    return np.abs(shares[0] - shares[1]).max()


@given(samples(), samples())
def test_distances_are_scipys(reference, current):
    distances = SortedSample.of(reference).distances(current)
    for column in range(3):
        before = reference[~np.isnan(reference[:, column]), column]
        after = current[~np.isnan(current[:, column]), column]
        found = distances.kolmogorov_smirnov[column], distances.wasserstein[column]
        if not len(before) or not len(after):
            assert np.isnan(found).all()
            continue
        smirnov = _smirnov(before, after)
        assert found == pytest.approx((smirnov, stats.wasserstein_distance(before, after)), abs=1e-9)


def test_large_values_keep_small_distances():
    """Timestamps in microseconds that are a second apart."""
    g = np.random.default_rng(0)
    before, after = 1.7e15 + g.normal(0, 1e7, (500, 1)), 1.7e15 + 1e6 + g.normal(0, 1e7, (300, 1))
    found = SortedSample.of(before).distances(after).wasserstein[0]
    assert found == pytest.approx(stats.wasserstein_distance(before[:, 0], after[:, 0]), rel=1e-6)


def test_no_rows_have_no_distance():
    assert np.isnan(SortedSample.of(np.ones((3, 2))).distances(np.empty((0, 2))).wasserstein).all()
    assert SortedSample.of(np.empty((3, 0))).distances(np.empty((2, 0))).kolmogorov_smirnov.shape == (0,)
