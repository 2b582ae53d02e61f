"""A Lua script that a server is told once and then called by its hash."""

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

from redis.exceptions import NoScriptError

from driftline.runtime.pipelined_redis import PipelinedRedis, Reply, Tell
from driftline.runtime.redis_servers import RedisServers


class Commands(Protocol):
    """What runs commands on one server."""

    def command(self, *parts: Any) -> Any:
        """Run a command, and return its reply as bytes, numbers and lists."""
        ...


class OneOfSeveral:
    """The server of a cluster that holds a key."""

    def __init__(self, servers: RedisServers, key: str) -> None:
        self._servers = servers
        self._key = key

    def command(self, *parts: Any) -> Any:
        """Run a command there; raise redis.RedisError, or UnavailableError, where that is not possible."""
        return self._servers.of(self._key).execute_command(*parts)


class RedisScript:
    """One script. It runs as one step: nothing else happens on the server meanwhile."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def run(self, server: Commands, keys: Sequence[str | bytes], arguments: Sequence[Any]) -> Any:
        """Run it with keys (``KEYS``) and arguments (``ARGV``); raise redis.RedisError where that fails."""
        called = (len(keys), *keys, *arguments)
        try:
            return server.command("EVALSHA", self._sha, *called)
        except NoScriptError:  # a server that is new, or was started again
            return server.command("EVAL", self._text, *called)

    def ask(
        self, server: PipelinedRedis, keys: Sequence[str | bytes], arguments: Sequence[Any], tell: Tell
    ) -> None:
        """Run it from an event loop; ``tell`` is told what it returns, or a redis.RedisError."""
        called = (len(keys), *keys, *arguments)

        def told(reply: Reply) -> None:
            if isinstance(reply, NoScriptError):
                server.ask(("EVAL", self._text, *called), tell)
            else:
                tell(reply)

        server.ask(("EVALSHA", self._sha, *called), told)
