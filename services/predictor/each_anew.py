"""Requests over HTTP as the batches know them, each a new one: for where answers are not kept."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from driftline.runtime.acknowledged_producer import Acknowledgement
from driftline.runtime.errors import BadMessageError, DriftlineError
from driftline.serving.claims import Claim

Record = dict[str, Any]
#: A record to be logged: who waits for it, as it is told, as it is framed (or why it cannot be).
Framed: TypeAlias = tuple["Waiting", Record, bytes | BadMessageError]


class Waiting(Protocol):
    """A request and its caller. ``brought`` says whether the UUID is the caller's, ``sent`` that no more is to be done."""

    request: Record
    refusal: str | None
    brought: bool
    sent: bool
    loop: asyncio.AbstractEventLoop

    def settle(
        self, record: Record, failure: DriftlineError | None, logged: Acknowledgement | DriftlineError
    ) -> None:
        """Tell the caller; on its event loop."""
        ...


class Batches(Protocol):
    """What is done with requests that are not answered from before."""

    def again(self, one: Any) -> None:
        """Take a request as if it had just come."""
        ...

    def refuse_other(self, one: Any, reason: str) -> None:
        """Log a request under a UUID of its own as refused, and tell its caller."""
        ...

    def send_framed(self, one: Any, record: Record, value: bytes) -> None:
        """Send a record to the log, and tell the caller once it is there."""
        ...


class EachAnew:
    """Every request is a new one: where answers are not kept."""

    def first(self, taken: Sequence[Any]) -> Sequence[Any]:
        """Return all requests."""
        return taken

    def want(self, taken: Sequence[Any]) -> None:
        """Nothing is wanted to be known of requests."""

    def answer(self, taken: Sequence[Any], claims: Mapping[str, Claim]) -> Sequence[Any]:
        """Return all requests."""
        del claims
        return taken

    def claim(self, framed: Sequence[Any]) -> Sequence[Any]:
        """Return all records."""
        return framed

    def was_asked(self, one: Any) -> bool:
        """Tell that no request was asked before."""
        del one
        return False

    def settle(
        self,
        one: Any,
        record: Record,
        value: bytes | BadMessageError,
        failure: DriftlineError | None,
        logged: Acknowledgement | DriftlineError,
    ) -> None:
        """Tell the caller."""
        del value
        one.settle(record, failure, logged)

    def start(self, batches: Batches) -> None:
        """Nothing is to be started."""

    def close(self) -> None:
        """Nothing is left to do."""
