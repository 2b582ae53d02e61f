"""The data plane's lines: the feature store against R and against Faust, the stream predictor against an echo."""

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import redis
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from rich.console import Console

from benchmarks import events, faust_scorer, peers
from benchmarks.comparison import Comparison
from benchmarks.feature_store_path import PROJECT, applied_per_second
from benchmarks.model import write_model
from benchmarks.peer_process import PeerProcess
from driftline.contracts.admin import create_topics
from driftline.contracts.project_schemas import prediction_request_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.contracts.wire import frame
from driftline.project import Project, load_project
from driftline.runtime.health import Health
from driftline.runtime.ids import new_id
from services.predictor.assembly import Predictor
from services.predictor.settings import PredictorSettings

FAUST_ROWS = 30_000
FAUST_REQUESTS = 5_000
REQUESTS = 120_000
_READY_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class Bench:
    """What the lines share: servers, loaded topics, service processes that run while one line needs them."""

    folder: Path
    rows: int
    project: Project = field(default_factory=lambda: load_project(PROJECT))
    environment: dict[str, str] = field(default_factory=dict)
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    count: int = 0
    #: Where the environments of peers stay from run to run.
    environments: Path = Path(".driftline/bench")
    asked: list[PeerProcess] = field(default_factory=list)
    _predictor: str = ""
    _single: str = ""

    @property
    def bootstrap(self) -> str:
        """The broker."""
        return self.environment["KAFKA_BOOTSTRAP_SERVERS"]

    @property
    def topics(self) -> Topics:
        """The bench project's topics."""
        return Topics(self.project.name)

    @property
    def pipeline(self) -> Path:
        """The model's scikit-learn pipeline, as a joblib file."""
        return self.folder / "model.joblib"

    def database(self, number: int) -> str:
        """Return the URL of another database of the store, which no other line empties."""
        return urlsplit(self.environment["REDIS_URL"])._replace(path=f"/{number}").geturl()

    def predictor(self) -> str:
        """Return the address of the bench project's predictor, started once."""
        if not self._predictor:
            self.single_records()
            self._predictor = self.service("predictor")
        return self._predictor

    def single_records(self) -> str:
        """Return a topic for records that are sent one at a time, by a broker that has compiled what it does with them.

        One that has just started takes longer for its answer.
        """
        if not self._single:
            self._single = "single-records"
            create_topic(self.bootstrap, self._single)
            peers.acknowledgement_seconds(self.bootstrap, self._single, records=5_000)
        return self._single

    def service(self, name: str, *, module: str = "", **variables: str) -> str:
        """Start a service, or a module that stands for it, and return its address.

        Once for each set of variables is up to the caller.
        """
        self.count += 1
        instance = f"{name}-{self.count}"
        environment = {
            **os.environ,
            **self.environment,
            "DRIFTLINE_PROJECT": str(PROJECT),
            "DRIFTLINE_STATE": str(self.folder),
            "DRIFTLINE_MODELS": str(self.folder / "models"),
            "DRIFTLINE_INSTANCE": instance,
            "OPENBLAS_NUM_THREADS": "1",
            **variables,
        }
        started = (
            [sys.executable, "-m", module] if module else [sys.executable, "-P", "-m", f"services.{name}"]
        )
        return self.launch(started, environment, instance)

    def launch(self, command: list[str], environment: dict[str, str], instance: str) -> str:
        """Start a process that writes its port to run/<instance>.json, and wait until it is ready."""
        run = self.folder / "run" / f"{instance}.json"
        return self._start(
            command, environment, instance, lambda: json.loads(run.read_text())["port"], "/readyz"
        )

    def serve(
        self, command: list[str], environment: dict[str, str], instance: str, port: int, ready: str
    ) -> str:
        """Start a peer that was told its port, and wait until the path ``ready`` of it answers."""
        return self._start(command, {**os.environ, **environment}, instance, lambda: port, ready)

    def _start(
        self,
        command: list[str],
        environment: dict[str, str],
        instance: str,
        port: Callable[[], int],
        ready: str,
    ) -> str:
        written = self.folder / f"{instance}.log"
        with written.open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.processes.append(process)
        until = time.monotonic() + _READY_SECONDS
        while time.monotonic() < until and process.poll() is None:
            try:
                address = f"http://127.0.0.1:{port()}"
                if httpx.get(address + ready, timeout=2).is_success:
                    return address
            except (OSError, ValueError, httpx.HTTPError):
                pass
            time.sleep(0.1)
        raise TimeoutError(f"{instance} is not ready; it wrote: {written.read_text()[-2_000:]}")

    def close(self) -> None:
        """End the processes."""
        for asked in self.asked:
            asked.close()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        self.processes.clear()


