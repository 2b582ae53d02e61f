"""What goes wrong in life, drawn from a seed: events sent twice, sent late, or damaged on the way."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_MINUTE_US = 60_000_000


class Damage(IntEnum):
    """How a message is malformed."""

    WRONG_MAGIC = 0
    UNKNOWN_SCHEMA = 1
    TRUNCATED = 2
    TRAILING = 3
    NULL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRates:
    """Shares of the events that meet each fault, and how far the late ones and the repeats move."""

    duplicate: float = 0.01
    late: float = 0.01
    malformed: float = 0.003
    late_minutes: tuple[int, int] = (5, 45)
    repeat_minutes: tuple[int, int] = (0, 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """One draw for ``n`` events, all arrays of that length.

    ``delay_us`` is 0 where an event is on time; ``repeat_us`` is -1 where it is sent once, else the time
    from its first sending to its second; ``damage`` is -1, or the ``Damage`` of an extra, malformed copy.
    """

    delay_us: NDArray[np.int64]
    repeat_us: NDArray[np.int64]
    damage: NDArray[np.int64]


def draw_faults(count: int, rates: FaultRates, rng: np.random.Generator) -> Faults:
    """Return the faults of ``count`` events; the same generator state gives the same faults."""
    delay = rng.integers(rates.late_minutes[0], rates.late_minutes[1], count, endpoint=True) * _MINUTE_US
    repeat = rng.integers(rates.repeat_minutes[0], rates.repeat_minutes[1], count, endpoint=True) * _MINUTE_US
    damage = rng.integers(0, len(Damage), count)
    return Faults(
        delay_us=np.where(rng.random(count) < rates.late, delay, 0).astype(np.int64),
        repeat_us=np.where(rng.random(count) < rates.duplicate, repeat, -1).astype(np.int64),
        damage=np.where(rng.random(count) < rates.malformed, damage, -1).astype(np.int64),
    )


def damaged(value: bytes, damage: Damage) -> bytes | None:
    """Return a framed Avro value after it was damaged.

    >>> damaged(b"\\x00\\x00\\x00\\x00\\x07body", Damage.TRUNCATED)
    b'\\x00\\x00\\x00\\x00\\x07bo'
    >>> damaged(b"\\x00\\x00\\x00\\x00\\x07body", Damage.NULL) is None
    True
    """
    match damage:
        case Damage.WRONG_MAGIC:
            return b"\x07" + value[1:]
        case Damage.UNKNOWN_SCHEMA:
            return b"\x00\x7f\xff\xff\xf0" + value[5:]
        case Damage.TRUNCATED:
            return value[: 5 + (len(value) - 5) // 2]
        case Damage.TRAILING:
            return value + b"\x00\x00"
        case Damage.NULL:
            return None
