"""Starts the services, watches them, restarts those that crash, stops them in order.

1. Each instance is ``python -P -m services.<name>`` with ``DRIFTLINE_INSTANCE=<name>-<i>``; its output goes to
   ``<state>/logs/<instance>.log``.
2. It is ready when ``/readyz`` answers 200 on the port that *this* process wrote to ``<state>/run/<instance>.json``.
3. One that ends is started again after a pause that doubles, unless its exit code says that a restart
   would not help (``EXIT_*`` of ``runtime.errors``): then it stays down, with the reason.
4. On ``stop`` each gets SIGTERM, the entrance first, then SIGKILL when it does not drain in time.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil

from driftline.runtime.errors import (
    EXIT_CEILING,
    EXIT_CONFIGURATION,
    EXIT_GAP,
    ConfigurationError,
    UnavailableError,
)
from driftline.runtime.instance_file import instance_path, read_instance_file
from driftline.runtime.processes import end, spawn, tail

#: Exit codes after which a person must look, with what to tell them.
FINAL_EXITS = {
    EXIT_CONFIGURATION: "a setting or file is wrong",
    EXIT_CEILING: "too many bad messages: the dead-letter ceiling was reached",
    EXIT_GAP: "records were lost before they were read",
}
_WATCH_SECONDS = 0.1
_STABLE_SECONDS = 60.0
_LONGEST_PAUSE = 30.0
_LAST_WORDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus:
    """What the supervisor knows of one process.

    ``state`` is running, waiting (for its restart), failed or stopped; ``reason`` says why it last ended
    without being asked to.
    """

    instance: str
    service: str
    state: str
    pid: int | None = None
    restarts: int = 0
    last_exit: int | None = None
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class _Instance:
    name: str
    service: str
    process: "subprocess.Popen[bytes] | None" = None
    state: str = "stopped"
    started: float = 0.0
    failures: int = 0
    restarts: int = 0
    restart_at: float = 0.0
    last_exit: int | None = None
    reason: str = ""

    def status(self) -> InstanceStatus:
        return InstanceStatus(
            instance=self.name,
            service=self.service,
            state=self.state,
            pid=self.process.pid if self.process is not None and self.state == "running" else None,
            restarts=self.restarts,
            last_exit=self.last_exit,
            reason=self.reason,
        )


class Supervisor:
    """Runs the service processes of one state folder; used by ``driftline up``, the demo and the tests.

    Parameters
    ----------
    state
        Where ports, logs and ``run/supervisor.json`` are written.
    services
        Names of packages below ``services``, the entrance (ingest) first; one that is named twice runs
        twice, or a mapping gives the number of instances of each.
    environment
        Variables of the services, over those of this process.
    first_pause
        Seconds before the first restart; it doubles with each failure in a row.
    package
        The package that holds the services.
    """

    def __init__(
        self,
        state: Path,
        services: Iterable[str] | Mapping[str, int],
        environment: Mapping[str, str],
        *,
        first_pause: float = 0.5,
        package: str = "services",
    ) -> None:
        counts = services if isinstance(services, Mapping) else Counter(services)
        self._state = state.resolve()
        self._package = package
        self._environment = {**os.environ, **environment, "DRIFTLINE_STATE": str(self._state)}
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)  # bytecode makes restarts faster
        # One thread each: the processes share the machine, and their batches are small.
        self._environment.setdefault("OPENBLAS_NUM_THREADS", "1")
        self._environment.setdefault("OMP_NUM_THREADS", "1")
        self._first_pause = first_pause
        self._instances = {
            f"{service}-{number}": _Instance(name=f"{service}-{number}", service=service)
            for service, count in counts.items()
            for number in range(count)
        }
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """Start every process and the thread that watches them."""
        if self._watcher is not None:
            raise ConfigurationError("this supervisor is already started")
        self._stopping.clear()
        with self._lock:
            for item in self._instances.values():
                self._launch(item)
            self._write()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._watcher.start()

    def wait_ready(self, timeout: float = 60, *, but: Collection[str] = ()) -> None:
        """Return when every process is ready; those of the services in ``but`` need not be.

        Raises
        ------
        UnavailableError
            One is not, or has failed for good: with its reason and the end of its log.
        """
        until = time.monotonic() + timeout
        waiting = [name for name, item in self._instances.items() if item.service not in but]
        while waiting:
            for name in waiting:
                status = self.status(name)
                if status.state == "failed":
                    raise UnavailableError(f"{name} failed: {status.reason}\n{tail(self.log(name))}")
            waiting = [name for name in waiting if not self.ready(name)]
            if waiting and time.monotonic() > until:
                name = waiting[0]
                msg = f"not ready after {timeout:.0f} s: {', '.join(waiting)}. The log of {name} ends:\n"
                raise UnavailableError(msg + tail(self.log(name)))
            if waiting:
                time.sleep(_WATCH_SECONDS)

    def ready(self, instance: str) -> bool:
        """Whether the instance's own process answers its readiness check with yes."""
        port = self.port(instance)
        return port is not None and is_ready(port)

    def port(self, instance: str) -> int | None:
        """Return the port that the running process listens on; None while it has not said."""
        with self._lock:
            item = self._find(instance)
            pid = item.process.pid if item.process is not None and item.process.poll() is None else None
        written = read_instance_file(self._state, instance)
        return written.port if written is not None and written.pid == pid else None

    def pid(self, instance: str) -> int:
        """Return the process id of an instance that runs."""
        pid = self.status(instance).pid
        if pid is None:
            raise UnavailableError(f"{instance} does not run")
        return pid

    def kill(self, instance: str, signal_number: int = signal.SIGKILL) -> int:
        """Send a signal (SIGKILL, SIGSTOP, SIGCONT ...) and return the pid; what ends is started again.

        After SIGKILL the process is gone when this returns.
        """
        with self._lock:
            item = self._find(instance)
            if item.process is None or item.process.poll() is not None:
                raise UnavailableError(f"{instance} does not run")
            item.process.send_signal(signal_number)
            if signal_number == signal.SIGKILL:
                item.process.wait(10)
                self._forget_port(item)
            return item.process.pid

    def restart(self, instance: str) -> None:
        """Start a failed or waiting instance now; one that runs is ended first, gracefully."""
        with self._lock:
            item = self._find(instance)
            if item.process is not None:
                end(item.process)
            item.failures = 0
            self._launch(item)
            self._write()

    def status(self, instance: str) -> InstanceStatus:
        """Return what is known of one instance."""
        with self._lock:
            return self._find(instance).status()

    def statuses(self) -> list[InstanceStatus]:
        """Return what is known of all instances, in the order of their start."""
        with self._lock:
            return [item.status() for item in self._instances.values()]

    def log(self, instance: str) -> Path:
        """Return where an instance's output goes."""
        return self._state / "logs" / f"{instance}.log"

    def stop(self, patience: float = 15) -> None:
        """Stop every process: SIGTERM in order, the entrance first; SIGKILL after ``patience`` seconds."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        with self._lock:
            for item in self._instances.values():
                if item.process is not None:
                    item.last_exit = end(item.process, patience=patience)
                    self._forget_port(item)
                    item.process = None
                if item.state != "failed":
                    item.state = "stopped"
            self._write()

    def __enter__(self) -> "Supervisor":
        if self._watcher is None:
            self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _find(self, instance: str) -> _Instance:
        try:
            return self._instances[instance]
        except KeyError:
            msg = f"there is no instance {instance!r}; there are {', '.join(self._instances)}"
            raise ConfigurationError(msg) from None

    def _launch(self, item: _Instance) -> None:
        instance_path(self._state, item.name).unlink(missing_ok=True)
        item.process = spawn(
            [sys.executable, "-P", "-m", f"{self._package}.{item.service}"],
            environment={**self._environment, "DRIFTLINE_INSTANCE": item.name},
            log=self.log(item.name),
        )
        item.state, item.started = "running", time.monotonic()

    def _watch(self) -> None:
        while not self._stopping.wait(_WATCH_SECONDS):
            with self._lock:
                changes = [self._look_at(item) for item in self._instances.values()]
                if any(changes):
                    self._write()

    def _look_at(self, item: _Instance) -> bool:
        """Take the next step of one instance; return whether anything changed."""
        now = time.monotonic()
        if item.state == "running" and item.process is not None:
            code = item.process.poll()
            if code is None:
                return False
            item.last_exit = code
            self._forget_port(item)
            last_words = tail(self.log(item.name), 1).strip()[-_LAST_WORDS:]
            if code in FINAL_EXITS:
                item.state, item.reason = "failed", f"{FINAL_EXITS[code]} (exit code {code}): {last_words}"
                return True
            item.failures = 1 if now - item.started > _STABLE_SECONDS else item.failures + 1
            pause = min(self._first_pause * 2 ** (item.failures - 1), _LONGEST_PAUSE)
            item.state, item.restart_at = "waiting", now + pause
            item.reason = f"{_describe_exit(code)}: {last_words}" if code > 0 else _describe_exit(code)
            return True
        if item.state == "waiting" and now >= item.restart_at:
            item.restarts += 1
            self._launch(item)
            return True
        return False

    def _forget_port(self, item: _Instance) -> None:
        written = read_instance_file(self._state, item.name)
        if written is not None and item.process is not None and written.pid == item.process.pid:
            instance_path(self._state, item.name).unlink(missing_ok=True)

    def _write(self) -> None:
        write_supervisor_file(self._state, self.statuses())


def is_ready(port: int, timeout: float = 2) -> bool:
    """Whether the process on a loopback port answers ``/readyz`` with yes."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=timeout, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK


def supervisor_path(state: Path) -> Path:
    """Return where a supervisor writes what it knows."""
    return state / "run" / "supervisor.json"


def write_supervisor_file(state: Path, statuses: list[InstanceStatus]) -> None:
    """Write what the supervisor knows, atomically."""
    path = supervisor_path(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
        "instances": [asdict(status) for status in statuses],
    }
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(content, indent=2) + "\n")
    draft.replace(path)


def read_statuses(state: Path) -> list[InstanceStatus]:
    """Return what a supervisor last wrote in a state folder; empty where none did."""
    try:
        content = json.loads(supervisor_path(state).read_text())
        return [InstanceStatus(**item) for item in content["instances"]]
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        return []


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
