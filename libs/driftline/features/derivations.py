"""Features derived from other features of their view: computed when the view is read, never stored.

The formula is over the values that are served, defaults and time-to-live applied. A value is missing (NaN)
where an operand is, or where a step gives no finite number: a division by zero, an overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from driftline.features.names import check_name

Floats = NDArray[np.float64]


class Arithmetic(StrEnum):
    """What a formula does with two operands."""

    ADD = "+"
    SUBTRACT = "-"
    MULTIPLY = "*"
    DIVIDE = "/"


_COMPUTE = {
    Arithmetic.ADD: np.add,
    Arithmetic.SUBTRACT: np.subtract,
    Arithmetic.MULTIPLY: np.multiply,
    Arithmetic.DIVIDE: np.divide,
}


class Expression:
    """A formula over features of the same view: ``+ - * /`` with other formulas and numbers, and ``clip``."""

    __slots__ = ()

    def __add__(self, other: Expression | float) -> Expression:
        """Return the sum."""
        return Operation(Arithmetic.ADD, self, _operand(other))

    def __radd__(self, other: float) -> Expression:
        """Return the sum."""
        return Operation(Arithmetic.ADD, _operand(other), self)

    def __sub__(self, other: Expression | float) -> Expression:
        """Return the difference."""
        return Operation(Arithmetic.SUBTRACT, self, _operand(other))

    def __rsub__(self, other: float) -> Expression:
        """Return the difference."""
        return Operation(Arithmetic.SUBTRACT, _operand(other), self)

    def __mul__(self, other: Expression | float) -> Expression:
        """Return the product."""
        return Operation(Arithmetic.MULTIPLY, self, _operand(other))

    def __rmul__(self, other: float) -> Expression:
        """Return the product."""
        return Operation(Arithmetic.MULTIPLY, _operand(other), self)

    def __truediv__(self, other: Expression | float) -> Expression:
        """Return the ratio; missing where the divisor is 0."""
        return Operation(Arithmetic.DIVIDE, self, _operand(other))

    def __rtruediv__(self, other: float) -> Expression:
        """Return the ratio; missing where the divisor is 0."""
        return Operation(Arithmetic.DIVIDE, _operand(other), self)

    def __neg__(self) -> Expression:
        """Return the negative."""
        return Operation(Arithmetic.SUBTRACT, Number(0.0), self)

    def clip(self, low: float | None = None, high: float | None = None) -> Expression:
        """Return the value, but not less than ``low`` nor more than ``high``; missing stays missing."""
        limits = [limit for limit in (low, high) if limit is not None]
        if not limits or not all(map(math.isfinite, limits)) or limits != sorted(limits):
            msg = (
                f"clip({low}, {high}) of {self}: give a lower or an upper limit, numbers, the lower one first"
            )
            raise ValueError(msg)
        return Clipped(self, low, high)

    def references(self) -> Iterator[str]:
        """Yield the names of the features in the formula."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Reference(Expression):
    """A feature of the view, by name."""

    name: str

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    def references(self) -> Iterator[str]:
        """Yield the name."""
        yield self.name


@dataclass(frozen=True, slots=True)
class Number(Expression):
    """A number."""

    value: float

    def __str__(self) -> str:
        """Return the number."""
        return plain_number(self.value)

    def references(self) -> Iterator[str]:
        """Yield nothing."""
        yield from ()


@dataclass(frozen=True, slots=True)
class Operation(Expression):
    """One step of arithmetic."""

    operator: Arithmetic
    left: Expression
    right: Expression

    def __str__(self) -> str:
        """Return the formula."""
        return f"({self.left} {self.operator} {self.right})"

    def references(self) -> Iterator[str]:
        """Yield the names of the features of both sides."""
        yield from self.left.references()
        yield from self.right.references()


@dataclass(frozen=True, slots=True)
class Clipped(Expression):
    """A value within limits."""

    inner: Expression
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """Return the formula."""
        return f"clip({self.inner}, {self.low}, {self.high})"

    def references(self) -> Iterator[str]:
        """Yield the names of the features of the inner formula."""
        yield from self.inner.references()


@dataclass(frozen=True, slots=True)
class Derived:
    """A feature that is a formula over others of its view. ``default`` is served where the formula has no value."""

    name: str
    expression: Expression
    default: float | None = None

    def __post_init__(self) -> None:
        check_name("feature", self.name)
        if not isinstance(self.expression, Expression):
            msg = f'{self.name}: a derived feature is a formula over feature("..."), not {self.expression!r}'
            raise TypeError(msg)

    def or_default(self, value: float) -> Derived:
        """Return this feature with a value that is served where there is none."""
        return replace(self, default=finite_default(self.name, value))


def finite_default(name: str, value: float) -> float:
    """Return what is served where there is no value; ValueError for what is no number itself."""
    if not math.isfinite(value):
        msg = f"{name}: the default {value} is no number; leave it out where there is none"
        raise ValueError(msg)
    return float(value)


def plain_number(value: float) -> str:
    """Return a number in the fewest digits that tell it from all others.

    >>> plain_number(2.0), plain_number(1234567.0), plain_number(0.1)
    ('2', '1234567', '0.1')
    """
    return repr(float(value)).removesuffix(".0")


def feature(name: str) -> Expression:
    """Name a feature of the view that a derived one is declared in, to compute with."""
    return Reference(name)


def derived(name: str, expression: Expression) -> Derived:
    """Declare a feature that is computed from others of its view when it is read; it costs the store nothing.

    >>> trend = derived("delay_trend", feature("mean_delay_1h") - feature("mean_delay_1d"))
    >>> print(trend.expression)
    (mean_delay_1h - mean_delay_1d)
    >>> values = {"mean_delay_1h": np.array([5.0, np.nan]), "mean_delay_1d": np.array([3.0, 3.0])}
    >>> evaluate(trend.expression, values.__getitem__)
    array([ 2., nan])
    """
    return Derived(name, expression)


def evaluate(expression: Expression, column: Callable[[str], Floats]) -> Floats:
    """Compute a formula for whole columns; ``column`` gives a feature's values by its name, NaN where missing."""
    with np.errstate(all="ignore"):  # what is no finite number becomes missing
        return np.asarray(_value(expression, column), np.float64)


def _value(expression: Expression, column: Callable[[str], Floats]) -> Floats | float:
    match expression:
        case Reference(name):
            return column(name)
        case Number(value):
            return value
        case Operation(operator, left, right):
            result = _COMPUTE[operator](_value(left, column), _value(right, column))
            return np.where(np.isfinite(result), result, np.nan)
        case Clipped(inner, low, high):
            return np.clip(_value(inner, column), low, high)
        case _:
            msg = f"{type(expression).__name__} is no formula that can be computed"
            raise TypeError(msg)


def _operand(value: Expression | float) -> Expression:
    if isinstance(value, Expression):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        msg = f'a formula is made of feature("..."), + - * / and finite numbers, not {value!r}'
        raise TypeError(msg)
    return Number(float(value))
