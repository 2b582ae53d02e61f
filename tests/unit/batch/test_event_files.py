"""Files of events: every format gives the same events, and a mistake names its row."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftline.batch.event_files import read_events
from driftline.contracts.record_codec import RecordCodec
from driftline.runtime.errors import ConfigurationError

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Departure",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "flight", "type": "int"},
        {"name": "delay", "type": ["null", "double"], "default": None},
        {"name": "late", "type": "boolean"},
        {"name": "tail", "type": ["null", "string"], "default": None},
    ],
}
AT = datetime(2013, 4, 1, 12, 30, 0, 250_000, tzinfo=UTC)
RECORDS = [
    {"event_id": "a", "at": AT, "flight": 7, "delay": 1.5, "late": True, "tail": "N1"},
    {"event_id": "b", "at": AT, "flight": 8, "delay": None, "late": False, "tail": None},
]


def write(path: Path) -> None:
    match path.suffix:
        case ".csv":
            path.write_text(
                "event_id,at,flight,delay,late,tail\n"
                "a,2013-04-01T12:30:00.25Z,7,1.5,true,N1\n"
                "b,2013-04-01T08:30:00.25-04:00,8,,False,\n"
            )
        case ".jsonl":
            rows = [{**record, "at": "2013-04-01T12:30:00.25Z"} for record in RECORDS]
            path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(RECORDS), path)
        case ".avro":
            with path.open("wb") as file:
                fastavro.writer(file, fastavro.parse_schema(SCHEMA), RECORDS)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".avro"])
def test_every_format_gives_the_same_records(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"departures{suffix}"
    write(path)
    rows = list(read_events(path, SCHEMA))
    assert [row.number for row in rows] == [1, 2]
    codec = RecordCodec(SCHEMA)
    assert [codec.from_json(row.event) for row in rows] == RECORDS


def test_mistakes_in_csv_name_their_row_and_field(tmp_path: Path) -> None:
    path = tmp_path / "departures.csv"
    path.write_text("event_id,flight,late\na,seven,true\nb,7,perhaps\nc,7,true,more\nd,7,true\n")
    rows = list(read_events(path, SCHEMA))
    assert [(row.number, row.mistake) for row in rows] == [
        (1, "flight: a number is wanted, got 'seven'"),
        (2, "late: true or false is wanted, got 'perhaps'"),
        (3, "has more cells than the header (3)"),
        (4, ""),
    ]


def test_mistakes_in_json_lines_leave_the_other_lines_alone(tmp_path: Path) -> None:
    path = tmp_path / "departures.jsonl"
    path.write_text('{"event_id": "a"}\nnot json\n\n[1]\n{"event_id": "b"}\n')
    rows = list(read_events(path, SCHEMA))
    assert [row.number for row in rows] == [1, 2, 4, 5]
    assert [row.event is not None for row in rows] == [True, False, False, True]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("departures.xlsx", b"", "not known by its ending"),
        ("departures.parquet", b"no parquet", "cannot be read as Parquet"),
        ("departures.avro", b"no avro", "cannot be read as an Avro file"),
    ],
)
def test_files_that_cannot_be_read_say_so(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=said):
        list(read_events(path, SCHEMA))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        list(read_events(tmp_path / "nothing.csv", SCHEMA))
