"""Rows and offsets are one commit: whatever happens around it, every offset stands in the table once."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.archive import sink
from driftline.archive.maintenance import compact
from driftline.archive.sink import TopicTable
from driftline.archive.tables import Archive, open_table
from driftline.runtime.errors import LostOwnershipError, UnavailableError
from driftline.streaming.partitions import Partition

from .conftest import TOPIC, offsets_in, rows, span

ZERO, ONE = Partition(TOPIC, 0), Partition(TOPIC, 1)


def test_rows_and_offsets_arrive_together(table: TopicTable) -> None:
    assert table.positions([ZERO, ONE]) == {ZERO: None, ONE: None}
    table.append(rows(5, 205), [span(None, 205)])
    table.append(rows(205, 210), [span(205, 210)])
    assert table.positions([ZERO, ONE]) == {ZERO: 210, ONE: None}
    assert offsets_in(table) == list(range(5, 210))
    days = {file.split("_event_date=")[1].split("/")[0] for file in DeltaTable(table.uri).file_uris()}
    assert days == {"1970-01-01", "1970-01-02", "1970-01-03"}


def test_a_span_without_good_rows_still_moves_the_offset(table: TopicTable) -> None:
    table.append(rows(0, 0), [span(None, 7)])
    table.append(rows(7, 8), [span(7, 8)])
    assert table.positions([ZERO]) == {ZERO: 8}
    assert offsets_in(table) == [7]


@pytest.mark.parametrize("start", [None, 5, 11, 50])
def test_who_comes_from_elsewhere_writes_nothing(table: TopicTable, start: int | None) -> None:
    table.append(rows(0, 10), [span(None, 10)])
    before = DeltaTable(table.uri).version()
    with pytest.raises(LostOwnershipError, match=r"shop\.payments/0 was at"):
        table.append(rows(5, 12), [span(start, 12)])
    assert DeltaTable(table.uri).version() == before


def test_one_lost_partition_of_several_refuses_the_whole_commit(table: TopicTable) -> None:
    table.append(rows(0, 10), [span(None, 10)])
    both = pa.concat_tables([rows(10, 20), rows(0, 5, partition=1)])
    table.append(both, [span(10, 20), span(None, 5, 1)])
    table.append(rows(5, 6, partition=1), [span(5, 6, 1)])
    with pytest.raises(LostOwnershipError):
        table.append(pa.concat_tables([rows(20, 30), rows(5, 9, partition=1)]), [span(20, 30), span(5, 9, 1)])
    assert table.positions([ZERO, ONE]) == {ZERO: 20, ONE: 6}
    assert offsets_in(table) == list(range(20))
    assert offsets_in(table, 1) == list(range(6))


def test_a_zombie_that_looked_before_the_owner_wrote_is_refused(
    table: TopicTable, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passed its check (2); the owner's commit comes in before its own (3)."""
    table.append(rows(0, 10), [span(None, 10)])
    zombie = TopicTable(table.uri, group=archive.group("archiver"))
    write = sink.write_deltalake
    calls = [0]

    def late(*arguments: Any, **options: Any) -> None:
        calls[0] += 1
        if calls[0] == 1:
            table.append(rows(10, 15), [span(10, 15)])  # the owner, while the zombie sleeps
        write(*arguments, **options)

    monkeypatch.setattr(sink, "write_deltalake", late)
    with pytest.raises(LostOwnershipError):
        zombie.append(rows(10, 18), [span(10, 18)])
    assert offsets_in(table) == list(range(15))


