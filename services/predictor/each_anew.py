"""Requests over HTTP as the batches know them, each a new one: for where answers are not kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from driftline.runtime.acknowledged_producer import Acknowledgement
from driftline.runtime.errors import BadMessageError, DriftlineError, UnavailableError
from driftline.runtime.pipelined_redis import PipelinedRedis
from driftline.serving.claims import Claim
from services.predictor.waiting import Record, WaitingRequest

#: A record to be logged: who waits for it, as it is told, as it is framed (or why it cannot be).
Framed: TypeAlias = tuple[WaitingRequest, Record, bytes | BadMessageError]
#: Told which records nobody else has claimed, or that this is not known.
TellClaimed: TypeAlias = Callable[[Sequence[Framed] | UnavailableError], None]


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

    def asked(self, taken: Sequence[Any]) -> tuple[Sequence[str], Sequence[str]]:
        """Return no UUIDs and no keys: no request was asked before."""
        del taken
        return (), ()

    def answer(self, taken: Sequence[Any], claims: Mapping[str, Claim]) -> Sequence[Any]:
        """Return all requests."""
        del claims
        return taken

    def claim(self, framed: Sequence[Any]) -> Sequence[Any]:
        """Return all records."""
        return framed

    def claim_by(self, server: PipelinedRedis, framed: Sequence[Any], tell: TellClaimed) -> None:
        """Tell all records."""
        del server
        tell(framed)

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
