"""What a view's features aggregate: one field of its events, how, and over what time. Pure values, no I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from driftline.features.conditions import Condition, field
from driftline.features.derivations import finite_default
from driftline.features.names import check_name
from driftline.runtime.durations import format_duration, parse_duration_us

if TYPE_CHECKING:
    from driftline.features.declarations import Source


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
    DISTINCT_COUNT = "distinct_count"
    SHARE = "share"
    MOST_FREQUENT = "most_frequent"


#: Aggregates without a window: they describe the newest event of the entity.
UNWINDOWED = frozenset({Aggregate.LAST, Aggregate.TIME_SINCE_LAST})
#: Aggregates with a half-life instead of a window: an event weighs half as much after each.
DECAYED = frozenset({Aggregate.DECAYED_COUNT, Aggregate.DECAYED_SUM, Aggregate.DECAYED_MEAN})
#: A decayed feature looks back so many half-lives: what is older would weigh less than 1/256.
DECAY_HALF_LIVES = 8
#: How many registers a sketch may have, and has unless said; its relative standard error is 1.04 / sqrt(registers).
REGISTERS = tuple(2**bits for bits in range(4, 13))
USUAL_REGISTERS = 256
#: A feature names so many categories at most: ``most_frequent`` keeps a count of each in every tile.
MOST_CATEGORIES = 64

_NAMED_BY_ITSELF = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Feature:
    """One aggregate of one field over one window.

    ``window_us`` is None for the aggregates that have none (last, time since last); ``field`` is empty
    for ``count()``, which counts events. ``default`` is served where there is no value. ``condition`` says
    which of the view's events it looks at; None: all. ``half_life_us`` is None but for decayed aggregates.
    ``categories`` are the texts that a categorical feature names, ``registers`` the size of a sketch.
    ``source`` names whose events it reads where the view joins several sources; empty: the view's own source.
    """

    aggregate: Aggregate
    field: str = ""
    window_us: int | None = None
    default: float | None = None
    alias: str = ""
    condition: Condition | None = None
    half_life_us: int | None = None
    categories: tuple[str, ...] = ()
    registers: int = 0
    source: str = ""

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

    def of(self, source: Source) -> Feature:
        """Return this feature over the events of one of the sources that its view joins, not of the view's own."""
        return replace(self, source=source.name)

    def or_default(self, value: float) -> Feature:
        """Return this feature with a value that is served where there is none."""
        return replace(self, default=finite_default(self.name, value))

    @property
    def name(self) -> str:
        """The feature's name within its view, like ``mean_arrival_delay_3h``."""
        if self.alias:
            return self.alias
        category = self.categories[0].lower() if self.aggregate is Aggregate.SHARE and self.categories else ""
        words = (self.source, self.aggregate.value, self.field, category, self.time)
        return "_".join(word for word in words if word)

    @property
    def time(self) -> str:
        """The window or the half-life as text, like ``3h``; empty for the aggregates that have none."""
        time_us = self.window_us if self.half_life_us is None else self.half_life_us
        return "" if time_us is None else format_duration(time_us)

    @property
    def reach_us(self) -> int | None:
        """How far back from an instant its events lie; None where the newest one may lie anywhere."""
        return self.window_us if self.half_life_us is None else DECAY_HALF_LIVES * self.half_life_us

    @property
    def reads_text(self) -> bool:
        """Whether the field is a category and not a number."""
        return bool(self.categories) or self.aggregate is Aggregate.DISTINCT_COUNT

    @property
    def subject(self) -> str:
        """What is aggregated, as text: the field, with the categories or the registers."""
        if self.registers:
            return f"{self.field} in {self.registers} registers"
        return f"{self.field} among {json.dumps(self.categories)}" if self.categories else self.field

    @property
    def input(self) -> str:
        """Name of what the kernels take for this feature: the field, or what codes and a condition make of it."""
        coded = f"{self.field} hashed" if self.registers else self.subject
        return coded if self.condition is None else f"{coded} where {self.condition}".strip()

    @property
    def parts(self) -> tuple[Feature, ...]:
        """The features that this one is computed from: itself, or counts of events with a category."""
        if self.aggregate not in (Aggregate.SHARE, Aggregate.MOST_FREQUENT):
            return (self,)
        wanted = [field(self.field) == category for category in self.categories]
        if self.aggregate is Aggregate.SHARE:
            wanted.append(field(self.field).present())
        return tuple(Feature(Aggregate.COUNT, condition=all_of(self.condition, one)) for one in wanted)

    def mistake(self) -> str:
        """Return what is wrong with the declaration as a whole; empty where nothing is."""
        if (self.aggregate in DECAYED) != (self.half_life_us is not None):
            return f"{self.name}: decayed aggregates, and only they, have a half-life"
        if self.aggregate not in UNWINDOWED | DECAYED and self.window_us is None:
            return f"{self.name} needs a window: .over('3h')"
        if (self.aggregate is Aggregate.DISTINCT_COUNT) != (self.registers in REGISTERS):
            return f"{self.name}: distinct counts, and only they, have registers, a power of two of them"
        if self.aggregate in (Aggregate.SHARE, Aggregate.MOST_FREQUENT) and not self.categories:
            return f"{self.name} names no category"
        if self.condition is not None and not self.alias:
            return (
                f"{self.name} over the events where {self.condition} needs a name that says so: .named('...')"
            )
        if self.aggregate is Aggregate.SHARE and not self.alias:
            category = self.categories[0]
            if not _NAMED_BY_ITSELF.fullmatch(category.lower()):
                return f"the share of {category!r} needs a name that says so: .named('...')"
        return ""


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


