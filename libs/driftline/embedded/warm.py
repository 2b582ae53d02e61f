"""Make the archives that let Kafka and the registry start in half the time: ``python -m driftline.embedded.warm``.

Each server runs once, empty, and leaves an AOT cache (JEP 483, 514) of the classes that it has loaded and linked beside
its files in the user's cache; every later start takes it. It costs half a minute, so it is for whoever starts the stack
many times, as the tests do. A Java or a lock of another version has archives of its own; without one a server starts all
the same.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from driftline.embedded.cache import ArtifactCache
from driftline.embedded.java import jvm_environment
from driftline.embedded.kafka import Kafka
from driftline.embedded.ports import remembered_ports
from driftline.embedded.registry import Registry
from driftline.embedded.stack import wait_ready
from driftline.runtime.errors import DriftlineError, UnavailableError
from driftline.runtime.processes import end, spawn, tail

_READY_SECONDS = 300
_WRITE_SECONDS = 600

_SERVERS = (Kafka, Registry)


def warm(cache: ArtifactCache) -> list[str]:
    """Make what archives are missing, and return whose.

    Raises
    ------
    UnavailableError
        A server did not start, or left no archive: with the end of what it said.
    """
    cache.ensure()
    with cache.alone("warm"):
        missing = [server for server in _SERVERS if not cache.archive(server.name).exists()]
        for server in missing:
            _make(server, cache)
    return [server.name for server in missing]


def _make(server: type[Kafka | Registry], cache: ArtifactCache) -> None:
    archive = cache.archive(server.name)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=archive.parent, prefix=f".{server.name}-") as scratch:
        folder = Path(scratch)
        ports = remembered_ports(folder / "ports.json", list(server.port_names))
        part = server(folder / server.name, ports, cache)
        part.prepare()
        draft, log = folder / archive.name, folder / "log"
        runtime, *rest = part.command()
        command = [runtime, f"-XX:AOTCacheOutput={draft}", *rest]
        process = spawn(command, environment=jvm_environment(), log=log)
        try:
            wait_ready([(part, process, log)], _READY_SECONDS)
        finally:
            end(process, patience=_WRITE_SECONDS)  # it writes the archive when it ends
        if not draft.exists():
            raise UnavailableError(f"{server.name} left no archive:\n{tail(log)}")
        draft.rename(archive)


if __name__ == "__main__":
    begun = time.monotonic()
    try:
        made = warm(ArtifactCache())
    except DriftlineError as error:
        sys.exit(str(error))
    if made:
        print(f"made archives for faster starts of {' and '.join(made)} in {time.monotonic() - begun:.0f} s")
