"""Records of an older schema: whatever is called compatible is read, by columns as by single records."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.contracts.arrow_values import for_columns
from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.compatibility import explain_incompatibility
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame
from driftline.runtime.errors import BadMessageError

TIME = {"type": "long", "logicalType": "timestamp-micros"}
SMALL = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
LARGE = {"type": "enum", "name": "E", "symbols": ["B", "C", "A"]}
POINT = {"type": "record", "name": "P", "fields": [{"name": "x", "type": "int"}]}
WIDER = {"type": "record", "name": "P", "fields": [{"name": "x", "type": "long"}]}
#: A field's type and some values of it; small numbers, so that a 32-bit float holds them.
VALUES: list[tuple[Any, list[Any]]] = [
    ("int", [0, -7]),
    ("long", [1, 2**20]),
    ("float", [0.5, -2.0]),
    ("double", [0.25, 3.0]),
    ("string", ["", "é"]),
    ("boolean", [True]),
    (["null", "int"], [None, 5]),
    (["string", "null"], [None, "x"]),
    (["null", "double"], [None, 1.5]),
    (SMALL, ["A", "B"]),
    (LARGE, ["A", "C"]),
    (TIME, [0, 1_364_817_600_000_000]),
    (["null", TIME], [None, 5]),
    (POINT, [{"x": 1}]),
    (WIDER, [{"x": 2}]),
    ({"type": "array", "items": "int"}, [[], [1, 2]]),
    ({"type": "array", "items": "long"}, [[3]]),
    ({"type": "map", "values": "string"}, [{"k": "v"}]),
    ("bytes", [b"ab"]),
]


def plain(value: Any) -> Any:
    """A value with maps as their pairs, as to_pylist gives them."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        pairs = all(isinstance(item, tuple) for item in value) and value
        return dict(value) if pairs else [plain(item) for item in value]
    return value


@st.composite
def evolutions(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """An older schema, a newer one, and records of the older."""
    picked = draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=4))
    used: set[str] = set()
    older, values = [], {}
    for at, (kind, some) in enumerate(picked):
        named = str(kind["name"]) if isinstance(kind, dict) and "name" in kind else f"plain {at}"
        if named not in used:
            used.add(named)
            older.append({"name": f"f{at}", "type": kind})
            values[f"f{at}"] = st.sampled_from(some)
    newer, taken = [], set()
    for field in draw(st.permutations(older)):
        kind = draw(st.sampled_from([field["type"], *(kind for kind, _ in VALUES)]))
        name = str(kind["name"]) if isinstance(kind, dict) and "name" in kind else ""
        if draw(st.booleans()) and name not in taken:
            taken.add(name or "-")
            newer.append({**field, "type": kind})
    defaults = [("long", 3), ("string", "none"), (["null", "double"], None), (TIME, 9)]
    defaults.append(({"type": "array", "items": "string"}, []))
    for at, (kind, default) in enumerate(draw(st.lists(st.sampled_from(defaults), max_size=2))):
        newer.append({"name": f"new{at}", "type": kind, "default": default})
    if not newer:
        newer = [{"name": "only", "type": "string", "default": "x"}]
    records = draw(st.lists(st.fixed_dictionaries(values), min_size=1, max_size=5))
    named_r = {"type": "record", "name": "R"}
    return {**named_r, "fields": older}, {**named_r, "fields": newer}, records


@settings(max_examples=400, deadline=None)
@given(evolutions())
def test_columns_are_resolved_like_single_records(
    evolution: tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]],
) -> None:
    older, newer, records = evolution
    written = RecordCodec(older)
    bodies = [written.encode(record) for record in records]
    decoded = BatchDecoder(newer, lambda _: older).decode([frame(1, body) for body in bodies])
    reader = RecordCodec(newer)
    good: list[int] = []
    single = []
    for at, body in enumerate(bodies):
        try:
            single.append(plain(for_columns(reader.decode(body, older))))
        except BadMessageError:
            continue
        good.append(at)
    if explain_incompatibility(reader=newer, writer=older) is not None:
        # The registry refuses it. What reads at all may read oddly (a number as a time), but never crashes.
        assert set(decoded.rows.tolist()) <= set(good)
        return
    assert decoded.rows.tolist() == good == list(range(len(bodies)))
    for row, expected in zip(decoded.table.to_pylist(), single, strict=True):
        for field in newer["fields"]:  # a default stays a number in a single record
            if "default" in field:
                row.pop(field["name"])
                expected.pop(field["name"])
        assert plain(row) == expected


@pytest.mark.parametrize("rows", [1, 1000])
def test_a_lost_symbol_is_a_bad_row_and_its_neighbours_stay(rows: int) -> None:
    older = {"type": "record", "name": "R", "fields": [{"name": "e", "type": LARGE}]}
    newer = {"type": "record", "name": "R", "fields": [{"name": "e", "type": SMALL}]}
    codec = RecordCodec(older)
    values = [frame(1, codec.encode({"e": "ABC"[at % 3]})) for at in range(rows * 3)]
    decoded = BatchDecoder(newer, lambda _: older).decode(values)
    assert [row.index for row in decoded.bad] == list(range(2, rows * 3, 3))
    assert decoded.table.column("e").to_pylist() == ["A", "B"] * rows


def test_a_writers_schema_without_a_bound_is_refused() -> None:
    reader = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}
    tree = {"type": "record", "name": "R", "fields": [{"name": "a", "type": ["null", "R"]}]}
    decoded = BatchDecoder(reader, lambda _: tree).decode([frame(9, b"\x00")])
    assert "schema 9 is refused" in str(decoded.bad[0].error)
    with pytest.raises(BadMessageError, match="recursive"):
        RecordCodec(reader).decode(b"\x00", tree)
