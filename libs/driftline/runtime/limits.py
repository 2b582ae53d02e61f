"""Limits on HTTP requests, as pure ASGI: body size, JSON depth, requests in flight, a deadline. And their timing.

An oversized body is refused by its ``Content-Length`` before a byte is read, or, streamed, at the byte that is too
many. A body is checked whole before the application sees it, so the application never waits for the network.
"""

import asyncio
import re
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from driftline.runtime.metrics import HTTP_IN_FLIGHT, HTTP_SECONDS, GatheringHistogram
from driftline.runtime.problem import PROBLEM_JSON, problem_body, retry_after_header

_JSON_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
#: After refusing a body, read on a little before closing: closing on unread data resets the connection, and many
#: clients would see "connection reset" instead of the answer.
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 8_000_000
_DEADLINE = "driftline.deadline"
LATE_TITLE = "Deadline exceeded"
#: Probes and metrics answer even when the service is full.
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request, and all of them together, may take."""

    max_body_bytes: int = 1_000_000
    max_depth: int = 32
    deadline_seconds: float = 10.0
    max_in_flight: int = 2_000


@dataclass(frozen=True, slots=True)
class _Refusal(Exception):  # noqa: N818  (an answer rather than an error)
    status: int
    title: str
    detail: str
    retry_after: float | None = None


def late_detail(limits: Limits) -> str:
    """Say that a request was not answered in time."""
    return f"no answer within {limits.deadline_seconds:g} s"


def lift_deadline(scope: Scope) -> None:
    """Let a request's answer take as long as it takes: a stream has no end by itself. Call it as the answer begins."""
    deadline: asyncio.Timeout | None = scope.get(_DEADLINE)
    if deadline is not None:
        deadline.reschedule(None)


def json_depth(body: bytes) -> int:
    """Return how deeply arrays and objects are nested; fast, and right for valid JSON.

    >>> json_depth(b'{"a": [1, "]]]["], "b": {}}')
    2
    """
    openings = body.count(b"[") + body.count(b"{")
    if openings == 0 or (openings == 1 and body[0] in b"[{"):
        return openings
    brackets = np.frombuffer(_JSON_STRING.sub(b"", body).translate(None, _NOT_BRACKETS), dtype=np.uint8)
    if not brackets.size:
        return 0
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
    return int(np.cumsum(steps).max(initial=0))


def too_deep(body: bytes, most: int) -> bool:
    """Tell whether arrays and objects are nested deeper than ``most``; they are not where there are no more of them."""
    return body.count(b"[") + body.count(b"{") > most and json_depth(body) > most


class RequestMeter:
    """Counts the requests in flight of an application and times them under their route's template."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.perf_counter) -> None:
        self._most = limits.max_in_flight
        self._clock = clock
        self._in_flight = 0
        self._timers: dict[tuple[str, str, int], GatheringHistogram] = {}
        _METERS.add(self)

    @property
    def in_flight(self) -> int:
        """How many requests are in flight."""
        return self._in_flight

    @property
    def over(self) -> bool:
        """Whether more requests are in flight than may be."""
        return self._in_flight > self._most

    def begin(self) -> float:
        """Count a request that has come; return when that was, for ``end``."""
        self._in_flight += 1
        return self._clock()

    def leave(self) -> None:
        """Count a request that is in flight no more."""
        self._in_flight -= 1

    def end(self, begun: float, route: str, method: str, status: int) -> None:
        """Count and time a request that was answered. ``route`` is the template of its path."""
        self._in_flight -= 1
        kind = (route, method, status)
        timer = self._timers.get(kind)  # finding it by its labels costs more than observing
        if timer is None:
            shown = method if method in _METHODS else "OTHER"
            timer = self._timers[kind] = HTTP_SECONDS.labels(route, shown, str(status))
        timer.note(self._clock() - begun)


_METERS: "weakref.WeakSet[RequestMeter]" = weakref.WeakSet()
HTTP_IN_FLIGHT.set_function(lambda: sum(meter.in_flight for meter in _METERS))


class LimitsMiddleware:
    """Applies ``Limits`` to every HTTP request and times it under its route's template."""

    def __init__(self, app: ASGIApp, *, limits: Limits, meter: RequestMeter | None = None) -> None:
        self.app = app
        self.limits = limits
        self._meter = meter or RequestMeter(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        response = _Response(send)
        begun = self._meter.begin()
        try:
            await self._limited(scope, receive, response)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._meter.end(begun, route, scope["method"], response.status or 500)

    async def _limited(self, scope: Scope, receive: Receive, response: "_Response") -> None:
        if self._meter.over and scope["path"] not in _ALWAYS:
            overload = _Refusal(503, "Overloaded", "too many requests at once", retry_after=1)
            await self._refuse(overload, receive, response)
            return
        reading = True
        try:
            async with asyncio.timeout(self.limits.deadline_seconds) as deadline:
                scope[_DEADLINE] = deadline
                body = await self._body(scope, receive)
                reading = False
                await self.app(scope, _replay(body, receive), response)
        except _Refusal as refusal:
            await self._refuse(refusal, receive, response)
        except TimeoutError:
            if response.status is not None:
                raise  # half an answer cannot be taken back: the server closes the connection
            limit = f"{self.limits.deadline_seconds:g} s"
            if reading:
                late = _Refusal(408, "Body too slow", f"the body did not arrive within {limit}")
            else:
                late = _Refusal(503, LATE_TITLE, late_detail(self.limits), retry_after=1)
            await self._refuse(late, receive, response)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        most = self.limits.max_body_bytes
        too_large = _Refusal(413, "Body too large", f"a body may have {most:,} bytes")
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > most:
            raise too_large
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise _Refusal(400, "Disconnected", "the client went away")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > most:
                raise too_large
            chunks.append(chunk)
            more = message.get("more_body", False)
        body = b"".join(chunks)
        if too_deep(body, self.limits.max_depth):
            deepest = self.limits.max_depth
            raise _Refusal(400, "Nested too deeply", f"arrays and objects may nest {deepest} levels deep")
        return body

    async def _refuse(self, refusal: _Refusal, receive: Receive, response: "_Response") -> None:
        body = problem_body(refusal.status, refusal.detail, title=refusal.title)
        headers = [
            (b"content-type", PROBLEM_JSON.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        if refusal.retry_after is not None:
            headers.append((b"retry-after", retry_after_header(refusal.retry_after).encode()))
        unread = refusal.status in {408, 413}
        if unread:
            headers.append((b"connection", b"close"))
        await response({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await response({"type": "http.response.body", "body": body, "more_body": unread})
        if unread:
            await _linger(receive)
            await response({"type": "http.response.body", "body": b"", "more_body": False})


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Response:
    """The client's ``send``, remembering whether and how the answer began."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def _replay(body: bytes, receive: Receive) -> Receive:
    given: Iterable[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        for message in given:
            return message
        return await receive()  # only the disconnect is left

    return replay


async def _linger(receive: Receive) -> None:
    read = 0
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while read < _LINGER_BYTES:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                read += len(message.get("body", b""))
    except TimeoutError:
        return
