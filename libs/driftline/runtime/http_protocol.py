"""uvicorn's HTTP protocol, made cheaper in four ways; it stays uvicorn's in all else.

1. An answer's head and body leave with one system call instead of two. uvicorn writes the head as soon as an answer starts
   and uvloop passes it on at once; the body, which follows in the same turn of the event loop, is a second write and
   wakes the client a second time.
2. Requests of direct routes (``direct.py``) are answered without an application, and so without a task each. One that has a
   body in several pieces is waited for a moment; one that is anything but plain goes to the application as it came.
3. The timer that closes idle connections is not set anew by each request: when it is due, it looks since when its
   connection is idle.
4. A head that came before, byte for byte, is not parsed again where it comes in one piece with its whole body.
"""

import asyncio
import math
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from driftline.runtime.direct import DirectRequest, DirectRoute, DirectRoutes, RequestHead

#: How long a direct route waits for the rest of a body. Then the application does, with its own deadline.
_BODY_SECONDS = 0.25
_END_OF_HEAD = b"\r\n\r\n"


class GatheringTransport:
    """A transport that holds a write back until the next one, or until the end of the event loop's turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self.is_closing = transport.is_closing  # asked several times by each request
        self._held = b""

    def write(self, data: bytes) -> None:
        """Write, with what was held back."""
        if self._held:
            self.write_now(data)
        elif data:
            self._held = data
            self._loop.call_soon(self._flush)

    def write_now(self, data: bytes) -> None:
        """Write, with what was held back, what nothing follows."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.writelines((held, data))
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close once everything is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class GatheringProtocol(HttpToolsProtocol):
    """uvicorn's protocol over a transport that gathers."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start a connection."""
        self._gathering = GatheringTransport(transport, self.loop)
        super().connection_made(cast("asyncio.Transport", self._gathering))


class DirectProtocol(GatheringProtocol):
    """The protocol of an application with direct routes."""

    def __init__(self, *arguments: Any, direct: DirectRoutes, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._direct = direct
        self._route: DirectRoute | None = None  # of the request whose body is being read
        self._body = bytearray()
        self._impatience: asyncio.TimerHandle | None = None
        self._idle_since = math.inf
        self._between = True  # requests: the parser waits for a head, and direct ones alone came before
        self._read: RequestHead | None = None  # of the newest direct request, if it keeps the connection

    def respond(self, request: DirectRequest, status: int, head: bytes, body: bytes) -> None:
        """Write the answer of a direct route, unless the connection is over."""
        if self._gathering.is_closing():
            return
        end = b"\r\n" if request.keep_alive else b"connection: close\r\n\r\n"
        always = self._direct.header_lines(self.server_state.default_headers)
        self._gathering.write_now(b"".join((STATUS_LINE[status], always, head, end, body)))
        if not request.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Take what came; wait for the rest of a direct request's body, but not for long."""
        between = self._between
        if between and self._take_known(data):  # (4)
            return
        super().data_received(data)
        if between and self._between:
            self._remember(data)
        if self.transport.is_closing():
            self._stop_reading()
        elif self._route is not None and self._declared_too_large():
            self._leave_to_application()
        elif self._route is not None and self._impatience is None:
            self._impatience = self.loop.call_later(_BODY_SECONDS, self._leave_to_application)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection; what it asked for is waited for no more."""
        self._stop_reading()
        if isinstance(self.cycle, DirectRequest):
            self.cycle.abandon()
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def shutdown(self) -> None:
        """Close once the request that is under way, or coming, is answered."""
        if self._route is not None:
            self._leave_to_application()
        super().shutdown()

    def on_response_complete(self) -> None:
        """Go on with what was asked meanwhile; else the connection is idle from now on (3)."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._close_later(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for so long."""
        self.timeout_keep_alive_task = None
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0:
            super().timeout_keep_alive_handler()
        elif left < math.inf:
            self._close_later(left)

    def on_message_begin(self) -> None:
        """Begin a request. What uvicorn prepares here is made when the application gets it."""
        self._between = False
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Find the request's route, where nothing forbids to answer it directly."""
        parser = self.parser
        if (
            self._answers_at_once()
            and not self.expect_100_continue
            and not parser.should_upgrade()
            and parser.get_http_version() == "1.1"
        ):
            self._route = self._direct.find(parser.get_method(), self.url)
        if self._route is None:
            self._begin_application()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        if self._route is None:
            super().on_body(body)
            return
        self._body += body
        if len(self._body) > self._direct.limits.max_body_bytes:
            self._leave_to_application()

    def on_message_complete(self) -> None:
        """Offer a whole request to its route."""
        route, body = self._route, bytes(self._body)
        if route is None:
            super().on_message_complete()
            return
        self._stop_reading()
        head = RequestHead(route, self.url, self.headers, len(body))
        keep_alive = self.parser.should_keep_alive()
        if self._offer(DirectRequest(self, self._direct, head, body, keep_alive=keep_alive)):
            self._between = True
            self._read = head if keep_alive else None
            return
        self._begin_application()
        if body:
            super().on_body(body)
        super().on_message_complete()

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = math.inf

    def _answers_at_once(self) -> bool:
        """Tell whether nothing of this connection goes before an answer."""
        return (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused

    def _offer(self, request: DirectRequest) -> bool:
        """Have a request's route take it; False where it leaves it."""
        self.cycle = request  # type: ignore[assignment]  # it has what uvicorn asks of one
        if request.offer():
            return True
        self.cycle = None  # type: ignore[assignment]
        return False

    def _take_known(self, data: bytes) -> bool:
        """Take a whole request whose head is known; False where it is none, or its route leaves it."""
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        head = self._direct.known_heads.get(data[:end])
        if head is None or len(data) - end != head.body_bytes or not self._answers_at_once():
            return False
        self._idle_since = math.inf
        return self._offer(DirectRequest(self, self._direct, head, data[end:]))

    def _remember(self, data: bytes) -> None:
        """Keep the head of data that was one direct request and nothing else."""
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        if self._read is not None and len(data) - end == self._read.body_bytes:
            self._direct.remember(data[:end], self._read)

    def _close_later(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _declared_too_large(self) -> bool:
        declared = dict(self.headers).get(b"content-length", b"")
        return declared.isdigit() and int(declared) > self._direct.limits.max_body_bytes

    def _stop_reading(self) -> None:
        self._route, self._body = None, bytearray()
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    def _leave_to_application(self) -> None:
        """Give the application a request whose body is still coming."""
        body = bytes(self._body)
        self._stop_reading()
        self._begin_application()
        if body:
            super().on_body(body)

    def _begin_application(self) -> None:
        """Do what uvicorn does until a request's body comes."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers  # in place: the scope holds the list
        super().on_headers_complete()
