"""Feature values by the book: plain Python over the events in the window, and the events to try them on."""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import strategies as st

from driftline.features import (
    Aggregate,
    Derived,
    Entity,
    Feature,
    FeatureView,
    Source,
    count,
    decayed_count,
    decayed_mean,
    decayed_sum,
    derived,
    distinct_count,
    feature,
    field,
    last,
    maximum,
    mean,
    minimum,
    most_frequent,
    rate,
    share,
    std,
    sum_of,
    time_since_last,
)
from driftline.features.conditions import Among, Both, Comparison, Condition, Either, Negated, Present, Truth
from driftline.features.derivations import Clipped, Expression, Number, Operation, Reference
from driftline.features.layout import State, ViewLayout
from driftline.features.matching import layout_inputs, matches
from driftline.features.update import apply_events

START_US = 1_700_000_000_000_000
SECOND_US = 1_000_000
#: Events and reads happen in so many seconds: several times the longest window of the views.
HORIZON_S = 3_000

SOURCE = Source("trips", entity=Entity("place"), event_time="ended_at")

EVERYTHING = FeatureView(
    "everything",
    1,
    SOURCE,
    [
        count().over("1m"),
        count("delay").over("5m"),
        sum_of("delay").over("5m"),
        mean("delay").over("1m"),
        rate("late").over("5m"),
        minimum("delay").over("1m"),
        maximum("delay").over("5m"),
        std("fare").over("5m"),
        last("delay"),
        last("fare"),
        time_since_last(),
        mean("fare").over("20m").or_default(-1.0),
    ],
)
ONE_RING = FeatureView("one_ring", 1, SOURCE, [count().over("2m"), minimum("fare").over("1m")], tile="10s")
NEWEST_ONLY = FeatureView("newest_only", 1, SOURCE, [last("fare").or_default(7.0), time_since_last()])
LATE = field("late").is_true()
FILTERED_FEATURES = FeatureView(
    "filtered_features",
    1,
    SOURCE,
    [
        count().over("5m"),
        count().where(LATE).over("5m").named("late_count"),
        count("delay").where(~LATE).over("5m").named("punctual_delays"),
        mean("fare").where((field("kind") == "cab") & (field("delay") > 0)).over("20m").named("cab_fare"),
        mean("fare").over("20m"),
        maximum("delay").where(field("fare").missing()).over("1m").named("free_delay").or_default(-5.0),
        last("fare").where(field("kind").is_in("cab", "bus")).named("newest_fare"),
        last("fare"),
        time_since_last().where(LATE).named("since_late"),
        time_since_last(),
    ],
)
FILTERED_VIEW = FeatureView(
    "filtered_view",
    1,
    SOURCE,
    [count().over("5m"), std("fare").over("5m"), last("delay"), time_since_last()],
    where=(field("kind") != "bus") | (field("delay") <= 1),
)
FILTERED_TWICE = FeatureView(
    "filtered_twice",
    1,
    SOURCE,
    [rate("late").where(field("fare") >= 1).over("20m").named("rate"), time_since_last()],
    where=~field("kind").is_in("cab"),
)
DERIVED = FeatureView(
    "derived",
    1,
    SOURCE,
    [
        derived("trend", feature("mean_delay_1m") - feature("mean_delay_5m")),
        mean("delay").over("1m"),
        mean("delay").over("5m").or_default(1.0),
        count().over("1m"),
        derived("ratio", feature("count_1m") / feature("count_5m")),
        derived("share", (1 - feature("ratio") * 2).clip(-0.5, 0.5)).or_default(9.0),
        count().over("5m"),
        derived("sum", -feature("trend") + feature("last_fare") + 3),
        last("fare"),
        derived("inverse", (100 / feature("last_fare")).clip(low=-20)),
    ],
)
DECAYED = FeatureView(
    "decayed",
    1,
    SOURCE,
    [
        decayed_count(half_life="1m"),
        decayed_mean("delay", half_life="1m"),
        decayed_sum("fare", half_life="10m"),
        decayed_mean("late", half_life="10m").or_default(0.5),
        decayed_count("fare", half_life="10m"),
        mean("fare").over("8m"),
        decayed_mean("delay", half_life="10m").where(field("kind") == "cab").named("cab_delay"),
        count().over("8m"),
        last("delay"),
    ],
)
DECAYED_ON_DECLARED_TILES = FeatureView(
    "decayed_on_declared_tiles",
    1,
    SOURCE,
    [decayed_sum("delay", half_life="2m"), maximum("delay").over("16m"), sum_of("delay").over("16m")],
    tile="20s",
)
CATEGORIES = FeatureView(
    "categories",
    1,
    SOURCE,
    [
        distinct_count("rider", registers=16).over("5m"),
        distinct_count("rider", registers=64).over("20m"),
        distinct_count("kind").over("20m").or_default(3),
        distinct_count("rider", registers=16).where(LATE).over("5m").named("late_riders"),
        share("kind", "cab").over("5m"),
        share("kind", "bus").where(field("fare") > 0).over("20m").named("paid_bus").or_default(0),
        most_frequent("kind", among=("tram", "cab")).over("20m"),
        most_frequent("kind", among=("bus", "cab", "tram")).where(~LATE).over("1m").named("punctual_kind"),
        last("kind", among=("bus", "cab")),
        last("kind", among=("bus", "tram")).where(LATE).named("newest_late_kind").or_default(-2),
        mean("fare").over("5m"),
        derived("crowd", feature("distinct_count_rider_5m") / feature("count_5m")),
        count().over("5m"),
    ],
)
DISTINCT_ONLY = FeatureView("distinct_only", 1, SOURCE, [distinct_count("rider").over("1m")])
VIEWS = [
    EVERYTHING,
    ONE_RING,
    NEWEST_ONLY,
    FILTERED_FEATURES,
    FILTERED_VIEW,
    FILTERED_TWICE,
    DERIVED,
    DECAYED,
    DECAYED_ON_DECLARED_TILES,
    CATEGORIES,
    DISTINCT_ONLY,
]
#: Aggregates whose values are rounded on the way: square roots, weighed sums.
ROUNDED = {
    Aggregate.STD: 0.02,
    Aggregate.DECAYED_SUM: 1e-6,
    Aggregate.DECAYED_MEAN: 1e-6,
    Aggregate.DECAYED_COUNT: 0.0,
}

