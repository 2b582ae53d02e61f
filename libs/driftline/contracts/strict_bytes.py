"""What a record's bytes may be, read strictly: the libraries let impossible ones through.

fastavro takes a branch or symbol -1 for the last one, a boolean of 2 for true and integers beyond their type;
pyruhvro cuts these to 32 bits. Both are quick to be sure about bytes that encode back to themselves, so this
reader, which is slower, decides on the rest.
"""

from collections.abc import Callable
from typing import Any

from driftline.runtime.errors import BadMessageError

Step = Callable[[bytes, int], int]

#: From year 1 to year 9999, in microseconds since 1970: what Python, SQL engines and ISO 8601 can write.
FIRST_TIME_US = -62_135_596_800_000_000
LAST_TIME_US = 253_402_300_799_999_999
_DAY_US = 86_400_000_000
#: Per logical type: the least and the largest value.
RANGES = {
    "timestamp-micros": (FIRST_TIME_US, LAST_TIME_US),
    "timestamp-millis": (FIRST_TIME_US // 1_000, LAST_TIME_US // 1_000),
    "local-timestamp-micros": (FIRST_TIME_US, LAST_TIME_US),
    "local-timestamp-millis": (FIRST_TIME_US // 1_000, LAST_TIME_US // 1_000),
    "date": (FIRST_TIME_US // _DAY_US, LAST_TIME_US // _DAY_US),
    "time-micros": (0, _DAY_US - 1),
    "time-millis": (0, _DAY_US // 1_000 - 1),
}


class _WrongBytesError(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


def strict_check(schema: Any) -> Callable[[bytes], None]:
    """Return a function that raises BadMessageError unless bytes are exactly one value of the schema.

    ``schema`` is in normal form, so it has a bound: work and memory grow with the bytes only.

    >>> check = strict_check({"type": "record", "name": "R", "fields": [{"name": "late", "type": "boolean"}]})
    >>> check(bytes([1]))
    >>> check(bytes([2]))
    Traceback (most recent call last):
    driftline.runtime.errors.BadMessageError: field 'late': a boolean is written as 2
    """
    step = _step(schema)

    def check(data: bytes) -> None:
        try:
            end = step(data, 0)
        except _WrongBytesError as error:
            place = f"field {'.'.join(error.path)!r}: " if error.path else ""
            raise BadMessageError(place + error.reason) from None
        if end != len(data):
            raise BadMessageError(f"{len(data) - end} bytes follow the record")

    return check


def _step(schema: Any) -> Step:
    if isinstance(schema, list):
        return _union([_step(branch) for branch in schema])
    if isinstance(schema, str):
        return _PRIMITIVES[schema]
    kind = schema["type"]
    if kind == "record":
        return _record([(member["name"], _step(member["type"])) for member in schema["fields"]])
    if kind == "enum":
        return _enum(len(schema["symbols"]))
    if kind == "fixed":
        return _sized(schema["size"])
    if kind == "array":
        return _blocks(_step(schema["items"]))
    if kind == "map":
        value = _step(schema["values"])
        return _blocks(lambda data, at: value(data, _text(data, at)))
    if schema["logicalType"] in RANGES:
        return _ranged(schema["logicalType"], *RANGES[schema["logicalType"]])
    return _PRIMITIVES[kind]


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return a zigzag number of at most 64 bits and the position behind it."""
    raw = shift = 0
    for byte in data[at : at + 10]:
        raw |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            if raw >> 64:
                break
            return (raw >> 1) ^ -(raw & 1), at
        shift += 7
    raise _WrongBytesError(
        "the bytes end inside a number" if shift < 70 and not raw >> 64 else "a number beyond 64 bits"
    )


def _null(data: bytes, at: int) -> int:
    return at


def _boolean(data: bytes, at: int) -> int:
    if at >= len(data):
        raise _WrongBytesError("the bytes end before it")
    if data[at] > 1:
        raise _WrongBytesError(f"a boolean is written as {data[at]}")
    return at + 1


def _int(data: bytes, at: int) -> int:
    number, at = _number(data, at)
    if not -(2**31) <= number < 2**31:
        raise _WrongBytesError(f"{number} is beyond 32 bits")
    return at


def _long(data: bytes, at: int) -> int:
    return _number(data, at)[1]


def _sized(size: int) -> Step:
    def skip(data: bytes, at: int) -> int:
        if at + size > len(data):
            raise _WrongBytesError("the bytes end inside it")
        return at + size

    return skip


def _bytes(data: bytes, at: int) -> int:
    size, at = _number(data, at)
    if size < 0:
        raise _WrongBytesError(f"a length of {size}")
    if at + size > len(data):
        raise _WrongBytesError(f"a length of {size:,}, but only {len(data) - at:,} bytes are left")
    return at + size


def _text(data: bytes, at: int) -> int:
    size, start = _number(data, at)
    end = _bytes(data, at)
    try:
        data[start : start + size].decode()
    except UnicodeDecodeError as error:
        raise _WrongBytesError(f"the text is not UTF-8: {error.reason}") from None
    return end


def _ranged(logical: str, least: int, largest: int) -> Step:
    def skip(data: bytes, at: int) -> int:
        number, at = _number(data, at)
        if not least <= number <= largest:
            raise _WrongBytesError(f"{number} is out of range for {logical}")
        return at

    return skip


def _enum(symbols: int) -> Step:
    def skip(data: bytes, at: int) -> int:
        number, at = _number(data, at)
        if not 0 <= number < symbols:
            raise _WrongBytesError(f"symbol {number} of {symbols}")
        return at

    return skip


def _union(steps: list[Step]) -> Step:
    def skip(data: bytes, at: int) -> int:
        number, at = _number(data, at)
        if not 0 <= number < len(steps):
            raise _WrongBytesError(f"branch {number} of {len(steps)}")
        return steps[number](data, at)

    return skip


def _record(members: list[tuple[str, Step]]) -> Step:
    def skip(data: bytes, at: int) -> int:
        for name, step in members:
            try:
                at = step(data, at)
            except _WrongBytesError as error:
                error.path.insert(0, name)
                raise
        return at

    return skip


def _blocks(step: Step) -> Step:
    """Arrays and maps: blocks of items, a negative count followed by the block's size, closed by a zero."""

    def skip(data: bytes, at: int) -> int:
        while True:
            count, at = _number(data, at)
            if count == 0:
                return at
            end = None
            if count < 0:
                size, at = _number(data, at)
                count, end = -count, at + size
            # Every item takes a byte or more (normal_form sees to it), so a lie about the count ends here.
            if count > len(data) - at:
                raise _WrongBytesError(
                    f"a block of {count:,} items, but only {len(data) - at:,} bytes are left"
                )
            for _ in range(count):
                at = step(data, at)
            if end is not None and at != end:
                raise _WrongBytesError("a block's size is not that of its items")

    return skip


_PRIMITIVES: dict[str, Step] = {
    "null": _null,
    "boolean": _boolean,
    "int": _int,
    "long": _long,
    "float": _sized(4),
    "double": _sized(8),
    "bytes": _bytes,
    "string": _text,
}
