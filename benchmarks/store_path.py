"""The online store itself: memory of an entity beside a key per feature, a read in the library beside a raw GET."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import redis

from benchmarks.comparison import Comparison
from benchmarks.data_plane import Bench
from benchmarks.feature_store_path import PROJECT
from benchmarks.wide.features import sensor_wide
from driftline.features.keys import blob_key, partition_of
from driftline.features.layout import ViewLayout
from driftline.features.online import OnlineStore
from driftline.features.update import apply_events
from driftline.project import load_project

ENTITIES = 20_000
READS = 2_000
_PARTITIONS = 1
VIEW = sensor_wide
_START_US = 1_700_000_000_000_000


def comparisons(bench: Bench) -> list[Comparison]:
    """Return the lines."""
    return [
        Comparison(
            name="memory of an entity with 25 features / a Redis key per feature",
            unit="bytes",
            ours=lambda: _memory(bench, _write_blobs),
            theirs=lambda: _memory(bench, _write_keys),
            better="lower",
            aim=0.4,
            note="ours holds the 47 tiles that windows are computed from; a key per feature holds 25 finished numbers",
        ),
        Comparison(
            name="read of 25 features in the library, median / raw redis-py GET",
            unit="µs",
            ours=lambda: _read_median(bench),
            theirs=lambda: _get_median(bench),
            better="lower",
            aim=1.3,
            note="the GET brings as many bytes, and nothing is made of them",
        ),
    ]


def _client(bench: Bench) -> redis.Redis:
    return redis.Redis.from_url(bench.environment["REDIS_URL"])


def _names(start: int, stop: int) -> list[str]:
    return [f"sensor-{number:07d}" for number in range(start, stop)]


def _memory(bench: Bench, write: Callable[[redis.Redis], None]) -> float:
    """Return the bytes of an entity, everything that the server needs for it counted."""
    with _client(bench) as client:
        client.execute_command("FLUSHDB", "SYNC")  # Valkey would free the memory while we measure
        before = client.info("memory")["used_memory"]
        write(client)
        return float(client.info("memory")["used_memory"] - before) / ENTITIES


def _write_blobs(client: redis.Redis) -> None:
    layout = ViewLayout.of(VIEW)
    random = np.random.default_rng(5)
    for start in range(0, ENTITIES, 1_000):
        names = _names(start, start + 1_000)
        state = layout.empty(len(names))
        rows = np.repeat(np.arange(len(names)), 48)
        times = _START_US + np.tile(np.arange(48) * 1_800_000_000, len(names))
        apply_events(layout, state, rows, times, {"value": random.normal(20, 5, len(rows))})
        client.mset(
            {
                blob_key("bench", "readings", partition_of(name, _PARTITIONS), VIEW.ref, name): state[
                    row
                ].tobytes()
                for row, name in enumerate(names)
            }
        )


def _write_keys(client: redis.Redis) -> None:
    features = [feature.name for feature in VIEW.features]
    random = np.random.default_rng(5)
    for start in range(0, ENTITIES, 1_000):
        values = random.normal(20, 5, (1_000, len(features)))
        client.mset(
            {
                f"bench:{VIEW.ref}:{name}:{feature}": values[row, column].tobytes()
                for row, name in enumerate(_names(start, start + 1_000))
                for column, feature in enumerate(features)
            }
        )


def _filled(bench: Bench) -> redis.Redis:
    client = _client(bench)
    if client.dbsize() != ENTITIES:
        client.flushdb()
        _write_blobs(client)
    return client


def _read_median(bench: Bench) -> float:
    """Return a read's median, in microseconds: one entity, as of one instant."""
    with _filled(bench):
        store = OnlineStore(
            bench.environment["REDIS_URL"],
            prefix="bench",
            project=load_project(PROJECT),
            partitions={"readings": _PARTITIONS},
        )
        as_of = np.array([_START_US + 47 * 1_800_000_000])
        (read,) = store.read([(VIEW, ["sensor-0000007"])], as_of)
        if read.values[0, 0] != 2:
            raise AssertionError(f"the hour's count is {read.values[0, 0]}")
        return _median([partial(store.read, [(VIEW, [name])], as_of) for name in _names(0, READS)])


def _get_median(bench: Bench) -> float:
    with _filled(bench) as client:
        keys = [blob_key("bench", "readings", 0, VIEW.ref, name) for name in _names(0, READS)]
        return _median([partial(client.get, key) for key in keys])


def _median(jobs: list[Callable[[], object]]) -> float:
    waits = []
    for job in jobs:
        begun = time.perf_counter()
        job()
        waits.append(time.perf_counter() - begun)
    return statistics.median(waits) * 1e6
