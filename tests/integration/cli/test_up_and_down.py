"""`driftline up`, `status`, `doctor` and `down`, typed as a person would, for a small project."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from driftline.embedded import running_environment
from driftline.runtime.errors import EXIT_CONFIGURATION
from driftline.runtime.instance_file import read_instance_file

SCHEMA = {
    "type": "record",
    "name": "Trip",
    "namespace": "tests",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "city", "type": "string"},
        {"name": "ended_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "minutes", "type": "double"},
    ],
}
PROJECT = """
name: {name}
owner: tests@example.org
events:
  trips: {{schema: trip.avsc, key: city, event_time: ended_at, partitions: 1}}
"""
FEATURES = """
from driftline.features import Entity, FeatureView, Source, mean

city = Entity("city")
trips = Source("trips", entity=city, event_time="ended_at")
city_trips = FeatureView("city_trips", version=1, source=trips, features=[mean("minutes").over("1h")])
"""
SERVICES = "ingest,feature_store"

Type = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(tmp_path: Path, unique: str) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "driftline.yaml").write_text(PROJECT.format(name=unique))
    (folder / "features.py").write_text(FEATURES)
    (folder / "trip.avsc").write_text(json.dumps(SCHEMA))
    return folder


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Type]:
    """Type a command; whatever it left running is stopped at the end."""
    state = str(tmp_path / "state")

    def run(*words: str, environment: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "driftline.cli.main", *words],
            env={**os.environ, "DRIFTLINE_STATE": state, "COLUMNS": "200", **(environment or {})},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    yield run
    run("down")


def children(state: Path) -> list[psutil.Process]:
    """The platform's process and everything below it."""
    platform = psutil.Process(json.loads((state / "run" / "platform.json").read_text())["pid"])
    return [platform, *platform.children(recursive=True)]


def test_everything_comes_up_embedded_and_goes_down_without_a_trace(
    terminal: Type, project: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    up = terminal("up", "--project", str(project), "--services", SERVICES)
    assert up.returncode == 0, up.stderr
    assert "ingest-0" in up.stderr

    status = terminal("status", "--json")
    assert status.returncode == 0, status.stdout
    shown = json.loads(status.stdout)
    assert [(item["service"], item["ready"]) for item in shown["services"]] == [
        ("ingest", True),
        ("feature_store", True),
    ]
    assert shown["phase"] == "ready"
    assert shown["servers"] == running_environment(state)
    until = time.monotonic() + 60  # the lag is measured once a second, from what the broker has told by then
    while (lags := [item["lag"] for item in shown["services"]]) != [None, 0] and time.monotonic() < until:
        shown = json.loads(terminal("status", "--json").stdout)
    assert lags == [None, 0]

    again = terminal("up", "--project", str(project), "--services", SERVICES)
    assert again.returncode == 0
    assert "already running" in again.stderr

    doctor = terminal("doctor", "--project", str(project), "--json")
    assert doctor.returncode == 0, doctor.stdout
    found = {item["subject"]: item["level"] for item in json.loads(doctor.stdout)}
    assert {found[name] for name in ("kafka", "registry", "valkey", "project", "packages")} == {"good"}

    processes = children(state)
    assert len(processes) == 6, processes  # the platform, three servers, two services
    down = terminal("down")
    assert down.returncode == 0, down.stderr
    assert not any(process.is_running() for process in processes)
    assert running_environment(state) == {}
    assert read_instance_file(state, "ingest-0") is None
    assert terminal("status").returncode == 1


def test_real_servers_are_used_where_they_are_named(
    terminal: Type, project: Path, tmp_path: Path, servers: dict[str, str]
) -> None:
    up = terminal("up", "--project", str(project), "--services", "ingest", environment=servers)
    assert up.returncode == 0, up.stderr
    assert running_environment(tmp_path / "state") == {}
    assert len(children(tmp_path / "state")) == 2


def test_killed_platform_leaves_nothing_behind(
    terminal: Type, project: Path, tmp_path: Path, servers: dict[str, str]
) -> None:
    terminal("up", "--project", str(project), "--services", "ingest", environment=servers)
    platform, *others = children(tmp_path / "state")
    platform.kill()
    psutil.wait_procs(others, timeout=10)
    assert not any(process.is_running() for process in others)
    status = terminal("status", environment=servers)
    assert status.returncode == 1
    assert (
        terminal("up", "--project", str(project), "--services", "ingest", environment=servers).returncode == 0
    )


def test_incompatible_schema_stops_the_start_and_is_named(
    terminal: Type, project: Path, tmp_path: Path, servers: dict[str, str]
) -> None:
    assert (
        terminal("up", "--project", str(project), "--services", "ingest", environment=servers).returncode == 0
    )
    terminal("down")
    changed = json.loads(json.dumps(SCHEMA).replace('"double"', '"string"'))
    (project / "trip.avsc").write_text(json.dumps(changed))
    up = terminal("up", "--project", str(project), "--services", "ingest", environment=servers)
    assert up.returncode == EXIT_CONFIGURATION
    assert "minutes" in up.stderr
    assert terminal("status").returncode == 1