def last(field_name: str, *, among: Sequence[str] = ()) -> Feature:
    """Give the value in the newest event that has the field (event time; of equal times the larger value).

    Of a text or enum, ``among`` names the categories: the value is the place of the newest one among them, counted
    from 0, and -1 where it is another.
    """
    return Feature(Aggregate.LAST, field_name, categories=_categories("last", among) if among else ())


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


def distinct_count(field_name: str, *, registers: int = USUAL_REGISTERS) -> Feature:
    """Estimate how many different values a text, enum or integer field has (HyperLogLog; 0 where it has none).

    The relative standard error is 1.04 / sqrt(registers), 6.5% with 256 (Flajolet et al. 2007); a few values are
    nearly always counted exactly. A sketch takes a byte per register in every tile.
    """
    if registers not in REGISTERS:
        msg = f"distinct_count({field_name!r}): registers is a power of two from {REGISTERS[0]} to {REGISTERS[-1]}, got {registers}"
        raise ValueError(msg)
    return Feature(Aggregate.DISTINCT_COUNT, field_name, registers=registers)


def share(field_name: str, category: str) -> Feature:
    """Give the share of events with a category, among those that have the field.

    >>> share("carrier", "AA").over("24h").name
    'share_carrier_aa_1d'
    """
    if not isinstance(category, str) or not category:
        msg = f'share({field_name!r}, {category!r}): name a category, like share("carrier", "AA")'
        raise ValueError(msg)
    return Feature(Aggregate.SHARE, field_name, categories=(category,))


def most_frequent(field_name: str, *, among: Sequence[str]) -> Feature:
    """Give which of some categories most events have: its place among them, from 0; of equally many the first.

    Counts are exact; events with another category, or none, do not count. Null where no event has one of them.
    """
    return Feature(Aggregate.MOST_FREQUENT, field_name, categories=_categories("most_frequent", among))


def _categories(what: str, among: Sequence[str]) -> tuple[str, ...]:
    texts = () if isinstance(among, str) else tuple(among)
    if (
        not all(isinstance(text, str) for text in texts)
        or len(set(texts)) < len(texts)
        or not 2 <= len(texts) <= MOST_CATEGORIES
    ):
        msg = f'{what}: among names 2 to {MOST_CATEGORIES} different categories, like among=("AA", "UA"), not {among!r}'
        raise ValueError(msg)
    return texts
