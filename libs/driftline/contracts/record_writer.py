"""Writes flat records as Avro in a fraction of fastavro's time, or says that it is not sure.

fastavro asks of each value which branch of its union it is. Here the exact types of a record's values settle that
for all its fields at once, and the functions that write a record of these types are chosen the first time that it
comes. What is not plainly right is left to RecordCodec, which has the last word and the words for errors.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import call, itemgetter
from types import NoneType
from typing import Any

from driftline.contracts.avro_types import branches, normal_form

Write = Callable[[Any], bytes]
#: What picks the values to write from those of a record, and what writes each.
_Plan = tuple[Callable[[Any], Any], tuple[Write, ...]]

#: So many shapes (types of a record's values) are prepared; records of others are written field by field.
_MAX_SHAPES = 256
#: So many texts of a field, of fewer bytes than this, are kept as written: names and versions come again.
_MAX_TEXTS, _SHORT = 256, 128
#: So many upper parts of a field's numbers are kept as written. A time's changes every two minutes.
_MAX_PARTS = 1024
#: How a union of two begins, by the branch that follows.
_BRANCHES = (0, 2)

_MORE = [bytes([number | 0x80]) for number in range(128)]
_LAST = [bytes([number]) for number in range(128)]
#: The bytes of 14 bits of a number, where others follow and where none do; and those of 13 bits, a sign below them.
_MORE_BITS = [low + high for high in _MORE for low in _MORE]
_LAST_BITS = [*_LAST, *(low + high for high in _LAST[1:] for low in _MORE)]
_MORE_SIGNED, _LAST_SIGNED = _MORE_BITS[::2], _LAST_BITS[::2]


@dataclass(frozen=True, slots=True)
class _Way:
    """How values of one type are written: by a function, and where their size is fixed also by a struct.

    ``layout`` is the struct's, ``branch`` the byte that it has before the value, if any.
    """

    write: Write
    layout: str = ""
    branch: int | None = None


class RecordWriter:
    """Writes records of one schema, each after a prefix; ``record_writer`` makes one."""

    def __init__(self, fields: Mapping[str, dict[type, _Way]], prefix: bytes) -> None:
        self._values = itemgetter(*fields)
        self._ways = tuple(fields.values())
        self._prefix = prefix
        self._plans: dict[tuple[type, ...], _Plan] = {}

    def write(self, record: Mapping[str, Any]) -> bytes | None:
        """Return the prefix and the bytes that RecordCodec would give; None for what it might refuse."""
        if type(record) is not dict:
            return None
        try:
            values = self._values(record)
            shape = tuple(map(type, values))
            pick, writes = self._plans.get(shape) or self._plan(shape)
            known = (*values, *_BRANCHES)
            return b"".join([self._prefix, *map(call, writes, pick((*known, known)))])
        except (KeyError, UnicodeEncodeError, OverflowError, struct.error):
            return None

    def _plan(self, shape: tuple[type, ...]) -> _Plan:
        """Choose how records of a shape are written; raise KeyError for a type that its field does not take."""
        ways = [ways[kind] for ways, kind in zip(self._ways, shape, strict=True)]
        if len(self._plans) >= _MAX_SHAPES:
            return itemgetter(slice(len(ways))), tuple(way.write for way in ways)
        picked: list[int] = []
        writes: list[Write] = []
        for fixed, group in groupby(range(len(ways)), lambda at: bool(ways[at].layout)):
            run = list(group)
            if fixed and len(run) > 1:
                picked.append(len(ways) + len(_BRANCHES))
                writes.append(_together(ways, run))
            else:
                picked += run
                writes += [ways[at].write for at in run]
        self._plans[shape] = _picker(picked), tuple(writes)
        return self._plans[shape]


def record_writer(schema: Mapping[str, Any], prefix: bytes = b"") -> RecordWriter | None:
    """Return what writes records of a schema; None where it has fewer than two fields, or one of another kind.

    Fields are booleans, ints, longs, doubles, strings, enums and arrays of these, each nullable or not.

    >>> fields = [{"name": "city", "type": "string"}, {"name": "heat", "type": ["null", "long"]}]
    >>> writer = record_writer({"type": "record", "name": "Day", "fields": fields})
    >>> writer.write({"city": "Rome", "heat": 31})
    b'\\x08Rome\\x02>'
    >>> writer.write({"city": "Rome", "heat": 31.5}) is None
    True
    """
    fields = normal_form(schema)["fields"]
    found = {field["name"]: _ways(field["type"]) for field in fields}
    known = {name: ways for name, ways in found.items() if ways is not None}
    return RecordWriter(known, prefix) if len(known) == len(fields) > 1 else None


def _ways(schema: Any) -> dict[type, _Way] | None:
    """Return how values of a type in normal form are written, by their Python type."""
    if not isinstance(schema, list):
        return _branch_ways(schema, None)
    others = branches(schema)
    if len(schema) != 2 or len(others) != 1:
        return None
    null = _BRANCHES[schema.index("null")]
    ways = _branch_ways(others[0], _BRANCHES[schema.index(others[0])])
    return ways and {**ways, NoneType: _Way({None: bytes([null])}.__getitem__, "B", null)}


def _branch_ways(schema: Any, branch: int | None) -> dict[type, _Way] | None:
    """Return how values are written that follow a union's branch."""
    start = b"" if branch is None else bytes([branch])
    match schema if isinstance(schema, str) else schema["type"]:
        case "boolean":
            return {bool: _Way({False: start + b"\x00", True: start + b"\x01"}.__getitem__)}
        case "int":
            return {int: _Way(_integers(start, 32))}
        case "long":
            return {int: _Way(_integers(start, 64))}
        case "double":
            layout = "d" if branch is None else "Bd"
            way = _Way(_doubles(start), layout, branch)
            return {float: way, int: way}
        case "string":
            return {str: _Way(_Texts(start).__getitem__)}
        case "enum":
            numbers = {symbol: start + _signed(at) for at, symbol in enumerate(schema["symbols"])}
            return {str: _Way(numbers.__getitem__)}
        case "array":
            items = _ways(schema["items"])
            return items and {list: _Way(_arrays(start, {kind: way.write for kind, way in items.items()}))}
    return None


