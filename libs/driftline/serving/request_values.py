"""What a request's values must be, whichever way it comes: over HTTP, or in a file."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from driftline.runtime.ids import parse_id

#: Longest texts, in characters: a request's record has to fit into the log.
MAX_KEY = 500
MAX_TEXT = 10_000
MAX_CALLER = 200
#: How far ahead of now the instant of a request may lie.
FUTURE_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US, _LAST_US = (
    (limit.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
    for limit in (datetime.min, datetime.max)
)


class WrongValueError(ValueError):
    """A value is not what its field wants; the text says what is."""


def read_request_id(value: Any) -> str:
    """Return the canonical form of a UUID's text; raise WrongValueError for others."""
    if not isinstance(value, str):
        raise WrongValueError("a UUID is wanted, as text")
    try:
        return parse_id(value)
    except ValueError:
        raise WrongValueError(f"{value[:60]!r} is no UUID") from None


def read_text(value: Any, longest: int) -> str:
    """Return a text of up to ``longest`` characters; raise WrongValueError for others."""
    if not isinstance(value, str):
        raise WrongValueError("a text is wanted")
    if len(value) > longest:
        raise WrongValueError(f"up to {longest:,} characters are taken, got {len(value):,}")
    return value


def read_number(value: Any) -> float:
    """Return a finite number; raise WrongValueError for others."""
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, OverflowError):  # a whole number may be larger than any float
        number = math.nan
    if not math.isfinite(number):
        raise WrongValueError("a finite number is wanted")
    return number


def read_instant_us(text: str) -> int:
    """Return the microseconds since the epoch of an ISO 8601 time with an offset; raise WrongValueError for others.

    >>> read_instant_us("2013-04-01T14:00:00.000001+02:00")
    1364817600000001
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise WrongValueError(
            "an ISO 8601 time with an offset is wanted, like 2013-04-01T12:00:00Z"
        ) from None
    if parsed.tzinfo is None:
        raise WrongValueError("give the offset too (end it with Z for UTC)")
    return _in_range((parsed - _EPOCH) // timedelta(microseconds=1))


def read_instant(value: Any) -> int:
    """Return the microseconds since the epoch of a time, or of microseconds; raise WrongValueError for others."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _in_range(value)
    if isinstance(value, str):
        return read_instant_us(value)
    raise WrongValueError("an ISO 8601 time, or whole microseconds since the epoch, is wanted")


def _in_range(instant_us: int) -> int:
    if not _FIRST_US <= instant_us <= _LAST_US:
        raise WrongValueError("a time between the years 1 and 9999 is wanted")
    return instant_us
