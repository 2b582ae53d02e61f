"""The columnar codec says what the single-record codec says, and lets no bad row through."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.contracts.arrow_types import columnar
from driftline.contracts.batch_codec import BatchDecoder, BatchEncoder
from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import MAX_MESSAGE_BYTES, frame
from driftline.project import load_project
from driftline.runtime.errors import BadMessageError

TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2099, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))
LEAVES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "string": ("string", st.text(max_size=12)),
    "long": ("long", st.integers(-(2**63), 2**63 - 1)),
    "int": ("int", st.integers(-(2**31), 2**31 - 1)),
    "double": ("double", st.floats(allow_nan=False)),
    "float": ("float", st.floats(width=32, allow_nan=False)),
    "boolean": ("boolean", st.booleans()),
    "time": ({"type": "long", "logicalType": "timestamp-micros"}, TIMES),
    "bytes": ("bytes", st.binary(max_size=6)),  # not columnar: the slow path must agree too
}


@st.composite
def kinds(draw: st.DrawFn, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """An Avro type and the values of it."""
    choice = draw(
        st.sampled_from([*LEAVES, "enum", *(["array", "map", "record", "nullable"] if depth else [])])
    )
    if choice in LEAVES:
        return LEAVES[choice]
    name = f"N{draw(st.integers(0, 10**9))}"
    if choice == "enum":
        return {"type": "enum", "name": name, "symbols": ["A", "B"]}, st.sampled_from(["A", "B"])
    if choice == "record":
        fields = draw(st.lists(kinds(depth=depth - 1), min_size=1, max_size=3))
        schema = {
            "type": "record",
            "name": name,
            "fields": [{"name": f"f{i}", "type": kind} for i, (kind, _) in enumerate(fields)],
        }
        return schema, st.fixed_dictionaries({f"f{i}": values for i, (_, values) in enumerate(fields)})
    kind, values = draw(kinds(depth=depth - 1))
    if choice == "array":
        return {"type": "array", "items": kind}, st.lists(values, max_size=3)
    if choice == "map":
        return {"type": "map", "values": kind}, st.dictionaries(st.text(max_size=4), values, max_size=3)
    if isinstance(kind, list):
        return kind, values
    return draw(st.sampled_from([["null", kind], [kind, "null"]])), st.none() | values


@st.composite
def batches(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    fields = draw(st.lists(kinds(), min_size=1, max_size=5))
    schema = {
        "type": "record",
        "name": "R",
        "fields": [{"name": f"c{i}", "type": kind} for i, (kind, _) in enumerate(fields)],
    }
    records = draw(
        st.lists(
            st.fixed_dictionaries({f"c{i}": values for i, (_, values) in enumerate(fields)}), max_size=12
        )
    )
    return schema, records


def names_are_unique(schema: dict[str, Any]) -> bool:
    text = json.dumps(schema)
    names = [part.split('"')[0] for part in text.split('"name": "N')[1:]]
    return len(names) == len(set(names))


@settings(max_examples=150, deadline=None)
@given(batches().filter(lambda batch: names_are_unique(batch[0])))
def test_columns_equal_records_and_encode_to_the_same_bytes(
    batch: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    schema, records = batch
    codec = RecordCodec(schema)
    values = [frame(1, codec.encode(record)) for record in records]
    decoded = BatchDecoder(schema, lambda _: schema).decode(values)
    assert decoded.bad == ()
    assert decoded.rows.tolist() == list(range(len(values)))
    assert BatchEncoder(schema, 1).encode(decoded.table) == values or not columnar(schema)
    again = [codec.decode(value[5:]) for value in BatchEncoder(schema, 1).encode(decoded.table)]
    assert again == [codec.decode(value[5:]) for value in values]


_LOGGED = prediction_schema(load_project(Path(__file__).parents[2] / "e2e" / "shop"))


@pytest.mark.parametrize("count", [1, 64, 127, 128])
def test_few_records_and_many_are_the_same_bytes(count: int) -> None:
    records = [_logged(number) for number in range(count)]
    codec = RecordCodec(_LOGGED)
    told = BatchEncoder(_LOGGED, 7).encode_records(records)
    assert told == [frame(7, codec.encode(record)) for record in records]


@pytest.mark.parametrize("count", [20, 200])
@pytest.mark.parametrize("wrong", [{"score": "much"}, {"requested_at": 2**70}, {"model": None}])
def test_a_record_that_does_not_fit_spoils_no_other(wrong: dict[str, Any], count: int) -> None:
    records = [_logged(number) for number in range(count)]
    records[3] = {**records[3], **wrong}
    told = BatchEncoder(_LOGGED, 7).encode_records(records)
    assert [number for number, one in enumerate(told) if isinstance(one, BadMessageError)] == [3]


def _logged(number: int) -> dict[str, Any]:
    """Return a record of the log with each kind of value, null now and then."""

    def value(kind: Any) -> Any:
        if isinstance(kind, list):
            return None if number % 3 == 0 else value(kind[1])
        name = kind["type"] if isinstance(kind, dict) else kind
        match name:
            case "string":
                return f"text ü {number}"
            case "enum":
                return kind["symbols"][number % len(kind["symbols"])]
            case "array":
                return ["a@1"] * (number % 3)
            case "double":
                return number / 7
            case "boolean":
                return number % 2 == 0
            case _:
                return 1_750_000_000_000_000 - 3**number % 10**15

    return {one["name"]: value(one["type"]) for one in _LOGGED["fields"]}


SCHEMA = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "value", "type": ["null", "double"]},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ],
}
CODEC = RecordCodec(SCHEMA)


def good(number: int) -> bytes:
    return frame(1, CODEC.encode({"id": f"event-{number}", "value": number / 2, "tags": ["a"]}))


def resolve(schema_id: int) -> dict[str, Any]:
    if schema_id != 1:
        raise BadMessageError(f"schema {schema_id} is unknown")
    return SCHEMA


BAD = {
    "wrong magic": b"\x01" + good(1)[1:],
    "unknown id": b"\x00\x00\x00\x00\x63" + good(1)[5:],
    "truncated": good(1)[:-2],
    "trailing": good(1) + b"x",
    "null": None,
    "empty": b"",
    "header only": good(1)[:5],
    "oversize": frame(1, CODEC.encode({"id": "x" * (2 * MAX_MESSAGE_BYTES), "value": None, "tags": []})),
    "broken text": good(1).replace(b"event", b"\xff\xfe\xff\xfe\xff"),
    "array bomb": frame(1, b"\x02a\x00" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + b"\x02a"),
    "string bomb": frame(1, b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + b"a"),
    "negative length": frame(1, b"\x01"),
    "impossible branch": frame(1, b"\x02a\x08\x00"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_leaves_its_neighbours_unharmed(name: str) -> None:
    values: list[bytes | None] = [good(number) for number in range(100)]
    values[37] = BAD[name]
    decoded = BatchDecoder(SCHEMA, resolve).decode(values)
    assert [row.index for row in decoded.bad] == [37]
    assert str(decoded.bad[0].error)
    assert decoded.rows.tolist() == [number for number in range(100) if number != 37]
    assert decoded.table.column("id").to_pylist() == [
        f"event-{number}" for number in range(100) if number != 37
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*BAD, None]), max_size=40))
def test_any_mix_of_good_and_bad_rows_is_told_apart(kinds_of_rows: list[str | None]) -> None:
    values = [good(number) if kind is None else BAD[kind] for number, kind in enumerate(kinds_of_rows)]
    decoded = BatchDecoder(SCHEMA, resolve).decode(values)
    assert decoded.rows.tolist() == [n for n, kind in enumerate(kinds_of_rows) if kind is None]
    assert [row.index for row in decoded.bad] == [
        n for n, kind in enumerate(kinds_of_rows) if kind is not None
    ]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_arbitrary_bytes_decode_as_the_record_codec_says(body: bytes) -> None:
    decoded = BatchDecoder(SCHEMA, resolve).decode([frame(1, body)])
    try:
        record = CODEC.decode(body)
    except BadMessageError:
        assert len(decoded.bad) == 1
    else:
        assert decoded.table.num_rows == 1
        assert decoded.table.column("id").to_pylist() == [record["id"]]


def test_records_of_an_older_schema_become_the_readers_columns() -> None:
    older = {
        "type": "record",
        "name": "Event",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "number", "type": "int"},
            {"name": "gone", "type": "string"},
        ],
    }
    newer = {
        "type": "record",
        "name": "Event",
        "fields": [
            {"name": "number", "type": ["null", "double"], "default": None},
            {"name": "id", "type": "string"},
            {"name": "unit", "type": "string", "default": "minute"},
        ],
    }
    schemas = {1: older, 2: newer}
    old = frame(1, RecordCodec(older).encode({"id": "a", "number": 7, "gone": "x"}))
    new = frame(2, RecordCodec(newer).encode({"id": "b", "number": 1.5, "unit": "hour"}))
    decoded = BatchDecoder(newer, schemas.__getitem__).decode([old, new, old])
    assert decoded.table.to_pylist() == [
        {"number": 7.0, "id": "a", "unit": "minute"},
        {"number": 1.5, "id": "b", "unit": "hour"},
        {"number": 7.0, "id": "a", "unit": "minute"},
    ]
