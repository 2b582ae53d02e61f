"""What can go wrong for an application, one class per thing to do about it."""

from collections.abc import Mapping, Sequence
from typing import Any

from driftline.client.results import EventResult


class ClientError(Exception):
    """Anything that driftline answered other than success.

    ``problem`` is the service's RFC 9457 problem; ``detail`` its explanation, ``kind`` its stable type.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        problem: Mapping[str, Any] | None = None,
        results: Sequence[EventResult] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.problem: Mapping[str, Any] = problem or {}
        self.results = tuple(results)
        self.retry_after = retry_after

    @property
    def kind(self) -> str:
        """The problem's type, like ``urn:driftline:problem:unknown-event-type``."""
        return str(self.problem.get("type", "about:blank"))

    @property
    def field_errors(self) -> dict[str, str]:
        """What is wrong, by field, where fields are wrong."""
        return {item["field"]: item["detail"] for item in self.problem.get("errors", [])}


class InvalidRequestError(ClientError):
    """The request is wrong and will stay so: mend it. ``field_errors`` or ``results`` say where."""


class NotFoundError(InvalidRequestError):
    """There is no such event type, model, or feature view; ``detail`` names those that there are."""


class TryAgainError(ClientError):
    """It did not work now, after all retries. It may have worked unseen: send it again with the same ids."""


class BusyError(TryAgainError):
    """Too much at once (429)."""


class ServiceUnavailableError(TryAgainError):
    """The service, or something behind it, does not answer (503, a timeout, no connection)."""


class ServiceFaultError(ClientError):
    """A fault of the service (another 5xx): it is in the service's log."""
