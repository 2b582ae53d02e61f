"""Judging: over the threshold of the window's size, unless a person set another."""

import json
import math

import numpy as np
import pytest

from driftline.monitoring.checks import Check, Measurement
from driftline.monitoring.levels import Level
from driftline.monitoring.thresholds import Override, Thresholds, judge
from driftline.runtime.errors import ConfigurationError

PSI_X, PSI_Y, DROP = (Check.PSI, "x"), (Check.PSI, "y"), (Check.CONFIDENCE_DROP, None)


@pytest.fixture
def thresholds():
    return Thresholds(
        reference="r",
        sample_rows=500,
        rates={Level.WARNING: 0.05, Level.ALERT: 0.005},
        sizes=(100, 400),
        keys=(PSI_X, PSI_Y, DROP),
        values={
            Level.WARNING: np.array([[0.4, 0.4, math.inf], [0.1, 0.1, math.inf]]),
            Level.ALERT: np.array([[0.8, 0.8, math.inf], [0.2, 0.2, math.inf]]),
        },
    )


def levels(thresholds, values, overrides=(), rows=100):
    measurements = [Measurement(*key, value) for key, value in zip((PSI_X, PSI_Y, DROP), values, strict=True)]
    return [str(item.level) for item in judge(measurements, thresholds, overrides, rows=rows)]


def test_a_value_must_exceed_its_threshold(thresholds):
    assert levels(thresholds, [0.4, 0.41, 99]) == ["none", "warning", "none"]
    assert levels(thresholds, [0.8, 0.81, 0]) == ["warning", "alert", "none"]


def test_thresholds_fall_with_the_window(thresholds):
    assert levels(thresholds, [0.3, 0.19, 0], rows=400) == ["alert", "warning", "none"]
    # Statistics that fall as 1 / rows: 200 rows are halfway in logarithms.
    assert thresholds.at(Level.ALERT, 200)[:2] == pytest.approx([0.4, 0.4])
    assert thresholds.at(Level.ALERT, 50)[:2] == pytest.approx([1.6, 1.6])
    assert thresholds.at(Level.ALERT, 10**6)[:2] == pytest.approx([0.2, 0.2])


def test_an_override_of_a_column_comes_before_one_of_the_check(thresholds):
    overrides = [Override(check=Check.PSI, alert=0.5), Override(check=Check.PSI, column="y", alert=math.inf)]
    assert levels(thresholds, [0.6, 0.9, 0], overrides) == ["alert", "warning", "none"]


def test_an_override_keeps_what_it_does_not_name(thresholds):
    overrides = [Override(check=Check.CONFIDENCE_DROP, warning=0.1)]
    assert levels(thresholds, [0.41, 0, 0.2], overrides) == ["warning", "none", "warning"]


def test_a_threshold_of_zero_is_an_override(thresholds):
    assert levels(thresholds, [0.001, 0, 0], [Override(check=Check.PSI, warning=0.0)]) == [
        "warning",
        "none",
        "none",
    ]


def test_two_overrides_of_one_check_are_refused(thresholds):
    with pytest.raises(ConfigurationError, match="keep one"):
        levels(thresholds, [0, 0, 0], [Override(check=Check.PSI), Override(check=Check.PSI, warning=1.0)])


def test_a_check_that_was_not_calibrated_is_not_exceeded(thresholds):
    (judged,) = judge([Measurement(Check.KS, "x", 1.0)], thresholds, rows=100)
    assert (judged.level, judged.alert) == (Level.NONE, math.inf)


def test_json_round_trip(thresholds):
    read = Thresholds.from_json(json.loads(json.dumps(thresholds.as_json(), allow_nan=False)))
    assert read.as_json() == thresholds.as_json()
    np.testing.assert_array_equal(read.at(Level.ALERT, 123), thresholds.at(Level.ALERT, 123))
    with pytest.raises(ConfigurationError, match="calibrate again"):
        Thresholds.from_json({**thresholds.as_json(), "version": 0})
