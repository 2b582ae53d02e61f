"""Which events satisfy a condition, and what filtered features take of them: whole columns at a time.

The same functions serve the stream's batches and the offline join, so both decide alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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
from driftline.features.event_columns import float_inputs, one_array
from driftline.features.layout import MadeInput, ViewLayout
from driftline.features.text_codes import category_places, hash_codes

Floats = NDArray[np.float64]
Events: TypeAlias = pa.RecordBatch | pa.Table

_COMPARE = {
    Operator.EQUAL: pc.equal,
    Operator.UNEQUAL: pc.not_equal,
    Operator.LESS: pc.less,
    Operator.LESS_EQUAL: pc.less_equal,
    Operator.GREATER: pc.greater,
    Operator.GREATER_EQUAL: pc.greater_equal,
}


def matches(condition: Condition, events: Events) -> NDArray[np.bool_]:
    """Tell for each event whether it satisfies a condition; where a null leaves it open, it does not.

    NaN is null, and numbers are compared as float64, whatever the column's type.

    >>> from driftline.features import field
    >>> events = pa.table({"carrier": ["AA", "UA", None], "late": [True, None, False]})
    >>> matches(field("carrier") != "UA", events).tolist()
    [True, False, False]
    >>> matches((field("carrier") == "UA") | field("late").is_true(), events).tolist()
    [True, True, False]
    """
    found: NDArray[np.bool_] = _truth(condition, events).fill_null(False).to_numpy(zero_copy_only=False)
    return found


def layout_inputs(layout: ViewLayout, events: Events) -> dict[str, Floats]:
    """Return the columns that the kernels take for a layout, from a table of the view's events."""
    numbers = float_inputs(events, layout.fields)
    if not layout.made:
        return numbers
    taken = filtered_inputs(layout, events, numbers)
    return {name: taken[name] for name in layout.inputs}


def filtered_inputs(
    layout: ViewLayout, events: Events, numbers: Mapping[str, Floats]
) -> Mapping[str, Floats]:
    """Add to the events' numbers what filtered and categorical features take: NaN where a condition does not hold.

    ``numbers`` has a column for each of ``layout.fields``, with a value per event.
    """
    if not layout.made:
        return numbers
    found: dict[Condition, NDArray[np.bool_]] = {}
    codes: dict[tuple[str, tuple[str, ...]], Floats] = {}
    added: dict[str, Floats] = {}
    for item in layout.made:
        # A feature of no field counts events, or asks for the newest one's time: any number stands for "there".
        value: Floats | float = 1.0
        if item.reads_text:
            key = item.field, item.categories
            value = codes[key] = codes[key] if key in codes else _codes(item, events)
        elif item.field:
            value = numbers[item.field]
        if item.condition is None:
            added[item.name] = np.asarray(value)
            continue
        if item.condition not in found:
            found[item.condition] = matches(item.condition, events)
        added[item.name] = np.where(found[item.condition], value, np.nan)
    return {**numbers, **added}


def _codes(item: MadeInput, events: Events) -> Floats:
    texts = _texts(events, item.field)
    return hash_codes(texts) if item.hashed else category_places(texts, item.categories)


def _truth(condition: Condition, events: Events) -> pa.BooleanArray:
    """Return true, false or, where a null leaves it open, null for each event."""
    match condition:
        case Comparison(field, operator, str(value)):
            return _COMPARE[operator](_texts(events, field), pa.scalar(value, pa.string()))
        case Comparison(field, operator, value):
            return _COMPARE[operator](_numbers(events, field), pa.scalar(value, pa.float64()))
        case Among(field, values):
            texts = _texts(events, field)
            # is_in calls null false; here it is open, so that a negation does not match it either.
            return pc.if_else(texts.is_valid(), pc.is_in(texts, pa.array(values, pa.string())), None)
        case Truth(field, wanted):
            return pc.equal(one_array(events.column(field)).cast(pa.bool_()), pa.scalar(wanted))
        case Present(field):
            return pc.is_valid(_without_nan(one_array(events.column(field))))
        case Both(left, right):
            return pc.and_kleene(_truth(left, events), _truth(right, events))
        case Either(left, right):
            return pc.or_kleene(_truth(left, events), _truth(right, events))
        case Negated(inner):
            return pc.invert(_truth(inner, events))
        case _:
            msg = f"{type(condition).__name__} is no condition that can be evaluated"
            raise TypeError(msg)


def _texts(events: Events, name: str) -> pa.StringArray:
    return one_array(events.column(name)).cast(pa.string())


def _numbers(events: Events, name: str) -> pa.DoubleArray:
    return _without_nan(one_array(events.column(name)).cast(pa.float64(), safe=False))


def _without_nan(column: pa.Array) -> pa.Array:
    if not pa.types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
