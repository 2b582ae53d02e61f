"""Feature values as the documentation says them: one row and one event at a time, in plain Python.

Slow, and nothing of the kernels is in it: the leak check holds training sets against these values. They are the same
bits as long as sums stay below 2**37 (see ``features.update``); beyond that sums are rounded, and a feature is ``loose``.
"""

import math
import operator as operators
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from driftline.features.aggregations import Aggregate, Feature
from driftline.features.conditions import (
    Among,
    Both,
    Comparison,
    Condition,
    Either,
    Negated,
    Operator,
    Present,
    Truth,
)
from driftline.features.declarations import FeatureView, OnStale
from driftline.features.derivations import (
    Arithmetic,
    Clipped,
    Derived,
    Expression,
    Number,
    Operation,
    Reference,
)
from driftline.features.layout import coded_fields
from driftline.features.rings import derive_rings

Event = Mapping[str, Any]

_QUANTUM = 65_536
_EXACT_SUMS = 2.0**37
_LARGEST = 2.0**100
_AGGREGATES = frozenset(
    {
        *(Aggregate.COUNT, Aggregate.SUM, Aggregate.MEAN, Aggregate.RATE, Aggregate.MIN, Aggregate.MAX),
        *(Aggregate.STD, Aggregate.LAST, Aggregate.TIME_SINCE_LAST),
    }
)
_COMPARE = {
    Operator.EQUAL: operators.eq,
    Operator.UNEQUAL: operators.ne,
    Operator.LESS: operators.lt,
    Operator.LESS_EQUAL: operators.le,
    Operator.GREATER: operators.gt,
    Operator.GREATER_EQUAL: operators.ge,
}
_COMPUTE = {
    Arithmetic.ADD: operators.add,
    Arithmetic.SUBTRACT: operators.sub,
    Arithmetic.MULTIPLY: operators.mul,
    Arithmetic.DIVIDE: operators.truediv,
}
_CONDITIONS = (Among, Both, Comparison, Either, Negated, Present, Truth)
_EXPRESSIONS = (Clipped, Number, Operation, Reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainValues:
    """A view's values by feature; NaN is null. Those of ``loose`` features may differ by rounding."""

    values: Mapping[str, float]
    loose: frozenset[str]


def known_features(view: FeatureView) -> frozenset[str]:
    """Return the names of the view's features that are defined here; a derived one needs all that it is derived from."""
    coded = frozenset(one.field for one in coded_fields(view))  # translated codes are the kernels' to read
    if view.where is not None and not _is_known(view.where, coded):
        return frozenset()
    found = {
        one.name
        for one in view.aggregated
        if one.aggregate in _AGGREGATES
        and not one.reads_text
        and (one.condition is None or _is_known(one.condition, coded))
    }
    for feature in view.features:
        if isinstance(feature, Derived) and _computes(feature.expression):
            found |= {feature.name} if found.issuperset(feature.expression.references()) else set()
    return frozenset(found)


def plain_values(view: FeatureView, events: Sequence[Event], as_of_us: int) -> PlainValues:
    """Return the values of a view's ``known_features`` for one entity.

    ``events`` are the entity's that were known, each with its fields and, in microseconds, ``time_us``.
    """
    known = known_features(view)
    own = [event for event in events if view.where is None or truth(view.where, event)]
    newest = max((event["time_us"] for event in own), default=None)
    stale = newest is not None and view.ttl_us is not None and as_of_us - newest > view.ttl_us
    values: dict[str, float] = {}
    loose: set[str] = set()
    for feature in view.aggregated:
        value, exact = math.nan, True
        if feature.name not in known:
            continue
        if not (stale and view.on_stale is OnStale.DEFAULT):
            value, exact = _aggregated(view, feature, own, as_of_us)
        values[feature.name] = _or_default(value, feature.default)
        loose |= set() if exact else {feature.name}
    for each in view.features:
        if isinstance(each, Derived) and each.name in known:
            values[each.name] = _or_default(_formula(each.expression, values), each.default)
            loose |= {each.name} if loose.intersection(each.expression.references()) else set()
    return PlainValues(values=values, loose=frozenset(loose))


def _or_default(value: float, default: float | None) -> float:
    return default if math.isnan(value) and default is not None else value


def truth(condition: Condition, event: Event) -> bool | None:
    """Return whether an event satisfies a condition; None where a null leaves it open."""
    match condition:
        case Present(name):
            return _cell(event[name]) is not None
        case Negated(inner):
            found = truth(inner, event)
            return None if found is None else not found
        case Both(left, right):
            both = (truth(left, event), truth(right, event))
            return False if False in both else None if None in both else True
        case Either(left, right):
            either = (truth(left, event), truth(right, event))
            return True if True in either else None if None in either else False
        case Comparison(name, operator, other):
            value = _cell(event[name])
            return None if value is None else _compares(operator, value, other)
        case Among(name, others):
            return None if event[name] is None else event[name] in others
        case Truth(name, wanted):
            return None if event[name] is None else bool(event[name]) is wanted
    msg = f"{type(condition).__name__} is no condition that is known here"
    raise TypeError(msg)


def _is_known(condition: Condition, coded: frozenset[str]) -> bool:
    match condition:
        case Negated(inner):
            return _is_known(inner, coded)
        case Both(left, right) | Either(left, right):
            return _is_known(left, coded) and _is_known(right, coded)
    return isinstance(condition, _CONDITIONS) and coded.isdisjoint(condition.fields)


def _computes(expression: Expression) -> bool:
    match expression:
        case Operation(_, left, right):
            return _computes(left) and _computes(right)
        case Clipped(inner, _, _):
            return _computes(inner)
    return isinstance(expression, _EXPRESSIONS)


def _cell(value: Any) -> Any:
    """Return a field's value; NaN is null."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _compares(operator: Operator, value: Any, other: str | float) -> bool:
    left: Any = value if isinstance(other, str) else float(value)
    return bool(_COMPARE[operator](left, other))


def _aggregated(
    view: FeatureView, feature: Feature, events: Sequence[Event], as_of_us: int
) -> tuple[float, bool]:
    """Return a feature's value, NaN where there is none, and whether it is exact."""
    chosen = [event for event in events if feature.condition is None or truth(feature.condition, event)]
    if feature.aggregate is Aggregate.TIME_SINCE_LAST:
        newest = max((event["time_us"] for event in chosen), default=None)
        return (math.nan if newest is None else max(as_of_us - newest, 0) / 1e6), True
    if feature.aggregate is Aggregate.LAST:
        having = [(event["time_us"], number) for event, number in _numbers(chosen, feature.field)]
        return (max(having)[1] if having else math.nan), True
    inside = _in_window(view, feature, chosen, events, as_of_us)
    if not feature.field:
        return float(len(inside)), True
    return _of_numbers(feature.aggregate, [number for _, number in _numbers(inside, feature.field)])


def _in_window(
    view: FeatureView, feature: Feature, chosen: Sequence[Event], events: Sequence[Event], as_of_us: int
) -> list[Event]:
    """Return the events of the tiles that the window covers: the instant's own, and those before it.

    A view keeps so many tiles: one that stood in the place of a later one is gone, for whoever asks for the past.
    """
    window_us = feature.window_us or 0
    (ring,) = (
        ring for ring in derive_rings(view) if ring.half_life_us is None and window_us in ring.windows_us
    )
    newest: dict[int, int] = {}
    for event in events:
        tile = event["time_us"] // ring.width_us
        newest[tile % ring.slots] = max(tile, newest.get(tile % ring.slots, tile))
    current = as_of_us // ring.width_us
    inside = []
    for event in chosen:
        tile = event["time_us"] // ring.width_us
        if current - window_us // ring.width_us < tile <= current and newest[tile % ring.slots] == tile:
            inside.append(event)
    return inside


def _numbers(events: Sequence[Event], name: str) -> list[tuple[Event, float]]:
    """Return the events that have a field, with its value."""
    found = []
    for event in events:
        value = _cell(event[name])
        if value is not None and abs(number := float(value)) <= _LARGEST:
            found.append((event, number + 0.0))  # which makes -0.0 a 0.0
    return found


def _of_numbers(aggregate: Aggregate, numbers: list[float]) -> tuple[float, bool]:
    if aggregate is Aggregate.COUNT:
        return float(len(numbers)), True
    if aggregate is Aggregate.SUM:
        rounded = [_rounded(number) for number in numbers]
        return math.fsum(rounded), _exact(rounded)
    if not numbers:
        return math.nan, True
    if aggregate is Aggregate.MIN:
        return min(numbers), True
    if aggregate is Aggregate.MAX:
        return max(numbers), True
    rounded = [_rounded(number) for number in numbers]
    total, count = math.fsum(rounded), float(len(rounded))
    if aggregate is Aggregate.STD:
        squares = [_rounded(number * number) for number in rounded]
        variance = (math.fsum(squares) - total * (total / count)) / count
        return math.sqrt(max(variance, 0.0)), _exact(rounded) and _exact(squares)
    return total / count, _exact(rounded)


def _rounded(number: float) -> float:
    return number if abs(number) >= _EXACT_SUMS else round(number * _QUANTUM) / _QUANTUM


def _exact(numbers: list[float]) -> bool:
    return math.fsum(map(abs, numbers)) < _EXACT_SUMS


def _formula(expression: Expression, values: Mapping[str, float]) -> float:
    match expression:
        case Reference(name):
            return values[name]
        case Number(value):
            return value
        case Clipped(inner, low, high):
            found = _formula(inner, values)
            if math.isnan(found):
                return found
            return min(max(found, -math.inf if low is None else low), math.inf if high is None else high)
        case Operation(sign, left, right):
            return _step(sign, _formula(left, values), _formula(right, values))
    msg = f"{type(expression).__name__} is no formula that is known here"
    raise TypeError(msg)


def _step(sign: Arithmetic, left: float, right: float) -> float:
    if sign is Arithmetic.DIVIDE and right == 0:
        return math.nan
    result: float = _COMPUTE[sign](left, right)
    return result if math.isfinite(result) else math.nan
