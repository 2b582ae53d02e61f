"""What a view's features aggregate: one field of its events, how, and over what time. Pure values, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from driftline.features.conditions import Condition
from driftline.features.derivations import finite_default
from driftline.features.names import check_name
from driftline.runtime.durations import format_duration, parse_duration_us


class Aggregate(StrEnum):
    """How the values in a window become one."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    RATE = "rate"
    MIN = "min"
    MAX = "max"
    STD = "std"
    LAST = "last"
    TIME_SINCE_LAST = "time_since_last"
    DECAYED_COUNT = "decayed_count"
    DECAYED_SUM = "decayed_sum"
    DECAYED_MEAN = "decayed_mean"


#: Aggregates without a window: they describe the newest event of the entity.
UNWINDOWED = frozenset({Aggregate.LAST, Aggregate.TIME_SINCE_LAST})
#: Aggregates with a half-life instead of a window: an event weighs half as much after each.
DECAYED = frozenset({Aggregate.DECAYED_COUNT, Aggregate.DECAYED_SUM, Aggregate.DECAYED_MEAN})


@dataclass(frozen=True, slots=True)
class Feature:
    """One aggregate of one field over one window.

    ``window_us`` is None for the aggregates that have none (last, time since last); ``field`` is empty
    for ``count()``, which counts events. ``default`` is served where there is no value. ``condition`` says
    which of the view's events it looks at; None: all. ``half_life_us`` is None but for decayed aggregates.
    """

    aggregate: Aggregate
    field: str = ""
    window_us: int | None = None
    default: float | None = None
    alias: str = ""
    condition: Condition | None = None
    half_life_us: int | None = None

    def over(self, window: str) -> Feature:
        """Return this feature over a sliding window, like ``"3h"``."""
        if self.aggregate in UNWINDOWED:
            msg = f"{self.aggregate}({self.field!r}) looks at the newest event only and takes no window"
            raise ValueError(msg)
        if self.aggregate in DECAYED:
            msg = f"{self.aggregate}({self.field!r}) weighs events by its half-life and takes no window"
            raise ValueError(msg)
        return replace(self, window_us=parse_duration_us(window))

    def where(self, condition: Condition) -> Feature:
        """Return this feature over the events that satisfy a condition. It needs a name of its own."""
        return replace(self, condition=all_of(self.condition, condition))

    def named(self, name: str) -> Feature:
        """Return this feature under a name of its own."""
        check_name("feature", name)
        return replace(self, alias=name)

    def or_default(self, value: float) -> Feature:
        """Return this feature with a value that is served where there is none."""
        return replace(self, default=finite_default(self.name, value))

    @property
    def name(self) -> str:
        """The feature's name within its view, like ``mean_arrival_delay_3h``."""
        if self.alias:
            return self.alias
        return "_".join(part for part in (self.aggregate.value, self.field, self.time) if part)

    @property
    def time(self) -> str:
        """The window or the half-life as text, like ``3h``; empty for the aggregates that have none."""
        time_us = self.window_us if self.half_life_us is None else self.half_life_us
        return "" if time_us is None else format_duration(time_us)

    @property
    def input(self) -> str:
        """Name of what the kernels take for this feature: the field, or what a condition leaves of it."""
        return self.field if self.condition is None else f"{self.field} where {self.condition}".strip()


def all_of(first: Condition | None, second: Condition) -> Condition:
    """Return a condition that holds where both do; TypeError where the second is none."""
    if not isinstance(second, Condition):
        msg = f'where takes a condition, like field("late").is_true(), not {second!r}'
        raise TypeError(msg)
    return second if first is None else first & second


def count(field_name: str = "") -> Feature:
    """Count events, or the events in which a field is present."""
    return Feature(Aggregate.COUNT, field_name)


def sum_of(field_name: str) -> Feature:
    """Sum a numeric field."""
    return Feature(Aggregate.SUM, field_name)


def mean(field_name: str) -> Feature:
    """Average a numeric field over the events that have it."""
    return Feature(Aggregate.MEAN, field_name)


def rate(field_name: str) -> Feature:
    """Give the share of true among the events that have this boolean field."""
    return Feature(Aggregate.RATE, field_name)


def minimum(field_name: str) -> Feature:
    """Give the smallest value."""
    return Feature(Aggregate.MIN, field_name)


def maximum(field_name: str) -> Feature:
    """Give the largest value."""
    return Feature(Aggregate.MAX, field_name)


def std(field_name: str) -> Feature:
    """Give the population standard deviation (divisor n, as ``numpy.std``)."""
    return Feature(Aggregate.STD, field_name)


def last(field_name: str) -> Feature:
    """Give the value in the newest event that has the field (event time; of equal times the larger value)."""
    return Feature(Aggregate.LAST, field_name)


def time_since_last() -> Feature:
    """Give the seconds since the entity's newest event."""
    return Feature(Aggregate.TIME_SINCE_LAST)


def decayed_count(field_name: str = "", *, half_life: str) -> Feature:
    """Count events, or those in which a field is present, each weighing half as much after every half-life."""
    return Feature(Aggregate.DECAYED_COUNT, field_name, half_life_us=parse_duration_us(half_life))


def decayed_sum(field_name: str, *, half_life: str) -> Feature:
    """Sum a numeric field, each value weighing half as much after every half-life."""
    return Feature(Aggregate.DECAYED_SUM, field_name, half_life_us=parse_duration_us(half_life))


def decayed_mean(field_name: str, *, half_life: str) -> Feature:
    """Average a number (or the share of true of a boolean), each weighing half as much after every half-life.

    >>> decayed_mean("delay", half_life="6h").name
    'decayed_mean_delay_6h'
    """
    return Feature(Aggregate.DECAYED_MEAN, field_name, half_life_us=parse_duration_us(half_life))
