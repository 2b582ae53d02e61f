"""Identifiers: UUID version 7 (RFC 9562), which sort by the time of their making."""

import re
import uuid

import numpy as np
import uuid_utils
from numpy.typing import NDArray

#: What a request may be called: a UUID with its dashes, in either case. For Python's and for Arrow's expressions.
UUID_PATTERN = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_is_uuid = re.compile(UUID_PATTERN).fullmatch
_is_canonical = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
#: The last 24 bits of a UUID that ``made_id`` made check the first 104, mixed with these (odd, as in SplitMix64).
_MIX, _AGAIN, _64_BITS = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 2**64 - 1


def new_id() -> str:
    """Return a new UUIDv7 in its canonical text form."""
    return str(uuid_utils.uuid7())


def made_id() -> str:
    """Return a new UUIDv7 that ``is_made`` knows again.

    So it need not be noted anywhere that it was made.
    """
    made = uuid_utils.uuid7().int >> 24
    return str(uuid_utils.UUID(int=made << 24 | _check(made)))


def is_made(text: str) -> bool:
    """Tell whether ``made_id`` made a UUID; of others one in 2**24 seems so.

    >>> is_made(made_id()), is_made(new_id())
    (True, False)
    """
    number = int(text.replace("-", ""), 16)
    return number & 0xFFFFFF == _check(number >> 24)


def _check(made: int) -> int:
    """Return the last 24 bits that follow from the first 104."""
    mixed = (made >> 40 ^ made << 24) * _MIX & _64_BITS
    return ((mixed ^ mixed >> 32) * _AGAIN & _64_BITS) >> 40


def are_made(raw_ids: bytes) -> NDArray[np.bool_]:
    """Tell ``is_made`` of many UUIDs, of 16 bytes each, side by side.

    >>> are_made(b"".join(uuid.UUID(one).bytes for one in (made_id(), new_id()))).tolist()
    [True, False]
    """
    halves = np.frombuffer(raw_ids, ">u8").reshape(-1, 2).astype(np.uint64)
    high, low = halves[:, 0], halves[:, 1] >> np.uint64(24)
    mixed = (high ^ (low << np.uint64(24))) * np.uint64(_MIX)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(_AGAIN)
    alike: NDArray[np.bool_] = (mixed >> np.uint64(40)) == (halves[:, 1] & np.uint64(0xFFFFFF))
    return alike


def parse_id(text: str) -> str:
    """Return the canonical form of a UUID; raise ValueError where it is none.

    >>> parse_id("0190A6C5-7B2E-7C11-8000-0123456789AB")
    '0190a6c5-7b2e-7c11-8000-0123456789ab'
    """
    return text if _is_canonical(text) else str(uuid.UUID(text))


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
