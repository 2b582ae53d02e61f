"""Kafka, the registry and Valkey, started for you on loopback. Nothing else in the code knows of it."""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from driftline.embedded.cache import ArtifactCache
from driftline.embedded.java import jvm_environment
from driftline.embedded.kafka import Kafka
from driftline.embedded.part import Part
from driftline.embedded.ports import is_free, remembered_ports
from driftline.embedded.registry import Registry
from driftline.embedded.valkey import Valkey
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.runtime.processes import end, spawn, tail

PARTS = ("kafka", "registry", "valkey")
_POLL_SECONDS = 0.05


class EmbeddedStack:
    """The servers of one state folder; everything that they keep is in ``<state>/embedded``.

    They end when this process ends, however it ends. A second stack on the same folder is refused.

    Parameters
    ----------
    state
        The state folder.
    cache
        The user's cache of downloads; by default ``DRIFTLINE_CACHE`` or ``~/.cache/driftline``.
    """

    def __init__(self, state: Path, cache: Path | None = None) -> None:
        self._folder = state.resolve() / "embedded"
        self._logs = state.resolve() / "logs"
        self._cache = ArtifactCache(cache)
        self._parts: dict[str, Part] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._claim: IO[str] | None = None

    def start(
        self, parts: Sequence[str] = PARTS, *, timeout: float = 120, quiet: bool = False
    ) -> "EmbeddedStack":
        """Start the parts side by side and return when each of them answers.

        Raises
        ------
        UnavailableError
            A server did not come up: with the end of its log. Nothing is left running.
        ConfigurationError
            Another stack runs on this state folder.
        """
        self._claim_folder()
        try:
            if {"kafka", "registry"} & set(parts):
                self._cache.ensure(quiet=quiet)
            ports = remembered_ports(
                self._folder / "ports.json", [port for name in parts for port in _TYPES[name].port_names]
            )
            # Kafka formats its folder at the first start: let the others boot meanwhile.
            for name in sorted(parts, key=lambda name: name == "kafka"):
                self._parts[name] = self._make(name, ports)
                self._launch(name)
            self._wait_ready(parts, timeout)
            write_environment(self._folder, self.environment)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all parts, in order; nothing happens to those that are not running."""
        (self._folder / _ENVIRONMENT_FILE).unlink(missing_ok=True)
        running = [name for name in reversed(PARTS) if name in self._processes]
        for name in running:  # ask all first, so that they end side by side
            if self._processes[name].poll() is None:
                self._processes[name].terminate()
        for name in running:
            end(self._processes.pop(name), patience=self._parts[name].patience)
        self._parts.clear()
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def kill(self, part: str) -> None:
        """Kill a part (SIGKILL), as a crash would, and wait until it is gone."""
        process = self._running(part)
        process.kill()
        process.wait(30)

    def restart(self, part: str, *, wipe: bool = False, timeout: float = 120) -> None:
        """Start a part again on the same port, ending it first if it runs; ``wipe`` deletes what it kept."""
        process = self._running(part)
        end(process, patience=self._parts[part].patience)
        if wipe:
            shutil.rmtree(self._parts[part].folder)
        until = time.monotonic() + 10
        while not all(is_free(self._parts[part].ports[name]) for name in self._parts[part].port_names):
            if time.monotonic() > until:
                raise UnavailableError(f"something else has taken the port of {part}")
            time.sleep(_POLL_SECONDS)
        self._launch(part)
        self._wait_ready([part], timeout)

    def pid(self, part: str) -> int:
        """Return a part's process id."""
        return self._running(part).pid

    def ended(self) -> dict[str, int]:
        """Return the parts whose process ended without being asked to, with their exit codes."""
        codes = {name: process.poll() for name, process in self._processes.items()}
        return {name: code for name, code in codes.items() if code is not None}

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which services and clients find the parts that run."""
        found: dict[str, str] = {}
        for part in self._parts.values():
            found |= part.environment
        return found

    def __enter__(self) -> Self:
        if not self._processes:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _make(self, name: str, ports: dict[str, int]) -> Part:
        folder = self._folder / name
        match name:
            case "kafka":
                return Kafka(folder, ports, self._cache)
            case "registry":
                return Registry(folder, ports, self._cache)
            case _:
                return Valkey(folder, ports)

    def _launch(self, name: str) -> None:
        part = self._parts[name]
        part.prepare()
        self._processes[name] = spawn(part.command(), environment=jvm_environment(), log=self._log(name))

    def _wait_ready(self, names: Sequence[str], timeout: float) -> None:
        wait_ready([(self._parts[name], self._processes[name], self._log(name)) for name in names], timeout)

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _running(self, name: str) -> "subprocess.Popen[bytes]":
        if name not in self._processes:
            raise ConfigurationError(f"the embedded stack does not run {name!r}")
        return self._processes[name]

    def _claim_folder(self) -> None:
        if self._processes:
            raise ConfigurationError("this embedded stack is already started")
        self._folder.mkdir(parents=True, exist_ok=True)
        claim = (self._folder / "claim").open("a+")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            claim.seek(0)
            pid = claim.read().strip() or "?"
            claim.close()
            msg = f"process {pid} already runs an embedded stack in {self._folder} (`driftline down` ends it)"
            raise ConfigurationError(msg) from error
        claim.truncate(0)
        claim.write(str(os.getpid()))
        claim.flush()
        self._claim = claim


def wait_ready(started: Iterable[tuple[Part, "subprocess.Popen[bytes]", Path]], timeout: float) -> None:
    """Return when all of these servers answer, each told with its process and its log.

    Raises
    ------
    UnavailableError
        One ended, or does not answer within so many seconds: with the end of its log.
    """
    until = time.monotonic() + timeout
    waiting = {part.name: (part, process, log) for part, process, log in started}
    while waiting:
        for name, (part, process, log) in sorted(waiting.items()):
            code = process.poll()
            if code is not None:
                msg = f"{name} ended with exit code {code} while starting:\n{tail(log)}"
                raise UnavailableError(msg)
            if part.ready():
                del waiting[name]
        if waiting and time.monotonic() > until:
            name = min(waiting)
            msg = f"{name} is not ready after {timeout:.0f} s:\n{tail(waiting[name][2])}"
            raise UnavailableError(msg)
        time.sleep(_POLL_SECONDS)


_TYPES: dict[str, type[Part]] = {"kafka": Kafka, "registry": Registry, "valkey": Valkey}
_ENVIRONMENT_FILE = "environment.json"


def write_environment(folder: Path, environment: dict[str, str]) -> None:
    """Tell other commands on this machine where the running stack is."""
    draft = folder / f"{_ENVIRONMENT_FILE}.tmp"
    draft.write_text(json.dumps(environment) + "\n")
    draft.replace(folder / _ENVIRONMENT_FILE)


def running_environment(state: Path) -> dict[str, str]:
    """Return the variables of the stack that runs in a state folder; empty where none does."""
    folder = state / "embedded"
    try:
        with (folder / "claim").open() as claim:
            fcntl.flock(claim, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # held: the stack runs
        try:
            return {str(name): str(value) for name, value in _read(folder / _ENVIRONMENT_FILE).items()}
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
    except FileNotFoundError:
        return {}
    return {}


def _read(path: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads(path.read_text())
    return content
