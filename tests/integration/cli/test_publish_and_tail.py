"""`publish` and `tail` against a real broker, through a real ingest."""

import json
from pathlib import Path

from confluent_kafka import Producer

from driftline.contracts.topics import Topics
from tests.integration.cli.conftest import Driftline

GOOD = {
    "cancelled_at": "2013-04-01T12:00:00Z",
    "origin": "JFK",
    "dest": "LAX",
    "carrier": "UA",
    "flight": 7,
}


def test_rows_are_published_and_mistakes_named(driftline: Driftline, ingest: str, tmp_path: Path) -> None:
    path = tmp_path / "cancellations.jsonl"
    rows = [{**GOOD, "flight": number} for number in range(1200)]
    rows[3] = {**GOOD, "flight": "seven"}
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\nnonsense\n")
    result = driftline("publish", str(path), "--json")
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["accepted"] == 1199
    assert [wrong["row"] for wrong in found["rejected"]] == [4, 1201]
    assert "flight" in found["rejected"][0]["error"]

    shown = [
        json.loads(line)
        for line in driftline("tail", "cancellations", "--from-beginning", "--json").stdout.splitlines()
    ]
    assert sorted(row["value"]["flight"] for row in shown) == sorted(set(range(1200)) - {3})
    assert shown[0]["value"]["cancelled_at"] == "2013-04-01T12:00:00Z"
    assert {row["key"] for row in shown} == {"JFK"}
    assert len({row["value"]["event_id"] for row in shown}) == 1199


def test_csv_is_published(driftline: Driftline, ingest: str, tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text(
        "cancelled_at,origin,dest,carrier,flight,tail_number\n2013-04-01T12:00:00Z,LGA,ORD,AA,1,\n"
    )
    assert driftline("publish", str(path), "--type", "cancellations").exit_code == 0
    (row,) = driftline("tail", "cancellations", "-n", "3", "--json").stdout.splitlines()
    assert json.loads(row)["value"]["tail_number"] is None


def test_tail_shows_the_newest_and_what_cannot_be_decoded(
    driftline: Driftline, prepared: None, topics: Topics, kafka: str
) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    for number in range(30):
        producer.produce(topics.events("weather"), b"\x01 bad", str(number), timestamp=1_000_000 + number)
    producer.flush(10)
    shown = [
        json.loads(line) for line in driftline("tail", "weather", "-n", "4", "--json").stdout.splitlines()
    ]
    assert [row["key"] for row in shown] == ["26", "27", "28", "29"]
    assert shown[0]["bytes"] == b"\x01 bad".hex()
    assert "magic" in shown[0]["error"]


def test_unknown_event_types_and_topics_are_said(
    driftline: Driftline, prepared: None, tmp_path: Path
) -> None:
    path = tmp_path / "trains.csv"
    path.write_text("a\n1\n")
    assert "no event type" in str(driftline("publish", str(path)).exception)
    assert "no topic" in str(driftline("tail", "trains").exception)
