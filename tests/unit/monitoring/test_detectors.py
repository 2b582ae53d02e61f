"""Detectors are river's, and a restart at any moment changes nothing."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import drift

from driftline.monitoring.detectors import HISTORY, Adwin, Ddm, Detector, PageHinkley
from driftline.monitoring.levels import Level
from driftline.runtime.errors import ConfigurationError

SETTINGS = [Adwin(), PageHinkley(), Ddm()]
KINDS = pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: str(settings.kind))


def errors(seed, calm, bad):
    g = np.random.default_rng(seed)
    return np.clip(np.append(g.normal(0.2, 0.02, calm), g.normal(0.6, 0.02, bad)), 0, 1).tolist()


@KINDS
def test_a_worse_model_is_detected_and_a_steady_one_is_not(settings):
    detector = Detector(settings)
    calm = [detector.update(value) for value in errors(1, 60, 0)]
    assert Level.ALERT not in calm
    assert Level.ALERT in [detector.update(value) for value in errors(1, 0, 80)]


@KINDS
def test_it_begins_anew_after_a_detection(settings):
    detector = Detector(settings)
    values = errors(2, 60, 80)
    first = [detector.update(value) for value in values].index(Level.ALERT)
    again = Detector(settings)
    for value in values[: first + 1]:
        again.update(value)
    assert again.history == ()


def test_page_hinkley_is_rivers_with_alpha_one():
    ours = Detector(PageHinkley(delta=0.005, threshold=0.2, min_instances=14))
    theirs = drift.PageHinkley(delta=0.005, threshold=0.2, min_instances=14, alpha=1, mode="up")
    for value in errors(3, 40, 20):
        theirs.update(value)
        assert (ours.update(value) is Level.ALERT) == theirs.drift_detected


def test_page_hinkley_keeps_a_running_minimum():
    """A slow fall of the error before the rise does not hide the rise."""
    detector = Detector(PageHinkley(threshold=0.2, delta=0.0))
    falling = np.linspace(0.5, 0.2, 60).tolist()
    assert Level.ALERT not in [detector.update(value) for value in falling]
    assert Level.ALERT in [detector.update(0.5) for _ in range(3)]


def test_ddm_warns_before_it_detects():
    detector = Detector(Ddm())
    levels = [detector.update(value) for value in errors(1, 60, 30)]
    detected = levels.index(Level.ALERT)
    assert Level.WARNING in levels[:detected]


@given(
    st.sampled_from(SETTINGS),
    st.lists(st.floats(0, 1), max_size=80),
    st.sets(st.integers(0, 79)),
)
def test_a_restart_at_any_moment_changes_nothing(settings, values, restarts):
    living = restarted = Detector(settings)
    restarted = Detector(settings)
    for number, value in enumerate(values):
        if number in restarts:
            restarted = Detector.from_json(json.loads(json.dumps(restarted.as_json())))
        assert living.update(value) is restarted.update(value)
        assert living.history == restarted.history


@KINDS
def test_history_is_bounded_and_restarts_still_change_nothing(settings):
    living, restarted = Detector(settings), Detector(settings)
    values = errors(5, 2 * HISTORY + 300, 40)
    for number, value in enumerate(values):
        if number % 700 == 650:
            restarted = Detector.from_json(restarted.as_json())
        assert living.update(value) is restarted.update(value)
        assert len(living.history) < HISTORY
    assert living.history == restarted.history


def test_values_that_it_cannot_take_are_refused():
    with pytest.raises(ValueError, match="finite"):
        Detector(Adwin()).update(float("nan"))
    with pytest.raises(ValueError, match="from 0 to 1"):
        Detector(Ddm()).update(1.5)


def test_another_version_is_refused():
    with pytest.raises(ConfigurationError, match="start it anew"):
        Detector.from_json({**Detector(Adwin()).as_json(), "version": 0})
