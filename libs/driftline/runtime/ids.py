"""Identifiers: UUID version 7 (RFC 9562), which sort by the time of their making."""

import re
import uuid

import uuid_utils

#: What a request may be called: a UUID with its dashes, in either case. For Python's and for Arrow's expressions.
UUID_PATTERN = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_is_uuid = re.compile(UUID_PATTERN).fullmatch


def new_id() -> str:
    """Return a new UUIDv7 in its canonical text form."""
    return str(uuid_utils.uuid7())


def parse_id(text: str) -> str:
    """Return the canonical form of a UUID; raise ValueError where it is none.

    >>> parse_id("0190A6C5-7B2E-7C11-8000-0123456789AB")
    '0190a6c5-7b2e-7c11-8000-0123456789ab'
    """
    return str(uuid.UUID(text))


def is_uuid(text: str) -> bool:
    """Tell whether a text is a UUID with its dashes.

    >>> is_uuid("0190A6C5-7b2e-7c11-8000-0123456789ab"), is_uuid("0190a6c57b2e7c1180000123456789ab")
    (True, False)
    """
    return _is_uuid(text) is not None


def id_time_ms(text: str) -> int | None:
    """Return the making time of a UUIDv7 in milliseconds since the epoch; None for other versions.

    >>> id_time_ms("0190a6c5-7b2e-7c11-8000-0123456789ab")
    1720784878382
    >>> id_time_ms("9b2f5a3e-3f0e-4b8e-9d39-0123456789ab") is None
    True
    """
    parsed = uuid.UUID(text)
    return parsed.int >> 80 if parsed.version == 7 else None
