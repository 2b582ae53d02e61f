"""The feature store beside Quix Streams on the same topic."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import redis
from numpy.typing import NDArray

from benchmarks import events
from benchmarks.comparison import Comparison
from benchmarks.data_plane import Bench, fill_store
from benchmarks.feature_store_path import PROJECT, applied_per_second
from benchmarks.peer_environment import peer_python
from benchmarks.peer_process import PeerProcess
from driftline.features.online import OnlineStore
from driftline.features.update import QUANTUM

ROWS = 30_000
_PEER = Path(__file__).parent / "quix_peer.py"

#: Per sensor: events, sum of values, mean times events.
Totals = Mapping[str, Sequence[float]]


def comparisons(bench: Bench) -> list[Comparison]:
    """Return the line."""
    checked: list[bool] = []

    def theirs() -> float:
        rows = min(ROWS, bench.rows - 1)
        rate, totals = quix_run(bench, rows)
        if not checked:
            check("Quix", totals, drawn_totals(bench.rows, rows))
            check(
                "the feature store", stored_totals(bench), drawn_totals(bench.rows, bench.rows), step=QUANTUM
            )
            checked.append(True)
        return rate

    return [
        Comparison(
            name="feature store / Quix Streams, windows in RocksDB",
            unit="events/s",
            ours=lambda: applied_per_second(bench.environment, bench.rows),
            theirs=theirs,
            aim=10,
            note=(
                "both exactly once, a commit every 10,000 events; Quix: count, sum and mean of the half hour that an event is in, "
                "its state in RocksDB with a changelog; it makes no sliding windows of 3 and 23 hours, no deviation, knows no event by its id, and keeps no store that others read"
            ),
        )
    ]


def quix_run(bench: Bench, rows: int) -> tuple[float, Totals]:
    """Run the peer from the topic's start; return events a second, and its windows' totals."""
    python = peer_python(bench.environments, "quix")
    bench.count += 1
    folder = bench.folder / f"quix-{bench.count}"
    folder.mkdir()
    command: list[str | Path] = [
        python,
        "-W",
        "ignore",
        _PEER,
        bench.bootstrap,
        bench.topics.events("readings"),
        str(rows),
    ]
    process = PeerProcess([*command, PROJECT / "schemas" / "reading.avsc", folder], folder / "quix.log")
    try:
        answer = process.answer()
    finally:
        process.close()
    return float(answer["rate"]), answer["totals"]


def drawn_totals(rows: int, first: int) -> dict[str, list[float]]:
    """Return the totals of the first of so many rows, added up one by one."""
    totals: dict[str, list[float]] = {}
    for event in itertools.islice(events.readings(rows), first):
        total = totals.setdefault(event["sensor"], [0.0, 0.0, 0.0])
        total[0] += 1
        total[1] += event["value"]
        total[2] += event["value"]
    return totals


def stored_totals(bench: Bench) -> dict[str, list[float]]:
    """Return the totals of the 23 hours up to the last event, as the feature store serves them."""
    fill_store(bench)
    view = bench.project.views["sensor_readings"]
    sensors = [f"sensor-{number:05d}" for number in range(events.SENSORS)]
    end = np.full(len(sensors), events.START_US + bench.rows * events.SPACING_US)
    with redis.Redis.from_url(bench.environment["REDIS_URL"]) as client:
        store = OnlineStore(
            client, prefix=bench.project.name, project=bench.project, partitions={"readings": 1}
        )
        (read,) = store.read([(view, sensors)], end)
    names = [feature.name for feature in view.features]
    counts, means = (read.values[:, names.index(name)] for name in ("count_23h", "mean_value_23h"))
    sums: NDArray[np.float64] = counts * means
    return {
        sensor: [float(count), float(total), float(total)]
        for sensor, count, total in zip(sensors, counts, sums, strict=True)
        if count > 0
    }


def check(whose: str, found: Totals, expected: Totals, *, step: float = 0.0) -> None:
    """Raise ValueError where totals are not those of the events: counts exactly, sums within rounding.

    ``step`` is what each value was rounded to before it was added.
    """
    if found.keys() != expected.keys():
        raise ValueError(f"{whose} has windows of {len(found):,} sensors, not of {len(expected):,}")
    for sensor, total in expected.items():
        close = np.allclose(found[sensor], total, rtol=1e-9, atol=total[0] * step / 2)
        if found[sensor][0] != total[0] or not close:
            raise ValueError(f"{whose} has {list(found[sensor])} of {sensor}, not {list(total)}")
