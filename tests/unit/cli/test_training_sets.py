"""`driftline training-set` on an archive alone: what was served and known becomes rows, the same under its name for ever."""

import json
import shutil
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


def test_a_set_is_not_held_against_views_of_another_declaration(
    driftline: Driftline, archive: Archive
) -> None:
    found = build(driftline)
    table = TrainingSets(archive, "fraud").pull("one")
    views = {**found["manifest"]["views"], "customer_payments@1": "other"}
    TrainingSets(archive, "fraud").build("old", table, manifest={**found["manifest"], "views": views})
    result = driftline("check", "old", *SMALL)
    assert isinstance(result.exception, ConfigurationError)
    assert "customer_payments@1: not what the training set 'old' was made from" in str(result.exception)


MARKET = """
from pathlib import Path
import numpy as np
import pyarrow as pa
from driftline.project.history import History

HOUR = 3_600_000_000


def history(start, end):
    random = np.random.default_rng(int((Path(__file__).parent / "seed").read_text()))
    first = int(np.datetime64(start, "us").astype(int))
    paid = np.sort(first + random.integers(0, 24 * HOUR, 500))
    asked = np.sort(first + random.integers(6 * HOUR, 24 * HOUR, 300))
    instants = lambda values: pa.array(values, pa.timestamp("us"))
    return History(
        events={"payments": pa.table({
            "event_id": [str(n) for n in range(500)], "customer": [f"c{n % 5}" for n in range(500)],
            "merchant": ["m"] * 500, "paid_at": instants(paid), "amount": random.normal(9, 2, 500),
            "refunded": random.random(500) < 0.3, "known_at": instants(paid)})},
        requests=pa.table({
            "request_id": [f"r{n}" for n in range(300)], "event_time": instants(asked),
            "customer": [f"c{n % 5}" for n in range(300)], "merchant": ["m"] * 300,
            "amount": random.normal(9, 2, 300), "order_id": [f"o{n}" for n in range(300)],
            "label": random.random(300) < 0.4, "label_known_at": instants(asked + 3 * HOUR)}),
    )
"""


def test_from_files_a_set_says_which_history_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(SHOP, folder)
    (folder / "driftline.yaml").write_text((SHOP / "driftline.yaml").read_text() + "history: history.py\n")
    (folder / "history.py").write_text(MARKET)
    (folder / "seed").write_text("1")
    monkeypatch.setenv("DRIFTLINE_PROJECT", str(folder))
    monkeypatch.setenv("DRIFTLINE_ARCHIVE", str(tmp_path / "archive"))

    def typed(*words: str) -> Result:
        return CliRunner().invoke(app, words)

    words = ("build", "day", "--since", "2024-01-01T08:00", "--until", "2024-01-01T20:00", *SMALL, "--json")
    first = typed(*words)
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert set(told["manifest"]["tables"]) == {"events.payments", "requests"}
    table = TrainingSets(Archive.at(str(tmp_path / "archive"), "shop"), "fraud").pull("day")
    hours = [row.hour for row in table["event_time"].to_pylist()]
    assert (min(hours), max(hours)) == (
        8,
        16,
    )  # labels take three hours, and count up to the span's end unless said
    late = typed("build", "late", *words[2:], "--known-by", "2024-01-02")
    assert json.loads(late.stdout)["rows"] > told["rows"]
    assert json.loads(typed(*words).stdout) == told
    assert typed("check", "day", *SMALL).exit_code == 0
    (folder / "seed").write_text("2")
    changed = typed("check", "day", *SMALL)
    assert "events.payments, requests: not what the training set 'day'" in str(changed.exception)
    assert "take another" in str(typed(*words).exception)