def create_topic(bootstrap: str, name: str, partitions: int = 1) -> None:
    """Create a topic and wait for it."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(30)


def prepare(bench: Bench, environment: dict[str, str], console: Console) -> None:
    """Take the running servers: create topics, register schemas, load events, write a model."""
    bench.environment.update(environment)
    console.print(f"loading {bench.rows:,} events")
    ids = load_events(bench, bench.project)
    write_model(bench.project, bench.folder / "models", bench.pipeline)
    for name in ("echo-source", "echo", "round-trip", faust_scorer.ANSWERS):
        create_topic(bench.bootstrap, name)
    _load_requests(bench, ids[bench.topics.prediction_requests])


def load_events(bench: Bench, project: Project) -> dict[str, int]:
    """Create a project's topics, load its readings; return the ids of its schemas by topic."""
    topics = Topics(project.name)
    create_topics({"bootstrap.servers": bench.bootstrap}, project, topics)
    with SchemaRegistry(bench.environment["SCHEMA_REGISTRY_URL"]) as registry:
        ids = registry.register_project(project, topics)
    topic = topics.events("readings")
    events.load(bench.bootstrap, topic, bench.rows, dict(project.event_types["readings"].schema), ids[topic])
    return ids


def _load_requests(bench: Bench, schema_id: int) -> None:
    """Produce prediction requests to the requests topic's only partition, and the same bytes to the echo's."""
    codec = RecordCodec(prediction_request_schema(bench.project))
    rng = np.random.default_rng(5)
    sensors = rng.integers(0, events.SENSORS, REQUESTS)
    producer = Producer({"bootstrap.servers": bench.bootstrap, "queue.buffering.max.messages": 1_000_000})
    for row in range(REQUESTS):
        request_id = new_id()
        record = {
            "request_id": request_id,
            "model": "failure",
            "requested_at": events.START_US,
            "event_time": events.START_US + bench.rows * events.SPACING_US,
            "caller": "bench",
            "sensor": f"sensor-{sensors[row]:05d}",
            "load": float(row % 100),
        }
        value = frame(schema_id, codec.encode(record))
        for topic in (bench.topics.prediction_requests, "echo-source"):
            producer.produce(topic, value, request_id.encode(), partition=0)
        if row % 1_000 == 0:
            producer.poll(0)
    producer.flush()


def comparisons(bench: Bench) -> list[Comparison]:
    """Return the data plane's lines."""
    schema = dict(bench.project.event_types["readings"].schema)
    topic = bench.topics.events("readings")

    def store() -> float:
        return applied_per_second(bench.environment, bench.rows)

    def r() -> float:
        return peers.consume_and_decode(bench.bootstrap, topic, bench.rows, schema)

    def echo() -> float:
        return peers.transactional_echo(bench.bootstrap, "echo-source", "echo", REQUESTS)

    return [
        Comparison(
            name="feature store, events to Redis exactly once / R",
            unit="events/s",
            ours=store,
            theirs=r,
            aim=1.0,
            note="R: consume and decode with fastavro; 4,000 entities, 48 tiles",
        ),
        Comparison(
            name="feature store / Faust agent with a table",
            unit="events/s",
            ours=store,
            theirs=lambda: faust_per_second(bench, topic),
            aim=15,
        ),
        Comparison(
            name="stream predictor / transactional echo",
            unit="requests/s",
            ours=lambda: predicted_per_second(bench),
            theirs=echo,
            aim=0.5,
            note="one view of 4,000 entities, boosting in ONNX, full log; the echo copies the requests' bytes",
        ),
        Comparison(
            name="stream predictor / Faust agent",
            unit="requests/s",
            ours=lambda: predicted_per_second(bench),
            theirs=lambda: faust_scored_per_second(bench),
            note="the agent reads the same features and runs the same ONNX model, message by message, at least once",
        ),
    ]


