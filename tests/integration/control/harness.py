"""The counting service as processes, what goes in, and what must have come out."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.wire import frame, split
from driftline.control.tables import PartitionState
from driftline.runtime.processes import end, spawn, tail
from driftline.streaming.dead_letters import read_origin
from tests.integration.control.counting_service import COUNT, EVENT, SERVICE

PARTITIONS = 3
KEYS = [f"key-{number}" for number in range(12)]
ROOT = Path(__file__).parents[3]


@dataclass(kw_only=True)
class Counting:
    """The topics of one test, the service's processes, and the truth about what was sent."""

    kafka: str
    registry_url: str
    prefix: str
    state: Path
    environment: dict[str, str] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    bad: list[bytes] = field(default_factory=list)
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    restarts: int = 0

    def prepare(self) -> None:
        """Make the topics and register the schemas."""
        self.admin = AdminClient(self.config)
        topics = [NewTopic(self.topic(name), PARTITIONS, 1) for name in ("events", "counts")]
        topics.append(NewTopic(self.topic("dead-letters"), 1, 1))
        for future in self.admin.create_topics(topics).values():
            future.result(20)
        with SchemaRegistry(self.registry_url) as registry:
            self.event_id = registry.register(f"{self.topic('events')}-value", EVENT)
            registry.register(f"{self.topic('counts')}-value", COUNT)
        self.codec = RecordCodec(EVENT)
        self.producer = Producer({**self.config, "partitioner": "murmur2_random", "linger.ms": 1})

    @property
    def config(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.kafka}

    def topic(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    @property
    def group(self) -> str:
        return f"{self.prefix}.{SERVICE}"

    # What goes in

    def publish(self, count: int, *, producer: Producer | None = None) -> None:
        """Publish that many events of random keys."""
        producer = producer or self.producer
        for _ in range(count):
            key, number = random.choice(KEYS), random.randrange(1_000)
            self.sent[key] += 1
            self.sums[key] += number
            body = self.codec.encode({"key": key, "number": number})
            producer.produce(self.topic("events"), key=key, value=frame(self.event_id, body))
        assert producer.flush(20) == 0

    def publish_one(self, key: str, number: int) -> None:
        """Publish one event."""
        self.sent[key] += 1
        self.sums[key] += number
        value = frame(self.event_id, self.codec.encode({"key": key, "number": number}))
        self.producer.produce(self.topic("events"), key=key, value=value)
        assert self.producer.flush(20) == 0

    def publish_bad(self, value: bytes, *, key: str = "bad") -> None:
        """Publish a message that must become a dead letter."""
        self.bad.append(value)
        self.producer.produce(self.topic("events"), key=key, value=value, headers=[("trace", b"t-1")])
        assert self.producer.flush(20) == 0

    def publish_in_transactions(self, count: int, *, each: int = 3) -> None:
        """Publish in transactions, every third of which is aborted."""
        producer = Producer(
            {**self.config, "partitioner": "murmur2_random", "transactional.id": f"{self.prefix}-feeder"}
        )
        producer.init_transactions(20)
        for number in range(count // each):
            producer.begin_transaction()
            if number % 3 == 2:
                before = self.sent.copy(), self.sums.copy()
                self.publish(each, producer=producer)
                self.sent, self.sums = before
                producer.abort_transaction(20)
            else:
                self.publish(each, producer=producer)
                producer.commit_transaction(20)

    def delete_before_end(self, name: str) -> None:
        """Delete all records of a topic, as retention does."""
        topic = self.topic(name)
        latest = {TopicPartition(topic, number): OffsetSpec.latest() for number in range(PARTITIONS)}
        ends = {where: found.result(20).offset for where, found in self.admin.list_offsets(latest).items()}
        where = [TopicPartition(one.topic, one.partition, end) for one, end in ends.items()]
        for future in self.admin.delete_records(where).values():
            future.result(20)

    # The processes

    def start(self, instance: str = "counter-0", **environment: str) -> None:
        """Start an instance; it is started again by ``keep_up``."""
        self.processes[instance] = spawn(
            [sys.executable, Path(__file__).with_name("counting_service.py")],
            environment={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
                "SCHEMA_REGISTRY_URL": self.registry_url,
                "DRIFTLINE_STATE": str(self.state),
                "DRIFTLINE_INSTANCE": instance,
                "DRIFTLINE_LOG_FORMAT": "json",
                "COUNTER_PREFIX": self.prefix,
                **self.environment,
                **environment,
            },
            log=self.log(instance),
        )

    def log(self, instance: str = "counter-0") -> Path:
        return self.state / "logs" / f"{instance}.log"

    def kill(self, instance: str = "counter-0") -> None:
        """kill -9."""
        self.processes[instance].send_signal(signal.SIGKILL)
        self.processes[instance].wait(10)

    def keep_up(self) -> None:
        """Start again what has ended, as a supervisor does."""
        for instance, process in self.processes.items():
            if process.poll() is not None:
                self.restarts += 1
                self.start(instance)

    def stop(self) -> None:
        for process in self.processes.values():
            end(process, patience=25)

    def http(self, path: str, instance: str = "counter-0") -> tuple[int, str]:
        """Ask a running instance; (0, "") where it does not answer."""
        try:
            port = json.loads((self.state / "run" / f"{instance}.json").read_text())["port"]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (OSError, ValueError):
            return 0, ""

    def wait_ready(self, instance: str = "counter-0", *, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while self.http("/readyz", instance)[0] != 200:
            assert time.monotonic() < until, f"not ready:\n{tail(self.log(instance), 30)}"
            time.sleep(0.1)

    def wait_done(self, *, seconds: float = 120) -> None:
        """Wait until every event is counted and committed; start anew what ends meanwhile."""
        until = time.monotonic() + seconds
        while self.lag() > 0:
            assert time.monotonic() < until, self.explain()
            self.keep_up()
            time.sleep(0.2)

    def explain(self) -> str:
        lines = [line for instance in self.processes for line in tail(self.log(instance), 15).splitlines()]
        logs = "\n".join(line[:300] + " ... " + line[300:][-600:] for line in lines)
        return (
            f"lag {self.lag()}, counted {sum(self.counted().values())} of {sum(self.sent.values())}\n{logs}"
        )

    def lag(self) -> int:
        """Return how many visible events the group has not committed."""
        committed = self.committed()
        return sum(1 for message in self.read("events") if message.offset() >= committed[message.partition()])

    def committed(self) -> dict[int, int]:
        """Return the group's committed offsets of the events, by partition."""
        where = [TopicPartition(self.topic("events"), number) for number in range(PARTITIONS)]
        asked = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(self.group, where)])
        found = asked[self.group].result(20).topic_partitions
        return {one.partition: max(one.offset, 0) for one in found}

    # What came out

    def read(self, name: str) -> list[Message]:
        """Return all visible messages of a topic."""
        topic = self.topic(name)
        consumer = Consumer(
            {
                **self.config,
                "group.id": "reader",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            }
        )
        try:
            found: list[Message] = []
            partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
            for number in partitions:
                consumer.assign([TopicPartition(topic, number, 0)])
                while True:
                    messages = consumer.consume(10_000, 0.2)
                    found += [message for message in messages if message.error() is None]
                    if any(message.error() is not None for message in messages):
                        break
            return found
        finally:
            consumer.close()

    def states(self) -> dict[int, PartitionState]:
        """Return the table, read back from its changelog."""
        states = {number: PartitionState() for number in range(PARTITIONS)}
        for message in self.read(f"{SERVICE}.counts-changelog"):
            states[message.partition() or 0].replay(message.key() or b"", message.value())
        return states

    def table(self) -> dict[str, Any]:
        return {
            key: json.loads(value.state)
            for state in self.states().values()
            for key, value in state.values.items()
            if key.startswith("key-")
        }

    def counted(self) -> Counter[str]:
        return Counter({key: entry["count"] for key, entry in self.table().items()})

    def outputs(self) -> list[dict[str, Any]]:
        codec = RecordCodec(COUNT)
        return [codec.decode(split(message.value())[1]) for message in self.read("counts")]

    def check_exact(self) -> None:
        """Every event is counted once; the outputs, each id once, are every step of every count."""
        table = self.table()
        assert {key: entry["count"] for key, entry in table.items()} == dict(self.sent)
        assert {key: entry["numbers"] for key, entry in table.items()} == dict(self.sums)
        totals = [
            json.loads(state.values["total"].state)
            for state in self.states().values()
            if "total" in state.values
        ]
        assert sum(totals) == sum(self.sent.values())
        by_id: dict[str, dict[str, Any]] = {}
        for output in self.outputs():
            assert by_id.setdefault(output["id"], output) == output, "one id, two contents"
        steps = Counter((output["key"], output["count"]) for output in by_id.values())
        assert steps == Counter(
            (key, step) for key, total in self.sent.items() for step in range(1, total + 1)
        )

    def check_ticks(self) -> int:
        """Every handled tick is counted once; return how many."""
        states = self.states()  # before the ticks: there may be more by then
        ticks = Counter(message.partition() for message in self.read(f"{SERVICE}.beat-ticks"))
        for number, state in states.items():
            counted = json.loads(state.values["ticks"].state) if "ticks" in state.values else 0
            handled = state.watermarks.get(f"{self.group}.beat-ticks", -1) + 1
            assert counted == handled <= ticks[number]
        return ticks.total()

    def check_dead_letters(self) -> None:
        """Each bad message is aside with its bytes; by identity once."""
        letters = {}
        for message in self.read("dead-letters"):
            origin = read_origin(message.headers() or [])
            assert origin is not None
            assert ("trace", b"t-1") in (message.headers() or [])
            assert letters.setdefault(origin.id, message.value()) == message.value()
        assert sorted(letters.values()) == sorted(self.bad)

    def skipped(self) -> int:
        """Return how often Faust had passed over records, which the ledger noticed."""
        lines = (line for log in (self.state / "logs").glob("*.log") for line in log.read_text().splitlines())
        return sum('"event":"crashed"' in line and "was passed over" in line for line in lines)

    def duplicates(self) -> int:
        outputs = self.outputs()
        return len(outputs) - len({output["id"] for output in outputs})
