"""A request over HTTP that waits for its answer."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from driftline.contracts import prediction_fields as fields
from driftline.runtime.acknowledged_producer import Acknowledgement
from driftline.runtime.errors import DriftlineError, UnavailableError
from driftline.runtime.logging import get_logger

_log = get_logger(__name__)

Record = dict[str, Any]
#: What a request comes to: its record in the log, or what went wrong.
Outcome: TypeAlias = Record | DriftlineError
Tell: TypeAlias = Callable[[Outcome], None]


class WaitingRequest:
    """A request and its caller, who may have said how long it waits."""

    __slots__ = (
        "_alarm",
        "_until",
        "brought",
        "loop",
        "refusal",
        "request",
        "sent",
        "tell",
        "timeout_ms",
        "told",
    )

    def __init__(
        self, request: Record, refusal: str | None, timeout_ms: int | None, tell: Tell, *, brought: bool
    ) -> None:
        self.request = request
        self.brought = brought  # the UUID, by the caller
        self.refusal = refusal
        self.timeout_ms = timeout_ms
        self.tell = tell
        self.told = False
        self.sent = False  # to the log, or answered from before
        self.loop = asyncio.get_running_loop()
        self._until: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        if timeout_ms is not None:
            self._until = time.monotonic() + timeout_ms / 1_000
            self._alarm = self.loop.call_later(timeout_ms / 1_000, self._give_up)

    @property
    def late(self) -> bool:
        """Whether the caller waits no more."""
        return self._until is not None and time.monotonic() >= self._until

    @property
    def late_reason(self) -> str:
        """What a caller who waits no more is told."""
        return f"no logged prediction within the {self.timeout_ms} ms that the request allows"

    @property
    def seconds_left(self) -> float:
        """How long the caller still waits."""
        return math.inf if self._until is None else self._until - time.monotonic()

    def settle(
        self, record: Record, failure: DriftlineError | None, logged: Acknowledgement | DriftlineError
    ) -> None:
        """Answer, or say what went wrong; not where the caller gave up."""
        if self._alarm is not None:
            self._alarm.cancel()
        error = logged if isinstance(logged, DriftlineError) else failure
        self._tell_once(record if error is None else error)

    def _give_up(self) -> None:
        self._tell_once(UnavailableError(self.late_reason))

    def _tell_once(self, outcome: Outcome) -> None:
        if not self.told:
            self.told = True
            self.tell(outcome)


def by_model(taken: Sequence[WaitingRequest]) -> Iterable[Sequence[WaitingRequest]]:
    """Return requests model by model: each model's features, and with them its requests' claims, are one read."""
    names = dict.fromkeys(one.request[fields.MODEL] for one in taken)
    if len(names) < 2:
        return [taken] if taken else []
    return [[one for one in taken if one.request[fields.MODEL] == name] for name in names]


def fault_of(taken: Sequence[WaitingRequest], error: Exception) -> UnavailableError:
    """Log that predicting failed in a way that nobody foresaw, and return what callers are told."""
    ids = [one.request[fields.REQUEST_ID] for one in taken]
    _log.error("predicting failed", request_ids=ids, exc_info=error)
    return UnavailableError(f"a fault of ours ({type(error).__name__}); it is in the service's log")