def faust_per_second(bench: Bench, topic: str) -> float:
    """Run the Faust peer in a process of its own and return its rate."""
    schema = str(PROJECT / "schemas" / "reading.avsc")
    return _faust_rate(bench, "faust_peer", topic, str(FAUST_ROWS), schema)


def faust_scored_per_second(bench: Bench) -> float:
    """Answer the first requests with a Faust agent in a process of its own and return its rate."""
    fill_store(bench)
    return _faust_rate(bench, "faust_scorer", bench.topics.prediction_requests, str(FAUST_REQUESTS))


def _faust_rate(bench: Bench, module: str, *arguments: str) -> float:
    """Run a Faust worker until it prints its rate. It is given the broker, ``arguments`` and a folder of its own."""
    bench.count += 1
    folder = bench.folder / f"faust{bench.count}"
    folder.mkdir()
    environment = {
        **os.environ,
        **bench.environment,
        "DRIFTLINE_MODELS": str(bench.folder / "models"),
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", f"benchmarks.{module}", bench.bootstrap, *arguments, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    try:
        for line in process.stdout or ():
            if b'"rate"' in line:
                return float(json.loads(line[line.index(b"{") :])["rate"])
        raise RuntimeError("the Faust peer ended without a rate")
    finally:
        process.kill()
        process.wait(30)


def predicted_per_second(bench: Bench) -> float:
    """Predict the whole requests topic as the service does; rate from the first batch to the last commit."""
    fill_store(bench)
    bench.count += 1
    given: dict[str, Any] = {
        **bench.environment,
        "DRIFTLINE_PROJECT": str(PROJECT),
        "DRIFTLINE_INSTANCE": f"predictor-bench-{bench.count}",
        "DRIFTLINE_MODELS": str(bench.folder / "models"),
    }
    settings = PredictorSettings.model_validate(given)
    group = f"{bench.topics.prefix}.predictor"
    place = TopicPartition(bench.topics.prediction_requests, 0, 0)
    rewind(bench.bootstrap, group, [place])
    watch = Consumer({"bootstrap.servers": bench.bootstrap, "group.id": group})
    stop = threading.Event()
    predictor = Predictor(settings, bench.project, Health("predictor", settings.instance))
    begun: list[float] = []
    predict = predictor.engine.predict

    def timed(requests: Any, channel: str) -> Any:
        begun.append(time.perf_counter())
        return predict(requests, channel)

    predictor.engine.predict = timed  # type: ignore[method-assign]
    gc.collect()
    gc.freeze()  # as the service does: what start-up made is not walked again
    worker = threading.Thread(target=predictor.run, args=(stop,))
    worker.start()
    try:
        while watch.committed([TopicPartition(place.topic, 0)], timeout=10)[0].offset < REQUESTS:
            if not worker.is_alive():
                raise RuntimeError("the stream ended; see above")
            time.sleep(0.002)
        return REQUESTS / (time.perf_counter() - begun[0])
    finally:
        stop.set()
        worker.join(30)
        predictor.close()
        watch.close()


def rewind(bootstrap: str, group: str, places: list[TopicPartition]) -> None:
    """Set a group's offsets once the last run's member, which as a static one does not leave, has timed out."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    until = time.monotonic() + _READY_SECONDS
    while time.monotonic() < until:
        request = ConsumerGroupTopicPartitions(group, places)
        answers = admin.alter_consumer_group_offsets([request])[group].result(30).topic_partitions
        errors = [answer.error for answer in answers if answer.error is not None]
        if not errors:
            return
        time.sleep(0.2)
    raise TimeoutError(f"{group} still has members: {errors[0]}")


def fill_store(bench: Bench) -> None:
    """Make sure that the store holds the events (another line may have emptied it)."""
    if redis.Redis.from_url(bench.environment["REDIS_URL"]).dbsize() < events.SENSORS:
        applied_per_second(bench.environment, bench.rows)
