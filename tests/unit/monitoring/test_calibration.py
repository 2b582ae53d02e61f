"""Without drift a model alarms as often as it says, over all its checks; with drift it alarms soon."""

import numpy as np
import pytest
from scipy import stats

from driftline.monitoring.calibration import calibrate
from driftline.monitoring.checks import Check, evaluate
from driftline.monitoring.levels import Level, worst
from driftline.monitoring.reference import build_reference
from driftline.monitoring.thresholds import judge
from driftline.runtime.errors import ConfigurationError

RATES = {Level.WARNING: 1 / 20, Level.ALERT: 1 / 200}


@pytest.fixture(scope="module")
def thresholds(reference):
    return calibrate(reference, (50, 150, 500, 2000), RATES, 0)


def level_of(window, reference, thresholds):
    judged = judge(evaluate(reference, window.profile(reference)), thresholds, rows=len(window.ids))
    return worst(item.level for item in judged)


def test_ten_weeks_of_hours_and_days_alarm_no_more_than_stated(reference, thresholds, drawn):
    sizes = np.random.default_rng(0).integers(30, 120, 1680).tolist() + [1500] * 70
    levels = [
        level_of(drawn(10_000 + number, size), reference, thresholds) for number, size in enumerate(sizes)
    ]
    alerts = sum(level is Level.ALERT for level in levels)
    alarms = sum(level is not Level.NONE for level in levels)
    assert alerts <= stats.binom.ppf(0.999, len(sizes), 1 / 200)
    assert alarms <= stats.binom.ppf(0.999, len(sizes), 1 / 20)
    # Nor is it silent: thresholds far too high would pass the bounds above.
    assert alarms >= stats.binom.ppf(0.001, len(sizes), 1 / 50)


def test_half_a_standard_deviation_is_caught_within_two_windows(reference, thresholds, drawn):
    for number in range(10):
        pair = [drawn(50_000 + 2 * number + part, 500, shift=0.5) for part in range(2)]
        assert Level.ALERT in {level_of(window, reference, thresholds) for window in pair}


def test_smaller_windows_need_more(thresholds):
    place = thresholds.place((Check.PSI, "delay"))
    values = [thresholds.at(Level.ALERT, rows)[place] for rows in (20, 50, 100, 150, 1000, 2000)]
    assert values == sorted(values, reverse=True)
    assert thresholds.at(Level.ALERT, 90_000)[place] == thresholds.at(Level.ALERT, 2000)[place]


def test_between_two_sizes_thresholds_are_those_of_that_size(reference, thresholds):
    direct = calibrate(reference, (250,), RATES, 5)
    checked = [thresholds.place((check, "delay")) for check in (Check.PSI, Check.KS, Check.WASSERSTEIN)]
    between, own = thresholds.at(Level.WARNING, 250)[checked], direct.at(Level.WARNING, 250)[checked]
    assert between == pytest.approx(own, rel=0.12)


def test_an_alert_needs_more_than_a_warning(thresholds):
    for rows in (30, 77, 2000):
        assert (thresholds.at(Level.ALERT, rows) >= thresholds.at(Level.WARNING, rows)).all()


def test_the_seed_decides(reference):
    def made(seed):
        return calibrate(
            reference, (100,), {Level.WARNING: 0.2, Level.ALERT: 0.1}, seed, replicates=200
        ).as_json()

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_more_columns_raise_every_threshold():
    """The rate is the family's: with forty independent columns each of them gets less of it."""
    g = np.random.default_rng(0)
    columns = {f"x{number}": g.normal(size=4000) for number in range(40)}
    score = g.random(4000)
    few = build_reference({"x0": columns["x0"]}, {}, score, None)
    many = build_reference(columns, {}, score, None)
    alone, among = (calibrate(made, (200,), RATES, 0) for made in (few, many))
    key = (Check.PSI, "x0")
    lower = alone.at(Level.ALERT, 200)[alone.place(key)]
    assert among.at(Level.ALERT, 200)[among.place(key)] > 1.1 * lower


def test_a_small_reference_calibrates(plain):
    """Fewer rows than a sample keeps, a constant column, a column that is nearly always missing."""
    g = np.random.default_rng(0)
    rare = np.full(60, np.nan)
    rare[3] = 1.0
    reference = build_reference(
        {"x": g.normal(size=60), "constant": np.ones(60), "rare": rare},
        {"c": ["a"] * 60},
        g.random(60),
        None,
        sample_rows=40,
    )
    thresholds = calibrate(reference, (20, 100), RATES, 0, replicates=2000)
    values = thresholds.at(Level.ALERT, 60)
    assert np.isinf(values[thresholds.place((Check.WASSERSTEIN, "constant"))])
    assert values[thresholds.place((Check.KS, "constant"))] < 1e-3
    assert 0 < values[thresholds.place((Check.UNSEEN, "c"))] < 0.5
    assert values[thresholds.place((Check.PSI, "x"))] > 0.1


@pytest.mark.parametrize(
    ("sizes", "rates", "message"),
    [
        ((), RATES, "window sizes"),
        ((0, 5), RATES, "window sizes"),
        ((50,), {Level.WARNING: 0.05}, "alert"),
        ((50,), {Level.WARNING: 0.05, Level.ALERT: 1e-5}, "more replicates"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(reference, sizes, rates, message):
    with pytest.raises(ConfigurationError, match=message):
        calibrate(reference, sizes, rates, 0)
