"""One connection to Redis for an event loop: commands go out as they come, and replies come back in their order.

1. A command is written at once, behind those that wait for their replies: a round trip is shared, nobody waits in turn.
2. Each has its own time limit. A reply that comes later is thrown away; it is never read as another's.
3. Where nothing has come for as long as a connection's time limit while something was waited for, the connection is given
   up, and with it all that wait on it.
4. A connection that was closed meanwhile (a restarted server, an idle one cut off) is opened again and asked once more:
   so a command must be one that does no harm twice.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast
from urllib.parse import urlsplit

import hiredis
import redis
from redis.connection import parse_url
from redis.exceptions import NoScriptError

from driftline.runtime.logging import get_logger

_log = get_logger(__name__)

#: A reply as bytes, numbers, None and lists, or why there is none.
Reply: TypeAlias = Any | redis.RedisError
Tell: TypeAlias = Callable[[Reply], None]
#: A reply that was cut off by the clock may lie in the socket: the event loop reads it first.
_LAST_LOOK_SECONDS = 0.001


class _Asked:
    """A command, and who waits for its reply."""

    __slots__ = ("_alarm", "_loop", "_seconds", "again", "command", "tell")

    def __init__(self, command: bytes, tell: Tell, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self.command = command
        self.tell: Tell | None = tell
        self.again = False
        self._seconds = seconds
        self._loop = loop
        self._alarm = loop.call_later(seconds, self._look_again)

    def answer(self, reply: Reply) -> None:
        """Tell the reply, unless it comes too late (2)."""
        tell, self.tell = self.tell, None
        if tell is None:
            return
        self._alarm.cancel()
        try:
            tell(reply)
        except Exception as error:  # noqa: BLE001 - the others are told
            _log.error("telling of a reply failed", exc_info=error)

    def _look_again(self) -> None:
        self._alarm = self._loop.call_later(_LAST_LOOK_SECONDS, self._late)

    def _late(self) -> None:
        self.answer(redis.TimeoutError(f"no reply within {self._seconds * 1e3:.0f} ms"))


class PipelinedRedis:
    """Runs commands for one event loop; connects on the first.

    Parameters
    ----------
    url
        ``redis://`` or ``unix://``, with user, password and database (``takes`` says whether it does).
    timeout_seconds
        Longest wait to connect, and for a reply.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self._server: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
        self._timeout_seconds = timeout_seconds
        self._link: _Link | None = None

    @staticmethod
    def takes(url: str) -> bool:
        """Whether a URL is one server's, without TLS."""
        return urlsplit(url).scheme in {"redis", "unix"}

    def ask(self, parts: Sequence[Any], tell: Tell, *, within_seconds: float | None = None) -> None:
        """Have a command run, and ``tell`` told its reply, or a redis.RedisError; on this event loop.

        Parameters
        ----------
        parts
            The command's name and arguments; it does no harm twice.
        within_seconds
            How long the reply is waited for, if not as long as a connection's time limit.
        """
        loop = asyncio.get_running_loop()
        seconds = self._timeout_seconds if within_seconds is None else within_seconds
        self._send(_Asked(hiredis.pack_command(tuple(parts)), tell, seconds, loop), loop)

    def close(self) -> None:
        """Close the connection; another command opens it again. On the event loop, or after its end."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _send(self, asked: _Asked, loop: asyncio.AbstractEventLoop) -> None:
        link = self._link
        if link is None or link.over or link.loop is not loop:
            link = self._link = _Link(self._server, self._timeout_seconds, loop, self._lost)
        link.send(asked)

    def _lost(self, waiting: Sequence[_Asked], error: redis.RedisError, *, again: bool) -> None:
        """Ask once more what a connection that was closed has not answered (4), if ``again``; else tell the error."""
        for asked in waiting:
            if again and not asked.again and asked.tell is not None:
                asked.again = True
                self._send(asked, asyncio.get_running_loop())
            else:
                asked.answer(error)


class _Link(asyncio.Protocol):
    """One connection, from its opening to its end. ``over`` says that it takes no more."""

    def __init__(
        self,
        server: dict[str, Any],
        timeout_seconds: float,
        loop: asyncio.AbstractEventLoop,
        lost: Callable[..., None],
    ) -> None:
        self.loop = loop
        self.over = False
        self._server = server
        self._timeout_seconds = timeout_seconds
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(protocolError=redis.InvalidResponse, replyError=_reply_error)
        self._greetings = 0
        self._waiting: deque[_Asked] = deque()
        self._heard = loop.time()
        self._watch: asyncio.TimerHandle | None = None
        self._opening = loop.create_task(self._open())

    def send(self, asked: _Asked) -> None:
        """Write a command, as soon as the connection is open."""
        if not self._waiting:
            self._heard = self.loop.time()
        if self._watch is None:
            self._watch = self.loop.call_later(self._timeout_seconds, self._look)
        self._waiting.append(asked)
        if self._transport is not None:
            self._transport.write(asked.command)

    def close(self) -> None:
        """End the connection."""
        self._end(redis.ConnectionError("the connection was closed here"), again=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves, and send what waits."""
        if self.over:
            cast("asyncio.Transport", transport).abort()
            return
        self._transport = cast("asyncio.Transport", transport)
        greetings = self._greeting()
        self._greetings = len(greetings)
        self._transport.write(b"".join([*greetings, *[one.command for one in self._waiting]]))

    def data_received(self, data: bytes) -> None:
        """Tell the replies that have come."""
        self._heard = self.loop.time()
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except (redis.RedisError, IndexError) as error:  # what is no reply, or one to nothing
            self._end(redis.ConnectionError(f"the server does not speak Redis: {error}"), again=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; what was not answered is asked once more elsewhere."""
        self._end(
            redis.ConnectionError(f"the connection was lost: {exc or 'closed by the server'}"), again=True
        )

    def _take(self, reply: Reply) -> None:
        if not self._greetings:
            self._waiting.popleft().answer(reply)
            return
        self._greetings -= 1
        if isinstance(reply, redis.RedisError):
            self._end(redis.ConnectionError(f"the server refuses us: {reply}"), again=False)

    async def _open(self) -> None:
        where = self._server
        try:
            async with asyncio.timeout(self._timeout_seconds):
                if "path" in where:
                    await self.loop.create_unix_connection(lambda: self, where["path"])
                else:
                    host, port = where.get("host", "localhost"), where.get("port", 6379)
                    await self.loop.create_connection(lambda: self, host, port)
        except TimeoutError:
            self._end(redis.TimeoutError(f"no connection within {self._timeout_seconds:g} s"), again=False)
        except OSError as error:
            self._end(redis.ConnectionError(f"no connection: {error}"), again=False)

    def _greeting(self) -> list[bytes]:
        where = self._server
        commands: list[tuple[Any, ...]] = []
        if where.get("password"):
            user = [where["username"]] if where.get("username") else []
            commands.append(("AUTH", *user, where["password"]))
        if where.get("db"):
            commands.append(("SELECT", where["db"]))
        return [hiredis.pack_command(one) for one in commands]

    def _look(self) -> None:
        """Give up where the server has been silent for too long (3)."""
        self._watch = None
        if not self._waiting:
            return
        left = self._heard + self._timeout_seconds - self.loop.time()
        if left <= 0:
            self._end(redis.TimeoutError(f"no reply within {self._timeout_seconds:g} s"), again=False)
        else:
            self._watch = self.loop.call_later(left, self._look)

    def _end(self, error: redis.RedisError, *, again: bool) -> None:
        if self.over:
            return
        self.over = True
        opened = self._transport is not None
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None and not self.loop.is_closed():
            self._transport.abort()
        elif not self._opening.done() and not self.loop.is_closed():
            self._opening.cancel()
        waiting, self._waiting = list(self._waiting), deque()
        if not self.loop.is_closed():
            self._lost(waiting, error, again=again and opened)


def _reply_error(text: str) -> redis.RedisError:
    return NoScriptError(text) if text.startswith("NOSCRIPT") else redis.ResponseError(text)
