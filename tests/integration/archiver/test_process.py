"""The real process, killed at random moments, stopped and woken, ended in order."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from driftline.archive.maintenance import compact
from driftline.archive.tables import TOPICS, open_table
from driftline.runtime.errors import EXIT_CONFIGURATION
from driftline.runtime.instance_file import read_instance_file

from .conftest import World

#: How often the test kills.
KILLS = int(os.environ.get("E2E_KILLS", "6"))
_COMMAND = [sys.executable, "-P", "-m", "services.archiver"]
_ROOT = Path(__file__).parents[3]


def environment(world: World, state: Path, instance: str = "archiver-0") -> dict[str, str]:
    return {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": world.kafka,
        "SCHEMA_REGISTRY_URL": world.registry._url,
        "DRIFTLINE_PROJECT": str(world.project.folder),
        "DRIFTLINE_STATE": str(state),
        "DRIFTLINE_INSTANCE": instance,
        "DRIFTLINE_ARCHIVE": world.archive.root,
        "DRIFTLINE_ARCHIVE_FLUSH_SECONDS": "0.1",
        "DRIFTLINE_ARCHIVE_FLUSH_ROWS": "200",
        "DRIFTLINE_ARCHIVE_COMPACT_SECONDS": "1",
        "DRIFTLINE_MAX_BATCH": "100",
        "DRIFTLINE_LOG_FORMAT": "json",
    }


@contextlib.contextmanager
def archiver(world: World, state: Path, instance: str = "archiver-0") -> Iterator["subprocess.Popen[bytes]"]:
    with (state.parent / f"{instance}.log").open("ab") as log:
        process = subprocess.Popen(
            _COMMAND, cwd=_ROOT, env=environment(world, state, instance), stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


class Traffic:
    """Publishes payments, and now and then rubbish, until it is ended."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.rubbish = 0

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self._world.publish(60)
            if self._world.published % 600 == 0:
                self._world.publish_raw(b"rubbish")
                self.rubbish += 1

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


def wait_caught_up(world: World, process: "subprocess.Popen[bytes]", seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not world.caught_up():
        assert process.poll() is None, f"the archiver ended with {process.returncode}"
        assert time.monotonic() < until, "the archiver did not catch up"
        time.sleep(0.2)


def version(world: World) -> int:
    table = open_table(world.archive.table(TOPICS, "payments"))
    return -1 if table is None else table.version()


def test_killed_at_random_moments(world: World, tmp_path: Path) -> None:
    traffic = Traffic(world)
    source = random.Random(11)
    try:
        for turn in range(KILLS):
            before = version(world)
            with archiver(world, tmp_path / "state") as process:
                until = time.monotonic() + 60
                while (
                    turn % 2 and version(world) == before
                ):  # every other kill meets commits, however slow it starts
                    assert process.poll() is None and time.monotonic() < until
                    time.sleep(0.05)
                time.sleep(source.uniform(0, 0.8 if turn % 2 else 3.0))
                process.send_signal(signal.SIGKILL)
                process.wait()
    finally:
        traffic.end()
    with archiver(world, tmp_path / "state") as process:
        wait_caught_up(world, process)
    world.assert_exact()
    assert len(world.bad()) == traffic.rubbish > 0
    compact(world.archive.table(TOPICS, "payments"))
    world.assert_exact()


def test_a_stopped_process_that_wakes_doubles_nothing(world: World, tmp_path: Path) -> None:
    """Stopped past its session, its partitions taken by a second process, then woken."""
    world.publish(500)
    with archiver(world, tmp_path / "state", "archiver-0") as first:
        wait_caught_up(world, first)
        traffic = Traffic(world)
        try:
            time.sleep(0.5)
            first.send_signal(signal.SIGSTOP)
            with archiver(world, tmp_path / "other", "archiver-1") as second:
                time.sleep(15)  # past the session time-out
                first.send_signal(signal.SIGCONT)
                time.sleep(2)
                traffic.end()
                wait_caught_up(world, second)
                world.assert_exact()
        finally:
            traffic.end()


def test_sigterm_commits_and_leaves(world: World, tmp_path: Path) -> None:
    state = tmp_path / "state"
    slow = {**environment(world, state), "DRIFTLINE_ARCHIVE_FLUSH_SECONDS": "3600"}
    slow["DRIFTLINE_ARCHIVE_FLUSH_ROWS"] = "1000000"
    process = subprocess.Popen(_COMMAND, cwd=_ROOT, env=slow)
    try:
        until = time.monotonic() + 60
        while (found := read_instance_file(state, "archiver-0")) is None or not _ready(found.port):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        world.publish(300)
        taken = f'driftline_batch_rows_sum{{topic="{world.topic}"}} 300.0'
        while taken not in httpx.get(f"http://127.0.0.1:{found.port}/metrics", trust_env=False).text:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        assert version(world) == -1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert version(world) == 1
    world.assert_exact()


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_wrong_setting_is_named(world: World, tmp_path: Path) -> None:
    wrong = {**environment(world, tmp_path / "state"), "DRIFTLINE_ARCHIVE_FLUSH_ROWS": "many"}
    ended = subprocess.run(
        _COMMAND, check=False, cwd=_ROOT, env=wrong, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == EXIT_CONFIGURATION
    assert "DRIFTLINE_ARCHIVE_FLUSH_ROWS='many'" in ended.stderr
