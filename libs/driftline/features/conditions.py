"""Conditions on an event's fields: which events a feature or a view looks at. Pure values; ``matching`` evaluates them.

A comparison with a null field is neither true nor false, as in SQL, and only events for which the whole
condition is true match: so nulls never match, negated or not. ``present()`` and ``missing()`` ask for them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Operator(StrEnum):
    """How a field is compared with a value."""

    EQUAL = "="
    UNEQUAL = "!="
    LESS = "<"
    LESS_EQUAL = "<="
    GREATER = ">"
    GREATER_EQUAL = ">="


class FieldKind(StrEnum):
    """What a condition takes a field to be."""

    NUMBER = "number"
    TEXT = "text"
    TRUTH = "boolean"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class FieldUse:
    """A field that a condition looks at, as what, and the texts that it is compared with."""

    field: str
    kind: FieldKind
    texts: tuple[str, ...] = ()


class Condition:
    """What an event's fields must satisfy. Conditions combine with ``&``, ``|`` and ``~``."""

    __slots__ = ()

    def __and__(self, other: Condition) -> Condition:
        """Return a condition that holds where both do."""
        return Both(self, other)

    def __or__(self, other: Condition) -> Condition:
        """Return a condition that holds where one of them does."""
        return Either(self, other)

    def __invert__(self) -> Condition:
        """Return a condition that holds where this one is false (not where a null leaves it open)."""
        return Negated(self)

    def __bool__(self) -> NoReturn:
        """Refuse ``and``, ``or``, ``not`` and ``1 < field("x") < 3``, which Python would silently cut short."""
        msg = f"the condition {self} is no value: combine conditions with &, | and ~, each in parentheses"
        raise TypeError(msg)

    def uses(self) -> Iterator[FieldUse]:
        """Yield the fields that the condition looks at."""
        raise NotImplementedError

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields that the condition looks at."""
        return frozenset(use.field for use in self.uses())


@dataclass(frozen=True, slots=True)
class Comparison(Condition):
    """A text or number field against a value."""

    field: str
    operator: Operator
    value: str | float

    def __str__(self) -> str:
        """Return the condition as text; equal texts mean the same."""
        return f"{self.field} {self.operator} {json.dumps(self.value)}"

    def uses(self) -> Iterator[FieldUse]:
        """Yield the field."""
        if isinstance(self.value, str):
            yield FieldUse(self.field, FieldKind.TEXT, (self.value,))
        else:
            yield FieldUse(self.field, FieldKind.NUMBER)


@dataclass(frozen=True, slots=True)
class Among(Condition):
    """A text field that has one of several values."""

    field: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        """Return the condition as text; equal texts mean the same."""
        return f"{self.field} in {json.dumps(self.values)}"

    def uses(self) -> Iterator[FieldUse]:
        """Yield the field."""
        yield FieldUse(self.field, FieldKind.TEXT, self.values)


@dataclass(frozen=True, slots=True)
class Truth(Condition):
    """A boolean field that is true, or false."""

    field: str
    wanted: bool

    def __str__(self) -> str:
        """Return the condition as text; equal texts mean the same."""
        return f"{self.field} is {json.dumps(self.wanted)}"

    def uses(self) -> Iterator[FieldUse]:
        """Yield the field."""
        yield FieldUse(self.field, FieldKind.TRUTH)


@dataclass(frozen=True, slots=True)
class Present(Condition):
    """A field of any type that is not null."""

    field: str

    def __str__(self) -> str:
        """Return the condition as text; equal texts mean the same."""
        return f"{self.field} is present"

    def uses(self) -> Iterator[FieldUse]:
        """Yield the field."""
        yield FieldUse(self.field, FieldKind.ANY)


@dataclass(frozen=True, slots=True)
class Both(Condition):
    """Two conditions that must hold."""

    left: Condition
    right: Condition

    def __str__(self) -> str:
        """Return the condition as text; equal texts mean the same."""
        return f"({self.left} and {self.right})"

    def uses(self) -> Iterator[FieldUse]:
        """Yield the fields of both."""
        yield from self.left.uses()
        yield from self.right.uses()


@dataclass(frozen=True, slots=True)
class Either(Condition):
    """Two conditions of which one must hold."""

    left: Condition
    right: Condition

    def __str__(self) -> str:
        """Return the condition as text; equal texts mean the same."""
        return f"({self.left} or {self.right})"

    def uses(self) -> Iterator[FieldUse]:
        """Yield the fields of both."""
        yield from self.left.uses()
        yield from self.right.uses()


@dataclass(frozen=True, slots=True)
class Negated(Condition):
    """A condition that must be false."""

    inner: Condition

    def __str__(self) -> str:
        """Return the condition as text; equal texts mean the same."""
        return f"not ({self.inner})"

    def uses(self) -> Iterator[FieldUse]:
        """Yield the fields of the inner condition."""
        yield from self.inner.uses()


class EventField:
    """A field of the event, to be compared. Made with ``field``."""

    __slots__ = ("_name",)
    __hash__ = None  # type: ignore[assignment]  # == makes a condition, so a field is no key

    def __init__(self, name: str) -> None:
        if not _FIELD.fullmatch(name):
            msg = f"{name!r} is no name of an event's field: letters, digits and underscores, no digit first"
            raise ValueError(msg)
        self._name = name

    def __eq__(self, value: str | float) -> Condition:  # type: ignore[override]
        """Return the condition that the field has a value."""
        return self._compared(Operator.EQUAL, value)

    def __ne__(self, value: str | float) -> Condition:  # type: ignore[override]
        """Return the condition that the field has another value."""
        return self._compared(Operator.UNEQUAL, value)

    def __lt__(self, value: float) -> Condition:
        """Return the condition that the field is smaller."""
        return self._ordered(Operator.LESS, value)

    def __le__(self, value: float) -> Condition:
        """Return the condition that the field is not larger."""
        return self._ordered(Operator.LESS_EQUAL, value)

    def __gt__(self, value: float) -> Condition:
        """Return the condition that the field is larger."""
        return self._ordered(Operator.GREATER, value)

    def __ge__(self, value: float) -> Condition:
        """Return the condition that the field is not smaller."""
        return self._ordered(Operator.GREATER_EQUAL, value)

    def is_in(self, *values: str) -> Condition:
        """Return the condition that a text field has one of some values."""
        if not values or not all(isinstance(value, str) for value in values):
            msg = f'field({self._name!r}).is_in takes texts: .is_in("a", "b")'
            raise ValueError(msg)
        return Among(self._name, tuple(sorted(set(values))))

    def is_true(self) -> Condition:
        """Return the condition that a boolean field is true."""
        return Truth(self._name, wanted=True)

    def is_false(self) -> Condition:
        """Return the condition that a boolean field is false (and not null)."""
        return Truth(self._name, wanted=False)

    def present(self) -> Condition:
        """Return the condition that the field is not null."""
        return Present(self._name)

    def missing(self) -> Condition:
        """Return the condition that the field is null."""
        return Negated(Present(self._name))

    def _compared(self, operator: Operator, value: str | float) -> Condition:
        if isinstance(value, bool):
            return Truth(self._name, wanted=value is (operator is Operator.EQUAL))
        if isinstance(value, str):
            return Comparison(self._name, operator, value)
        return self._ordered(operator, value)

    def _ordered(self, operator: Operator, value: float) -> Condition:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            msg = (
                f"field({self._name!r}) {operator} {value!r}: compare with a finite number (== and != with a text "
                "or a boolean too); nulls are asked for with .present() and .missing()"
            )
            raise ValueError(msg)
        return Comparison(self._name, operator, float(value))


def field(name: str) -> EventField:
    """Name a field of the event, to make a condition of.

    >>> print((field("distance") > 500) & field("carrier").is_in("UA", "AA"))
    (distance > 500.0 and carrier in ["AA", "UA"])
    >>> print(~field("late").is_true())
    not (late is true)
    """
    return EventField(name)
