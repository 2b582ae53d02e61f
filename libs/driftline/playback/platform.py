"""The running platform that a play needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from driftline.playback.watching import Watchdog


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Running servers and services. ``urls`` names every service instance, for its counters."""

    kafka: Mapping[str, Any]
    registry_url: str
    redis_url: str
    ingest_url: str
    predictor_url: str
    urls: Sequence[str]
    watchdog: Watchdog
