"""Records from JSON and to JSON. A value that does not fit is refused with the path of its field."""

import math
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from driftline.contracts.avro_types import branches
from driftline.runtime.errors import BadMessageError

Convert = Callable[[Any], Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST_FLOAT = 3.4028235677973366e38  # beyond it, rounding to 32 bits gives infinity
_SHOWN = 60


class _Misfit(Exception):  # noqa: N818 - never leaves this file
    """``steps`` is the path from the outside to the value, filled in on the way out."""

    def __init__(self, reason: str, *steps: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps = list(steps)


def from_json(schema: Any) -> Callable[[Any], dict[str, Any]]:
    """Return a function that turns a JSON object into a record of a schema in normal form.

    It raises BadMessageError with the path of the first field that is wrong, missing or unknown.

    >>> convert = from_json({"type": "record", "name": "R", "fields": [{"name": "gate", "type": "int"}]})
    >>> convert({"gate": "B3"})
    Traceback (most recent call last):
    driftline.runtime.errors.BadMessageError: gate: a whole number of 32 bits is wanted, got 'B3'
    """
    convert = _convert(schema)

    def record(value: Any) -> dict[str, Any]:
        try:
            return convert(value)  # type: ignore[no-any-return]
        except _Misfit as misfit:
            place = "".join(misfit.steps).lstrip(".") or "the event"
            raise BadMessageError(f"{place}: {misfit.reason}", stage="validate") from None

    return record


def to_json(value: Any) -> Any:
    """Return a decoded value as JSON can hold it: times in ISO 8601, bytes as code points, no NaN.

    >>> to_json({"at": datetime(2013, 4, 1, 12, tzinfo=UTC), "x": float("nan")})
    {'at': '2013-04-01T12:00:00Z', 'x': None}
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return value.isoformat()
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("iso-8859-1")
    if isinstance(value, uuid.UUID | Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    return value


def default_of(schema: Any, default: Any) -> Any:
    """Return the value that a field's default means; in a schema, bytes are a text of code points up to 255."""
    first = schema[0] if isinstance(schema, list) else schema
    kind = first if isinstance(first, str) else first["type"]
    return (
        default.encode("iso-8859-1") if kind in {"bytes", "fixed"} and isinstance(default, str) else default
    )


def _wanted(what: str, value: Any) -> _Misfit:
    shown = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
    return _Misfit(f"{what} is wanted, got {shown if len(shown) <= _SHOWN else f'{shown[: _SHOWN - 3]}...'}")


def _convert(schema: Any) -> Convert:
    if isinstance(schema, list):
        return _union(schema)
    if isinstance(schema, str):
        return _PRIMITIVES[schema]
    if "logicalType" in schema:
        return _decimal(schema) if schema["logicalType"] == "decimal" else _LOGICAL[schema["logicalType"]]
    kind = schema["type"]
    if kind == "record":
        return _record(schema)
    if kind == "enum":
        return _enum(schema["symbols"])
    if kind == "fixed":
        return _fixed(schema["size"])
    if kind == "array":
        return _array(_convert(schema["items"]))
    return _map(_convert(schema["values"]))


def _record(schema: Mapping[str, Any]) -> Convert:
    converts = {member["name"]: _convert(member["type"]) for member in schema["fields"]}
    defaults = {
        member["name"]: default_of(member["type"], member["default"])
        for member in schema["fields"]
        if "default" in member
    }

    def record(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wanted("an object", value)
        found = {}
        for name, convert in converts.items():
            if name in value:
                try:
                    found[name] = convert(value[name])
                except _Misfit as misfit:
                    misfit.steps.insert(0, f".{name}")
                    raise
            elif name in defaults:
                found[name] = defaults[name]
            else:
                raise _Misfit("the field is missing", f".{name}")
        if not value.keys() <= converts.keys():
            unknown = next(str(name) for name in value if name not in converts)
            raise _Misfit("no such field", f".{unknown[:_SHOWN]}")
        return found

    return record


def _union(schema: list[Any]) -> Convert:
    nullable = "null" in schema
    converts = [_convert(branch) for branch in branches(schema)]

    def several(value: Any) -> Any:
        for convert in converts:
            try:
                return convert(value)
            except _Misfit:
                continue
        names = " or ".join(
            b if isinstance(b, str) else b.get("logicalType", b["type"]) for b in branches(schema)
        )
        raise _wanted(names, value)

    convert = converts[0] if len(converts) == 1 else several
    return (lambda value: None if value is None else convert(value)) if nullable else convert


def _array(convert: Convert) -> Convert:
    def array(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _wanted("a list", value)
        found = []
        for index, item in enumerate(value):
            try:
                found.append(convert(item))
            except _Misfit as misfit:
                misfit.steps.insert(0, f"[{index}]")
                raise
        return found

    return array


def _map(convert: Convert) -> Convert:
    def mapping(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wanted("an object", value)
        found = {}
        for name, item in value.items():
            try:
                found[_string(name)] = convert(item)
            except _Misfit as misfit:
                misfit.steps.insert(0, f".{str(name)[:_SHOWN]}")
                raise
        return found

    return mapping


def _enum(symbols: list[str]) -> Convert:
    known = frozenset(symbols)

    def enum(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise _wanted(f"one of {', '.join(symbols)}", value)
        return value

    return enum


def _integer(bits: int) -> Convert:
    least, beyond = -(2 ** (bits - 1)), 2 ** (bits - 1)

    def integer(value: Any) -> int:
        if type(value) is not int or not least <= value < beyond:  # bool is an int, but no number
            raise _wanted(f"a whole number of {bits} bits", value)
        return value

    return integer


def _real(largest: float) -> Convert:
    def real(value: Any) -> float:
        if type(value) is float or type(value) is int:
            try:
                number = float(value)
            except OverflowError:
                raise _wanted("a finite number", value) from None
            if -largest <= number <= largest:  # false for NaN too
                return number
        raise _wanted("a finite number", value)

    return real


def _null(value: Any) -> None:
    if value is not None:
        raise _wanted("null", value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wanted("true or false", value)
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise _wanted("a text", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _wanted("a text without lone surrogates", value) from None
    return value


def _bytes(value: Any) -> bytes:
    try:
        if isinstance(value, str):
            return value.encode("iso-8859-1")
    except UnicodeEncodeError:
        pass
    raise _wanted("bytes, written as code points up to 255,", value)


def _fixed(size: int) -> Convert:
    def fixed(value: Any) -> bytes:
        found = _bytes(value)
        if len(found) != size:
            raise _wanted(f"{size} bytes, written as code points up to 255,", value)
        return found

    return fixed


def _time(value: Any) -> datetime:
    if type(value) is int:
        try:
            return _EPOCH + timedelta(microseconds=value)
        except OverflowError:
            raise _wanted("a time between the years 1 and 9999", value) from None
    if not isinstance(value, str):
        raise _wanted("an ISO 8601 time or whole microseconds since the epoch", value)
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        raise _wanted("an ISO 8601 time with an offset, like 2013-04-01T12:00:00Z,", value) from None
    if parsed.tzinfo is None:
        raise _wanted("a time with an offset (end it with Z for UTC)", value)
    try:
        return parsed.astimezone(UTC)
    except OverflowError:
        raise _wanted("a time between the years 1 and 9999", value) from None


def _iso(what: str, parse: Callable[[str], Any]) -> Convert:
    def convert(value: Any) -> Any:
        try:
            return parse(value)
        except (TypeError, ValueError, AttributeError):
            raise _wanted(what, value) from None

    return convert


def _decimal(schema: Mapping[str, Any]) -> Convert:
    precision, scale = schema["precision"], schema.get("scale", 0)

    def decimal(value: Any) -> Decimal:
        if type(value) in {str, int}:
            try:
                found = Decimal(value)
            except InvalidOperation:
                found = Decimal("NaN")
            if found.is_finite() and abs(found) < Decimal(10) ** (precision - scale):
                exact = found.quantize(Decimal(1).scaleb(-scale))
                if exact == found:
                    return exact
        raise _wanted(f"a decimal text of {precision} digits, {scale} of them after the point,", value)

    return decimal


def _local_time(text: str) -> datetime:
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is not None:
        raise ValueError(text)
    return parsed


_PRIMITIVES: dict[str, Convert] = {
    "null": _null,
    "boolean": _boolean,
    "int": _integer(32),
    "long": _integer(64),
    "float": _real(_LARGEST_FLOAT),
    "double": _real(math.nextafter(math.inf, 0)),
    "bytes": _bytes,
    "string": _string,
}
_LOGICAL: dict[str, Convert] = {
    "timestamp-micros": _time,
    "timestamp-millis": _time,
    "local-timestamp-micros": _iso("an ISO 8601 time without an offset", _local_time),
    "local-timestamp-millis": _iso("an ISO 8601 time without an offset", _local_time),
    "date": _iso("an ISO 8601 date", date.fromisoformat),
    "time-micros": _iso("an ISO 8601 time of day", time.fromisoformat),
    "time-millis": _iso("an ISO 8601 time of day", time.fromisoformat),
    "uuid": _iso("a UUID", uuid.UUID),
}
