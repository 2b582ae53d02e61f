"""How one model version stands in one segment, from window to window: pure, from state to state.

A problem begins with a window that is not quiet, grows or shrinks with the damage, and is over after so many quiet
windows. A signal is sent when it begins, when it changes its level, again every week of windows while it alerts, and
when it is over.
"""

from __future__ import annotations

import functools
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from driftline.monitoring.damage import Damage, DamageTargets, measured_damage, severity
from driftline.monitoring.detectors import Adwin, Ddm, Detector, PageHinkley
from driftline.monitoring.levels import Level, worst
from driftline.monitoring.outcome_profile import OutcomeProfile
from driftline.monitoring.reference import Reference
from driftline.project import MonitorRule

#: While a problem alerts, it is said again after so many windows.
REMIND_WINDOWS = 7


def damage_targets(rule: MonitorRule) -> DamageTargets:
    """Return the rule's targets."""
    return DamageTargets(
        alert_log_loss=rule.alert_log_loss,
        retrain_log_loss=rule.retrain_log_loss,
        alert_value=rule.alert_value,
        retrain_value=rule.retrain_value,
    )


@dataclass(slots=True, kw_only=True)
class Problem:
    """The state of a version and segment. Times are begins of windows in microseconds."""

    level: Level = Level.NONE
    since: int = 0
    quiet: int = 0
    last_window: int = 0
    last_signal: int = 0
    #: What the newest window of predictions showed, with its worst check.
    drift: Level = Level.NONE
    worst_check: dict[str, Any] = field(default_factory=dict)
    estimated: dict[str, Any] | None = None
    #: The newest windows of outcomes, oldest first, and the detectors on their errors.
    outcomes: list[str] = field(default_factory=list)
    detectors: list[dict[str, Any]] = field(default_factory=list)
    detected: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Problem:
        """Return the state that was stored; a new one for None."""
        if value is None:
            return cls()
        levels = {name: Level(value[name]) for name in ("level", "drift")}
        return cls(**{**value, **levels})

    def see_outcomes(self, window: OutcomeProfile, keep: int) -> None:
        """Take a closed window of outcomes: damage is measured over the newest ones, detectors run over all."""
        self.outcomes = [*self.outcomes, b64encode(window.to_bytes()).decode()][-keep:]
        accuracy = window.accuracy()
        wrong = int(window.confusion[0, 1] + window.confusion[1, 0]) / window.rows
        if not self.detectors:
            self.detectors = [Detector(one).as_json() for one in (Adwin(), PageHinkley(), Ddm())]
        found = []
        for at, (state, value) in enumerate(
            zip(self.detectors, (accuracy.brier, accuracy.log_loss, wrong), strict=True)
        ):
            detector = Detector.from_json(state)
            if detector.update(value) is Level.ALERT:
                found.append(str(detector.settings.kind))
            self.detectors[at] = detector.as_json()
        self.detected = ", ".join(found)

    def damage(self, reference: Reference, rule: MonitorRule) -> Damage | None:
        """Return the damage over the newest windows: measured where enough of them have labels, else estimated.

        Rows of a window share their weather and their crowds, so a measured damage's standard error is taken between
        windows: their standard deviation over the root of their number (batch means), where that is larger than the
        rows' own.
        """
        windows = [OutcomeProfile.from_bytes(b64decode(text)) for text in self.outcomes]
        if len(windows) < rule.least_windows:
            if self.estimated is None:
                return None
            return Damage(**self.estimated, value=None, measured=False)
        found = measured_damage(reference, functools.reduce(OutcomeProfile.merge, windows))
        if found is None or len(windows) < 2:
            return found
        each = [one.accuracy() for one in windows]
        value_error = found.value_standard_error
        if value_error is not None:
            value_error = max(value_error, _between([one.value_per_prediction for one in each]))
        return replace(
            found,
            standard_error=max(found.standard_error, _between([one.log_loss for one in each])),
            value_standard_error=value_error,
        )

    def judge(self, segment: str, damage: Damage | None, rule: MonitorRule) -> Level:
        """Return how severe the window in hand is."""
        levels = [self.drift, Level.WARNING if self.detected else Level.NONE]
        level = severity(levels, damage, damage_targets(rule))
        # What is only estimated, or only so in a part, is no reason to train everything anew.
        alone = segment == "" and damage is not None and damage.measured
        return level if alone or level is not Level.RETRAIN else Level.ALERT

    def step(self, level: Level, window: int, rule: MonitorRule) -> Level | None:
        """Take the judgement of a window; return the level to signal, NONE for "resolved", None for no signal."""
        self.last_window = max(window, self.last_window)
        if level is Level.NONE:
            if self.level is Level.NONE:
                return None
            self.quiet += 1
            if self.quiet < rule.quiet_windows:
                return None
            self.level, self.quiet = Level.NONE, 0
            self.last_signal = window
            return Level.NONE
        self.quiet = 0
        if self.level is Level.NONE:
            self.since = window
        changed = level is not self.level
        due = level.rank > Level.WARNING.rank and window - self.last_signal >= REMIND_WINDOWS * rule.window_us
        self.level = level
        if changed or due:
            self.last_signal = window
            return level
        return None


def _between(means: Sequence[float]) -> float:
    return float(np.std(means, ddof=1) / np.sqrt(len(means)))


def worst_first(judgements: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the judgements that passed a threshold as JSON values, worst first by value over threshold."""
    passed = [one for one in judgements if one.level is not Level.NONE]
    passed.sort(key=lambda one: one.measurement.value / max(one.warning, 1e-12), reverse=True)
    return [
        {
            "check": str(one.measurement.check),
            "column": one.measurement.column,
            "value": one.measurement.value,
            "threshold": one.warning,
            "level": str(one.level),
        }
        for one in passed
    ]


def worst_level(judgements: Sequence[Any]) -> Level:
    """Return the highest level among judgements."""
    return worst(one.level for one in judgements)
