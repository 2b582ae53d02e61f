"""Archived rows come back as decoding the records would have given them, in the order of the log."""

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from driftline.archive.columns import OFFSET, fitted, placed, storage_schema
from driftline.archive.sink import Span, TopicTable
from driftline.archive.tables import TOPICS, Archive
from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame
from driftline.runtime.errors import UnavailableError
from driftline.streaming.partitions import Partition
from services.feature_store import past_events
from services.feature_store.past_events import PastEvents, Stretch

_FIRST: dict[str, Any] = {
    "type": "record",
    "name": "Sale",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "shop", "type": "string"},
        {"name": "sold_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "pieces", "type": "int"},
        {"name": "price", "type": ["null", "float"], "default": None},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["CASH", "CARD"]}},
    ],
}
#: What the project declares now: fields came, an int became a long, a float a double.
_NOW: dict[str, Any] = {
    **_FIRST,
    "fields": [
        *_FIRST["fields"][:3],
        {"name": "pieces", "type": "long"},
        {"name": "price", "type": ["null", "double"], "default": None},
        _FIRST["fields"][5],
        {"name": "till", "type": "int", "default": 7},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}, "default": 3},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}
SCHEMAS = {1: _FIRST, 2: _NOW}
PLACE = Partition("shop.sales", 1)


def record(number: int) -> dict[str, Any]:
    return {
        "event_id": str(number),
        "shop": "a",
        "sold_at": 1_750_000_000_000_000 + number,
        "pieces": number,
        "price": None if number % 3 else number / 7,
        "kind": "CARD" if number % 2 else "CASH",
        "till": number,
        "day": number,
        "note": None if number % 2 else "n",
    }


@pytest.fixture(name="archive")
def archive_fixture(tmp_path: Path) -> Archive:
    """Return an archive of 40 offsets: 5 and 6 were bad, the first 20 of an older schema, files out of order."""
    archive = Archive.at(str(tmp_path), "shop")
    table = TopicTable(archive.table(TOPICS, "sales"), group=archive.group("archiver"))
    start = None
    for stop in (20, 40):
        schema_id = 1 if stop == 20 else 2
        offsets = [one for one in range(start or 0, stop) if one not in {5, 6}]
        decoder = BatchDecoder(SCHEMAS[schema_id], SCHEMAS.__getitem__)
        decoded = decoder.decode([value(one, schema_id) for one in offsets]).table
        stored = fitted(pa.Table.from_batches([decoded]), storage_schema(decoder.schema))
        stamps = np.array(offsets, np.int64) + 1_000
        rows = placed(stored, partition=1, offsets=offsets, timestamps_ms=stamps, event_times=["sold_at"])
        other = placed(stored, partition=0, offsets=offsets, timestamps_ms=stamps, event_times=["sold_at"])
        both = pa.concat_tables([rows.slice(3), other, rows.slice(0, 3)])
        table.append(both, [Span(partition=PLACE, start=start, stop=stop)])
        start = stop
    return archive


def value(number: int, schema_id: int) -> bytes:
    fields = {field["name"] for field in SCHEMAS[schema_id]["fields"]}
    told = {name: one for name, one in record(number).items() if name in fields}
    return frame(schema_id, RecordCodec(SCHEMAS[schema_id]).encode(told))


def past(archive: Archive | None, *, low: int, max_batch: int = 9) -> PastEvents:
    return PastEvents(
        {"bootstrap.servers": "127.0.0.1:1"},
        lambda _: low,
        schemas={PLACE.topic: _NOW},
        archive=archive,
        max_batch=max_batch,
    )


def waited(reader: PastEvents, decoder: BatchDecoder, offset: int, stop: int) -> Stretch:
    """Ask until the archive has been read."""
    while (stretch := reader.read(PLACE, decoder, offset, stop)).next_offset == offset:
        assert stretch.table.num_rows == 0
    return stretch


def test_archived_rows_are_what_decoding_gives(archive: Archive) -> None:
    decoder = BatchDecoder(_NOW, SCHEMAS.__getitem__)
    found, offset, stamps = [], 0, []
    reader = past(archive, low=1_000)
    assert reader.first(PLACE) == 0
    while offset < 33:
        stretch = waited(reader, decoder, offset, 33)
        assert stretch.table.num_rows <= 9
        offset = stretch.next_offset
        found.append(stretch.table)
        stamps += stretch.record_us.tolist()
    wanted = [one for one in range(33) if one not in {5, 6}]
    expected = decoder.decode([value(one, 1 if one < 20 else 2) for one in wanted]).table
    assert offset == 33
    assert pa.Table.from_batches(found).combine_chunks().equals(pa.Table.from_batches([expected]))
    assert stamps == [(one + 1_000) * 1_000 for one in wanted]
    assert math.isclose(expected.column("price")[3].as_py(), 3 / 7, rel_tol=1e-6)
    assert expected.column("till")[0].as_py() == 7


def test_what_neither_holds_is_counted(archive: Archive) -> None:
    decoder = BatchDecoder(_NOW, SCHEMAS.__getitem__)
    reader = past(archive, low=50)
    stretch = waited(reader, decoder, 40, 60)
    assert (stretch.next_offset, stretch.gone, stretch.table.num_rows) == (50, 10, 0)
    assert waited(reader, decoder, 40, 45).next_offset == 45
    nowhere = past(None, low=50)
    assert nowhere.first(PLACE) == 50
    assert nowhere.read(PLACE, decoder, 0, 60).gone == 50


def test_an_archive_without_the_topic_is_none(tmp_path: Path) -> None:
    reader = past(Archive.at(str(tmp_path), "shop"), low=12)
    assert reader.first(PLACE) == 12


def test_offsets_of_which_all_are_bad_are_passed(archive: Archive) -> None:
    decoder = BatchDecoder(_NOW, SCHEMAS.__getitem__)
    stretch = waited(past(archive, low=1_000), decoder, 5, 7)
    assert (stretch.next_offset, stretch.gone, stretch.table.num_rows) == (7, 0, 0)
    assert OFFSET not in stretch.table.schema.names


def test_a_slow_archive_is_not_waited_for(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = BatchDecoder(_NOW, SCHEMAS.__getitem__)
    reader, go_on = past(archive, low=1_000), threading.Event()
    original = past_events.open_table

    def slow(uri: str) -> Any:
        go_on.wait(30)
        return original(uri)

    monkeypatch.setattr(past_events, "open_table", slow)
    for _ in range(3):
        assert reader.read(PLACE, decoder, 0, 10).next_offset == 0
    go_on.set()
    assert waited(reader, decoder, 0, 10).table.num_rows == 8
    reader.close()


def test_an_archive_that_fails_is_asked_again(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = BatchDecoder(_NOW, SCHEMAS.__getitem__)
    reader = past(archive, low=1_000)

    def away(_uri: str) -> Any:
        raise UnavailableError("the archive is away")

    with monkeypatch.context() as patched:
        patched.setattr(past_events, "open_table", away)
        with pytest.raises(UnavailableError, match="is away"):
            waited(reader, decoder, 0, 10)
    assert waited(reader, decoder, 0, 10).table.num_rows == 8
    reader.close()
