"""The quick writer gives what fastavro gives to the byte, or nothing."""

from collections import defaultdict
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.contracts.batch_codec import BatchEncoder
from driftline.contracts.project_schemas import outcome_schema, prediction_request_schema, prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.record_writer import record_writer
from driftline.contracts.wire import frame
from driftline.project import load_project
from driftline.runtime.errors import BadMessageError

Record = dict[str, Any]
SHOP = load_project(Path(__file__).parents[2] / "e2e" / "shop")
BENCH = load_project(Path(__file__).parents[3] / "benchmarks" / "project")


class Text(str):
    """A text that is written as itself, and equal to none."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return False


class Half(float):
    def __float__(self) -> float:
        return 0.5


class Whole(int):
    pass


INTS = st.integers(-(2**31), 2**31 - 1)
#: Numbers of every length.
LONGS = st.builds(lambda number, bits: number >> bits, st.integers(-(2**63), 2**63 - 1), st.integers(0, 63))
TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["", "x" * 127, "x" * 128, "ü" * 64, "𝄞" * 5_000]))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "int": INTS,
    "long": LONGS,
    "double": st.floats() | st.sampled_from([0, -0.0, -1, 2**53 + 1, -(2**80)]),
    "string": TEXTS,
}
LOGICAL = {"timestamp-micros": "long", "local-timestamp-millis": "long", "time-millis": "int", "date": "int"}
#: What fits some fields, not others, and most not quite.
ODD: list[Any] = [
    *(None, True, False, 0, -1, 2**31, -(2**31) - 1, 2**63, -(2**63) - 1, 10**400, 0.5, "", "HTTP", "x" * 200),
    *("\ud800", b"x", Text("HTTP"), Half(2), Whole(7), np.float64(1.5), np.float32(1.5), np.int64(3), np.str_("x")),
    *(np.bool_(True), np.array([1.5]), Decimal("1.5"), 1j, ("string", "x"), ("double", 1.5), ("x",), {"x"}, {}),
    *([], [None], ["x"], ["x", 1], ["x", "\ud800"], [Text("x")], [[]], {"x": 1}, object, UUID(int=1)),
    *(date(2025, 1, 1), datetime(2025, 1, 1, tzinfo=UTC)),
]  # fmt: skip


@st.composite
def kinds(draw: st.DrawFn, depth: int = 2) -> Any:
    """A type that the writer knows."""
    choice = draw(
        st.sampled_from([*VALUES, *VALUES, "double", "enum", "logical", "uuid", "array", "nullable"])
    )
    if choice in VALUES:
        return choice
    match choice:
        case "enum":
            size = draw(st.sampled_from([1, 3, 70]))
            name = f"N{draw(st.integers(0, 10**12))}"
            return {"type": "enum", "name": name, "symbols": [f"S{number}" for number in range(size)]}
        case "logical":
            logical = draw(st.sampled_from([*LOGICAL]))
            return {"type": LOGICAL[logical], "logicalType": logical}
        case "uuid":
            return {"type": "string", "logicalType": "uuid"}
    if not depth:
        return "string"
    kind = draw(kinds(depth=depth - 1))
    if choice == "array":
        return {"type": "array", "items": kind}
    return kind if isinstance(kind, list) else draw(st.sampled_from([["null", kind], [kind, "null"]]))


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Return the values of a type."""
    if isinstance(kind, list):
        return st.one_of([st.none() if branch == "null" else values(branch) for branch in kind])
    if isinstance(kind, str):
        return VALUES[kind]
    if kind["type"] == "array":
        few = st.lists(values(kind["items"]), max_size=3)
        return few | st.builds(lambda one, size: one * size, few, st.sampled_from([64, 128]))
    return st.sampled_from(kind["symbols"]) if kind["type"] == "enum" else VALUES[kind["type"]]


def records(schema: dict[str, Any]) -> st.SearchStrategy[Record]:
    return st.fixed_dictionaries({field["name"]: values(field["type"]) for field in schema["fields"]})


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, Any]:
    types = draw(st.lists(kinds(), min_size=2, max_size=8, unique_by=str))
    fields = [{"name": f"c{at}", "type": kind} for at, kind in enumerate(types)]
    return {"type": "record", "name": "R", "namespace": "some.where", "fields": fields}


def of(*types: Any) -> dict[str, Any]:
    """Return the schema of a record with fields f0, f1 and so on."""
    fields = [{"name": f"f{at}", "type": kind} for at, kind in enumerate(types)]
    return {"type": "record", "name": "R", "fields": fields}


def fitting(kind: Any) -> Any:
    """Return a value of a type."""
    if isinstance(kind, list):
        return fitting(kind[0] if kind[1] == "null" else kind[1])
    name = kind if isinstance(kind, str) else kind["type"]
    if name == "enum":
        return kind["symbols"][0]
    return [] if name == "array" else {"string": "x", "double": 1.5, "boolean": True}.get(name, 300)


def written(codec: RecordCodec, record: Any) -> bytes | str:
    """Return what fastavro makes of a record: bytes, or the error's text."""
    try:
        return frame(7, codec.encode(record))
    except BadMessageError as error:
        return str(error)


def told(schema: dict[str, Any], several: list[Any]) -> list[bytes | str]:
    """Return what becomes of records in batches too small for columns."""
    encoder = BatchEncoder(schema, 7)
    found = chain.from_iterable(
        encoder.encode_records(several[at : at + 50]) for at in range(0, len(several), 50)
    )
    return [one if isinstance(one, bytes) else str(one) for one in found]


