"""Child processes: started so that they die with us, ended by their own pid, never by name."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import psutil

_LEASH = Path(__file__).with_name("leash.py")


class _Spawner:
    """Starts all children from one thread that lives as long as the process.

    The kernel's "parent died" signal comes when the *thread* ends that started the child.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[
            tuple[Future[subprocess.Popen[bytes]], list[str], Mapping[str, str], Path]
        ]
        self._queue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def spawn(self, command: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="spawner", daemon=True)
                self._thread.start()
        future: Future[subprocess.Popen[bytes]] = Future()
        self._queue.put((future, command, environment, log))
        return future.result()

    def _run(self) -> None:
        while True:
            future, command, environment, log = self._queue.get()
            try:
                with log.open("ab") as output:
                    process = subprocess.Popen(
                        command,
                        env=dict(environment),
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,  # a Ctrl-C is ours to pass on, in order
                    )
            except OSError as error:
                future.set_exception(error)
            else:
                future.set_result(process)


_SPAWNER = _Spawner()


def spawn(
    command: Sequence[str | Path], *, environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start a child that is killed when this process ends; its output is appended to ``log``.

    The first word must be an absolute path.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    leash = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid())]
    return _SPAWNER.spawn([*leash, *map(str, command)], environment, log)


def end(process: "subprocess.Popen[bytes]", *, patience: float = 10.0) -> int:
    """Ask a child to end, kill it when it does not within ``patience`` seconds; return its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)  # a stopped process would not hear the next signal
        process.terminate()
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(30)


def is_alive(pid: int, started: float | None = None) -> bool:
    """Whether the process runs; ``started`` (its ``psutil`` creation time) tells it from a later one of that pid."""
    try:
        process = psutil.Process(pid)
        if started is not None and abs(process.create_time() - started) > 1:
            return False
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def tail(log: Path, lines: int = 12) -> str:
    """Return the last lines of a log; empty where there is none."""
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 64_000))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    return ""
