"""Durations as people write them: ``90s``, ``5m``, ``3h``, ``2d``, ``1w``."""

import re

#: A day in UTC, in microseconds.
DAY_US = 86_400_000_000
_UNITS_US = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": DAY_US}
_UNITS_US["w"] = 7 * DAY_US
_PATTERN = re.compile(r"(\d+)(ms|s|m|h|d|w)")


def parse_duration_us(text: str) -> int:
    """Return a positive duration in microseconds; raise ValueError where it is not one.

    >>> parse_duration_us("3h")
    10800000000
    >>> parse_duration_us("soon")
    Traceback (most recent call last):
    ValueError: 'soon' is not a duration; write a whole number and a unit (ms, s, m, h, d, w), like 3h
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        msg = f"{text!r} is not a duration; write a whole number and a unit (ms, s, m, h, d, w), like 3h"
        raise ValueError(msg)
    return int(match[1]) * _UNITS_US[match[2]]


def format_duration(microseconds: int) -> str:
    """Return the shortest exact text of a duration.

    >>> format_duration(86_400_000_000)
    '1d'
    >>> format_duration(90_000_000)
    '90s'
    """
    for unit in ("w", "d", "h", "m", "s", "ms"):
        if microseconds % _UNITS_US[unit] == 0:
            return f"{microseconds // _UNITS_US[unit]}{unit}"
    return f"{microseconds}us"
