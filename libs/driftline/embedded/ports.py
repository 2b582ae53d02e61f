"""Loopback ports: chosen free at the first start, kept while they stay free."""

import json
import random
import socket
from collections.abc import Collection, Sequence
from pathlib import Path

from driftline.runtime.errors import UnavailableError

LOOPBACK = "127.0.0.1"
#: Below the range from which systems take the ports of outgoing connections: a server that is restarted
#: finds its port free, and a client that calls while it is down cannot connect to itself.
_RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def answers(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((LOOPBACK, port)) == 0


def free_port(taken: Collection[int] = ()) -> int:
    """Return a free port that is not among ``taken``."""
    for port in random.sample(_RANGE, 200):
        if port not in taken and is_free(port):
            return port
    msg = f"found no free port between {_RANGE.start} and {_RANGE.stop} on {LOOPBACK}"
    raise UnavailableError(msg)


def remembered_ports(path: Path, names: Sequence[str]) -> dict[str, int]:
    """Return a free port for each name: the one in ``path`` where it is still free, else a new one; write them."""
    try:
        known = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        known = {}
    ports: dict[str, int] = {}
    for name in names:
        port = known.get(name)
        ports[name] = port if port and is_free(port) else free_port(ports.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**known, **ports}) + "\n")
    return ports
