"""The commands say what is wrong before they start anything."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from driftline.cli import lifecycle
from driftline.cli.local_platform import missing_servers
from driftline.cli.main import ENTRIES, Entry, build
from driftline.runtime.errors import ConfigurationError

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"
NOWHERE = "127.0.0.1:1"


def type_in(command: object, *words: str) -> Result:
    app = typer.Typer()
    app.command()(command)  # type: ignore[arg-type]
    return CliRunner().invoke(app, list(words))


def test_status_where_nothing_runs(tmp_path: Path) -> None:
    result = type_in(lifecycle.status, "--state", str(tmp_path), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["phase"] == "never started"


def test_down_where_nothing_runs_is_no_error(tmp_path: Path) -> None:
    assert type_in(lifecycle.down, "--state", str(tmp_path)).exit_code == 0


def test_up_of_an_unknown_service_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no service nonsense; there are ingest"):
        lifecycle.up(project=FLIGHTS, services="nonsense", state=tmp_path)


def test_up_of_no_project_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a driftline project"):
        lifecycle.up(project=tmp_path, state=tmp_path)


def test_doctor_finds_what_is_wrong_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", NOWHERE)
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", f"http://{NOWHERE}")
    monkeypatch.setenv("REDIS_URL", f"redis://{NOWHERE}")
    monkeypatch.setenv("DRIFTLINE_LOG_LEVEL", "loud")
    monkeypatch.setattr("driftline.cli.diagnosis._TIMEOUT_SECONDS", 0.2)
    result = type_in(lifecycle.doctor, "--state", str(tmp_path), "--project", str(tmp_path), "--json")
    assert result.exit_code == 1
    wrong = {item["subject"]: item for item in json.loads(result.stdout) if item["level"] == "bad"}
    assert set(wrong) == {"variables", "project", "kafka", "registry", "valkey"}
    assert all(item["remedy"] for item in wrong.values())
    assert "DRIFTLINE_LOG_LEVEL" in wrong["variables"]["found"]


def test_servers_that_are_named_are_not_started() -> None:
    assert missing_servers({}) == ["kafka", "registry", "valkey"]
    assert missing_servers({"REDIS_URL": "redis://store"}) == ["kafka", "registry"]
    assert missing_servers({"REDIS_URL": ""}) == ["kafka", "registry", "valkey"]


def test_help_is_quick_and_lists_every_command() -> None:
    began = time.monotonic()
    shown = subprocess.run(
        [sys.executable, "-m", "driftline.cli.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert time.monotonic() - began < 10  # 0.2 s on an idle machine
    assert all(entry.name in shown.stdout for entry in ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_listed_command_can_be_loaded(entry: Entry) -> None:
    shown = CliRunner().invoke(build([entry.name]), [entry.name, "--help"])
    assert shown.exit_code == 0, shown.output


def test_mistake_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "driftline.cli.main", "up", "--project", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DRIFTLINE_STATE": str(tmp_path)},
    )
    assert result.returncode == 78
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