views = st.sampled_from(VIEWS)


@dataclass(frozen=True)
class Trip:
    place: int
    time_us: int
    delay: float | None
    fare: float | None
    late: bool | None
    known_us: int
    kind: str | None = None
    rider: str | None = None


numbers = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 1.0, -3.0, 0.1, 12.75]),
    st.floats(-1e5, 1e5, allow_nan=False),
)
riders = st.one_of(st.none(), st.integers(0, 200).map(str), st.text(max_size=3))
#: Ties are common: half of the times are whole multiples of ten seconds.
offsets_us = st.one_of(
    st.integers(0, HORIZON_S // 10).map(lambda tens: tens * 10 * SECOND_US),
    st.integers(0, HORIZON_S * SECOND_US),
)
#: When an event became known after (or before) its time.
delays_us = st.one_of(st.just(0), st.integers(0, 600 * SECOND_US), st.integers(-200 * SECOND_US, 0))


@st.composite
def trip(draw: st.DrawFn, *, places: int = 3) -> Trip:
    time_us = START_US + draw(offsets_us)
    return Trip(
        place=draw(st.integers(0, places - 1)),
        time_us=time_us,
        delay=draw(numbers),
        fare=draw(numbers),
        late=draw(st.sampled_from([None, True, False])),
        known_us=time_us + draw(delays_us),
        kind=draw(st.sampled_from([None, "cab", "bus", "tram"])),
        rider=draw(riders),
    )


trips = st.lists(trip(), max_size=60)


def columns(events: Sequence[Trip]) -> dict[str, np.ndarray]:
    return {
        name: np.array([math.nan if (v := getattr(event, name)) is None else float(v) for event in events])
        for name in ("delay", "fare", "late")
    }


def feed(layout: ViewLayout, state: State, events: Sequence[Trip]) -> int:
    """Apply events as the feature store does; return how many came too late."""
    if layout.view.where is not None:
        chosen = matches(layout.view.where, table(events))
        events = [event for event, matched in zip(events, chosen, strict=True) if matched]
    return apply_events(
        layout,
        state,
        np.array([event.place for event in events], np.int64),
        np.array([event.time_us for event in events], np.int64),
        layout_inputs(layout, table(events)) if layout.made else columns(events),
    )


def table(events: Sequence[Trip]) -> pa.Table:
    return pa.table(
        {
            "place": pa.array([f"p{event.place}" for event in events], pa.string()),
            "ended_at": pa.array([event.time_us for event in events], pa.timestamp("us")),
            "known_at": pa.array([event.known_us for event in events], pa.timestamp("us")),
            "delay": pa.array([event.delay for event in events], pa.float64()),
            "fare": pa.array([event.fare for event in events], pa.float64()),
            "late": pa.array([event.late for event in events], pa.bool_()),
            "kind": pa.array([event.kind for event in events], pa.string()),
            "rider": pa.array([event.rider for event in events], pa.string()),
        }
    )


_COMPARE = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def truth(condition: Condition, event: Trip) -> bool | None:
    """Evaluate a condition by the book: true, false, or None where a null leaves it open."""
    match condition:
        case Present(name):
            return getattr(event, name) is not None
        case Negated(inner):
            return None if (found := truth(inner, event)) is None else not found
        case Both(left, right):
            both = {truth(left, event), truth(right, event)}
            return False if False in both else None if None in both else True
        case Either(left, right):
            either = {truth(left, event), truth(right, event)}
            return True if True in either else None if None in either else False
    value = getattr(event, condition.field)
    match condition:
        case _ if value is None:
            return None
        case Comparison(_, sign, other):
            return bool(_COMPARE[sign](value, other))
        case Among(_, others):
            return value in others
        case Truth(_, wanted):
            return value is wanted
    raise TypeError(condition)


#: What has a value where there is no event: 0.
ZERO_WITHOUT_EVENTS = {
    Aggregate.COUNT,
    Aggregate.SUM,
    Aggregate.DECAYED_COUNT,
    Aggregate.DECAYED_SUM,
    Aggregate.DISTINCT_COUNT,
}


def of_view(view: FeatureView, events: Sequence[Trip]) -> list[Trip]:
    """Return the events that a view is about."""
    return [event for event in events if view.where is None or truth(view.where, event)]


def feature_value(layout: ViewLayout, feature: Feature, events: Sequence[Trip], as_of_us: int) -> float:
    """Compute one feature for one entity's events, as the documentation says it."""
    events = [event for event in events if feature.condition is None or truth(feature.condition, event)]
    if not events and feature.aggregate not in ZERO_WITHOUT_EVENTS:
        return math.nan if feature.default is None else feature.default
    newest = max((event.time_us for event in events), default=0)
    if feature.aggregate is Aggregate.TIME_SINCE_LAST:
        return max(as_of_us - newest, 0) / 1e6
    if feature.aggregate is Aggregate.LAST:
        having = [(e.time_us, v) for e in events if (v := _number(feature, e)) is not None]
        value = max(having)[1] if having else math.nan
    elif feature.half_life_us is not None:
        value = _decayed(layout, feature, events, as_of_us)
    else:
        value = _windowed(layout, feature, events, as_of_us)
    return feature.default if math.isnan(value) and feature.default is not None else value


def view_values(
    layout: ViewLayout, events: Sequence[Trip], as_of_us: int, served: Mapping[str, float] | None = None
) -> list[float]:
    """Compute all features of a view for one entity's events; ``served`` replaces what is aggregated."""
    values = dict(served or {})
    if served is None:
        for each in layout.view.aggregated:
            values[each.name] = feature_value(layout, each, events, as_of_us)
    for each in layout.view.features:
        if isinstance(each, Derived):
            found = formula(each.expression, values)
            values[each.name] = each.default if math.isnan(found) and each.default is not None else found
    return [values[each.name] for each in layout.view.features]


def formula(expression: Expression, values: Mapping[str, float]) -> float:
    """Compute a formula by the book: NaN where an operand is, or where there is no finite result."""
    match expression:
        case Reference(name):
            return values[name]
        case Number(value):
            return value
        case Clipped(inner, low, high):
            found = formula(inner, values)
            if math.isnan(found):
                return found
            return min(max(found, -math.inf if low is None else low), math.inf if high is None else high)
        case Operation(sign, left, right):
            first, second = formula(left, values), formula(right, values)
            if sign == "/" and second == 0:
                return math.nan
            result = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}[sign](
                first, second
            )
            return result if math.isfinite(result) else math.nan
    raise TypeError(expression)


