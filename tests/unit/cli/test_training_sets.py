"""`driftline training-set` on an archive alone: what was served and known becomes rows, the same under its name for ever."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import Result
from typer.testing import CliRunner

from driftline.archive.columns import INSTANT, placed
from driftline.archive.tables import Archive
from driftline.archive.training_sets import TrainingSets
from driftline.cli.training_sets import app
from driftline.project import Project
from driftline.runtime.errors import ConfigurationError
from tests.unit.replay.conftest import NOW_US, SHOP, archive, log, project, store, trained
from tests.unit.replay.test_recomputing import payments, served

__all__ = ["archive", "log", "project", "trained"]  # fixtures

Driftline = Callable[..., Result]
HOUR_US = 3_600_000_000
SPAN = ("--since", "2025-06-15", "--until", "2025-06-16", "--known-by", "2025-06-17")
SMALL = ("--sample", "20")


def labels(log: pa.Table, start: int = 0, stop: int = 150, *, value: float = 1.0) -> pa.Table:
    """Return labels of the log's requests: the even ones by request, the odd ones by order, known two hours later."""
    rows = log.slice(start, stop - start).to_pylist()
    known = [row["event_time"].timestamp() * 1e6 + 2 * HOUR_US for row in rows]
    table = pa.table(
        {
            "label_id": [f"{value}-{row['request_id']}" for row in rows],
            "model": pa.nulls(len(rows), pa.string()),
            "request_id": pa.array(
                [None if at % 2 else row["request_id"] for at, row in enumerate(rows)], pa.string()
            ),
            "key": pa.array(
                [row["order_id"] if at % 2 else None for at, row in enumerate(rows)], pa.string()
            ),
            "label": [value if at % 3 else 1.0 - value for at in range(len(rows))],
            "known_at": pa.array(np.array(known, np.int64)).cast(INSTANT),
        }
    )
    logged = np.full(len(rows), NOW_US // 1_000, np.int64)
    return placed(table, partition=0, offsets=range(start, stop), timestamps_ms=logged)


@pytest.fixture
def driftline(
    archive: Archive, log: pa.Table, project: Project, monkeypatch: pytest.MonkeyPatch
) -> Driftline:
    events = payments()
    store(archive, "payments", events)
    store(archive, "predictions", served(log, events, project))
    store(archive, "labels", labels(log))
    for name, value in {
        "DRIFTLINE_PROJECT": str(SHOP),
        "DRIFTLINE_ARCHIVE": archive.root,
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def build(driftline: Driftline, *more: str, name: str = "one") -> dict[str, Any]:
    result = driftline("build", name, *SPAN, *SMALL, "--source", "archive", "--json", *more)
    if result.exit_code:
        pytest.fail(f"{result.output} {result.exception}")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_rows_are_what_was_served_and_what_became_known(
    driftline: Driftline, archive: Archive, log: pa.Table, project: Project
) -> None:
    found = build(driftline)
    table = TrainingSets(archive, "fraud").pull("one")
    answered = [at for at in range(150) if at % 10 != 9]
    assert found["rows"] == len(table) == len(answered)
    expected = served(log, payments(), project).take(answered)
    by_id = {row["request_id"]: row for row in expected.to_pylist()}
    truths = {log["request_id"][at].as_py(): bool(at % 3) for at in answered}
    view = project.views["customer_payments"]
    for row in table.to_pylist():
        one = by_id[row["request_id"]]
        assert row["label"] is truths[row["request_id"]]
        assert row["event_time"] == one["event_time"].replace(tzinfo=None)
        for column in (*view.columns, "amount"):
            wanted = np.float32(np.nan if one[column] is None else one[column])
            assert np.array_equal(np.float32(row[column]), wanted, equal_nan=True)


def test_the_manifest_says_what_it_was_made_from(driftline: Driftline) -> None:
    manifest = build(driftline)["manifest"]
    assert manifest["source"] == "archive"
    assert manifest["span"] == {
        "since": "2025-06-15T00:00:00Z",
        "until": "2025-06-16T00:00:00Z",
        "known_by": "2025-06-17T00:00:00Z",
    }
    assert manifest["streams"]["predictions"]["offsets"] == {"0": [0, 200]}
    assert set(manifest["streams"]) == {"payments", "predictions", "labels"}
    assert all(one["version"] >= 1 for one in manifest["streams"].values())
    assert set(manifest["views"]) == {"customer_payments@1", "merchant_payments@1"}
    assert manifest["leak_check"]["clean"] is True
    assert len(manifest["project_sha256"]) == 64


def test_built_again_it_is_the_same_to_the_byte_whatever_has_come_since(
    driftline: Driftline, archive: Archive, log: pa.Table
) -> None:
    first = build(driftline)
    corrected = labels(log, 0, 150, value=0.0)
    later = pa.array(corrected["known_at"].cast(pa.int64()).to_numpy() + HOUR_US).cast(INSTANT)
    corrected = corrected.set_column(corrected.column_names.index("known_at"), "known_at", later)
    offsets = pa.array(np.arange(150, 300))
    store(
        archive, "labels", corrected.set_column(corrected.column_names.index("_offset"), "_offset", offsets)
    )
    again = build(driftline)
    assert again == first
    other = build(driftline, name="two")
    assert other["sha256"] != first["sha256"]
    assert other["rows"] == first["rows"]


def test_a_name_asked_for_another_span_is_refused(driftline: Driftline) -> None:
    build(driftline)
    result = driftline("build", "one", "--since", "2025-06-14", *SPAN[2:], *SMALL, "--source", "archive")
    assert isinstance(result.exception, ConfigurationError)
    assert "take another" in str(result.exception)


def test_labels_known_too_late_do_not_count(driftline: Driftline, log: pa.Table) -> None:
    """By that instant only the labels of requests two hours before it were known; a day is the horizon."""
    times = sorted(log["event_time"].cast(pa.int64()).to_pylist())
    known_by_us = times[100] + 2 * HOUR_US
    known_by = datetime.fromtimestamp(known_by_us / 1e6, tz=UTC).isoformat()
    result = driftline(
        "build", "early", *SPAN[:4], "--known-by", known_by, *SMALL, "--source", "archive", "--json"
    )
    assert result.exit_code == 0, (result.output, result.exception)
    wanted = [
        at
        for at in range(150)
        if at % 10 != 9 and log["event_time"].cast(pa.int64())[at].as_py() <= times[100]
    ]
    assert json.loads(result.stdout)["rows"] == len(wanted) > 0


def test_a_check_reads_what_it_was_made_from_again(driftline: Driftline) -> None:
    build(driftline)
    result = driftline("check", "one", *SMALL)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "no leak found; 200 values of 20 of" in result.output


def test_a_leak_keeps_nothing_and_is_told(
    driftline: Driftline, archive: Archive, log: pa.Table, project: Project, tmp_path: Path
) -> None:
    """The requests' amount is what their label says."""
    rows = served(log, payments(), project)
    amounts = pa.array([float(bool(at % 3)) for at in range(150)] + [0.0] * 50)
    leaking = rows.set_column(rows.column_names.index("amount"), "amount", amounts)
    other = Archive.at(str(tmp_path / "other"), "shop")
    store(other, "payments", payments())
    store(other, "predictions", leaking)
    store(other, "labels", labels(log))
    result = driftline("build", "leaking", *SPAN, *SMALL, "--source", "archive", "--archive", other.root)
    assert result.exit_code == 1
    assert "amount: equals the label in every row" in result.output
    assert TrainingSets(other, "fraud").list_sets() == []
    arguments = ("build", "known", *SPAN, *SMALL, "--source", "archive", "--archive", other.root)
    assert driftline(*arguments, "--accept", "amount").exit_code == 0
    assert driftline("check", "known", *SMALL, "--archive", other.root).exit_code == 0


def test_a_set_whose_features_are_of_the_future_does_not_pass_its_check(
    driftline: Driftline, archive: Archive
) -> None:
    """Somebody else has made the rows: a column of them is shifted by one row."""
    found = build(driftline)
    sets = TrainingSets(archive, "fraud")
    table = sets.pull("one")
    column = "customer_payments__count_1h"
    shifted = pa.array(np.roll(table[column].to_numpy(), -1))
    table = table.set_column(table.column_names.index(column), column, shifted)
    sets.build("shifted", table, manifest=found["manifest"])
    result = driftline("check", "shifted", *SMALL, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert [one["column"] for one in report["findings"]] == [column]
