"""What differs between two versions of a feature view, in what it serves; descriptions and owners do not count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from driftline.features.aggregations import Feature
from driftline.features.declarations import FeatureView, OnStale
from driftline.features.derivations import Derived, plain_number
from driftline.features.layout import coded_fields
from driftline.features.rings import derive_rings
from driftline.runtime.durations import format_duration
from driftline.runtime.errors import ConfigurationError


class Aspect(StrEnum):
    """What of a view differs."""

    NAME = "name"
    ENTITY = "entity"
    SOURCE = "source"
    JOINED_VIEWS = "joined views"
    ENTITY_FIELD = "entity field"
    CONDITION = "condition"
    EVENT_TIME = "event time"
    CODES = "code lists"
    WINDOWS = "windows"
    HALF_LIVES = "half-lives"
    AGGREGATIONS = "aggregations"
    TILES = "tiles"
    TTL = "time to live"
    ON_STALE = "on stale"
    COLUMN = "column"
    ORDER = "order of columns"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference; ``before`` is empty where something was added, ``after`` where it was removed.

    ``column`` is the column's name where the aspect is a column.
    """

    aspect: Aspect
    before: str
    after: str
    column: str = ""

    def __str__(self) -> str:
        """Return the difference in words."""
        what = f"{self.aspect} {self.column}".rstrip()
        if not self.before:
            return f"{what} added: {self.after}"
        if not self.after:
            return f"{what} removed: {self.before}"
        return f"{what}: {self.before} became {self.after}"


def view_differences(before: FeatureView, after: FeatureView) -> tuple[Difference, ...]:
    """Return what differs between two views but their versions; nothing where they serve the same.

    >>> from driftline.features import Entity, Source, count, mean
    >>> sales = Source("sales", entity=Entity("shop"), event_time="sold_at")
    >>> old = FeatureView("shop_sales", 1, sales, [mean("price").over("1h")])
    >>> new = FeatureView("shop_sales", 2, sales, [mean("price").over("1h"), count().over("1h")], ttl="1d")
    >>> for difference in view_differences(old, new):
    ...     print(difference)
    aggregations: mean became count, mean
    time to live: none became 1d
    column shop_sales__count_1h added: count() over 1h
    """
    plain = [
        Difference(aspect=aspect, before=old, after=new)
        for (aspect, old), (_, new) in zip(_aspects(before), _aspects(after), strict=True)
        if old != new
    ]
    return (*plain, *_column_differences(before, after))


def fields_read(view: FeatureView) -> frozenset[str]:
    """Return the event fields that a stored view reads: its features', its conditions', its entity's, its time's."""
    conditions = (view.where, *(feature.condition for feature in view.aggregated))
    asked = {field for condition in conditions if condition is not None for field in condition.fields}
    own = {*view.source.entity_fields, view.source.event_time}
    return frozenset(own | asked | {feature.field for feature in view.aggregated if feature.field})


def formula(feature: Feature | Derived) -> str:
    """Return how a feature is computed, in words.

    >>> from driftline.features import mean
    >>> formula(mean("price").over("24h").or_default(0))
    'mean(price) over 1d, 0 where there is none'
    """
    default = "" if feature.default is None else f", {plain_number(feature.default)} where there is none"
    return f"{computation(feature)}{default}"


def computation(feature: Feature | Derived) -> str:
    """Return how a feature's values come about, without what is served where there is none.

    >>> from driftline.features import feature, derived, field, mean
    >>> computation(mean("price").where(field("size") == "L").over("24h"))
    'mean(price) over 1d where size = "L"'
    >>> computation(derived("trend", feature("a") - feature("b")))
    '(a - b)'
    >>> from driftline.features import decayed_mean
    >>> computation(decayed_mean("price", half_life="6h"))
    'decayed_mean(price) with a half-life of 6h'
    """
    if isinstance(feature, Derived):
        return str(feature.expression)
    time = "" if feature.window_us is None else f" over {format_duration(feature.window_us)}"
    time = (
        time
        if feature.half_life_us is None
        else f" with a half-life of {format_duration(feature.half_life_us)}"
    )
    where = "" if feature.condition is None else f" where {feature.condition}"
    of = f" of {feature.source}" if feature.source else ""
    return f"{feature.aggregate}({feature.subject}){of}{time}{where}"


def _aspects(view: FeatureView) -> Iterator[tuple[Aspect, str]]:
    yield Aspect.NAME, view.name
    keys = f" ({', '.join(view.entity.keys)})" if view.entity.composite else ""
    yield Aspect.ENTITY, f"{view.entity.name}{keys}"
    yield Aspect.SOURCE, ", ".join(source.event_type for source in view.sources)
    yield Aspect.JOINED_VIEWS, ", ".join(one.ref for one in view.views) or "none"
    yield Aspect.ENTITY_FIELD, "; ".join(", ".join(source.entity_fields) for source in view.sources)
    yield Aspect.CONDITION, "none" if view.where is None else str(view.where)
    yield Aspect.EVENT_TIME, ", ".join(source.event_time for source in view.sources)
    yield Aspect.CODES, _codes(view)
    yield Aspect.WINDOWS, _times(feature.window_us for feature in view.aggregated)
    yield Aspect.HALF_LIVES, _times(feature.half_life_us for feature in view.aggregated)
    yield Aspect.AGGREGATIONS, ", ".join(sorted({feature.aggregate for feature in view.aggregated}))
    yield Aspect.TILES, _tiles(view)
    yield Aspect.TTL, "none" if view.ttl_us is None else format_duration(view.ttl_us)
    yield Aspect.ON_STALE, OnStale(view.on_stale).value


def _codes(view: FeatureView) -> str:
    """Return the versions of code lists that a view reads, beyond the first: that one needs no declaration."""
    later = [one for part in view.parts for one in coded_fields(part) if one.codes.reads > 1]
    return (
        ", ".join(f"{one.field} in version {one.codes.reads} of {one.codes.name}" for one in later) or "none"
    )


def _times(times_us: Iterable[int | None]) -> str:
    return ", ".join(map(format_duration, sorted({time for time in times_us if time is not None}))) or "none"


def _tiles(view: FeatureView) -> str:
    """Return the tiles' widths, which are the windows' resolution; empty-handed where no width fits."""
    try:
        rings = [ring for part in view.parts for ring in derive_rings(part)]
    except ConfigurationError:
        return "no width fits"
    return ", ".join(format_duration(ring.width_us) for ring in rings) or "none"


def _column_differences(before: FeatureView, after: FeatureView) -> Iterator[Difference]:
    old = dict(zip(before.columns, map(formula, before.features), strict=True))
    new = dict(zip(after.columns, map(formula, after.features), strict=True))
    for column in [*old, *(name for name in new if name not in old)]:
        if old.get(column) != new.get(column):
            yield Difference(
                aspect=Aspect.COLUMN, column=column, before=old.get(column, ""), after=new.get(column, "")
            )
    if set(old) == set(new) and list(old) != list(new):
        yield Difference(aspect=Aspect.ORDER, before=", ".join(old), after=", ".join(new))
