"""`dead-letters` against a real broker: listed once, shown, sent again as it is, changed or replaced."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, Producer

from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.contracts.wire import frame, split
from driftline.playback.topic_reading import TopicReader
from driftline.project import Project
from driftline.runtime.errors import BadMessageError
from driftline.streaming.dead_letters import DeadLetterTopic, dead_letter
from tests.integration.cli.conftest import Driftline

RECORD = {
    "event_id": "0190a6c5-7b2e-7c11-8000-0123456789ab",
    "cancelled_at": "2999-04-01T12:00:00Z",
    "origin": "JFK",
    "dest": "LAX",
    "carrier": "UA",
    "flight": 7,
    "tail_number": None,
}


Newest = Callable[[], Message]


def read_all(kafka: str, topic: str) -> list[Message]:
    with TopicReader({"bootstrap.servers": kafka}, [topic]) as reader:
        return list(reader.read_to_end())


@pytest.fixture
def codec(flights: Project) -> RecordCodec:
    return RecordCodec(dict(flights.event_types["cancellations"].schema))


@pytest.fixture
def letters(
    prepared: None, topics: Topics, kafka: str, registry_url: str, codec: RecordCodec
) -> dict[str, str]:
    """Make two dead letters, one of them written twice; return their ids."""
    topic = topics.events("cancellations")
    with SchemaRegistry(registry_url) as registry:
        schema_id = registry.schema_id(topics.subject(topic), codec.schema)
    good = frame(schema_id, codec.encode(codec.from_json(RECORD)))
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce(topic, good, "JFK", headers=[("app", b"kiosk")])
    producer.produce(topic, b"\x09" + good[1:], "JFK")
    producer.flush(10)
    future, magic = sorted(read_all(kafka, topic), key=lambda message: message.offset() or 0)
    writer = DeadLetterTopic({"bootstrap.servers": kafka}, topics.dead_letters)
    first = dead_letter(
        future,
        BadMessageError("too far in the [future]", stage="validate"),
        service="feature_store",
        instance="feature_store-0",
    )
    second = dead_letter(
        magic, BadMessageError("starts with byte 9"), service="feature_store", instance="feature_store-0"
    )
    writer.write([first, second])
    writer.write([first])
    return {
        name: f"{topic}/{one.partition()}/{one.offset()}"
        for name, one in (("future", future), ("magic", magic))
    }


@pytest.fixture
def newest(kafka: str, topics: Topics) -> Newest:
    """Return what reads the newest cancellation."""
    return lambda: max(
        read_all(kafka, topics.events("cancellations")), key=lambda message: message.offset() or 0
    )


def test_each_is_listed_once_with_its_reason(driftline: Driftline, letters: dict[str, str]) -> None:
    listed: list[dict[str, Any]] = json.loads(driftline("dead-letters", "list", "--json").stdout)
    assert sorted(row["id"] for row in listed) == sorted(letters.values())
    text = driftline("dead-letters", "list", "--topic", "cancellations").stdout
    assert "2 of 2 dead letters" in text
    assert "[future]" in "".join(text.split("│"))
    assert json.loads(driftline("dead-letters", "list", "--topic", "weather", "--json").stdout) == []


def test_one_is_shown_with_bytes_and_record(driftline: Driftline, letters: dict[str, str]) -> None:
    shown = json.loads(driftline("dead-letters", "show", letters["future"], "--json").stdout)
    assert shown["message"] == "too far in the [future]"
    assert shown["record"]["flight"] == 7
    assert shown["headers"]["app"] == "kiosk"
    shown = json.loads(driftline("dead-letters", "show", letters["magic"], "--json").stdout)
    assert shown["record"] is None
    assert "magic" in shown["decoding"]
    assert "no dead letter" in str(driftline("dead-letters", "show", "a/0/0").exception)


def test_resubmitted_as_it_is(driftline: Driftline, letters: dict[str, str], newest: Newest) -> None:
    before = newest()
    assert driftline("dead-letters", "resubmit", letters["magic"]).exit_code == 0
    after = newest()
    assert (after.offset() or 0) == (before.offset() or 0) + 1
    assert after.value() == before.value()
    assert dict(after.headers() or []) == {"driftline.resubmitted.from": letters["magic"].encode()}


def test_resubmitted_with_fields_changed(
    driftline: Driftline, letters: dict[str, str], newest: Newest, codec: RecordCodec
) -> None:
    result = driftline(
        "dead-letters",
        "resubmit",
        letters["future"],
        "--set",
        "cancelled_at=2013-04-01T12:00:00Z",
        "--set",
        "flight=8",
    )
    assert result.exit_code == 0, result.output
    after = newest()
    record = RecordCodec.to_json(codec.decode(split(after.value())[1]))
    assert record == {**RECORD, "cancelled_at": "2013-04-01T12:00:00Z", "flight": 8}
    assert after.key() == b"JFK"
    assert ("app", b"kiosk") in (after.headers() or [])


def test_a_changed_key_field_changes_the_key(
    driftline: Driftline, letters: dict[str, str], kafka: str, topics: Topics
) -> None:
    assert driftline("dead-letters", "resubmit", letters["future"], "--set", "origin=EWR").exit_code == 0
    keys = [message.key() for message in read_all(kafka, topics.events("cancellations"))]
    assert keys.count(b"EWR") == 1


def test_resubmitted_with_edited_content(
    driftline: Driftline, letters: dict[str, str], newest: Newest, codec: RecordCodec, tmp_path: Path
) -> None:
    (tmp_path / "record.json").write_text(json.dumps({**RECORD, "flight": 9}))
    assert (
        driftline(
            "dead-letters", "resubmit", letters["magic"], "--file", str(tmp_path / "record.json")
        ).exit_code
        == 0
    )
    assert codec.decode(split(newest().value())[1])["flight"] == 9
    (tmp_path / "bytes.bin").write_bytes(b"anything")
    assert (
        driftline(
            "dead-letters", "resubmit", letters["magic"], "--file", str(tmp_path / "bytes.bin")
        ).exit_code
        == 0
    )
    assert newest().value() == b"anything"


@pytest.mark.parametrize(
    ("letter", "arguments", "said"),
    [
        ("magic", ["--set", "flight=8"], "cannot be decoded"),
        ("future", ["--set", "gate=8"], "its fields are"),
        ("future", ["--set", "flight=eight"], "does not fit the schema"),
    ],
)
def test_impossible_changes_are_refused(
    driftline: Driftline, letters: dict[str, str], letter: str, arguments: list[str], said: str
) -> None:
    result = driftline("dead-letters", "resubmit", letters[letter], *arguments)
    assert result.exit_code == 1
    assert said in str(result.exception)
