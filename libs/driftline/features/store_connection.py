"""One connection to the online store: a round trip for each command, without redis-py's pool around it.

1. A command is sent and its reply read under a lock: replies never cross. Whoever waits for the lock as long as for a
   reply is told that the store does not answer: behind a slow one threads would wait for each other in turn.
2. Whatever goes wrong between the two closes the connection, so no late reply is ever read as another's.
3. A connection that was closed meanwhile (a restarted server, an idle one cut off) is opened again and asked once more:
   so a command must be one that does no harm twice. A server that is too slow is not asked again, or callers would wait
   twice.
4. A forked process opens a connection of its own: two that read from one socket would take each other's replies.
"""

import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any, Protocol, cast

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


class ReadConnection(Protocol):
    """What reads blobs."""

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of keys, None where there is none; raise redis.RedisError where that is not possible."""
        ...


class StoreConnection:
    """Runs commands for one thread at a time; connects on the first.

    Parameters
    ----------
    url
        As redis-py takes it: ``redis://``, ``rediss://`` or ``unix://``, with user, password and database.
    timeout_seconds
        Longest wait to connect, for other threads' reads, and for the reply.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._pool = redis.ConnectionPool.from_url(
            url,
            decode_responses=False,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        )
        self.begin()
        _OPEN.add(self)

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of keys, None where there is none; raise redis.RedisError where that is not possible."""
        return cast("list[bytes | None]", self.command("MGET", *keys))

    def command(self, *parts: Any) -> Any:
        """Run a command that does no harm twice; return its reply as bytes, numbers and lists.

        Raises
        ------
        redis.RedisError
            The server does not answer, or answers with an error.
        """
        command = hiredis.pack_command(parts)
        lock = self._lock
        if not lock.acquire(timeout=self._timeout_seconds):  # 1.
            raise redis.TimeoutError(f"other commands have waited for {self._timeout_seconds:g} s")
        try:
            return self._ask(command)
        except redis.ConnectionError:  # 3.
            return self._ask(command)
        finally:
            lock.release()

    def _ask(self, command: bytes) -> Any:
        connection = self._connection
        try:
            connection.send_packed_command([command], check_health=False)
            return connection.read_response(disable_decoding=True)
        except redis.ResponseError:  # a reply like any other
            raise
        except BaseException:
            connection.disconnect()  # 2.
            raise

    def begin(self) -> None:
        """Forget the connection, without a word to the server, and its lock, which nobody here may hold."""
        self._connection: Any = self._pool.make_connection()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connection; another read opens it again."""
        with self._lock:
            self._connection.disconnect()


_OPEN: weakref.WeakSet[StoreConnection] = weakref.WeakSet()


def _begin_all() -> None:
    for connection in _OPEN:
        connection.begin()


os.register_at_fork(after_in_child=_begin_all)  # 4.
