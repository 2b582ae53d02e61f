"""`driftline replay` as a person types it, on an archive alone: no server runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from driftline.archive.tables import Archive
from driftline.cli.replay import replay
from driftline.runtime.errors import ConfigurationError, RefusedError
from driftline.runtime.ids import new_id
from tests.unit.replay.conftest import ROWS, SHOP, archive, log, project, store, trained

__all__ = ["archive", "log", "project", "trained"]  # fixtures

Driftline = Callable[..., Result]
DAY = ("--from", "2025-06-15", "--to", "2025-06-16")


@pytest.fixture
def driftline(
    archive: Archive, log: pa.Table, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Driftline:
    shutil.copytree(trained, tmp_path / "models")
    store(archive, "predictions", log)
    for name, value in {
        "DRIFTLINE_PROJECT": str(SHOP),
        "DRIFTLINE_MODELS": str(tmp_path / "models"),
        "DRIFTLINE_ARCHIVE": archive.root,
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, value)
    app = typer.Typer()
    app.command()(replay)
    return lambda *arguments: CliRunner().invoke(app, [*arguments, "--source", "archive"])


def told(result: Result) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    found = json.loads(result.stdout)
    return found.get("rows", []), found["summary"]


def test_rows_and_sums_as_json(driftline: Driftline, log: pa.Table) -> None:
    result = driftline(*DAY, "--json")
    assert result.exit_code == 0, result.output
    rows, summary = told(result)
    assert [row["request_id"] for row in rows] == log["request_id"].to_pylist()
    assert (summary["records"], summary["equal"], summary["proven"]) == (ROWS, ROWS * 9 // 10, True)
    assert summary["not_answered"] == {"refused": ROWS // 10}


@pytest.mark.parametrize("words", [("--from", "2025-07-01"), (*DAY, "--model", "fruad")])
def test_what_finds_no_request_proves_nothing(driftline: Driftline, words: tuple[str, ...]) -> None:
    result = driftline(*words)
    assert result.exit_code == 1
    assert isinstance(result.exception, RefusedError)


def test_for_people(driftline: Driftline) -> None:
    shown = driftline(*DAY).stdout
    assert "200 records, of them not scored: 20 refused" in shown
    assert "180 of 180" in shown and "bit-equal: every score that fraud@1 gave is the logged one" in shown
    rival = driftline(*DAY, "--model", "fraud@2").stdout
    assert "was logged" in rival and "bit-equal:" not in rival


def test_a_file_takes_the_rows(driftline: Driftline, tmp_path: Path) -> None:
    result = driftline(*DAY, "--json", "--output", str(tmp_path / "rows.jsonl"))
    rows, summary = told(result)
    assert rows == [] and summary["output"] == str(tmp_path / "rows.jsonl")
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == ROWS


def test_the_exit_code_tells_a_program(driftline: Driftline, tmp_path: Path, log: pa.Table) -> None:
    card = tmp_path / "models" / "fraud" / "1" / "card.md"
    card.write_text(card.read_text() + "approved\n")
    result = driftline(*DAY)
    assert result.exit_code == 1
    assert "not proven" in result.stdout
    assert "card.md" in result.stderr and "Put the version's folder back" in result.stderr
    assert driftline(*DAY, "--model", "fraud@2").exit_code == 0
    one = log["request_id"][0].as_py()
    assert driftline("--request", one).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say which requests"),
        (("--from", "2025-06-15", "--request", new_id()), "say which requests"),
        (("--request", new_id(), "--to", "2025-06-15"), "--to belongs to --from"),
        (("--request", "seventeen"), "is no UUID"),
        (("--from", "yesterday"), "--from yesterday: is no ISO 8601 instant"),
        (("--from", "2025-06-15", "--to", "2025-06-14"), "is not before"),
        ((*DAY, "--model", "fraud@"), "write NAME or NAME@VERSION"),
        ((*DAY, "--model", "fraud@7"), "there: 1, 2"),
        ((*DAY, "--output", "rows.xls"), "its ending must be one of"),
        ((*DAY, "--features", "recomputed"), "no table of shop.payments"),
    ],
)
def test_mistakes_are_explained(driftline: Driftline, arguments: tuple[str, ...], message: str) -> None:
    result = driftline(*arguments)
    assert isinstance(result.exception, ConfigurationError)
    assert message in str(result.exception)


def test_a_request_that_was_never_made(driftline: Driftline) -> None:
    result = driftline("--request", new_id())
    assert isinstance(result.exception, RefusedError)
    assert "is in the log" in str(result.exception)
