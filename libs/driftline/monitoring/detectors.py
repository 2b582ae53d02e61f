"""Concept-drift detectors over aggregates (the error of a day or a window), river's, with state that survives restarts.

A detector's state is the aggregates that it saw since its last detection, at most ``HISTORY`` of them, and is
rebuilt by replaying them: the same values always give the same answers, with any number of restarts between. When the
history is full its older half is dropped and the detector replays the rest, restarted or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, Self

from river import drift

from driftline.monitoring.levels import Level
from driftline.runtime.errors import ConfigurationError

VERSION = 1
HISTORY = 1000


class RiverDetector(Protocol):
    """What is used of river's detectors, which carry no types."""

    @property
    def drift_detected(self) -> bool:
        """Whether the last value made a detection."""

    def update(self, x: float) -> object:
        """Take one value."""


class DetectorKind(StrEnum):
    """The algorithms."""

    ADWIN = "adwin"
    PAGE_HINKLEY = "page_hinkley"
    DDM = "ddm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adwin:
    """ADWIN (Bifet and Gavalda 2007): the mean of two halves of an adaptive window differs, up or down.

    ``delta`` bounds the probability of a false detection for values from 0 to 1. The bound is made for single rows:
    aggregates that rise from .2 to .6 take some fifty to be detected. Give it many small windows rather than days.
    """

    delta: float = 0.002
    grace_period: int = 10
    min_window_length: int = 5

    @property
    def kind(self) -> DetectorKind:
        """ADWIN."""
        return DetectorKind.ADWIN

    def build(self) -> RiverDetector:
        """Return river's detector; it checks at every aggregate."""
        adwin: Any = drift.ADWIN
        detector: RiverDetector = adwin(
            delta=self.delta,
            clock=1,
            grace_period=self.grace_period,
            min_window_length=self.min_window_length,
        )
        return detector


@dataclass(frozen=True, slots=True, kw_only=True)
class PageHinkley:
    """Page-Hinkley (Page 1954) with alpha = 1: the error's cumulative excess over its running mean has risen.

    It has risen by more than ``threshold`` above its running minimum, where a rise of ``delta`` per aggregate is
    forgiven; both are in the error's unit.
    """

    delta: float = 0.005
    threshold: float = 0.2
    min_instances: int = 14

    @property
    def kind(self) -> DetectorKind:
        """Page-Hinkley."""
        return DetectorKind.PAGE_HINKLEY

    def build(self) -> RiverDetector:
        """Return river's detector for rises."""
        return drift.PageHinkley(
            delta=self.delta, threshold=self.threshold, min_instances=self.min_instances, alpha=1.0, mode="up"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ddm:
    """DDM (Gama et al. 2004): an error rate is so many standard deviations above its lowest.

    Takes error rates from 0 to 1. Each aggregate counts as one observation, so its standard deviation is that of one
    row per aggregate: slower, never quicker to alarm, than over the rows.
    """

    warning_threshold: float = 2.0
    drift_threshold: float = 3.0
    warm_start: int = 14

    @property
    def kind(self) -> DetectorKind:
        """DDM."""
        return DetectorKind.DDM

    def build(self) -> RiverDetector:
        """Return river's detector."""
        return drift.binary.DDM(
            warm_start=self.warm_start,
            warning_threshold=self.warning_threshold,
            drift_threshold=self.drift_threshold,
        )


Settings = Adwin | PageHinkley | Ddm
_SETTINGS: dict[DetectorKind, type[Adwin] | type[PageHinkley] | type[Ddm]] = {
    DetectorKind.ADWIN: Adwin,
    DetectorKind.PAGE_HINKLEY: PageHinkley,
    DetectorKind.DDM: Ddm,
}


class Detector:
    """A detector that can be stored.

    >>> detector = Detector(PageHinkley(threshold=0.2))
    >>> [detector.update(error) for error in [0.1] * 20 + [0.4]][-1]
    <Level.ALERT: 'alert'>
    """

    def __init__(self, settings: Settings, history: tuple[float, ...] = ()) -> None:
        self.settings = settings
        self._history: list[float] = []
        self._detector = settings.build()
        self._replay(list(history))

    @property
    def history(self) -> tuple[float, ...]:
        """The aggregates since the last detection, oldest first."""
        return tuple(self._history)

    def update(self, value: float) -> Level:
        """Take one aggregate; return ALERT where it makes a detection, WARNING in DDM's warning zone, else NONE.

        After a detection the detector begins anew.

        Raises
        ------
        ValueError
            Where the value is no finite number, or for DDM no rate from 0 to 1.
        """
        if not abs(value) < float("inf"):
            raise ValueError(f"a detector takes finite aggregates, not {value}")
        if self.settings.kind is DetectorKind.DDM and not 0 <= value <= 1:
            raise ValueError(f"DDM takes error rates from 0 to 1, not {value}")
        self._detector.update(value)
        if self._detector.drift_detected:
            self._replay([])
            return Level.ALERT
        self._history.append(value)
        level = Level.WARNING if getattr(self._detector, "warning_detected", False) else Level.NONE
        if len(self._history) >= HISTORY:
            self._replay(self._history[HISTORY // 2 :])
        return level

    def as_json(self) -> dict[str, Any]:
        """Return the settings and the history as JSON values."""
        parameters = {name: getattr(self.settings, name) for name in type(self.settings).__dataclass_fields__}
        return {
            "version": VERSION,
            "kind": str(self.settings.kind),
            "parameters": parameters,
            "history": list(self._history),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the detector of JSON values, replayed; ConfigurationError where another release wrote them."""
        if value.get("version") != VERSION:
            raise ConfigurationError(
                f"a detector of version {value.get('version')}; this release reads {VERSION}: start it anew"
            )
        settings = _SETTINGS[DetectorKind(value["kind"])](**value["parameters"])
        return cls(settings, tuple(value["history"]))

    def _replay(self, history: list[float]) -> None:
        self._history = history
        self._detector = self.settings.build()
        for value in history:
            self._detector.update(value)
