"""Each check measures what its name says, and they are the statistics of the rows."""

import time

import numpy as np
import pytest
from scipy import stats

from driftline.monitoring import statistics
from driftline.monitoring.checks import Check, check_keys, evaluate
from driftline.monitoring.profile import Profile
from driftline.monitoring.reference import build_reference


def by_key(measurements):
    return {(item.check, item.column): item.value for item in measurements}


def test_every_check_of_every_column_is_measured(reference, drawn):
    measured = evaluate(reference, drawn(2, 500).profile(reference))
    assert [(item.check, item.column) for item in measured] == check_keys(reference)
    assert len(measured) == 7 * 6 + 2 * 4 + 3


def test_checks_on_the_convention_pair(plain, convention_pair):
    """The samples hold all rows here, so that the exact distances are those of the table."""
    measured = by_key(evaluate(*plain(*convention_pair)))
    assert measured[Check.PSI, "x"] == pytest.approx(0.112501, abs=5e-7)
    assert measured[Check.JENSEN_SHANNON, "x"] == pytest.approx(0.141344, abs=5e-7)
    assert measured[Check.KS, "x"] == pytest.approx(0.13115, abs=5e-6)
    normalised = statistics.wasserstein_normalised(*convention_pair)
    assert measured[Check.WASSERSTEIN, "x"] == pytest.approx(normalised, rel=1e-9)


def test_distances_are_exact_on_the_two_samples(reference, drawn):
    window = drawn(2, 3000, shift=0.5)
    profile = window.profile(reference)
    measured = by_key(evaluate(reference, profile))
    place = reference.numeric_names.index("visibility")
    before, after = reference.sample[:, place], profile.sample.rows[:, place]
    before, after = before[~np.isnan(before)], after[~np.isnan(after)]
    assert measured[Check.KS, "visibility"] == pytest.approx(stats.ks_2samp(before, after).statistic)
    normalised = stats.wasserstein_distance(before, after) / reference.numeric[place].std
    assert measured[Check.WASSERSTEIN, "visibility"] == pytest.approx(normalised)


def test_categories(reference, drawn, training):
    window = drawn(3, 400)
    window.categorical["carrier"][:20] = ["new"] * 20
    window.categorical["carrier"][20:60] = [None] * 40
    measured = by_key(evaluate(reference, window.profile(reference)))
    before = {
        name: training.categorical["carrier"].count(name) for name in {*training.categorical["carrier"]}
    }
    held = [name for name in window.categorical["carrier"] if name is not None]
    counts = statistics.aligned(before, {name: held.count(name) for name in {*held}})
    assert measured[Check.PSI, "carrier"] == pytest.approx(float(statistics.psi(*counts)))
    result = statistics.chi_squared(*counts)
    assert measured[Check.CHI_SQUARED, "carrier"] == pytest.approx(
        result.statistic / result.degrees_of_freedom
    )
    assert measured[Check.UNSEEN, "carrier"] == 20 / 400
    assert measured[Check.MISSING_CHANGE, "carrier"] == 40 / 400
    assert measured[Check.UNSEEN, "tail"] < 0.01


def test_missing_values_and_values_out_of_range(reference, drawn):
    window = drawn(3, 400)
    window.numeric["wind"][:40] = 99.0
    window.numeric["visibility"][:] = np.nan
    measured = by_key(evaluate(reference, window.profile(reference)))
    assert measured[Check.OUT_OF_RANGE, "wind"] == pytest.approx(0.1, abs=0.005)
    share = reference.numeric[reference.numeric_names.index("visibility")].missing_share
    assert measured[Check.MISSING_CHANGE, "visibility"] == pytest.approx(1 - share)
    # Nothing is left to compare: those checks are not measured, rather than zero.
    assert (Check.PSI, "visibility") not in measured
    assert (Check.KS, "visibility") not in measured


def test_the_score_and_its_confidence(reference, drawn):
    window = drawn(3, 400)
    window.score[:] = 0.5
    measured = by_key(evaluate(reference, window.profile(reference)))
    assert measured[Check.CONFIDENCE_DROP, None] == pytest.approx(reference.confidence, abs=1e-9)
    assert measured[Check.SCORE_PSI, None] > 1
    assert measured[Check.SCORE_JENSEN_SHANNON, None] > 0.5


def test_a_column_that_never_varied(plain):
    measured = by_key(evaluate(*plain(np.ones(100), np.full(50, 2.0))))
    assert measured[Check.KS, "x"] == 1.0
    assert measured[Check.OUT_OF_RANGE, "x"] == 1.0
    assert measured[Check.PSI, "x"] > 1
    assert (Check.WASSERSTEIN, "x") not in measured


def test_no_rows_measure_nothing(reference, drawn):
    assert evaluate(reference, drawn(3, 0).profile(reference)) == []


def test_a_model_of_scores_alone(plain):
    reference = build_reference({}, {}, np.linspace(0, 1, 50), None)
    profile = Profile.of(reference, list("abc"), {}, {}, np.array([0.1, np.nan, 0.9]))
    assert [item.check for item in evaluate(reference, profile)] == [
        Check.SCORE_PSI,
        Check.SCORE_JENSEN_SHANNON,
        Check.CONFIDENCE_DROP,
    ]


def test_a_profile_of_another_reference_is_refused(reference, training, build, drawn):
    with pytest.raises(ValueError, match="not on"):
        evaluate(reference, drawn(3, 10).profile(build(training, seed=3)))


def test_fifty_features_take_milliseconds():
    g = np.random.default_rng(0)
    columns = {f"x{number}": g.normal(size=5000) for number in range(50)}
    reference = build_reference(columns, {}, g.random(5000), None)
    ids = [str(number) for number in range(5000)]
    profile = Profile.of(reference, ids, columns, {}, g.random(5000))
    times = []
    for _ in range(20):
        start = time.perf_counter()
        evaluate(reference, profile)
        times.append(time.perf_counter() - start)
    # About 1.2 ms on an idle core; the bound leaves room for a busy one.
    assert min(times) < 0.008