def test_a_commit_whose_answer_was_lost_counts_once(
    table: TopicTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.append(rows(0, 10), [span(None, 10)])
    write = sink.write_deltalake

    def answerless(*arguments: Any, **options: Any) -> None:
        write(*arguments, **options)
        monkeypatch.setattr(sink, "write_deltalake", write)
        raise sink.CommitFailedError("the answer was lost")

    monkeypatch.setattr(sink, "write_deltalake", answerless)
    table.append(rows(10, 20), [span(10, 20)])
    assert offsets_in(table) == list(range(20))


def test_data_files_without_a_commit_are_no_rows_and_come_again(
    table: TopicTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.append(rows(0, 10), [span(None, 10)])
    orphan = Path(table.uri) / "_event_date=1970-01-01" / "part-orphan.parquet"
    orphan.write_bytes(next(Path(table.uri).glob("_event_date=1970-01-01/*.parquet")).read_bytes())
    assert offsets_in(table) == list(range(10))
    table.append(rows(10, 20), [span(10, 20)])
    assert offsets_in(table) == list(range(20))


def test_partitions_written_by_several_processes_at_once(table: TopicTable, archive: Archive) -> None:
    """They share the table, also its creation; a compaction runs among them."""
    failures: list[BaseException] = []

    def write(partition: int) -> None:
        own = TopicTable(table.uri, group=archive.group("archiver"))
        position = None
        try:
            for number in range(8):
                own.append(
                    rows(number * 3, number * 3 + 3, partition=partition),
                    [span(position, number * 3 + 3, partition)],
                )
                position = number * 3 + 3
                if partition == 0 and number % 3 == 2:
                    compact(table.uri)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for number in range(3):
        assert offsets_in(table, number) == list(range(24))


def test_new_columns_appear_and_old_rows_have_null(table: TopicTable) -> None:
    table.append(rows(0, 2), [span(None, 2)])
    nested = pa.array([{"a": 1}, None], pa.struct([("a", pa.int64())]))
    wide = rows(2, 4, n=pa.array([2, 3], pa.int64()), colour=pa.array(["red", None]), shape=nested)
    table.append(wide, [span(2, 4)])
    wider = pa.array([{"a": 1, "b": "x"}], pa.struct([("a", pa.int64()), ("b", pa.string())]))
    table.append(rows(4, 5, shape=wider), [span(4, 5)])
    found = DeltaTable(table.uri).to_pyarrow_dataset().to_table().sort_by("_offset")
    assert found["n"].to_pylist() == [0, 1, 2, 3, None]
    assert found["colour"].to_pylist() == [None, None, "red", None, None]
    assert found["shape"].to_pylist() == [None, None, {"a": 1, "b": None}, None, {"a": 1, "b": "x"}]


def test_a_type_that_does_not_fit_is_refused_before_anything_is_written(table: TopicTable) -> None:
    table.append(rows(0, 2), [span(None, 2)])
    with pytest.raises(
        UnavailableError, match="the column 'n' is int64 in the archive, the record has double"
    ):
        table.append(rows(2, 3, n=pa.array([1.5])), [span(2, 3)])
    assert table.positions([ZERO]) == {ZERO: 2}


def test_rows_beside_the_span_come_in_once(table: TopicTable) -> None:
    first = pa.concat_tables([rows(3, 6), rows(10, 11, partition=1)])
    assert table.append_missing(TOPIC, first) == 4
    assert table.append_missing(TOPIC, first) == 0
    assert table.append_missing(TOPIC, pa.concat_tables([rows(3, 8), rows(10, 12, partition=1)])) == 3
    assert offsets_in(table) == list(range(3, 8))
    assert offsets_in(table, 1) == [10, 11]


def test_compaction_changes_no_row_and_vacuum_takes_only_what_is_old(table: TopicTable) -> None:
    for number in range(12):
        table.append(rows(number, number + 1), [span(number or None, number + 1)])
    orphan = Path(table.uri) / "_event_date=1970-01-01" / "part-orphan.parquet"
    orphan.write_bytes(b"what a killed writer left")
    before = DeltaTable(table.uri).to_pyarrow_dataset().to_table().sort_by("_offset")
    done = compact(table.uri)
    assert done is not None
    assert (done.removed, done.added, done.deleted) == (12, 1, 0)
    assert orphan.exists()  # it could belong to a commit that is under way
    import os

    os.utime(orphan, (0, 0))
    done = compact(table.uri)
    assert done is not None and done.deleted == 1 and not orphan.exists()
    opened = open_table(table.uri)
    assert opened is not None
    assert opened.to_pyarrow_dataset().to_table().sort_by("_offset").equals(before)
    assert table.positions([ZERO]) == {ZERO: 12}
    table.append(rows(12, 13), [span(12, 13)])
    assert offsets_in(table) == list(range(13))


def test_a_table_that_was_removed_is_noticed(table: TopicTable) -> None:
    import shutil

    table.append(rows(0, 10), [span(None, 10)])
    shutil.rmtree(table.uri)
    with pytest.raises(LostOwnershipError, match="was at 10, is at None"):
        table.append(rows(10, 20), [span(10, 20)])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(
        st.tuples(st.integers(0, 1), st.integers(1, 5), st.sampled_from(["commit", "repeat", "stale"])),
        max_size=12,
    )
)
def test_any_order_of_writers_leaves_every_offset_once(
    tmp_path_factory: pytest.TempPathFactory, script: list[tuple[int, int, str]]
) -> None:
    """Two processes, each with its own idea of where the log stands; ``repeat`` sends the last span again."""
    archive = Archive.at(str(tmp_path_factory.mktemp("archive")), "shop")
    writers = [TopicTable(archive.table("topics", "payments"), group="g") for _ in range(2)]
    believed: list[int | None] = [None, None]
    end = 0
    for who, count, what in script:
        start = believed[who] if what != "repeat" else None
        stop = (start or 0) + count
        try:
            writers[who].append(rows(start or 0, stop), [span(start, stop)])
            believed[who] = stop
            end = max(end, stop)
        except LostOwnershipError:
            believed[who] = writers[who].positions([ZERO])[ZERO]
    if script:
        assert offsets_in(writers[0]) == list(range(end))
        assert writers[0].positions([ZERO])[ZERO] == end


def test_clocks_that_are_far_off_still_have_a_day() -> None:
    from driftline.archive.columns import placed

    found = placed(
        pa.table({"n": [1, 2]}),
        partition=0,
        offsets=[0, 1],
        timestamps_ms=np.array([-(2**62), 2**62], np.int64),
    )
    assert [str(day) for day in found["_event_date"].to_pylist()] == ["0001-01-01", "9999-12-31"]
