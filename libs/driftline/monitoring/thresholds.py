"""Calibrated thresholds of a model's checks, by window size, and the judgement of a window by them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.monitoring.checks import Check, Measurement
from driftline.monitoring.levels import Level
from driftline.runtime.errors import ConfigurationError

Floats = NDArray[np.float64]
Key = tuple[Check, str | None]

VERSION = 1
#: Below this a threshold is nothing, for the logarithm.
_TINY = 1e-12


class Judgement(NamedTuple):
    """A measurement, its level, and the two thresholds that it was held against."""

    measurement: Measurement
    level: Level
    warning: float
    alert: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A person's thresholds in place of calibrated ones.

    ``column`` None means every column of the check. A threshold of None keeps the calibrated one; infinity switches
    it off. An override that names the column comes before one that does not.
    """

    check: Check
    column: str | None = None
    warning: float | None = None
    alert: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Thresholds:
    """What a value must exceed, per check, column, level and window size.

    Attributes
    ----------
    reference
        The fingerprint of the reference that they were calibrated on.
    sample_rows
        Rows that the profiles' samples keep.
    rates
        Per level, the share of windows without drift in which any check of the model exceeds it.
    sizes
        Window sizes in rows, ascending.
    keys
        The checks, in the order of the last axis of ``values``.
    values
        Per level an array of shape (sizes, checks).
    """

    reference: str
    sample_rows: int
    rates: Mapping[Level, float]
    sizes: tuple[int, ...]
    keys: tuple[Key, ...]
    values: Mapping[Level, Floats]
    _places: dict[Key, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {key: place for place, key in enumerate(self.keys)})

    def at(self, level: Level, rows: int) -> Floats:
        """Return a level's thresholds for windows of ``rows``.

        Between two sizes the logarithm runs straight in the logarithm of the size, as statistics fall with a power
        of it; below the smallest size the line goes on, above the largest the last values stay.
        """
        values = self.values[level]
        if len(self.sizes) == 1:
            return np.asarray(values[0])
        position = math.log(min(max(rows, 1), self.sizes[-1]))
        logs = np.log(np.array(self.sizes, np.float64))
        upper = int(np.clip(np.searchsorted(logs, position), 1, len(logs) - 1))
        part = (position - logs[upper - 1]) / (logs[upper] - logs[upper - 1])
        low, high = np.log(np.maximum(values[upper - 1], _TINY)), np.log(np.maximum(values[upper], _TINY))
        with np.errstate(invalid="ignore"):
            between = np.exp(low + part * (high - low))
        return np.where(np.isfinite(low) & np.isfinite(high), between, np.inf)

    def place(self, key: Key) -> int | None:
        """Return where a check is among the keys; None where it was not calibrated."""
        return self._places.get(key)

    def as_json(self) -> dict[str, Any]:
        """Return them as JSON values; a threshold that nothing exceeds is null."""
        return {
            "version": VERSION,
            "reference": self.reference,
            "sample_rows": self.sample_rows,
            "rates": {str(level): rate for level, rate in self.rates.items()},
            "sizes": list(self.sizes),
            "checks": [[str(check), column] for check, column in self.keys],
            "values": {
                str(level): [
                    [None if math.isinf(value) else value for value in row] for row in table.tolist()
                ]
                for level, table in self.values.items()
            },
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Thresholds:
        """Return the thresholds of JSON values; ConfigurationError where another release wrote them."""
        if value.get("version") != VERSION:
            raise ConfigurationError(
                f"thresholds of version {value.get('version')}; this release reads {VERSION}: calibrate again"
            )
        tables = {
            Level(level): np.array([[math.inf if cell is None else cell for cell in row] for row in table])
            for level, table in value["values"].items()
        }
        return cls(
            reference=value["reference"],
            sample_rows=value["sample_rows"],
            rates={Level(level): rate for level, rate in value["rates"].items()},
            sizes=tuple(value["sizes"]),
            keys=tuple((Check(check), column) for check, column in value["checks"]),
            values=tables,
        )


def judge(
    measurements: Iterable[Measurement],
    thresholds: Thresholds,
    overrides: Sequence[Override] = (),
    *,
    rows: int,
) -> list[Judgement]:
    """Hold a window's measurements against the thresholds for its number of rows.

    A check without a threshold (not calibrated, not overridden) is never exceeded.
    """
    chosen = _by_key(overrides)
    warnings, alerts = thresholds.at(Level.WARNING, rows).tolist(), thresholds.at(Level.ALERT, rows).tolist()
    judged = []
    for measurement in measurements:
        key = (measurement.check, measurement.column)
        place = thresholds.place(key)
        warning, alert = (math.inf, math.inf) if place is None else (warnings[place], alerts[place])
        override = chosen.get(key) or chosen.get((measurement.check, None))
        if override:
            warning = warning if override.warning is None else override.warning
            alert = alert if override.alert is None else override.alert
        judged.append(Judgement(measurement, _level(measurement.value, warning, alert), warning, alert))
    return judged


def _by_key(overrides: Sequence[Override]) -> dict[Key, Override]:
    chosen: dict[Key, Override] = {}
    for override in overrides:
        key = (override.check, override.column)
        if key in chosen:
            where = f" of column {override.column!r}" if override.column else ""
            raise ConfigurationError(f"two overrides of check {override.check}{where}: keep one")
        chosen[key] = override
    return chosen


def _level(value: float, warning: float, alert: float) -> Level:
    if value > alert:
        return Level.ALERT
    return Level.WARNING if value > warning else Level.NONE