class _UpperParts(dict[int, bytes]):
    """The bytes of what is left of a number that is not negative, above its sign and its lowest 27 bits."""

    def __init__(self, bits: int) -> None:
        self._end = 1 << bits - 28

    def __missing__(self, part: int) -> bytes:
        if part >= self._end:
            raise OverflowError
        written = _unsigned(part)
        if len(self) < _MAX_PARTS:
            self[part] = written
        return written


class _Texts(dict[str, bytes]):
    """The bytes of a field's texts, each after ``start`` and its length."""

    def __init__(self, start: bytes) -> None:
        self._start = start
        self._sizes = [start + _signed(size) for size in range(_SHORT)]

    def __missing__(self, text: str) -> bytes:
        written = text.encode()
        size = len(written)
        if size >= _SHORT:
            return self._start + _signed(size) + written
        written = self._sizes[size] + written
        if len(self) < _MAX_TEXTS:
            self[text] = written
        return written


def _unsigned(number: int) -> bytes:
    written = b""
    while number > 0x7F:
        written += _MORE[number & 0x7F]
        number >>= 7
    return written + _LAST[number]


def _signed(number: int) -> bytes:
    return _unsigned(number << 1 if number >= 0 else ~(number << 1))


def _integers(start: bytes, bits: int) -> Write:
    least, upper_parts = -(1 << bits - 1), _UpperParts(bits)

    def write(number: int) -> bytes:
        # In steps that stay below 30 bits, which Python computes twice as fast.
        if number > 0x7FFFFFF:
            lower = number & 0x7FFFFFF
            return start + _MORE_SIGNED[lower & 0x1FFF] + _MORE_BITS[lower >> 13] + upper_parts[number >> 27]
        if number > 0x1FFF:
            return start + _MORE_SIGNED[number & 0x1FFF] + _LAST_BITS[number >> 13]
        if number >= 0:
            return start + _LAST_SIGNED[number]
        if number >= least:
            return start + _signed(number)
        raise OverflowError

    return write


def _doubles(start: bytes) -> Write:
    pack = struct.Struct("<d").pack
    return lambda number: start + pack(number)


def _arrays(start: bytes, writes: dict[type, Write]) -> Write:
    counts = [start + _signed(count) for count in range(_SHORT)]

    def write(items: list[Any]) -> bytes:
        count = len(items)
        if not count:
            return counts[0]
        parts = [counts[count] if count < _SHORT else start + _signed(count)]
        for item in items:
            parts.append(writes[type(item)](item))  # noqa: PERF401 - a comprehension costs a call
        parts.append(b"\x00")
        return b"".join(parts)

    return write


def _together(ways: list[_Way], run: list[int]) -> Write:
    """Return what writes a run of fields of fixed sizes, given all values and the branches."""
    picked: list[int] = []
    for at in run:
        branch = ways[at].branch
        picked += [] if branch is None else [len(ways) + _BRANCHES.index(branch)]
        picked += [at] if ways[at].layout.endswith("d") else []
    pick = _picker(picked)
    pack = struct.Struct("<" + "".join(ways[at].layout for at in run)).pack
    return lambda known: pack(*pick(known))


def _picker(places: list[int]) -> Callable[[Any], Any]:
    """Return what picks places as a tuple, even a single one."""
    return itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))
