"""Start services as processes, watch them, start them again when they end, stop them in order."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from driftline.runtime.errors import (
    EXIT_CEILING,
    EXIT_CONFIGURATION,
    EXIT_GAP,
    ConfigurationError,
    UnavailableError,
)
from driftline.runtime.instance_file import read_instance_file, remove_instance_file
from driftline.runtime.processes import end, spawn, tail

_WATCH_SECONDS = 0.05
_FIRST_BACKOFF, _LAST_BACKOFF = 0.1, 10.0
#: A process that ran so long was well; its next restart waits no longer than the first.
_WELL_SECONDS = 10.0
#: Exit codes after which a restart would not help, and what they mean.
FINAL = {
    EXIT_CONFIGURATION: "its configuration is wrong",
    EXIT_CEILING: "too many messages were bad (dead-letter ceiling)",
    EXIT_GAP: "records were lost before it read them",
}


@dataclass(slots=True, kw_only=True)
class _Instance:
    name: str
    service: str
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    restarts: int = 0
    backoff: float = _FIRST_BACKOFF
    next_start: float = 0.0
    failed: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Supervisor:
    """Keeps one process per instance running.

    Parameters
    ----------
    state
        The folder with ``run/`` (instance files) and ``logs/``.
    services
        Names of packages below ``services``; one that is named twice runs twice.
    environment
        The processes' whole environment but for the instance's name.
    """

    def __init__(self, *, state: Path, services: Sequence[str], environment: Mapping[str, str]) -> None:
        self._state = state
        self._environment = {
            name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"
        }
        # One thread each: the processes share the machine, and their matrices are small.
        self._environment.setdefault("OPENBLAS_NUM_THREADS", "1")
        self._environment.setdefault("OMP_NUM_THREADS", "1")
        self._environment["DRIFTLINE_STATE"] = str(state)
        counts: dict[str, int] = {}
        self._instances: dict[str, _Instance] = {}
        for service in services:
            name = f"{service}-{counts.get(service, 0)}"
            counts[service] = counts.get(service, 0) + 1
            self._instances[name] = _Instance(name=name, service=service)
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """Start all processes and begin to watch them."""
        for instance in self._instances.values():
            self._launch(instance)
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._watcher.start()

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Wait until every instance says on /readyz that it does its work.

        Raises ConfigurationError where one has given up, UnavailableError where the time is over.
        """
        until = time.monotonic() + seconds
        waiting = dict.fromkeys(self._instances, "not started")
        while waiting:
            for name in list(waiting):
                instance = self._instances[name]
                if instance.failed:
                    raise ConfigurationError(f"{name} {instance.failed}\n{tail(self._log(name), 8)}")
                ready, detail = self._ready(instance)
                if ready:
                    del waiting[name]
                else:
                    waiting[name] = detail
            if not waiting:
                return
            if time.monotonic() > until:
                name, detail = next(iter(waiting.items()))
                msg = f"{name} is not ready after {seconds:.0f} s: {detail}\n{tail(self._log(name), 8)}"
                raise UnavailableError(msg)
            time.sleep(0.05)

    def kill(self, instance: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to an instance's process; SIGKILL returns once it has ended."""
        held = self._instances[instance]
        with held.lock:
            process = held.process
            if process is None or process.poll() is not None:
                return
            process.send_signal(number)
            if number == signal.SIGKILL:
                process.wait(10)
                remove_instance_file(self._state, instance)

    @property
    def failed(self) -> dict[str, str]:
        """Instances that were given up, with the reason."""
        return {name: one.failed for name, one in self._instances.items() if one.failed}

    @property
    def restarts(self) -> dict[str, int]:
        """How often each instance was started again."""
        return {name: one.restarts for name, one in self._instances.items()}

    def pid(self, instance: str) -> int | None:
        """Return the process id of an instance that runs."""
        process = self._instances[instance].process
        return process.pid if process is not None and process.poll() is None else None

    def stop(self) -> None:
        """End all processes: SIGTERM, time to drain, then SIGKILL."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join(10)
        running = [one.process for one in self._instances.values() if one.process is not None]
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in running:
            end(process, patience=30)
        for name in self._instances:
            remove_instance_file(self._state, name)

    def _watch(self) -> None:
        while not self._stopping.wait(_WATCH_SECONDS):
            for instance in self._instances.values():
                with instance.lock:
                    self._look_after(instance)

    def _look_after(self, instance: _Instance) -> None:
        process = instance.process
        if instance.failed or (process is not None and process.poll() is None):
            return
        now = time.monotonic()
        if process is not None:
            instance.process = None
            if process.returncode in FINAL:
                instance.failed = f"ended and was not started again: {FINAL[process.returncode]}"
                self._write_failures()
                return
            if now - instance.started > _WELL_SECONDS:
                instance.backoff = _FIRST_BACKOFF
            instance.next_start = now + instance.backoff
            instance.backoff = min(instance.backoff * 2, _LAST_BACKOFF)
        elif now >= instance.next_start:
            instance.restarts += 1
            self._launch(instance)

    def _launch(self, instance: _Instance) -> None:
        remove_instance_file(self._state, instance.name)
        instance.process = spawn(
            [sys.executable, "-P", "-m", f"services.{instance.service}"],
            environment={**self._environment, "DRIFTLINE_INSTANCE": instance.name},
            log=self._log(instance.name),
        )
        instance.started = time.monotonic()

    def _ready(self, instance: _Instance) -> tuple[bool, str]:
        file = read_instance_file(self._state, instance.name)
        if file is None or instance.process is None or file.pid != instance.process.pid:
            return False, "it is starting"
        try:
            answer = httpx.get(f"http://127.0.0.1:{file.port}/readyz", timeout=2)
        except httpx.HTTPError as error:
            return False, str(error)
        return answer.is_success, answer.text

    def _log(self, name: str) -> Path:
        return self._state / "logs" / f"{name}.log"

    def _write_failures(self) -> None:
        path = self._state / "run" / "failed.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(self.failed))
        draft.replace(path)
