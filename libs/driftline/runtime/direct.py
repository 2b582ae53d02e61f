"""Answers without an application between, for the few routes where each microsecond counts.

A direct route is asked first (``http_protocol.DirectProtocol``). It takes a request that is plainly good and answers it
later, with one write; whatever it leaves goes to the application, whose route says what is wrong and documents both.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from starlette.responses import Response

from driftline.runtime.deadlines import Deadlines
from driftline.runtime.limits import LATE_TITLE, Limits, RequestMeter, late_detail
from driftline.runtime.logging import get_logger
from driftline.runtime.problem import fault_detail, problem

_log = get_logger(__name__)
_JSON_HEAD = b"content-type: application/json\r\ncontent-length: %d\r\n"
#: Clients say much the same again and again. So many heads of up to so many bytes are kept.
_KNOWN_HEADS, _KNOWN_HEAD_BYTES = 256, 4_096


class Wire(Protocol):
    """The connection that a request came by."""

    def respond(self, request: "DirectRequest", status: int, head: bytes, body: bytes) -> None:
        """Write an answer; ``head`` has whole header lines."""
        ...


@dataclass(frozen=True, slots=True)
class DirectRoute:
    """A route: ``path`` is what metrics call it, ``take`` answers a request later, or leaves it by returning False."""

    path: str
    method: str
    take: Callable[["DirectRequest"], bool]


class RequestHead(NamedTuple):
    """The head of a plain request whose connection is kept, and how long the body is that it declares."""

    route: DirectRoute
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body_bytes: int


#: Returns the route of a method and a request's target (path and query), if there is one: the same each time.
FindRoute = Callable[[bytes, bytes], DirectRoute | None]


@dataclass(slots=True)
class DirectRoutes:
    """The direct routes of an application, and the limits that they keep."""

    limits: Limits
    meter: RequestMeter
    finders: list[FindRoute] = field(default_factory=list)
    #: By their bytes, heads that were parsed before.
    known_heads: dict[bytes, RequestHead] = field(default_factory=dict)
    deadlines: "Deadlines[DirectRequest]" = field(init=False)
    _headers: Sequence[tuple[bytes, bytes]] = ()
    _lines: bytes = b""

    def __post_init__(self) -> None:
        self.deadlines = Deadlines(self.limits.deadline_seconds, DirectRequest.late)

    def find(self, method: bytes, target: bytes) -> DirectRoute | None:
        """Return the route of a request, if there is one."""
        for finder in self.finders:
            route = finder(method, target)
            if route is not None:
                return route
        return None

    def remember(self, head: bytes, parsed: RequestHead) -> None:
        """Keep a head, so that it need not be parsed again."""
        if len(head) <= _KNOWN_HEAD_BYTES:
            if len(self.known_heads) >= _KNOWN_HEADS:
                self.known_heads.clear()
            self.known_heads[head] = parsed

    def header_lines(self, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Return headers as lines; the server has new ones once a second."""
        if headers is not self._headers:
            self._headers, self._lines = headers, _lines(headers)
        return self._lines


class Answer(NamedTuple):
    """A whole answer; ``head`` has whole header lines."""

    status: int
    head: bytes
    body: bytes

    @staticmethod
    def of(response: Response) -> "Answer":
        """Return a response whose body is there."""
        return Answer(response.status_code, _lines(response.raw_headers), bytes(response.body))


class DirectRequest:
    """A request that a direct route may take. It stands where uvicorn keeps the exchange that is under way."""

    __slots__ = (
        "_begun",
        "_routes",
        "_wire",
        "body",
        "disconnected",
        "head",
        "keep_alive",
        "response_complete",
    )

    #: uvicorn sets it when the client goes; nobody waits for it.
    message_event = asyncio.Event()

    def __init__(
        self, wire: Wire, routes: DirectRoutes, head: RequestHead, body: bytes, *, keep_alive: bool = True
    ) -> None:
        self._wire = wire
        self._routes = routes
        self.head = head
        self.body = body
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self._begun = 0.0

    def offer(self) -> bool:
        """Have the route take the request; False where it leaves it, or too many are in flight."""
        routes = self._routes
        self._begun = routes.meter.begin()
        if routes.meter.over:
            routes.meter.leave()
            return False
        routes.deadlines.begin(self, self._begun)
        try:
            if self.head.route.take(self):
                return True
        except Exception as error:  # noqa: BLE001 - whatever happens, the client is told
            self.fail(error)
            return True
        routes.deadlines.end(self)
        routes.meter.leave()
        return False

    def waits(self) -> bool:
        """Tell whether the client still waits for an answer."""
        return not self.response_complete

    def answer_json(self, body: bytes, more_head: bytes = b"") -> None:
        """Answer 200; ``more_head`` has more header lines."""
        self.answer(200, _JSON_HEAD % len(body) + more_head, body)

    def respond(self, response: Response) -> None:
        """Answer with a response whose body is there."""
        self.answer(*Answer.of(response))

    def fail(self, error: Exception) -> None:
        """Answer that a fault of ours has happened."""
        _log.error("request failed", path=self.head.route.path, exc_info=error)
        self.keep_alive = False
        self.respond(problem(500, fault_detail(error), title="Internal error"))

    def abandon(self) -> None:
        """Forget a client that has gone before it was answered."""
        if self._end():
            self._routes.meter.leave()

    def late(self) -> None:
        """Answer that the time is over."""
        detail = late_detail(self._routes.limits)
        self.respond(problem(503, detail, title=LATE_TITLE, retry_after=1))

    def answer(self, status: int, head: bytes, body: bytes) -> None:
        """Answer, once: what comes after the deadline is too late. ``head`` has whole header lines."""
        if self._end():
            route = self.head.route
            self._routes.meter.end(self._begun, route.path, route.method, status)
            self._wire.respond(self, status, head, body)

    def _end(self) -> bool:
        """Note that nothing more is to be answered; False where that was so."""
        if self.response_complete:
            return False
        self.response_complete = True
        self._routes.deadlines.end(self)
        return True


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)
