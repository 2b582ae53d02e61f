"""The conventions: what each statistic prints on the stated pair, and that it is its library's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance

from driftline.monitoring import statistics
from driftline.monitoring.binning import bin_counts, inner_edges

COUNTS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=12).filter(
    lambda pairs: any(a for a, _ in pairs) and any(b for _, b in pairs)
)


@pytest.fixture(scope="module")
def bins(convention_pair):
    reference, current = convention_pair
    edges = inner_edges(reference)
    return bin_counts(reference, edges), bin_counts(current, edges)


def test_kolmogorov_smirnov_on_the_pair(convention_pair):
    result = statistics.kolmogorov_smirnov(*convention_pair, method="exact")
    assert result.statistic == pytest.approx(0.13115, abs=5e-6)
    assert result.p_value == pytest.approx(9.359e-34, rel=5e-4)


def test_wasserstein_on_the_pair(convention_pair):
    raw = statistics.wasserstein(*convention_pair)
    assert raw == pytest.approx(0.311666, abs=5e-7)
    spread = np.std(convention_pair[0])
    assert statistics.wasserstein_normalised(*convention_pair) == pytest.approx(raw / spread)


def test_binned_statistics_on_the_pair(bins):
    assert float(statistics.psi(*bins)) == pytest.approx(0.112501, abs=5e-7)
    assert float(statistics.jensen_shannon(*bins)) == pytest.approx(0.141344, abs=5e-7)
    assert float(statistics.hellinger(*bins)) == pytest.approx(0.118126, abs=5e-7)


def test_psi_takes_counts_or_shares(bins):
    assert statistics.psi(*bins) == pytest.approx(statistics.psi(*map(statistics.shares, bins)))


def test_psi_of_categories_puts_1e_4_in_place_of_zero_shares():
    expected, observed = statistics.aligned({"a": 50, "b": 50}, {"a": 30, "c": 70})
    by_hand = (0.3 - 0.5) * np.log(0.3 / 0.5) + (1e-4 - 0.5) * np.log(1e-4 / 0.5)
    by_hand += (0.7 - 1e-4) * np.log(0.7 / 1e-4)
    assert float(statistics.psi(expected, observed)) == pytest.approx(by_hand)


def test_a_new_category_is_a_cell():
    result = statistics.chi_squared([40, 60, 0], [40, 50, 10])
    oracle = stats.chi2_contingency([[40, 60, 0], [40, 50, 10]], correction=False)
    assert result == pytest.approx((oracle.statistic, oracle.pvalue, oracle.dof))


def test_two_cells_have_no_continuity_correction():
    oracle = stats.chi2_contingency([[10, 20], [20, 10]], correction=False)
    assert statistics.chi_squared([10, 20], [20, 10]).p_value == pytest.approx(oracle.pvalue)


def test_nothing_to_compare_is_not_a_number():
    assert np.isnan(statistics.psi([1, 2], [0, 0]))
    assert np.isnan(statistics.chi_squared([1, 2], [0, 0]).statistic)
    assert np.isnan(statistics.wasserstein_normalised([1, 1], [1, 2]))


@given(COUNTS)
def test_jensen_shannon_is_scipys(pairs):
    expected, observed = np.array(pairs, float).T
    oracle = distance.jensenshannon(expected, observed, base=2)
    # Of equal shares SciPy's root can be that of a rounding error.
    assert float(statistics.jensen_shannon(expected, observed)) == pytest.approx(
        np.nan_to_num(oracle), abs=1e-7
    )


@given(COUNTS)
def test_chi_squared_is_scipys(pairs):
    expected, observed = np.array(pairs).T
    held = expected + observed > 0
    if held.sum() < 2:
        assert statistics.chi_squared(expected, observed) == (0.0, 1.0, 0)
        return
    oracle = stats.chi2_contingency(np.array([expected, observed])[:, held], correction=False)
    result = statistics.chi_squared(expected, observed)
    assert result == pytest.approx((oracle.statistic, oracle.pvalue, oracle.dof), rel=1e-9, abs=1e-9)


@given(st.lists(COUNTS.map(lambda pairs: (pairs * 6)[:6]), min_size=1, max_size=4))
def test_many_columns_at_once_are_each_column_alone(columns):
    tables = np.array(columns, float)
    together = statistics.psi(tables[..., 0], tables[..., 1])
    alone = [float(statistics.psi(table[:, 0], table[:, 1])) for table in tables]
    assert together == pytest.approx(np.array(alone), nan_ok=True)
