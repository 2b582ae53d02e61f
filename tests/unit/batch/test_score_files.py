"""Scores beside the rows: the file holds every row once with the score that was logged, after kills too."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from driftline.batch.score_files import ScoreFile
from driftline.runtime.errors import ConfigurationError
from tests.unit.batch.conftest import Killed, Log, Run, payments

ROWS = 35


@pytest.fixture
def source(tmp_path: Path) -> Path:
    events = payments(ROWS)
    table = pa.Table.from_pylist(events).append_column("score", pa.array(range(ROWS), pa.int8()))
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=12)
    return tmp_path / "in.parquet"


def check(found: list[dict[str, Any]], log: Log) -> None:
    assert [row["amount"] for row in found] == [2.5 * number for number in range(ROWS)]
    assert [row["row"] for row in found] == list(range(1, ROWS + 1))
    assert {row["request_id"]: row["score"] for row in found} == log.scores


def test_a_killed_run_and_the_next_make_one_file(source: Path, run: Run, log: Log, tmp_path: Path) -> None:
    target = tmp_path / "out" / "scored.parquet"
    for after, rows in ((False, 10), (True, 6)):
        log.events, log.after_writing = [None, Killed()], after
        with pytest.raises(Killed):
            run(source, ScoreFile(source, target, job="j"), batch_rows=rows)
        assert not target.exists()
    log.events = []
    run(source, ScoreFile(source, target, job="j"))
    found = pq.read_table(target)
    check(found.to_pylist(), log)
    assert found.schema.field("file_score").type == pa.int8()
    assert not list(target.parent.glob("*.parts"))
    before = target.read_bytes()
    run(source, ScoreFile(source, target, job="j"))
    assert target.read_bytes() == before


def test_csv_from_parquet_and_from_lines(source: Path, run: Run, log: Log, tmp_path: Path) -> None:
    lines = tmp_path / "in.jsonl"
    lines.write_text(
        "".join(
            f'{{"customer": "c{n % 7}", "merchant": "m{n % 5}", "amount": {2.5 * n}, "tags": ["a", {n}]}}\n\n'
            for n in range(ROWS)
        )
    )
    run(lines, ScoreFile(lines, tmp_path / "out.csv", job="j"))
    found = pa_csv.read_csv(tmp_path / "out.csv").to_pylist()
    assert [row["amount"] for row in found] == [2.5 * number for number in range(ROWS)]
    assert found[3]["tags"] == '["a",3]' and found[3]["row"] == 7
    assert {row["request_id"]: row["score"] for row in found} == log.scores

    log.through, log.records = 0, []
    nested = pq.read_table(source).append_column("tags", pa.array([[n] for n in range(ROWS)]))
    pq.write_table(nested, source)
    run(source, ScoreFile(source, tmp_path / "other.csv", job="k"))
    check(pa_csv.read_csv(tmp_path / "other.csv").to_pylist(), log)


def test_scores_that_no_run_kept_cannot_be_written(source: Path, run: Run, log: Log, tmp_path: Path) -> None:
    run(source)
    logged = len(log.records)
    with pytest.raises(ConfigurationError, match=r"up to 35 are in the log already.*--run NAME"):
        run(source, ScoreFile(source, tmp_path / "late.parquet", job="j"))
    assert len(log.records) == logged


def test_endings_and_the_file_itself(source: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"must be \.parquet or \.csv"):
        ScoreFile(source, source.with_suffix(".xlsx"), job="j")
    with pytest.raises(ConfigurationError, match="is the file that is read"):
        ScoreFile(source, source, job="j")
