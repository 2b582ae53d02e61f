"""How a view's state lies in memory and in the store: one row of bytes per entity, a "blob".

A row is one item of a numpy structured dtype::

    layout       u4          version of this arrangement
    fingerprint  u4          checksum of what the row holds; differs where a view was changed
    newest       i8          newest event time, microseconds (NEVER if there is none)
    events       i8          events applied
    last_value   f8 [L]      newest value of each input that a ``last`` feature reads
    last_time    i8 [L]      and the time of its event
    acc_k        f8 [S, A]   ring k: the accumulators of each tile
    tiles_k      i4 [S]      ring k: number of the tile in each slot, -1 where the slot is empty
    registers_k  u1 [S, R]   ring k, if it has sketches: their registers in each tile

A slot belongs to the largest tile number that was ever put there, so a row is a function of the *set*
of its events: neither their order nor their batches nor their partitions change a bit.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from driftline.features.aggregations import UNWINDOWED, Aggregate, Feature
from driftline.features.code_lists import CodedField
from driftline.features.conditions import Condition
from driftline.features.declarations import FeatureView
from driftline.features.derivations import Derived, Expression
from driftline.features.rings import SECOND_US, Measure, Ring, accumulators_of, derive_rings, sketches_of
from driftline.runtime.durations import format_duration

#: State rows: an array of a layout's structured dtype.
State = NDArray[np.void]

LAYOUT_VERSION = 1
#: "No event yet", as an event time.
NEVER = int(np.iinfo(np.int64).min)
#: Tiles are numbered in four bytes. Event times before 1970 or beyond this tile are in no window
#: (the year 2038 with tiles of one second, 2106 with two). The gap to 2**31 lets reads clip.
TILE_LIMIT = 2**31 - 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the features of one aggregate are computed: ``values[:, out] = f(totals[:, sources])``."""

    aggregate: Aggregate
    out: NDArray[np.intp]
    sources: tuple[NDArray[np.intp], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """How a derived feature is computed: ``values[:, out] = expression``, over the columns at ``places``."""

    out: int
    expression: Expression
    places: Mapping[str, int]
    default: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeInput:
    """An input of the kernels that is made of a field (of the events themselves where it is empty).

    Texts become the places of ``categories``, or hashes where ``hashed``; where a condition does not hold, null.
    """

    name: str
    field: str
    condition: Condition | None
    categories: tuple[str, ...]
    hashed: bool

    @property
    def reads_text(self) -> bool:
        """Whether the field is no number."""
        return self.hashed or bool(self.categories)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ViewLayout:
    """The state layout of a feature view.

    ``inputs`` are the columns that the kernels take: the event fields that features read as numbers, all of
    which are ``fields``, but those read only under a condition; and what ``made`` makes of fields.

    >>> from driftline.features import Entity, FeatureView, Source, count, mean
    >>> arrivals = Source("arrivals", entity=Entity("origin"), event_time="arrived_at")
    >>> delays = FeatureView("delays", 1, arrivals, [count().over("1h"), mean("delay").over("3h")])
    >>> layout = ViewLayout.of(delays)
    >>> layout.inputs
    ('delay',)
    >>> print(layout.describe())
    delays@1: 1,088 bytes per entity
      windows 1h, 3h: 36 tiles of 5m (their resolution), 38 slots of count(), count(delay), sum(delay)
    """

    view: FeatureView
    rings: tuple[Ring, ...]
    lasts: tuple[str, ...]
    inputs: tuple[str, ...]
    fields: tuple[str, ...]
    made: tuple[MadeInput, ...]
    base_us: int
    dtype: np.dtype[np.void]
    fingerprint: int
    defaults: NDArray[np.float64]
    recipes: tuple[Recipe, ...]
    derivations: tuple[Derivation, ...]
    neutral: tuple[NDArray[np.float64], ...]
    blank: State = field(repr=False)

    @staticmethod
    def of(view: FeatureView) -> ViewLayout:
        """Return the layout of a view (the same object for equal views); of one that joins others, of a part."""
        assert not view.joins, f"{view.ref} is stored as {', '.join(part.ref for part in view.stored)}"  # noqa: S101
        return _derive(view)

    @property
    def blob_bytes(self) -> int:
        """Size of one entity's row."""
        return int(self.dtype.itemsize)

    def empty(self, count: int) -> State:
        """Return rows without events."""
        return np.repeat(self.blank, count)

    def describe(self) -> str:
        """Explain what an entity keeps: windows, tiles, resolution, bytes."""
        lines = [f"{self.view.ref}: {self.blob_bytes:,} bytes per entity"]
        for ring in self.rings:
            windows = f"windows {', '.join(format_duration(window) for window in ring.windows_us)}"
            if ring.half_life_us is not None:
                windows = f"half-life {format_duration(ring.half_life_us)}"
            lines.append(
                f"  {windows}: {ring.windows_us[-1] // ring.width_us} tiles of "
                f"{format_duration(ring.width_us)} (their resolution), {ring.slots} slots of "
                + ", ".join(ring.totals)
            )
        if self.lasts:
            lines.append(f"  newest value of {', '.join(self.lasts)}")
        return "\n".join(lines)


@lru_cache(maxsize=1024)
def _derive(view: FeatureView) -> ViewLayout:
    rings = derive_rings(view)
    lasts = tuple(sorted({f.input for f in view.aggregated if _reads_last(f)}))
    accumulated = {item.field for ring in rings for item in ring.accumulators}
    sketched = {item.field for ring in rings for item in ring.sketches}
    dtype = _dtype(rings, lasts)
    fingerprint = _fingerprint(view, rings, lasts)
    neutral = tuple(_neutral(ring) for ring in rings)
    return ViewLayout(
        view=view,
        rings=rings,
        lasts=lasts,
        inputs=tuple(sorted((accumulated | sketched | set(lasts)) - {""})),
        fields=tuple(sorted({f.field for f in view.aggregated if not f.reads_text} - {""})),
        made=_made(view),
        base_us=math.gcd(*(ring.width_us for ring in rings)) or SECOND_US,
        dtype=dtype,
        fingerprint=fingerprint,
        defaults=np.array([_stored_default(f) for f in view.features]),
        recipes=_recipes(view, rings, lasts),
        derivations=_derivations(view),
        neutral=neutral,
        blank=_blank(dtype, fingerprint, neutral),
    )


def _stored_default(feature: Feature | Derived) -> float:
    return feature.default if isinstance(feature, Feature) and feature.default is not None else math.nan


def _derivations(view: FeatureView) -> tuple[Derivation, ...]:
    places = {feature.name: place for place, feature in enumerate(view.features)}
    return tuple(
        Derivation(
            out=places[feature.name],
            expression=feature.expression,
            places=places,
            default=math.nan if feature.default is None else feature.default,
        )
        for feature in view.features
        if isinstance(feature, Derived)
    )


def _reads_last(feature: Feature) -> bool:
    """Tell whether a feature needs the newest event that has its input, not just the entity's newest."""
    return feature.aggregate is Aggregate.LAST or (
        feature.aggregate is Aggregate.TIME_SINCE_LAST and feature.condition is not None
    )


def _made(view: FeatureView) -> tuple[MadeInput, ...]:
    found = {
        part.input: MadeInput(
            name=part.input,
            field=part.field,
            condition=part.condition,
            categories=part.categories,
            hashed=part.registers > 0,
        )
        for feature in view.aggregated
        for part in feature.parts
        if part.condition is not None or part.reads_text
    }
    return tuple(found[name] for name in sorted(found))


def _dtype(rings: tuple[Ring, ...], lasts: tuple[str, ...]) -> np.dtype[np.void]:
    fields: list[tuple[str, str] | tuple[str, str, tuple[int, ...]]] = [
        ("layout", "<u4"),
        ("fingerprint", "<u4"),
        ("newest", "<i8"),
        ("events", "<i8"),
    ]
    if lasts:
        fields += [("last_value", "<f8", (len(lasts),)), ("last_time", "<i8", (len(lasts),))]
    for index, ring in enumerate(rings):
        fields.append((f"acc_{index}", "<f8", (ring.slots, len(ring.accumulators))))
    fields += [(f"tiles_{index}", "<i4", (ring.slots,)) for index, ring in enumerate(rings)]
    fields += [
        (f"registers_{index}", "u1", (ring.slots, ring.registers))
        for index, ring in enumerate(rings)
        if ring.sketches
    ]
    return np.dtype(fields)


def _neutral(ring: Ring) -> NDArray[np.float64]:
    start = {Measure.MIN: math.inf, Measure.MAX: -math.inf}
    return np.array([start.get(item.measure, 0.0) for item in ring.accumulators])


def _blank(dtype: np.dtype[np.void], fingerprint: int, neutral: tuple[NDArray[np.float64], ...]) -> State:
    blank = np.zeros(1, dtype)
    blank["layout"] = LAYOUT_VERSION
    blank["fingerprint"] = fingerprint
    blank["newest"] = NEVER
    if "last_time" in (dtype.names or ()):
        blank["last_time"] = NEVER
    for index, start in enumerate(neutral):
        blank[f"acc_{index}"] = start
        blank[f"tiles_{index}"] = -1
    return blank


def coded_fields(view: FeatureView) -> tuple[CodedField, ...]:
    """Return the coded fields that a view's conditions and categorical features read."""
    conditions = (view.where, *(feature.condition for feature in view.aggregated))
    read = {field for condition in conditions if condition is not None for field in condition.fields}
    read |= {feature.field for feature in view.aggregated if feature.reads_text}
    return tuple(one for one in view.source.codes if one.field in read)


def _fingerprint(view: FeatureView, rings: tuple[Ring, ...], lasts: tuple[str, ...]) -> int:
    """Return a checksum of everything that the bytes of a row depend on (not of names, defaults or formulas)."""
    source = view.source
    parts = [f"layout {LAYOUT_VERSION}", source.event_type, ",".join(source.entity_fields), source.event_time]
    parts += [] if view.where is None else [f"where {view.where}"]
    parts += [f"{ring.width_us}x{ring.slots} {' '.join(ring.totals)}" for ring in rings]
    parts.append(" ".join(lasts))
    parts += [
        f"{one.field} in version {one.codes.reads}" for one in coded_fields(view) if one.codes.reads > 1
    ]
    return zlib.crc32("\n".join(parts).encode())


def _recipes(view: FeatureView, rings: tuple[Ring, ...], lasts: tuple[str, ...]) -> tuple[Recipe, ...]:
    """Lay out the totals: for each ring, each window, each of ``Ring.totals`` one column, in that order."""
    column: dict[tuple[int | None, int | None, str], int] = {}
    for ring in rings:
        for window in ring.windows_us if ring.half_life_us is None else (None,):
            for name in ring.totals:
                column[window, ring.half_life_us, name] = len(column)
    # By aggregate and number of sources: the time since the last event has one where a condition filters.
    grouped: dict[tuple[Aggregate, int], list[tuple[int, tuple[int, ...]]]] = {}
    for out, feature in enumerate(view.features):
        if isinstance(feature, Derived):
            continue
        if _reads_last(feature):
            sources: tuple[int, ...] = (lasts.index(feature.input),)
        elif feature.aggregate in UNWINDOWED:
            sources = ()
        else:
            times = feature.window_us, feature.half_life_us
            items = (*accumulators_of(feature), *sketches_of(feature))
            sources = tuple(column[*times, str(item)] for item in items)
        grouped.setdefault((feature.aggregate, len(sources)), []).append((out, sources))
    return tuple(
        Recipe(
            aggregate=aggregate,
            out=np.array([out for out, _ in members], np.intp),
            sources=tuple(np.array(each, np.intp) for each in zip(*(s for _, s in members), strict=True)),
        )
        for (aggregate, _), members in grouped.items()
    )
