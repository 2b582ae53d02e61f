"""The whole platform as real processes, for tests that kill parts of it."""

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from confluent_kafka import Consumer, TopicPartition

from driftline.contracts.project_schemas import (
    label_schema,
    outcome_schema,
    prediction_request_schema,
    prediction_schema,
)
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.topics import Topics, load_manifest
from driftline.embedded import EmbeddedStack
from driftline.project import Project
from driftline.runtime.ids import new_id
from driftline.runtime.processes import tail
from driftline.runtime.supervisor import Supervisor
from tests.e2e.reading import end_offsets, record_ends
from tests.e2e.traffic import START_US


@dataclass(slots=True, kw_only=True)
class Platform:
    project: Project
    stack: EmbeddedStack
    supervisor: Supervisor
    state: Path
    environment: dict[str, str]
    schema_ids: dict[str, int]
    partitions: int
    requests_partitions: int
    predictions_partitions: int

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

    @property
    def event_codec(self) -> RecordCodec:
        return RecordCodec(dict(self.project.event_types["payments"].schema))

    @property
    def request_codec(self) -> RecordCodec:
        return RecordCodec(prediction_request_schema(self.project))

    @property
    def prediction_codec(self) -> RecordCodec:
        return RecordCodec(prediction_schema(self.project))

    @property
    def label_codec(self) -> RecordCodec:
        return RecordCodec(label_schema())

    @property
    def outcome_codec(self) -> RecordCodec:
        return RecordCodec(outcome_schema(self.project))

    @property
    def event_schema_id(self) -> int:
        return self.schema_ids[self.events_topic]

    @property
    def request_schema_id(self) -> int:
        return self.schema_ids[self.requests_topic]

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
        ends = end_offsets(self.bootstrap, self.events_topic, self.partitions)
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
        for partition in range(self.partitions):
            owner = self.redis.get(owner_key(self.prefix, "payments", partition))
            if owner is not None:
                found[partition] = int(owner.split(b"|")[1])  # type: ignore[union-attr]
        return found

    def wait_consumed(self, topic: str, group: str, seconds: float = 120) -> None:
        """Wait until a consumer group has committed the whole topic; so many seconds without a step on are too long."""
        partitions = load_manifest().streams[topic.removeprefix(f"{self.prefix}.")].partitions
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
            committed = consumer.committed([TopicPartition(topic, p) for p in range(partitions)], timeout=20)
            ends = record_ends(self.bootstrap, topic, partitions)
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

    @staticmethod
    def stop_another(process: "subprocess.Popen[bytes]") -> None:
        process.terminate()
        assert process.wait(60) == 0
