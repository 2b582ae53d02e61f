"""Make the archives that let Kafka and the registry start in half the time: ``python -m driftline.embedded.warm``.

Each server runs once, empty, and leaves an AOT cache (JEP 483, 514) of the classes that it has loaded and linked beside
its files in the user's cache; every later start takes it. It costs half a minute, so it is for whoever starts the stack
many times, as the tests do. A Java or a lock of another version has archives of its own; without one a server starts all
the same.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from driftline.embedded.cache import ArtifactCache
from driftline.embedded.java import jvm_environment
from driftline.embedded.kafka import Kafka
from driftline.embedded.part import Part
from driftline.embedded.ports import remembered_ports
from driftline.embedded.registry import Registry
from driftline.runtime.errors import DriftlineError, UnavailableError
from driftline.runtime.processes import end, spawn, tail

_READY_SECONDS = 300
_WRITE_SECONDS = 600

_PARTS: Mapping[str, tuple[tuple[str, ...], Callable[[Path, Mapping[str, int], ArtifactCache], Part]]] = {
    "kafka": (Kafka.port_names, Kafka),
    "registry": (Registry.port_names, Registry),
}


def warm(cache: ArtifactCache) -> list[str]:
    """Make what archives are missing, and return whose.

    Raises
    ------
    UnavailableError
        A server did not start, or left no archive: with the end of what it said.
    """
    cache.ensure()
    with cache.alone("warm"):
        missing = [name for name in _PARTS if not cache.archive(name).exists()]
        for name in missing:
            _make(name, cache)
    return missing


def _make(name: str, cache: ArtifactCache) -> None:
    port_names, make = _PARTS[name]
    archive = cache.archive(name)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=archive.parent, prefix=f".{name}-") as scratch:
        folder = Path(scratch)
        part = make(folder / name, remembered_ports(folder / "ports.json", list(port_names)), cache)
        part.prepare()
        draft, log = folder / archive.name, folder / "log"
        runtime, *rest = part.command()
        command = [runtime, f"-XX:AOTCacheOutput={draft}", *rest]
        process = spawn(command, environment=jvm_environment(), log=log)
        try:
            _wait(part, process, log)
        finally:
            end(process, patience=_WRITE_SECONDS)  # it writes the archive when it ends
        if not draft.exists():
            raise UnavailableError(f"{name} left no archive:\n{tail(log)}")
        draft.rename(archive)


def _wait(part: Part, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + _READY_SECONDS
    while not part.ready():
        if process.poll() is not None or time.monotonic() > until:
            raise UnavailableError(f"{part.name} did not start:\n{tail(log)}")
        time.sleep(0.05)


if __name__ == "__main__":
    begun = time.monotonic()
    try:
        made = warm(ArtifactCache())
    except DriftlineError as error:
        sys.exit(str(error))
    if made:
        print(f"made archives for faster starts of {' and '.join(made)} in {time.monotonic() - begun:.0f} s")
