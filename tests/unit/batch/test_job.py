"""A file's job: every row is logged once, whenever it is killed and however often it is run."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.batch.job import JobIdentity, file_sha256, look_through
from driftline.project import Project
from driftline.runtime.errors import ConfigurationError, UnavailableError
from tests.unit.batch.conftest import Killed, Log, Run, payments, reader_of

ROWS = 47


def parquet(path: Path, events: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(events), path, row_group_size=20)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return parquet(tmp_path / "payments.parquet", payments(ROWS))


def test_every_row_is_scored_and_logged_as_batch(file: Path, run: Run, log: Log) -> None:
    summary = run(file)
    assert (summary.rows, summary.earlier, summary.unanswered) == (ROWS, 0, 0)
    assert summary.versions == {"1": ROWS}
    assert len(log.records) == len(log.scores) == ROWS and log.writes == 5
    assert {record["channel"] for record in log.records} == {"BATCH"}
    assert [record["amount"] for record in log.records] == [2.5 * number for number in range(ROWS)]


def test_a_second_run_finds_nothing_to_do(file: Path, run: Run, log: Log) -> None:
    run(file)
    again = run(file)
    assert (again.rows, again.earlier) == (0, ROWS)
    assert len(log.records) == ROWS


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    kills=st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(1, 25)), max_size=4),
    given_ids=st.booleans(),
)
def test_killed_at_any_write_nothing_is_lost_or_doubled(
    project: Project, run: Run, log: Log, kills: list[tuple[int, bool, int]], given_ids: bool
) -> None:
    fresh = Log(project)
    log.__dict__.update(fresh.__dict__)
    events = payments(ROWS)
    if given_ids:
        events = [
            {**event, "request_id": f"00000000-0000-4000-8000-{n:012d}"} for n, event in enumerate(events)
        ]
    with tempfile.TemporaryDirectory() as folder:
        path = parquet(Path(folder) / "x.parquet", events)
        for writes, after, batch_rows in kills:
            log.events = [None] * writes + [Killed()]
            log.after_writing = after
            with contextlib.suppress(Killed):
                run(path, batch_rows=batch_rows)
        log.events = []
        run(path)
    assert [record["amount"] for record in log.records] == [2.5 * number for number in range(ROWS)]
    assert len(log.scores) == ROWS


@pytest.mark.parametrize("after", [False, True])
def test_a_write_in_doubt_is_settled_by_the_log_itself(file: Path, run: Run, log: Log, after: bool) -> None:
    log.events, log.after_writing = [None, UnavailableError("no answer")], after
    run(file, patience_seconds=5.0)
    assert len(log.records) == len(log.scores) == ROWS
    assert log.writes == (5 if after else 6)


def test_wrong_rows_are_refused_in_the_log_and_the_others_answered(
    tmp_path: Path, run: Run, log: Log, project: Project
) -> None:
    path = tmp_path / "payments.csv"
    given = "00000000-0000-4000-8000-000000000001"
    path.write_text(
        f"request_id,customer,merchant,amount\n{given},c1,m1,5\n,c2,m2,much\n{given},c3,m3,6\n,,m4,7\n,c5,m5,\n"
    )
    summary = run(path)
    assert summary.statuses == {"ANSWERED": 2, "REFUSED": 2, "REPEATED": 1}
    assert [number for number, _ in summary.wrong] == [2, 3, 4]
    logged = [(record["status"], record["error"]) for record in log.records]
    assert logged == [
        ("ANSWERED", None),
        ("REFUSED", "amount: a number is wanted, got 'much'"),
        ("REFUSED", "entity 'customer' is missing"),
        ("ANSWERED", None),
    ]
    seen = look_through(path, reader_of(project, texts=True), 10)
    assert seen.wrong == summary.wrong and seen.statuses == {"READABLE": 2, "REFUSED": 2, "REPEATED": 1}


def test_only_wrong_rows(tmp_path: Path, run: Run, log: Log) -> None:
    path = tmp_path / "payments.jsonl"
    path.write_text('{"customer": 1.5, "merchant": "m"}\nnot json\n\n[1]\n')
    assert run(path).statuses == {"REFUSED": 3}
    assert [record["status"] for record in log.records] == ["REFUSED"] * 3
    assert log.through == 4


def test_a_file_that_changes_meanwhile_is_refused(file: Path, run: Run, log: Log) -> None:
    def touch(_: int) -> None:
        file.write_bytes(file.read_bytes() + b" ")

    with pytest.raises(ConfigurationError, match="changed while it was read"):
        run(file, tell=touch)
    assert len(log.records) == 10


def test_what_does_not_answer_ends_the_run_with_what_to_do(file: Path, run: Run, log: Log) -> None:
    def start() -> int:
        raise UnavailableError("the broker is silent")

    log.start = start  # type: ignore[method-assign]
    with pytest.raises(UnavailableError, match=r"silent\. Run the same command again"):
        run(file)


def test_the_job_is_the_same_for_the_same_bytes_and_names(tmp_path: Path) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    one.write_bytes(b"x")
    other.write_bytes(b"x")
    same = {file_sha256(one), file_sha256(other)}
    assert len(same) == 1
    jobs = {
        JobIdentity(prefix=prefix, model=model, sha256=sha256, run=run).name
        for prefix in ("shop", "dev.shop")
        for model in ("fraud", "abuse")
        for sha256 in (*same, "0" * 64)
        for run in ("", "again")
    }
    assert len(jobs) == 16
