"""Features over HTTP and their writes, beside Feast's Python server on the same Valkey, with the same values."""

import functools
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from benchmarks import closed_loop, events
from benchmarks.closed_loop import Answers
from benchmarks.comparison import Comparison
from benchmarks.data_plane import Bench, load_events
from benchmarks.feature_store_path import applied_per_second
from benchmarks.http_client import request_bytes
from benchmarks.peer_environment import peer_python
from benchmarks.peer_process import PeerProcess
from driftline.embedded.ports import free_port
from driftline.features.online import OnlineStore
from driftline.project import load_project
from tests.small_model import write_model as write_small_model

PROJECT = Path(__file__).parent / "wide"
FEAST_REQUESTS = 1_000
#: Databases of the Valkey: each side's own, so that neither they nor other lines empty one another's.
_FEAST_DATABASE, _OUR_DATABASE = 1, 2
_PEER = Path(__file__).parent / "feast_peer.py"
_SENSOR = "sensor-00042"
_COMPARED = 20
_READ = "/get-online-features"

Values = Mapping[str, float | None]


def comparisons(bench: Bench) -> list[Comparison]:
    """Return the lines: reads at 16 connections, their median at one, writes."""
    sides = functools.cache(lambda: Sides(bench))
    note = (
        "25 features of one sensor; ours computes the windows as of the request, Feast reads finished values"
    )
    return [
        Comparison(
            name="feature read over HTTP, 16 connections / Feast's feature server",
            unit="requests/s",
            ours=lambda: sides().our_reads(16).rate,
            theirs=lambda: sides().their_reads(16).rate,
            aim=10,
            note=note,
        ),
        Comparison(
            name="feature read over HTTP, median, one connection / Feast's feature server",
            unit="ms",
            ours=lambda: sides().our_reads(1).median * 1e3,
            theirs=lambda: sides().their_reads(1).median * 1e3,
            better="lower",
            aim=0.2,
            note=note,
        ),
        Comparison(
            name="feature writes, 25 features / Feast's write_to_online_store",
            unit="events/s",
            ours=lambda: sides().our_writes(),
            theirs=lambda: sides().their_writes(),
            note=(
                "ours: from the topic, decoded, added to the windows, exactly once; Feast: 4,000 rows of finished values from a "
                "data frame in the library, no topic, no windows, no HTTP"
            ),
        ),
    ]


class Sides:
    """Both servers, filled with the same values; their answers are compared when they are started."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        python = peer_python(bench.environments, "feast")  # where it is missing, nothing is loaded for it
        self._project = load_project(PROJECT)
        (self._view,) = self._project.views.values()
        self._url = bench.database(_OUR_DATABASE)
        load_events(bench, self._project)
        self.our_writes()
        models = bench.folder / "wide-models"
        write_small_model(self._project, models)  # a predictor is ready once its model is there
        self._predictor = bench.service(
            "predictor", DRIFTLINE_PROJECT=str(PROJECT), DRIFTLINE_MODELS=str(models), REDIS_URL=self._url
        )
        self._writer = self._feast_writer(python)
        self._feast = self._feast_server(python)
        self._check()

    def our_reads(self, connections: int) -> Answers:
        """Read a sensor's features from the predictor."""
        url = self._our_url(_SENSOR)
        return closed_loop.load(url, request_bytes(url, None), connections)

    def their_reads(self, connections: int) -> Answers:
        """Read a sensor's features from Feast's server."""
        url = self._feast + _READ
        request = request_bytes(url, json.dumps(_feast_body(_SENSOR)).encode())
        return closed_loop.load(url, request, connections, FEAST_REQUESTS)

    def our_writes(self) -> float:
        """Events a second from the topic into the store."""
        environment = {**self._bench.environment, "REDIS_URL": self._url}
        return applied_per_second(environment, self._bench.rows, PROJECT)

    def their_writes(self) -> float:
        """Rows a second into Feast's online store."""
        written = self._writer.ask()
        return float(written["rows"]) / float(written["seconds"])

    @property
    def _as_of_us(self) -> int:
        return events.START_US + self._bench.rows * events.SPACING_US

    def _our_url(self, sensor: str) -> str:
        as_of = datetime.fromtimestamp(self._as_of_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return f"{self._predictor}/v1/features/{self._view.name}/{sensor}?as_of={as_of}"

    def _feast_writer(self, python: Path) -> PeerProcess:
        """Declare the features with Feast and write to its store what ours holds."""
        repository = self._bench.folder / "feast"
        repository.mkdir()
        values = repository / "values.parquet"
        pq.write_table(self._table(), values)
        (repository / "feature_store.yaml").write_text(_settings(self._bench.database(_FEAST_DATABASE)))
        command: list[str | Path] = [python, "-W", "ignore", _PEER, repository, values]
        writer = PeerProcess(command, repository / "feast.log")
        self._bench.asked.append(writer)
        writer.answer()
        writer.ask()
        return writer

    def _feast_server(self, python: Path) -> str:
        port = free_port()
        command = [
            *(str(python.parent / "feast"), "--chdir", str(self._bench.folder / "feast"), "serve"),
            *("--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--no-access-log"),
            *("--max-requests", "0", "--registry_ttl_sec", "3600"),
        ]
        return self._bench.serve(command, {}, "feast-server", port, "/health")

    def _table(self) -> pa.Table:
        sensors = [f"sensor-{number:05d}" for number in range(events.SENSORS)]
        as_of = np.full(len(sensors), self._as_of_us)
        with redis.Redis.from_url(self._url) as client:
            store = OnlineStore(
                client, prefix=self._project.name, project=self._project, partitions={"readings": 1}
            )
            (read,) = store.read([(self._view, sensors)], as_of)
        names = [feature.name for feature in self._view.features]
        return pa.table({"sensor": sensors, **dict(zip(names, read.values.T.copy(), strict=True))})

    def _check(self) -> None:
        for number in range(_COMPARED):
            sensor = f"sensor-{number:05d}"
            ours = httpx.get(self._our_url(sensor), timeout=30).raise_for_status().json()["values"]
            asked = httpx.post(self._feast + _READ, json=_feast_body(sensor), timeout=30)
            check(sensor, ours, feast_values(asked.raise_for_status().json()))


def feast_values(answer: dict[str, Any]) -> dict[str, float | None]:
    """Return the only entity's values by feature."""
    names = answer["metadata"]["feature_names"]
    values = {name: one["values"][0] for name, one in zip(names, answer["results"], strict=True)}
    del values["sensor"]
    return values


def check(sensor: str, ours: Values, theirs: Values) -> None:
    """Raise ValueError where both sides do not serve the same values, to the bit; a missing one is None or NaN."""
    if ours.keys() != theirs.keys():
        raise ValueError(f"{sensor}: we serve {sorted(ours)}, Feast {sorted(theirs)}")
    for name, value in ours.items():
        if _number(value) != _number(theirs[name]):
            raise ValueError(f"{name} of {sensor} is {value} with us, {theirs[name]} with Feast")


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value


def _feast_body(sensor: str) -> dict[str, Any]:
    return {"feature_service": "wide", "entities": {"sensor": [sensor]}}


def _settings(redis_url: str) -> str:
    parts = urlsplit(redis_url)
    return (
        "project: wide\nprovider: local\nregistry: registry.db\nentity_key_serialization_version: 3\n"
        f"online_store:\n  type: redis\n  connection_string: {parts.netloc},db={parts.path[1:]}\n"
    )
