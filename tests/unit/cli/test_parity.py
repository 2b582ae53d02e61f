"""`driftline parity` as a person types it, on an archive alone."""

import json
from collections.abc import Callable

import pyarrow as pa
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from driftline.archive.tables import Archive
from driftline.cli.parity import parity
from driftline.project import Project
from driftline.runtime.errors import ConfigurationError, RefusedError
from tests.unit.replay.conftest import ROWS, SHOP, archive, log, project, store, trained
from tests.unit.replay.test_parity import COUNT, changed, served
from tests.unit.replay.test_recomputing import payments

__all__ = ["archive", "log", "project", "trained"]  # fixtures

DAY = ("--since", "2025-06-15", "--until", "2025-06-16", "--share", "1")


@pytest.fixture
def driftline(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for name, value in {
        "DRIFTLINE_PROJECT": str(SHOP),
        "DRIFTLINE_ARCHIVE": archive.root,
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, value)
    store(archive, "payments", payments())
    app = typer.Typer()
    app.command()(parity)
    return lambda *words: CliRunner().invoke(app, words)


def test_equal(driftline: Callable[..., Result], archive: Archive, log: pa.Table, project: Project) -> None:
    store(archive, "predictions", served(log, payments(), project))
    result = driftline(*DAY, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["equal"], found["requests"], found["different"]) == (True, ROWS, 0)
    assert len(found["columns"]) == 12


def test_a_mismatch_is_the_exit_code(
    driftline: Callable[..., Result], archive: Archive, log: pa.Table, project: Project
) -> None:
    right = served(log, payments(), project)
    store(archive, "predictions", changed(right, COUNT, r1=right[COUNT][1].as_py() + 3))
    result = driftline(*DAY)
    assert result.exit_code == 1
    assert "1 differ" in result.output
    assert COUNT in result.output
    assert log["request_id"][1].as_py() in result.output


def test_what_compares_nothing_proves_nothing(
    driftline: Callable[..., Result], archive: Archive, log: pa.Table
) -> None:
    store(archive, "predictions", log)
    result = driftline("--since", "2020-01-01", "--until", "2020-01-02")
    assert isinstance(result.exception, RefusedError)
    assert isinstance(driftline("--since", "soon").exception, ConfigurationError)
