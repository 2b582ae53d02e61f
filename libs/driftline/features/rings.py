"""Which tiles a view keeps: rings of tiles, their widths, and the accumulators in each tile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from driftline.features.aggregations import DECAY_HALF_LIVES, Aggregate, Feature
from driftline.features.declarations import FeatureView
from driftline.runtime.durations import format_duration, parse_duration_us
from driftline.runtime.errors import ConfigurationError

SECOND_US = 1_000_000
#: The smallest window of a ring spans at least so many tiles; the largest at most so many.
FEWEST_TILES, MOST_TILES = 6, 96
#: A width is chosen so that the largest window spans at least so many tiles, where one allows it.
WANTED_TILES = 24
#: A declared tile may make longer rings, up to here.
MOST_DECLARED_TILES = 2_000
#: A half-life spans at least so many tiles, and at most so many unless the tile is declared.
FEWEST_DECAY_TILES, MOST_DECAY_TILES = 12, 24

_ROUND_SECONDS = frozenset(
    [1, 2, 5, 10, 15, 20, 30]
    + [60 * minutes for minutes in (1, 2, 3, 5, 10, 15, 20, 30)]
    + [3600 * hours for hours in (1, 2, 3, 4, 6, 8, 12, 24, 48, 72, 168)]
)


class Measure(StrEnum):
    """What an accumulator adds up. Squares are kept in two parts, so that their sums stay exact."""

    COUNT = "count"
    SUM = "sum"
    SQUARE_HIGH = "square_high"
    SQUARE_LOW = "square_low"
    MIN = "min"
    MAX = "max"


ADDITIVE = (Measure.COUNT, Measure.SUM, Measure.SQUARE_HIGH, Measure.SQUARE_LOW)

_NEEDS = {
    Aggregate.COUNT: (Measure.COUNT,),
    Aggregate.SUM: (Measure.SUM,),
    Aggregate.MEAN: (Measure.SUM, Measure.COUNT),
    Aggregate.RATE: (Measure.SUM, Measure.COUNT),
    Aggregate.MIN: (Measure.MIN,),
    Aggregate.MAX: (Measure.MAX,),
    Aggregate.DECAYED_COUNT: (Measure.COUNT,),
    Aggregate.DECAYED_SUM: (Measure.SUM,),
    Aggregate.DECAYED_MEAN: (Measure.SUM, Measure.COUNT),
    Aggregate.DISTINCT_COUNT: (),
    Aggregate.STD: (Measure.SQUARE_HIGH, Measure.SQUARE_LOW, Measure.SUM, Measure.COUNT),
}


@dataclass(frozen=True, slots=True)
class Accumulator:
    """One number per tile: a measure of one event field (of the events themselves where it is empty).

    ``field`` is a ``Feature.input``: a field's name, or that of what a condition leaves of it.
    """

    measure: Measure
    field: str

    def __str__(self) -> str:
        return f"{self.measure}({self.field})"


def accumulators_of(feature: Feature) -> tuple[Accumulator, ...]:
    """Return what a windowed or decayed feature adds up in tiles, in the order its formula takes them."""
    return tuple(
        Accumulator(measure, part.input) for part in feature.parts for measure in _NEEDS[part.aggregate]
    )


@dataclass(frozen=True, slots=True, order=True)
class Sketch:
    """The registers in each tile from which distinct values are counted. ``field`` is a ``Feature.input``."""

    field: str
    registers: int

    def __str__(self) -> str:
        return f"{self.registers} registers({self.field})"


def sketches_of(feature: Feature) -> tuple[Sketch, ...]:
    """Return the sketches that a feature is estimated from."""
    return (Sketch(feature.input, feature.registers),) if feature.registers else ()


@dataclass(frozen=True, kw_only=True)  # without slots: properties are kept
class Ring:
    """A ring of time tiles of one width, and the windows that are read from it.

    Tile ``k`` covers event times ``[k * width_us, (k + 1) * width_us)`` and lives in slot ``k % slots``.
    The accumulators are ordered: additive ones, then minima, then maxima. A ring with a half-life has one window,
    the time that decayed features look back, in which a tile weighs less the older it is.
    """

    width_us: int
    slots: int
    windows_us: tuple[int, ...]
    accumulators: tuple[Accumulator, ...]
    half_life_us: int | None = None
    sketches: tuple[Sketch, ...] = ()

    @property
    def registers(self) -> int:
        """How many registers a tile has, those of all sketches, side by side in their order."""
        return sum(sketch.registers for sketch in self.sketches)

    @property
    def totals(self) -> tuple[str, ...]:
        """What is read of each window, in this order: the accumulators and the sketches' estimates."""
        return (*map(str, self.accumulators), *map(str, self.sketches))

    @cached_property
    def columns(self) -> int:
        """How many totals are read of each window."""
        return len(self.accumulators) + len(self.sketches)

    @cached_property
    def additive(self) -> int:
        """How many of the accumulators are sums."""
        return sum(item.measure in ADDITIVE for item in self.accumulators)

    @cached_property
    def lengths(self) -> NDArray[np.uint64]:
        """How many tiles each window has, ``[windows, 1]``."""
        return np.array([[window // self.width_us] for window in self.windows_us], np.uint64)

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """What counts of a tile by its age, ``[windows, ages]``, from age -1 to one beyond the longest window: 1 or 0."""
        ages = np.arange(-1, self.windows_us[-1] // self.width_us + 1)
        return ((ages >= 0) & (ages < self.lengths.astype(np.int64))).astype(np.float64)

    @cached_property
    def minima(self) -> int:
        """How many of the accumulators are minima."""
        return sum(item.measure is Measure.MIN for item in self.accumulators)


def derive_rings(view: FeatureView) -> tuple[Ring, ...]:
    """Group a view's windows into rings; each half-life has a ring of its own, after those.

    Raises
    ------
    ConfigurationError
        Where a window or a half-life has no fitting tile width.
    """
    windowed = [feature for feature in view.aggregated if feature.window_us is not None]
    windows = sorted({feature.window_us for feature in windowed if feature.window_us is not None})
    if view.tile:
        groups = [(windows, _declared_width(view, windows))] if windows else []
    else:
        groups = _grouped(view, windows)
    rings = [
        _ring([feature for feature in windowed if feature.window_us in group], group, width)
        for group, width in groups
    ]
    return (*rings, *_decay_rings(view))


def _decay_rings(view: FeatureView) -> Iterator[Ring]:
    for half_life in sorted({f.half_life_us for f in view.aggregated if f.half_life_us is not None}):
        decayed = [feature for feature in view.aggregated if feature.half_life_us == half_life]
        ring = _ring(decayed, [DECAY_HALF_LIVES * half_life], _decay_width(view, half_life))
        yield replace(ring, half_life_us=half_life)


def _decay_width(view: FeatureView, half_life_us: int) -> int:
    """Return the width of a half-life's tiles: the declared one, else the widest that is fine enough."""
    if view.tile:
        return _declared_decay_width(view, half_life_us)
    seconds, rest = divmod(half_life_us, SECOND_US)
    widths = [] if rest else [one for one in _divisors(seconds) if seconds // one >= FEWEST_DECAY_TILES]
    if not widths or seconds // max(widths) > MOST_DECAY_TILES:
        msg = (
            f"feature view {view.name!r}: no tile width of whole seconds divides the half-life "
            f"{format_duration(half_life_us)} into {FEWEST_DECAY_TILES} to {MOST_DECAY_TILES} tiles; take a rounder "
            "half-life, or set tile= to a width that divides it"
        )
        raise ConfigurationError(msg)
    return max(widths) * SECOND_US


def _declared_decay_width(view: FeatureView, half_life_us: int) -> int:
    width = _declared_seconds(view)
    tiles = half_life_us // width
    if half_life_us % width or tiles < FEWEST_TILES or DECAY_HALF_LIVES * tiles > MOST_DECLARED_TILES:
        most = MOST_DECLARED_TILES // DECAY_HALF_LIVES
        msg = (
            f"feature view {view.name!r}: tile {view.tile!r} does not divide the half-life "
            f"{format_duration(half_life_us)} into {FEWEST_TILES} to {most} tiles; declare another tile, or another view"
        )
        raise ConfigurationError(msg)
    return width


def _ring(features: Sequence[Feature], windows: list[int], width_us: int) -> Ring:
    wanted = {item for feature in features for item in accumulators_of(feature)}
    order = list(Measure)
    tiles = windows[-1] // width_us
    return Ring(
        width_us=width_us,
        # One tile of slack, or two: an even number of four-byte tile numbers keeps every float aligned.
        slots=tiles + 2 - tiles % 2,
        windows_us=tuple(windows),
        accumulators=tuple(sorted(wanted, key=lambda item: (order.index(item.measure), item.field))),
        sketches=tuple(sorted({sketch for feature in features for sketch in sketches_of(feature)})),
    )


def _grouped(view: FeatureView, windows: list[int]) -> list[tuple[list[int], int]]:
    groups: list[tuple[list[int], int]] = []
    for window in windows:
        if groups and (width := _width([*groups[-1][0], window])):
            groups[-1] = ([*groups[-1][0], window], width)
        elif width := _width([window]):
            groups.append(([window], width))
        else:
            msg = (
                f"feature view {view.name!r}: no tile width of whole seconds divides the window "
                f"{format_duration(window)} into {FEWEST_TILES} to {MOST_TILES} tiles; take a rounder window, or "
                "set tile= to a width that divides every window"
            )
            raise ConfigurationError(msg)
    return groups


def _width(windows: list[int]) -> int | None:
    """Return the tile width for some windows (ascending): fine enough, round, few tiles; None if there is none."""
    common = math.gcd(*windows)
    if common % SECOND_US:
        return None
    smallest, largest = windows[0] // SECOND_US, windows[-1] // SECOND_US
    widths = [
        width
        for width in _divisors(common // SECOND_US)
        if smallest // width >= FEWEST_TILES and largest // width <= MOST_TILES
    ]
    fine = [width for width in widths if largest // width >= WANTED_TILES]
    chosen = [width for width in fine if width in _ROUND_SECONDS] or fine or widths
    return max(chosen) * SECOND_US if chosen else None


def _divisors(number: int) -> set[int]:
    small = [divisor for divisor in range(1, math.isqrt(number) + 1) if number % divisor == 0]
    return {*small, *(number // divisor for divisor in small)}


def _declared_seconds(view: FeatureView) -> int:
    width = parse_duration_us(view.tile)
    if width % SECOND_US:
        raise ConfigurationError(
            f"feature view {view.name!r}: tile {view.tile!r} is no whole number of seconds"
        )
    return width


def _declared_width(view: FeatureView, windows: list[int]) -> int:
    width = _declared_seconds(view)
    for window in windows:
        if window % width:
            msg = f"feature view {view.name!r}: tile {view.tile!r} does not divide the window {format_duration(window)}"
            raise ConfigurationError(msg)
        if window // width > MOST_DECLARED_TILES:
            msg = (
                f"feature view {view.name!r}: window {format_duration(window)} takes {window // width:,} tiles of "
                f"{view.tile}; at most {MOST_DECLARED_TILES:,} are kept: take a wider tile"
            )
            raise ConfigurationError(msg)
    return width
