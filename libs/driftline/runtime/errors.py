"""The vocabulary of errors: a handful, one meaning each. Anything else crashes the process, loudly."""

from collections.abc import Collection
from typing import Any


class DriftlineError(Exception):
    """Something that driftline understands and can explain to a person."""


class BadMessageError(DriftlineError):
    """This one message is bad: it belongs in the dead-letter topic, its neighbours go on."""

    def __init__(self, reason: str, *, stage: str = "decode") -> None:
        super().__init__(reason)
        self.reason = reason
        self.stage = stage


class BackpressureError(DriftlineError):
    """Slow down: a queue is full. The caller may come again after ``retry_after`` seconds."""

    def __init__(self, reason: str, *, retry_after: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class UnavailableError(DriftlineError):
    """Infrastructure (broker, registry, store) cannot be reached now: try again.

    ``partitions`` are those of a stream whose work has failed with it, where that was not the work in hand.
    """

    def __init__(self, reason: str = "", *, partitions: Collection[Any] = ()) -> None:
        super().__init__(reason)
        self.partitions = tuple(partitions)


class RefusedError(DriftlineError):
    """The caller's fault, a 4xx: the request as it is will never succeed."""

    def __init__(self, detail: str, *, status: int = 422, title: str = "Request refused") -> None:
        super().__init__(detail)
        self.status = status
        self.title = title


class ConfigurationError(DriftlineError):
    """A setting, project file or schema is wrong. The message says which and what to do."""


class LostOwnershipError(DriftlineError):
    """Another process owns this partition, or the store was reset: drop the cache and take it anew."""


class OffsetGapError(DriftlineError):
    """The topic no longer holds the next offset: records were lost before they were read."""


class DeadLetterCeilingError(DriftlineError):
    """Too large a share of the messages is bad; going on would dead-letter everything."""


#: Exit codes of a service, read by the supervisor.
EXIT_CONFIGURATION = 78  # EX_CONFIG: do not restart
EXIT_CEILING = 79  # the dead-letter ceiling: do not restart, a person must look
EXIT_GAP = 80  # records were lost: do not restart, a person must decide
EXIT_STALLED = 81  # messages wait and nothing moves: start again
