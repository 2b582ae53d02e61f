"""Children end with their parent, and by their own pid."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from driftline.runtime.processes import end, is_alive, spawn, tail

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-I",
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(60)",
]
PARENT = """
import sys, time
from pathlib import Path
from driftline.runtime.processes import spawn
child = spawn([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"], environment={}, log=Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(60)
"""


def wait_until(condition: object, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_child_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
        parent.wait(10)
    wait_until(lambda: not is_alive(child))


def test_child_is_asked_to_end(tmp_path: Path) -> None:
    child = spawn(SLEEP, environment={}, log=tmp_path / "log")
    assert end(child) == -signal.SIGTERM


def test_stopped_child_ends_too(tmp_path: Path) -> None:
    child = spawn(SLEEP, environment={}, log=tmp_path / "log")
    os.kill(child.pid, signal.SIGSTOP)
    assert end(child) == -signal.SIGTERM


def test_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = spawn(STUBBORN, environment={}, log=log)
    wait_until(lambda: tail(log) == "here")
    assert end(child, patience=0.2) == -signal.SIGKILL


def test_pid_of_another_time_is_not_alive() -> None:
    assert is_alive(os.getpid())
    assert not is_alive(os.getpid(), started=1.0)


def test_tail_of_no_log_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "none") == ""
    (tmp_path / "log").write_text("a\nb\nc\n")
    assert tail(tmp_path / "log", 2) == "b\nc"
