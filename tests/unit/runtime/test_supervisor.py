"""The supervisor keeps its services running, and knows when a restart would not help."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driftline.runtime.errors import EXIT_CEILING, ConfigurationError, UnavailableError
from driftline.runtime.instance_file import read_instance_file
from driftline.runtime.processes import is_alive
from driftline.runtime.supervisor import Supervisor, read_statuses

WELL = """
import os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from driftline.runtime.instance_file import write_instance_file

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(os.environ.get("ANSWER", "200")))
        self.end_headers()

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = HTTPServer(("127.0.0.1", 0), Handler)
instance = os.environ["DRIFTLINE_INSTANCE"]
write_instance_file(Path(os.environ["DRIFTLINE_STATE"]), instance, service="well", port=server.server_port)
server.serve_forever()
"""

Make = Callable[..., Supervisor]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make supervisors of small programs: ``make({"well": WELL})``."""
    made: list[Supervisor] = []
    package = tmp_path / "code" / "pretend"
    package.mkdir(parents=True)

    def build(programs: dict[str, str], **environment: str) -> Supervisor:
        for name, text in programs.items():
            (package / f"{name}.py").write_text(text)
        supervisor = Supervisor(
            tmp_path / "state",
            list(programs),
            {"PYTHONPATH": str(tmp_path / "code"), **environment},
            first_pause=0.01,
            package="pretend",
        )
        made.append(supervisor)
        return supervisor

    yield build
    for supervisor in made:
        supervisor.stop()


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_services_start_and_stop(make: Make, tmp_path: Path) -> None:
    supervisor = make({"well": WELL})
    supervisor.start()
    supervisor.wait_ready(20)
    pid = supervisor.pid("well-0")
    written = json.loads((tmp_path / "state" / "run" / "supervisor.json").read_text())
    assert written["pid"] == os.getpid()
    assert written["instances"][0]["pid"] == pid
    supervisor.stop()
    assert not is_alive(pid)
    assert read_instance_file(tmp_path / "state", "well-0") is None
    assert [status.state for status in read_statuses(tmp_path / "state")] == ["stopped"]


def test_killed_service_is_started_again(make: Make) -> None:
    supervisor = make({"well": WELL})
    supervisor.start()
    supervisor.wait_ready(20)
    first = supervisor.kill("well-0")
    assert not is_alive(first)
    assert not supervisor.ready("well-0")
    wait_until(lambda: supervisor.status("well-0").restarts == 1)
    supervisor.wait_ready(20)
    status = supervisor.status("well-0")
    assert status.pid != first
    assert status.last_exit == -signal.SIGKILL
    assert "SIGKILL" in status.reason


def test_stopped_service_goes_on(make: Make) -> None:
    supervisor = make({"well": WELL})
    supervisor.start()
    supervisor.wait_ready(20)
    pid = supervisor.kill("well-0", signal.SIGSTOP)
    supervisor.kill("well-0", signal.SIGCONT)
    supervisor.wait_ready(20)
    assert supervisor.pid("well-0") == pid


def test_service_at_the_dead_letter_ceiling_stays_down(make: Make) -> None:
    text = f"import sys\nprint('7 of 10 messages are bad')\nsys.exit({EXIT_CEILING})"
    supervisor = make({"poisoned": text})
    supervisor.start()
    with pytest.raises(UnavailableError, match=r"dead-letter ceiling.*7 of 10"):
        supervisor.wait_ready(20)
    status = supervisor.status("poisoned-0")
    assert (status.state, status.restarts, status.last_exit) == ("failed", 0, EXIT_CEILING)


def test_failed_service_can_be_started_by_hand(make: Make, tmp_path: Path) -> None:
    switch = tmp_path / "mended"
    text = f"import os, sys\nif not os.path.exists({str(switch)!r}): sys.exit({EXIT_CEILING})\n{WELL}"
    supervisor = make({"well": text})
    supervisor.start()
    wait_until(lambda: supervisor.status("well-0").state == "failed")
    switch.touch()
    supervisor.restart("well-0")
    supervisor.wait_ready(20)


def test_service_that_crashes_is_tried_again_with_growing_pauses(make: Make, tmp_path: Path) -> None:
    count = tmp_path / "starts"
    text = f"import time\nwith open({str(count)!r}, 'a') as f: f.write(str(time.time()) + chr(10))\nraise RuntimeError('no luck')"
    supervisor = make({"crashing": text})
    supervisor.start()
    wait_until(lambda: supervisor.status("crashing-0").restarts >= 4)
    assert "no luck" in supervisor.status("crashing-0").reason
    supervisor.stop()
    assert len(count.read_text().splitlines()) >= 4


def test_service_that_is_not_ready_in_time_is_named_with_its_log(make: Make) -> None:
    supervisor = make({"well": WELL}, ANSWER="503")
    supervisor.start()
    with pytest.raises(UnavailableError, match="not ready after 1 s: well-0"):
        supervisor.wait_ready(1)
    supervisor.wait_ready(1, but=["well"])


def test_service_named_twice_runs_twice(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, ["a", "b", "a"], {})
    assert [status.instance for status in supervisor.statuses()] == ["a-0", "a-1", "b-0"]


def test_unknown_instance_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there are a-0"):
        Supervisor(tmp_path, ["a"], {}).pid("b-0")
