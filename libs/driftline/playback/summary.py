"""The summary of a play: what is printed, and what is written to ``summary.json``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from driftline.models.bundle import Quality
from driftline.playback.parity import Parity
from driftline.playback.reconciliation import Counts
from driftline.playback.season import Season


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Median and 99th percentile of some durations, in milliseconds; None where nothing was measured."""

    count: int
    p50_ms: float | None
    p99_ms: float | None

    @classmethod
    def of(cls, durations_ms: Sequence[float]) -> "Percentiles":
        """Return the percentiles of durations.

        >>> Percentiles.of([1.0, 2.0, 3.0]).p50_ms
        2.0
        """
        if not durations_ms:
            return cls(count=0, p50_ms=None, p99_ms=None)
        middle, high = np.percentile(durations_ms, [50, 99])
        return cls(count=len(durations_ms), p50_ms=round(float(middle), 3), p99_ms=round(float(high), 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """How long the parts of a demo took."""

    install: float
    start: float
    train: float
    play: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Everything that a demo found out."""

    counts: Counts
    http: Percentiles
    freshness: Percentiles
    parity: Parity
    quality: Mapping[str, Quality]
    seconds: Seconds
    season: Season | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What does not reconcile, a line each; empty where all is well."""
        unequal = self.parity.compared - self.parity.equal
        found = list(self.counts.differences)
        if unequal:
            first = self.parity.mismatches[0]
            found.append(
                f"{unequal:,} of {self.parity.compared:,} served feature values differ from the recomputed ones; "
                f"first {first.column} of request {first.request_id}: {first.served} served, {first.recomputed} recomputed"
            )
        return tuple(found)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``summary.json``."""
        return {
            "events": {
                "acknowledged": self.counts.acknowledged,
                "applied": self.counts.applied,
                "duplicates": self.counts.duplicates,
                "dead_letters": self.counts.dead_letters,
            },
            "requests": self.counts.requests,
            "predictions": self.counts.predictions,
            "http": {"requests": self.http.count, "p50_ms": self.http.p50_ms, "p99_ms": self.http.p99_ms},
            "freshness": {"p50_ms": self.freshness.p50_ms, "p99_ms": self.freshness.p99_ms},
            "parity": {"compared": self.parity.compared, "equal_share": self.parity.equal_share},
            "quality": {
                name: {"auc": measured.auc, "log_loss": measured.log_loss, "brier": measured.brier}
                for name, measured in self.quality.items()
            },
            "seconds": {
                "install": round(self.seconds.install, 1),
                "start": round(self.seconds.start, 1),
                "train": round(self.seconds.train, 1),
                "play": round(self.seconds.play, 1),
            },
            **({} if self.season is None else {"season": asdict(self.season)}),
        }

    def write(self, path: Path) -> None:
        """Write ``summary.json``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_dict(), indent=2) + "\n")
