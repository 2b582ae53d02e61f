"""A problem begins, changes its level, is said again, and is over."""

import numpy as np

from driftline.monitoring.damage import Damage
from driftline.monitoring.levels import Level
from driftline.monitoring.outcome_profile import OutcomeProfile
from driftline.project import MonitorRule
from services.drift_monitor.problems import REMIND_WINDOWS, Problem

RULE = MonitorRule(window_us=1, alert_log_loss=0.02, retrain_log_loss=0.1, quiet_windows=2, least_windows=3)


def damage(log_loss: float, *, measured: bool = True) -> Damage:
    return Damage(log_loss=log_loss, value=None, measured=measured, standard_error=0.001)


def test_signals_come_at_the_begin_at_changes_and_at_the_end() -> None:
    problem = Problem()
    levels = [
        Level.NONE,
        Level.WARNING,
        Level.WARNING,
        Level.ALERT,
        Level.ALERT,
        Level.NONE,
        Level.NONE,
        Level.NONE,
    ]
    said = [problem.step(level, window, RULE) for window, level in enumerate(levels)]
    assert said == [None, Level.WARNING, None, Level.ALERT, None, None, Level.NONE, None]


def test_a_lasting_alert_is_said_again() -> None:
    problem = Problem()
    said = [problem.step(Level.ALERT, window, RULE) for window in range(2 * REMIND_WINDOWS + 1)]
    assert [window for window, level in enumerate(said) if level is not None] == [0, 7, 14]


def test_only_measured_damage_of_everything_asks_for_a_retrain() -> None:
    problem = Problem(drift=Level.WARNING)
    assert problem.judge("", damage(0.2), RULE) is Level.RETRAIN
    assert problem.judge("origin=JFK", damage(0.2), RULE) is Level.ALERT
    assert problem.judge("", damage(0.2, measured=False), RULE) is Level.ALERT


def test_drift_without_damage_is_a_warning_at_most() -> None:
    assert Problem(drift=Level.ALERT).judge("", damage(0.0), RULE) is Level.WARNING
    assert Problem().judge("", damage(0.0), RULE) is Level.NONE


def test_the_state_survives_being_stored() -> None:
    rng = np.random.default_rng(0)
    problem = Problem()
    for window in range(5):
        score = rng.random(200)
        labels = rng.random(200) < score
        problem.see_outcomes(
            OutcomeProfile.of(labels, score, decision_threshold=0.5, value=None, baselines={}), keep=4
        )
        problem.step(Level.WARNING, window, RULE)
    again = Problem.from_json(problem.as_json())
    assert again.as_json() == problem.as_json()
    assert len(again.outcomes) == 4
