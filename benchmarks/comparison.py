"""Run two ways of doing a job in turn, and compare their medians."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line of the report: medians, ranges, and their ratio (ours / theirs).

    ``better`` says which way is good: ``higher`` for rates, ``lower`` for times.
    """

    name: str
    ours: float
    theirs: float
    unit: str
    better: str
    aim: float | None
    runs: int
    ours_range: tuple[float, float]
    theirs_range: tuple[float, float]
    note: str = ""

    @property
    def ratio(self) -> float:
        """Ours divided by theirs."""
        return self.ours / self.theirs

    @property
    def reached(self) -> bool | None:
        """Whether the aim is reached; None where there is none."""
        if self.aim is None:
            return None
        return self.ratio >= self.aim if self.better == "higher" else self.ratio <= self.aim

    def as_json(self) -> dict[str, object]:
        """The line as it stands in latest.json."""
        return {
            "name": self.name,
            "ours": self.ours,
            "theirs": self.theirs,
            "ratio": self.ratio,
            "unit": self.unit,
            "runs": self.runs,
            "aim": self.aim,
            "better": self.better,
            "ours_range": list(self.ours_range),
            "theirs_range": list(self.theirs_range),
            "note": self.note,
        }


@dataclass(slots=True, kw_only=True)
class Comparison:
    """Two callables that each do the job once and return the measured figure."""

    name: str
    unit: str
    ours: Callable[[], float]
    theirs: Callable[[], float]
    better: str = "higher"
    aim: float | None = None
    note: str = ""
    figures: dict[str, list[float]] = field(default_factory=lambda: {"ours": [], "theirs": []})

    def run(self, runs: int, console: Console) -> Result:
        """Interleave ``runs`` repeats after one unmeasured pair, turning the order each time."""
        self.ours()
        self.theirs()
        pair: tuple[tuple[str, Callable[[], float]], ...] = (("ours", self.ours), ("theirs", self.theirs))
        for repeat in range(runs):
            for side, job in pair if repeat % 2 == 0 else pair[::-1]:
                self.figures[side].append(job())
            done = {side: f"{figures[-1]:,.4g}" for side, figures in self.figures.items()}
            console.print(
                f"  {self.name} {repeat + 1}/{runs}: {done['ours']} against {done['theirs']} {self.unit}",
                style="dim",
            )
        ours, theirs = self.figures["ours"], self.figures["theirs"]
        return Result(
            name=self.name,
            ours=statistics.median(ours),
            theirs=statistics.median(theirs),
            unit=self.unit,
            better=self.better,
            aim=self.aim,
            runs=runs,
            ours_range=(min(ours), max(ours)),
            theirs_range=(min(theirs), max(theirs)),
            note=self.note,
        )


def rate(rows: int, job: Callable[[], None]) -> float:
    """Rows a second that a job handles."""
    begun = time.perf_counter()
    job()
    return rows / (time.perf_counter() - begun)
