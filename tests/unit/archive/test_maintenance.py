"""Whoever compacts a table, and however many at once: no row is lost or doubled."""

import threading
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from driftline.archive.maintenance import claimed, compact, has_small_files


@pytest.fixture
def uri(tmp_path: Path) -> str:
    place = str(tmp_path / "table")
    for number in range(10):
        append(place, number)
    return place


def append(uri: str, number: int) -> None:
    rows = pa.table({"n": [number], "day": [f"2026-01-0{1 + number % 2}"]})
    write_deltalake(uri, rows, mode="append", partition_by=["day"])


def numbers(uri: str) -> list[int]:
    return sorted(DeltaTable(uri).to_pyarrow_table()["n"].to_pylist())


def test_files_of_a_day_become_one(uri: str) -> None:
    done = compact(uri)
    assert done is not None
    assert (done.removed, done.added) == (10, 2)
    assert numbers(uri) == list(range(10))
    version = DeltaTable(uri).version()
    assert not has_small_files(DeltaTable(uri))
    compact(uri)
    assert DeltaTable(uri).version() == version  # nothing to do: no commit


def test_delta_rs_doubles_rows_where_nobody_claims(uri: str) -> None:
    """Why there are claims. When this fails, delta-rs has been mended, and they can go."""
    first, second = DeltaTable(uri), DeltaTable(uri)
    second.optimize.compact()
    first.optimize.compact()
    assert numbers(uri) == sorted([*range(10), *range(10)])


def test_who_claimed_first_and_woke_late_changes_nothing(uri: str) -> None:
    zombie = claimed(uri)
    assert compact(uri) is not None
    append(uri, 10)
    with pytest.raises(CommitFailedError):
        zombie.optimize.compact()
    assert numbers(uri) == list(range(11))


def test_many_compact_while_one_appends(uri: str) -> None:
    def compacts() -> None:
        for _ in range(5):
            compact(uri)

    threads = [threading.Thread(target=compacts) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(10, 40):
        while True:
            try:
                append(uri, number)
                break
            except CommitFailedError:
                continue
    for thread in threads:
        thread.join()
    assert numbers(uri) == list(range(40))


def test_no_table_is_no_error(tmp_path: Path) -> None:
    assert compact(str(tmp_path / "none")) is None
