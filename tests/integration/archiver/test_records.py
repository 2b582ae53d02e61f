"""What the archive holds of a record: every value, under every schema; of a bad one, its bytes and the reason."""

import json
import struct
from typing import Any

from driftline.archive.maintenance import compact
from driftline.archive.query import query
from driftline.archive.tables import open_table
from driftline.contracts.wire import frame

from .conftest import SCHEMA, World


def with_fields(*fields: dict[str, Any], **types: Any) -> dict[str, Any]:
    """Return the schema with more fields, and with other types of those it has."""
    kept = [{**one, "type": types.get(one["name"], one["type"])} for one in SCHEMA["fields"]]
    return {**SCHEMA, "fields": [*kept, *fields]}


def test_bad_messages_are_kept_whole_beside_their_neighbours(world: World) -> None:
    world.publish(50)
    good = frame(
        world.schema_id,
        world._codecs[world.schema_id].encode(
            {"event_id": "x", "customer": "c", "paid_at": 0, "amount": 1.0, "pieces": 1}
        ),
    )
    bad = {
        b"rubbish": "magic",
        good + b"!": "trailing|left|after",
        good[:-2]: "",
        frame(2_000_000_000, b"abc"): "knows no Avro schema",
        b"": "header",
    }
    for value in bad:
        world.publish_raw(value, headers=[("who", b"me"), ("bytes", b"\xff"), ("none", None)])
    world.publish_raw(None)
    world.publish(50)
    world.run()
    world.assert_exact()
    found = world.bad()
    assert [row["value"] for row in found] == [*bad, None]
    assert all(row["reason"] and row["stage"] == "decode" and row["key"] == b"c1" for row in found)
    assert "magic byte" in found[0]["reason"]
    assert json.loads(found[0]["headers"]) == [["who", "me"], ["bytes", {"base64": "/w=="}], ["none", None]]


def test_a_topic_that_begins_with_rubbish(world: World) -> None:
    """The table is made by a commit without a single good row, and gets its columns later."""
    world.publish_raw(b"rubbish")
    world.run()
    assert world.rows() == []
    world.publish(20)
    world.run()
    world.assert_exact()


def test_a_foreign_record_is_no_payment(world: World) -> None:
    other = {"type": "record", "name": "Refund", "fields": [{"name": "x", "type": "long"}]}
    schema_id = world.registry.register(f"{world.topic}-other-value", other)
    world.publish(10)
    world.publish_raw(frame(schema_id, b"\x02"))
    world.run()
    world.assert_exact()
    (row,) = world.bad()
    assert "is of a Refund" in row["reason"] and "carries Payment" in row["reason"]
    assert "x" not in world.rows()[0]


def test_new_fields_become_columns(world: World) -> None:
    world.publish(20)
    world.run()
    note = {"name": "note", "type": ["null", "string"], "default": None}
    deep = {
        "name": "deep",
        "type": ["null", {"type": "record", "name": "Deep", "fields": [{"name": "a", "type": "int"}]}],
        "default": None,
    }
    newer = world.evolve(with_fields(note, deep))
    world.publish(20, schema_id=newer, note="hello", deep={"a": 7})
    world.publish(20)  # an older producer goes on
    world.run()
    world.assert_exact()
    rows = sorted(world.rows(), key=lambda row: int(row["event_id"][1:]))
    assert [row["note"] for row in rows] == [None] * 20 + ["hello"] * 20 + [None] * 20
    assert rows[25]["deep"] == {"a": 7}


def test_avros_promotions_keep_one_column(world: World) -> None:
    """int -> long and float -> double need no other column: stored values are wide from the start."""
    world.publish(20)
    world.run()
    wider = world.evolve(with_fields(pieces="long", amount=["null", "double"]))
    world.publish(20, schema_id=wider)
    world.run()
    world.assert_exact()


def test_a_promotion_that_would_change_stored_values_keeps_the_records_as_bytes(world: World) -> None:
    world.publish(20)
    world.run()
    double = world.evolve(with_fields(pieces="double"))
    before = world.published
    world.publish(5, schema_id=double)
    world.publish(20)
    world.run()
    bad = world.bad()
    assert len(bad) == 5
    assert {row["stage"] for row in bad} == {"archive"}
    assert "'pieces' is int64 in the archive, the record has double" in bad[0]["reason"]
    codec = world._codecs[double]
    assert {codec.decode(row["value"][5:])["event_id"] for row in bad} == {
        f"p{n}" for n in range(before, before + 5)
    }
    assert len(world.rows()) == 40


def test_dead_letters_are_kept_as_they_came(world: World) -> None:
    world.publish_raw(b"\x00\xffraw", headers=[("reason", b"why")], topic=world.topics.dead_letters)
    world.run()
    (row,) = world.rows("dead-letters")
    assert (row["key"], row["value"], row["_offset"]) == (b"c1", b"\x00\xffraw", 0)
    assert json.loads(row["headers"]) == [["reason", "why"]]
    assert query(world.archive, "SELECT count(*) AS n FROM dead_letters").to_pylist() == [{"n": 1}]


def test_compaction_keeps_every_row_and_the_place_to_go_on(world: World) -> None:
    world.publish(900)
    world.run(rows=30, max_batch=30)
    done = compact(world.archive.table("topics", "payments"))
    assert done is not None and done.removed > 20 and done.added == 3
    world.publish(300)
    world.run()
    world.assert_exact()


def test_queries_give_what_was_published(world: World) -> None:
    world.publish(600)
    world.run()
    found = query(
        world.archive,
        "SELECT _event_date::VARCHAR AS day, count(*) AS n, sum(pieces)::BIGINT AS pieces, count(amount) AS amounts "
        "FROM payments GROUP BY 1 ORDER BY 1",
    ).to_pylist()
    expected = []
    for day in range(3):
        numbers = [number for number in range(600) if number % 3 == day]
        expected.append(
            {
                "day": f"2013-01-0{day + 1}",
                "n": 200,
                "pieces": sum(numbers),
                "amounts": sum(number % 5 != 0 for number in numbers),
            }
        )
    assert found == expected


def test_a_float_is_exactly_itself(world: World) -> None:
    world.publish(1, amount=0.1)
    world.run()
    assert world.rows()[0]["amount"] == struct.unpack("f", struct.pack("f", 0.1))[0]
    table = open_table(world.archive.table("topics", "payments"))
    assert table is not None and table.metadata().partition_columns == ["_event_date"]