@settings(max_examples=300, deadline=None)
@given(st.data(), schemas())
def test_what_fits_is_written_as_fastavro_writes_it(data: st.DataObject, schema: dict[str, Any]) -> None:
    codec, writer = RecordCodec(schema), record_writer(schema, b"head")
    assert writer is not None
    for record in data.draw(st.lists(records(schema), min_size=1, max_size=4)):
        assert writer.write(record) == writer.write(record) == b"head" + codec.encode(record)


PROJECTS = [
    build(project)
    for project in (SHOP, BENCH)
    for build in (prediction_schema, prediction_request_schema, outcome_schema)
]


@pytest.mark.parametrize(
    "schema", PROJECTS, ids=[f"{schema['namespace']}.{schema['name']}" for schema in PROJECTS]
)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_records_of_a_project_are_written_so_too(data: st.DataObject, schema: dict[str, Any]) -> None:
    codec, writer = RecordCodec(schema), record_writer(schema)
    assert writer is not None
    several = data.draw(st.lists(records(schema), max_size=3))
    assert [writer.write(record) for record in several] == [codec.encode(record) for record in several]
    assert told(schema, several) == [written(codec, record) for record in several]


_ENUM = {"type": "enum", "name": "E", "symbols": ["x", "HTTP"]}
_TIME = {"type": "long", "logicalType": "timestamp-micros"}
_PLAIN = [*VALUES, _ENUM, _TIME, {"type": "string", "logicalType": "uuid"}]
_ARRAYS = [{"type": "array", "items": kind} for kind in [*_PLAIN, ["null", "double"]]]
KINDS = [kind for one in [*_PLAIN, *_ARRAYS] for kind in (one, ["null", one], [one, "null"])]
_AROUND = ["null", "double"]


@pytest.mark.parametrize(
    "schema", [*PROJECTS, *(of(_AROUND, kind, _AROUND) for kind in KINDS)], ids=lambda schema: schema["name"]
)
def test_what_does_not_fit_is_told_as_before_and_spoils_no_other(schema: dict[str, Any]) -> None:
    codec, good = RecordCodec(schema), {field["name"]: fitting(field["type"]) for field in schema["fields"]}
    several: list[Record] = [good]
    for name in good:
        several += [{**good, name: odd} for odd in ODD]
        several += [{key: good[key] for key in good if key != name}, {**good, "more": name}, good]
    assert told(schema, several) == [written(codec, record) for record in several]


class Chatty(dict[str, Any]):
    """A record that says other values than it holds."""

    def get(self, key: str, default: Any = None) -> Any:
        return 2.5

    __getitem__ = get


@pytest.mark.parametrize(
    "record",
    [
        *(None, 5, [], {}, "f0", [("f0", 1.5), ("f1", None)]),
        *(MappingProxyType({"f0": 1.5, "f1": None}), defaultdict(float, f0=1.5), Chatty(f0=1.5, f1=None)),
    ],
)
def test_what_is_no_record_is_told_as_before(record: Any) -> None:
    schema = of(["null", "double"], ["null", "double"])
    try:
        expected: bytes | str = written(RecordCodec(schema), record)
    except Exception as error:  # noqa: BLE001 - whatever it was
        with pytest.raises(type(error)):
            told(schema, [record])
    else:
        assert told(schema, [record]) == [expected]


@pytest.mark.parametrize(("kind", "bits"), [("int", 32), ("long", 64)])
def test_numbers_at_the_borders_of_each_length(kind: str, bits: int) -> None:
    schema = of(kind, ["null", kind])
    codec, writer = RecordCodec(schema), record_writer(schema)
    assert writer is not None
    powers = [sign << exponent for exponent in range(bits - 1) for sign in (1, -1)]
    for number in {power + more for power in [*powers, -(1 << bits - 1) + 1] for more in (-1, 0, 1)}:
        record = {"f0": number, "f1": number}
        assert writer.write(record) == codec.encode(record)


def test_nulls_may_fall_in_more_ways_than_are_prepared() -> None:
    schema = of(*[["null", "double"], ["double", "null"], "double", ["null", "long"]] * 3)
    codec, writer = RecordCodec(schema), record_writer(schema)
    assert writer is not None
    for mask in range(2**12):
        record = {f"f{at}": at if mask >> at & 1 or at % 4 == 2 else None for at in range(12)}
        assert writer.write(record) == codec.encode(record)


def test_more_texts_and_times_come_than_are_kept() -> None:
    schema = of("string", "long")
    codec, writer = RecordCodec(schema), record_writer(schema)
    assert writer is not None
    for number in [*range(3_000), *range(3_000)]:
        record = {"f0": f"text {number}", "f1": number << 40}
        assert writer.write(record) == codec.encode(record)


UNKNOWN = [
    of("string"),
    of("string", "bytes"),
    of("string", "float"),
    of("string", "null"),
    of("string", ["null"]),
    of("string", ["string"]),
    of("string", ["null", "string", "long"]),
    of("string", ["null", {"type": "map", "values": "string"}]),
    of("string", {"type": "array", "items": of("string", "string")}),
    of("string", {"type": "bytes", "logicalType": "decimal", "precision": 4}),
    of("string", {"type": "fixed", "name": "F", "size": 4}),
]


@pytest.mark.parametrize("schema", UNKNOWN)
def test_schemas_of_other_kinds_are_left_alone(schema: dict[str, Any]) -> None:
    assert record_writer(schema) is None
