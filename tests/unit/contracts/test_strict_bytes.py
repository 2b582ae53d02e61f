"""Impossible bytes are refused where the libraries would let them through, alone and in a batch."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame
from driftline.runtime.errors import BadMessageError

TIME = {"type": "long", "logicalType": "timestamp-micros"}
DATE = {"type": "int", "logicalType": "date"}
ENUM = {"type": "enum", "name": "E", "symbols": ["X", "Y"]}
TEXTS = {"type": "array", "items": "string"}


def record(*kinds: Any) -> dict[str, Any]:
    fields = [{"name": f"f{at}", "type": kind} for at, kind in enumerate(kinds)]
    return {"type": "record", "name": "R", "fields": fields}


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("int", b"\xfe\xff\xff\xff\x7f", "17179869183 is beyond 32 bits"),
        ("long", b"\xff" * 9 + b"\x7f", "a number beyond 64 bits"),
        ("long", b"\xff" * 12, "a number beyond 64 bits"),
        ("long", b"\xff", "the bytes end inside a number"),
        ("boolean", b"\x02", "a boolean is written as 2"),
        ("boolean", b"", "the bytes end before it"),
        ("double", b"1234567", "the bytes end inside it"),
        ("string", b"\x01", "a length of -1"),
        ("string", b"\x06ab", "a length of 3, but only 2 bytes are left"),
        ("string", b"\x06\xed\xa0\x80", "the text is not UTF-8"),
        (["null", "int"], b"\x01\x02", "branch -1 of 2"),
        (["null", "int"], b"\x04", "branch 2 of 2"),
        (ENUM, b"\x01", "symbol -1 of 2"),
        (ENUM, b"\x04", "symbol 2 of 2"),
        (TEXTS, b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\x02a", "a block of"),
        (TEXTS, b"\xff" * 9 + b"\x01\x02\x02a", "a block of"),
        (TEXTS, b"\x01\x40\x02a\x00", "a block's size is not that of its items"),
        ({"type": "map", "values": "int"}, b"\x02\x02\xff\x02\x00", "the text is not UTF-8"),
        (TIME, b"\xfe" + b"\xff" * 8 + b"\x01", "out of range for timestamp-micros"),
        (DATE, b"\xfe\xff\xff\xff\x0f", "out of range for date"),
        ({"type": "array", "items": TIME}, b"\x02\xfe" + b"\xff" * 8 + b"\x01\x00", "out of range"),
        ({"type": "map", "values": ["null", DATE]}, b"\x02\x02a\x02\xfe\xff\xff\xff\x0f\x00", "out of range"),
    ],
)
def test_impossible_bytes_name_their_field(kind: Any, body: bytes, reason: str) -> None:
    schema = record("int", kind)
    with pytest.raises(BadMessageError, match=reason) as raised:
        RecordCodec(schema).decode(b"\x02" + body)
    assert "field 'f1'" in str(raised.value)
    decoded = BatchDecoder(schema, lambda _: schema).decode([frame(1, b"\x02" + body)])
    assert [str(row.error) for row in decoded.bad] == [str(raised.value)]


@pytest.mark.parametrize(
    "body", [b"\x01\x04\x02a\x00", b"\x02\x02a\x00", b"\x01\x04\x02a\x02\x02b\x00", b"\x00"]
)
def test_arrays_in_blocks_are_legal(body: bytes) -> None:
    schema = record(TEXTS)
    found = RecordCodec(schema).decode(body)
    decoded = BatchDecoder(schema, lambda _: schema).decode([frame(1, body)] * 3)
    assert decoded.bad == ()
    assert decoded.table.to_pylist() == [found] * 3


KINDS = [
    "int",
    "long",
    "boolean",
    "string",
    "double",
    ["null", "int"],
    ["string", "null"],
    ENUM,
    TEXTS,
    TIME,
    DATE,
]
KINDS += [{"type": "map", "values": ["null", "long"]}, "bytes"]  # bytes: no columnar path


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    st.lists(
        st.one_of(st.binary(max_size=12), st.lists(st.integers(0, 6), max_size=8).map(bytes)), max_size=6
    ),
)
def test_batches_and_single_records_agree_on_arbitrary_bytes(kinds: list[Any], bodies: list[bytes]) -> None:
    names: set[int] = set()
    kinds = [
        kind
        for kind in kinds
        if id(kind) not in names and not (isinstance(kind, dict) and names.add(id(kind)))
    ]
    schema = record(*kinds)
    codec = RecordCodec(schema)
    expected = []
    for index, body in enumerate(bodies):
        try:
            codec.decode(body)
        except BadMessageError:
            continue
        expected.append(index)
    decoded = BatchDecoder(schema, lambda _: schema).decode([frame(1, body) for body in bodies])
    assert decoded.rows.tolist() == expected
    assert [row.index for row in decoded.bad] == [at for at in range(len(bodies)) if at not in expected]
    assert decoded.table.num_rows == len(expected)
    decoded.table.validate(full=True)
