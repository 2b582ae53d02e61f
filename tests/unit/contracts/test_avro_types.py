"""One normal form for all the ways to write a type; what could be endless is refused."""

from typing import Any

import pyarrow as pa
import pytest

from driftline.contracts.arrow_types import arrow_schema, columnar
from driftline.contracts.avro_types import normal_form
from driftline.contracts.batch_codec import BatchDecoder, BatchEncoder
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame
from driftline.runtime.errors import ConfigurationError

POINT = {"type": "record", "name": "Point", "fields": [{"name": "x", "type": "int"}]}


def record(*kinds: Any) -> dict[str, Any]:
    fields = [{"name": f"f{at}", "type": kind} for at, kind in enumerate(kinds)]
    return {"type": "record", "name": "R", "namespace": "n", "fields": fields}


def test_a_reference_by_name_is_the_type_itself() -> None:
    schema = record(POINT, ["null", "Point"], {"type": "array", "items": "n.Point"})
    first, second, third = (field["type"] for field in normal_form(schema)["fields"])
    assert first["name"] == "n.Point"
    assert second == ["null", first]
    assert third == {"type": "array", "items": first}


def test_referred_types_go_both_ways_in_a_batch() -> None:
    schema = record(POINT, ["null", "Point"])
    assert not columnar(schema)
    values = [
        frame(1, RecordCodec(schema).encode({"f0": {"x": 1}, "f1": second})) for second in (None, {"x": 2})
    ]
    decoded = BatchDecoder(schema, lambda _: schema).decode(values)
    assert decoded.table.to_pylist() == [{"f0": {"x": 1}, "f1": None}, {"f0": {"x": 1}, "f1": {"x": 2}}]
    assert BatchEncoder(schema, 1).encode(decoded.table) == values


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("sting", "f0: 'sting' is no Avro type"),
        ({"type": "array"}, "f0: the Avro type is incomplete"),
        ({"items": "int"}, "is no Avro type"),
        (["null", "R"], "f0 is recursive"),
        ({"type": "array", "items": "null"}, "f0: an array of items without bytes"),
        ({"type": "array", "items": record()}, "f0: an array of items without bytes"),
    ],
)
def test_what_is_no_type_or_has_no_bound_names_its_field(kind: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        RecordCodec(record(kind))


def test_deep_types_are_refused() -> None:
    kind: Any = "int"
    for _ in range(2000):
        kind = {"type": "array", "items": kind}
    with pytest.raises(ConfigurationError, match="nested more than"):
        RecordCodec(record(kind))


def test_a_union_of_several_types_is_no_column() -> None:
    schema = record(["null", "int", "string"])
    assert RecordCodec(schema).from_json({"f0": "x"}) == {"f0": "x"}
    with pytest.raises(ConfigurationError, match="f0: a union of several types"):
        arrow_schema(schema)


def test_what_the_fast_library_lacks_takes_the_slow_path() -> None:
    schema = record(
        {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2},
        {"type": "string", "logicalType": "uuid"},
        {"type": "long", "logicalType": "time-micros"},
        {"type": "long", "logicalType": "local-timestamp-micros"},
        "bytes",
    )
    event = {
        "f0": "1.5",
        "f1": "0190a6c5-7b2e-7c11-8000-0123456789ab",
        "f2": "12:00:00",
        "f3": "2013-04-01T12:00:00",
        "f4": "ÿ",
    }
    codec = RecordCodec(schema)
    value = frame(1, codec.encode(codec.from_json(event)))
    decoded = BatchDecoder(schema, lambda _: schema).decode([value])
    assert codec.to_json(codec.decode(value[5:])) == {**event, "f0": "1.50"}
    assert decoded.table.schema.types[:4] == [
        pa.decimal128(5, 2),
        pa.string(),
        pa.time64("us"),
        pa.timestamp("us"),
    ]
    assert codec.to_json(decoded.table.to_pylist()[0]) == {**event, "f0": "1.50"}


def test_a_decimal_of_too_many_digits_leaves_its_neighbours() -> None:
    schema = record({"type": "bytes", "logicalType": "decimal", "precision": 3, "scale": 0})
    values = [frame(1, b"\x02" + bytes([number])) for number in (1, 2, 3)]
    values.insert(1, frame(1, b"\x06\x7f\x7f\x7f"))
    decoded = BatchDecoder(schema, lambda _: schema).decode(values)
    assert [row.index for row in decoded.bad] == [1]
    assert decoded.rows.tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([1.0]), "the schema wants the column"),
        (pa.array([None], pa.int64()), "holds nulls"),
    ],
)
def test_the_encoder_refuses_other_columns(column: pa.Array, reason: str) -> None:
    encoder = BatchEncoder(record("long"), 1)
    with pytest.raises(ValueError, match=reason):
        encoder.encode(pa.RecordBatch.from_arrays([column], names=["f0"]))
    with pytest.raises(ValueError, match="the schema wants the column"):
        encoder.encode(pa.RecordBatch.from_arrays([], names=[]))