def _windowed(layout: ViewLayout, feature: Feature, events: Sequence[Trip], as_of_us: int) -> float:
    rings = [ring for ring in layout.rings if ring.half_life_us is None]
    (width,) = (ring.width_us for ring in rings if feature.window_us in ring.windows_us)
    current = as_of_us // width
    inside = [e for e in events if current - feature.window_us // width < e.time_us // width <= current]
    if not feature.field:
        return float(len(inside))
    if feature.reads_text:
        return _categorical(feature, [v for e in inside if (v := getattr(e, feature.field)) is not None])
    values = [float(v) for e in inside if (v := getattr(e, feature.field)) is not None]
    rounded = [round(value * 65536) / 65536 for value in values]
    formulas = {
        Aggregate.COUNT: lambda: float(len(values)),
        Aggregate.SUM: lambda: math.fsum(rounded),
        Aggregate.MEAN: lambda: math.fsum(rounded) / len(values) if values else math.nan,
        Aggregate.RATE: lambda: math.fsum(rounded) / len(values) if values else math.nan,
        Aggregate.MIN: lambda: min(values, default=math.nan),
        Aggregate.MAX: lambda: max(values, default=math.nan),
        Aggregate.STD: lambda: float(np.std(rounded)) if values else math.nan,
    }
    return formulas[feature.aggregate]()


def _decayed(layout: ViewLayout, feature: Feature, events: Sequence[Trip], as_of_us: int) -> float:
    half_life = feature.half_life_us
    (width,) = (ring.width_us for ring in layout.rings if ring.half_life_us == half_life)
    weighed = []
    for event in events:
        age_us = (as_of_us // width - event.time_us // width) * width
        value = getattr(event, feature.field) if feature.field else 1.0
        if value is not None and 0 <= age_us < 8 * half_life:
            weighed.append((2 ** -(age_us / half_life), round(float(value) * 65536) / 65536))
    weight, total = math.fsum(w for w, _ in weighed), math.fsum(w * v for w, v in weighed)
    if feature.aggregate is Aggregate.DECAYED_MEAN:
        return total / weight if weighed else math.nan
    return weight if feature.aggregate is Aggregate.DECAYED_COUNT else total


def _number(feature: Feature, event: Trip) -> float | None:
    value = getattr(event, feature.field)
    if value is None or not feature.categories:
        return value
    return feature.categories.index(value) if value in feature.categories else -1


def _categorical(feature: Feature, texts: Sequence[str]) -> float:
    if feature.aggregate is Aggregate.DISTINCT_COUNT:
        return distinct_estimate(texts, feature.registers)
    counts = [texts.count(category) for category in feature.categories]
    if feature.aggregate is Aggregate.SHARE:
        return counts[0] / len(texts) if texts else math.nan
    return counts.index(max(counts)) if any(counts) else math.nan


def distinct_estimate(texts: Sequence[str], size: int) -> float:
    """Estimate by the paper (Ertl 2017, algorithm 6), from the numbers of registers with each rank."""
    registers = [0] * size
    for text in texts:
        bits = f"{xxhash.xxh64_intdigest(text.encode()):064b}"
        place, rank = int(bits[:12], 2) * size // 4096, bits[12:].find("1") + 1 or 53
        registers[place] = max(registers[place], min(rank, 40))
    numbers = [registers.count(rank) for rank in range(41)]
    total = 0.0
    for rank in range(40, 0, -1):
        total = (total + numbers[rank]) / 2
    share, weight, sigma = numbers[0] / size, 0.5, numbers[0] / size
    if share == 1:
        return 0.0
    while share > 1e-30:
        share, weight = share * share, weight * 2
        sigma += share * weight
    return float(round(size * size / (2 * math.log(2)) / (total + size * sigma)))
