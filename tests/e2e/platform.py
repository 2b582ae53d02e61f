"""The whole platform as real processes, for tests that kill parts of it."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from confluent_kafka import Consumer, TopicPartition

from driftline.contracts.project_schemas import (
    label_schema,
    outcome_schema,
    platform_schema,
    prediction_request_schema,
    prediction_schema,
)
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.topics import WINDOW_REPORTS, Topics
from driftline.contracts.wire import frame
from driftline.embedded import EmbeddedStack
from driftline.features import FeatureView
from driftline.project import Project
from driftline.runtime.errors import UnavailableError
from driftline.runtime.ids import new_id
from driftline.runtime.instance_file import read_instance_file
from driftline.runtime.processes import tail
from driftline.runtime.supervisor import Supervisor, is_ready
from tests.e2e.reading import Journal, Replay, end_offsets
from tests.e2e.traffic import START_US, TopicTraffic


@dataclass(slots=True, kw_only=True)
class Platform:
    project: Project
    stack: EmbeddedStack
    supervisor: Supervisor
    state: Path
    environment: dict[str, str]
    schema_ids: dict[str, int]
    _journals: dict[str, Journal] = field(default_factory=dict)
    _replays: dict[str, Replay] = field(default_factory=dict)

    @property
    def topics(self) -> Topics:
        return Topics(self.project.name)

    @property
    def prefix(self) -> str:
        return self.project.name

    @property
    def bootstrap(self) -> str:
        return self.stack.environment["KAFKA_BOOTSTRAP_SERVERS"]

    @property
    def redis(self) -> "redis.Redis":
        return redis.Redis.from_url(self.stack.environment["REDIS_URL"])

    @property
    def events_topic(self) -> str:
        return self.topics.events("payments")

    @property
    def requests_topic(self) -> str:
        return self.topics.prediction_requests

    @property
    def predictions_topic(self) -> str:
        return self.topics.predictions

    def journal(self, topic: str) -> Journal:
        """What a topic holds, read on from where the last test stopped."""
        if topic not in self._journals:
            self._journals[topic] = Journal(
                self.bootstrap, topic, self.partitions(topic), RecordCodec(self._schema(topic))
            )
        return self._journals[topic]

    def replay(self, view: FeatureView) -> Replay:
        """What a sequential replay of the events leaves of a view, carried on over the tests."""
        return self._replays.setdefault(view.ref, Replay(view))

    def encoder(self, topic: str) -> Callable[[dict[str, Any]], bytes]:
        """What makes a record into a message's value."""
        codec, schema_id = RecordCodec(self._schema(topic)), self.schema_ids[topic]
        return lambda record: frame(schema_id, codec.encode(record))

    def traffic(
        self, topic: str, make: Callable[[], tuple[str, str, dict[str, Any]]], *, seed: int, burst: int
    ) -> TopicTraffic:
        """Return a thread that sends what ``make`` returns: an id, a key and a record; ``burst`` of them at a time."""
        return TopicTraffic(self.bootstrap, topic, self.encoder(topic), make, seed=seed, burst=burst)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        return self.topics.all_of(self.project)[topic].partitions

    def _schema(self, topic: str) -> Mapping[str, Any]:
        topics, project = self.topics, self.project
        return {
            self.events_topic: project.event_types["payments"].schema,
            topics.prediction_requests: prediction_request_schema(project),
            topics.predictions: prediction_schema(project),
            topics.labels: label_schema(),
            topics.outcomes: outcome_schema(project),
            topics.stream(WINDOW_REPORTS): platform_schema("window_report"),
        }[topic]

    def url(self, instance: str) -> str:
        port = json.loads((self.state / "run" / f"{instance}.json").read_text())["port"]
        return f"http://127.0.0.1:{port}"

    def request(self, source: random.Random) -> dict[str, Any]:
        """A prediction request as it stands on the topic."""
        return {
            "request_id": new_id(),
            "model": "fraud",
            "requested_at": time.time_ns() // 1000,
            "event_time": START_US + 3_600_000_000,
            "caller": "e2e",
            "customer": f"customer-{source.randrange(250)}",
            "merchant": f"merchant-{source.randrange(20)}",
            "amount": source.uniform(1, 500),
            "order_id": None,
        }

    def wait_applied(self, seconds: float = 120) -> None:
        """Wait until the store has applied every event; so many seconds without a step on are too long."""
        ends = end_offsets(self.bootstrap, self.events_topic, self.partitions(self.events_topic))
        until = time.monotonic() + seconds
        applied: dict[int, int] = {}
        while time.monotonic() < until:
            now = self.applied_offsets()
            if all(now.get(partition, 0) >= end for partition, end in ends.items()):
                return
            if now != applied:
                applied, until = now, time.monotonic() + seconds
            time.sleep(0.1)
        raise AssertionError(f"the store stands at {applied}, the topic ends at {ends}; {self.told()}")

    def applied_offsets(self) -> dict[int, int]:
        from driftline.features.keys import owner_key

        found = {}
        for partition in range(self.partitions(self.events_topic)):
            owner = self.redis.get(owner_key(self.prefix, "payments", partition))
            if owner is not None:
                found[partition] = int(owner.split(b"|")[1])  # type: ignore[union-attr]
        return found

    def wait_consumed(self, topic: str, group: str, seconds: float = 120) -> None:
        """Wait until a consumer group has committed the whole topic; so many seconds without a step on are too long."""
        partitions = [TopicPartition(topic, partition) for partition in range(self.partitions(topic))]
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": self.group(group),
                "isolation.level": "read_committed",
            }
        )
        until = time.monotonic() + seconds
        waiting: list[Any] = []
        reached: dict[int, int] = {}
        while time.monotonic() < until:
            committed = consumer.committed(partitions, timeout=20)
            ends = self.journal(topic).ends()
            waiting = [
                (c.partition, c.offset, ends[c.partition])
                for c in committed
                if max(c.offset, 0) < ends[c.partition]
            ]
            if not waiting:
                consumer.close()
                return
            now = {c.partition: c.offset for c in committed}
            if now != reached:
                reached, until = now, time.monotonic() + seconds
            time.sleep(0.2)
        raise AssertionError(
            f"{group} still has to read (partition, committed, end): {waiting}; {self.told()}"
        )

    def told(self) -> str:
        """What the supervisor knows of each process, and the last that it wrote: why a test waited in vain."""
        statuses = self.supervisor.statuses()
        lines = [f"{one.instance} {one.state}, {one.restarts} restarts, {one.reason}" for one in statuses]
        for one in statuses:
            lines += [f"--- {one.instance}", tail(self.supervisor.log(one.instance), 3)]
        return "\n".join(lines)

    def group(self, service: str) -> str:
        return f"{self.project.name}.{service}"

    def start_another(self, service: str, number: int = 9) -> "subprocess.Popen[bytes]":
        """Start one more process of a service outside the supervisor, as another worker of the group."""
        instance = f"{service}-{number}"
        with (self.state / "logs" / f"{instance}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", f"services.{service}"],
                env={
                    **os.environ,
                    **self.environment,
                    "DRIFTLINE_INSTANCE": instance,
                    "DRIFTLINE_PORT": "0",
                },
                stdout=log,
                stderr=log,
            )

    def wait_another(self, service: str, number: int, process: "subprocess.Popen[bytes]") -> None:
        """Wait until a worker that was started beside the supervisor's is ready."""
        instance = f"{service}-{number}"
        until = time.monotonic() + 300  # six of them start at once, each with all its imports
        while time.monotonic() < until:
            written = read_instance_file(self.state, instance)
            if written is not None and written.pid == process.pid and is_ready(written.port):
                return
            time.sleep(0.1)
        log = tail(self.state / "logs" / f"{instance}.log")
        raise UnavailableError(f"{instance} is not ready after 300 s:\n{log}")

    @staticmethod
    def stop_another(process: "subprocess.Popen[bytes]") -> None:
        process.terminate()
        assert process.wait(60) == 0
