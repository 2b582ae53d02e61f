"""Given a log in the archive, a selection gives its rows, whole, once, and says what is missing."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.archive.columns import OFFSET
from driftline.archive.tables import Archive
from driftline.contracts.topics import PREDICTIONS
from driftline.replay.records import ArchiveRecords, Records, batched
from driftline.replay.selection import Selection
from driftline.runtime.durations import DAY_US
from driftline.runtime.errors import ConfigurationError

from .conftest import MINUTE_US, NOW_US, ROWS, store


@pytest.fixture
def filled(archive: Archive, log: pa.Table) -> ArchiveRecords:
    for start in range(0, ROWS, 50):
        store(archive, PREDICTIONS, log.slice(start, 50))
    return ArchiveRecords(archive, lambda _: None)


def offsets(records: ArchiveRecords, selection: Selection) -> list[int]:
    tables = list(Records(None, records).read(PREDICTIONS, selection))
    return sorted(offset for table in tables for offset in table[OFFSET].to_pylist())


def test_a_span_is_half_open_by_either_time(filled: ArchiveRecords) -> None:
    answered = Selection(start_us=NOW_US + 40 * MINUTE_US, stop_us=NOW_US + 80 * MINUTE_US)
    assert offsets(filled, answered) == list(
        range(40, 80)
    )  # answered in batches of twenty, twenty minutes apart
    about = Selection(start_us=NOW_US - 9 * MINUTE_US, stop_us=NOW_US - 3 * MINUTE_US, by="event_time")
    assert offsets(filled, about) == [4, 5, 6, 7, 8, 9]
    assert offsets(filled, Selection(start_us=NOW_US + DAY_US)) == []
    assert offsets(filled, Selection()) == list(range(ROWS))


def test_one_request_in_letters_of_any_size_and_one_model(filled: ArchiveRecords, log: pa.Table) -> None:
    wanted = log["request_id"][17].as_py()
    assert offsets(filled, Selection(request_id=wanted.upper())) == [17]
    assert offsets(filled, Selection(request_id=wanted, model="fraud")) == [17]
    assert offsets(filled, Selection(model="abuse")) == []


def test_rows_come_back_to_the_bit(filled: ArchiveRecords, log: pa.Table) -> None:
    tables = list(filled.read(PREDICTIONS, Selection()))
    again = pa.concat_tables(tables).sort_by(OFFSET).select(log.column_names)
    assert again.cast(log.schema).equals(log)


def test_only_what_lies_before_the_topic_is_taken(filled: ArchiveRecords) -> None:
    before = pa.concat_tables(filled.read(PREDICTIONS, Selection(), {0: 120, 1: 10}))
    assert sorted(before[OFFSET].to_pylist()) == list(range(120))
    assert filled.stops(PREDICTIONS, [0, 1]) == {0: ROWS, 1: 0}


def test_an_archive_that_ends_early_says_so(filled: ArchiveRecords) -> None:
    records = Records(None, filled)
    list(records.read(PREDICTIONS, Selection(start_us=NOW_US, stop_us=NOW_US + 10 * MINUTE_US)))
    assert records.notes == []
    list(records.read(PREDICTIONS, Selection(start_us=NOW_US, stop_us=NOW_US + DAY_US)))
    (note,) = records.notes
    assert "2025-06-15T18:06:40" in note and "missing here" in note


def test_an_archive_without_the_table_says_what_to_do(tmp_path: Path) -> None:
    records = Records(None, ArchiveRecords(Archive.at(str(tmp_path), "shop"), lambda _: None))
    with pytest.raises(ConfigurationError, match=r"no table of shop\.predictions.*start the archiver"):
        list(records.read(PREDICTIONS, Selection()))


@given(sizes=st.lists(st.integers(0, 7), max_size=12), rows=st.integers(1, 9), change=st.integers(0, 12))
def test_batches_have_their_size_and_every_row_once(sizes: list[int], rows: int, change: int) -> None:
    tables, number = [], 0
    for position, size in enumerate(sizes):
        name = "a" if position < change else "b"
        tables.append(pa.table({name: pa.array(range(number, number + size), pa.int64())}))
        number += size
    found = list(batched(tables, rows))
    assert [value for table in found for value in table.columns[0].to_pylist()] == list(range(number))
    assert all(0 < len(table) <= rows for table in found)
    assert sum(len(table) < rows for table in found) <= 2  # where the columns change, and at the end
    assert pc.sum(pa.array([len(table) for table in found], pa.int64())).as_py() in (None, number)
