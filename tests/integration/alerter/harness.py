"""The alerter as a process, on topics of its own, and what goes in and comes out."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client.parser import text_string_to_metric_families

from driftline.alerts.alert import Alert, AlertStatus
from driftline.alerts.inputs import ALERT_INPUT, Input, input_of
from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import ALERT_INPUTS, ALERTS, DEAD_LETTERS, DRIFT_SIGNALS, MODEL_EVENTS, Topics
from driftline.contracts.wire import frame, split
from driftline.playback.topic_reading import TopicReader
from driftline.runtime.processes import end, spawn, tail
from driftline.runtime.supervisor import is_ready
from tests.integration.alerter.receivers import wait_for

ROOT = Path(__file__).parents[3]
SHOP = ROOT / "tests" / "e2e" / "shop"
INSTANCE = "alerter-0"
_PARTITIONS = {DRIFT_SIGNALS: 2, MODEL_EVENTS: 1, ALERT_INPUTS: 2, ALERTS: 2, DEAD_LETTERS: 1}
_SCHEMAS: Mapping[str, dict[str, Any]] = {
    DRIFT_SIGNALS: platform_schema("drift_signal"),
    MODEL_EVENTS: platform_schema("model_event"),
    ALERT_INPUTS: ALERT_INPUT,
    ALERTS: platform_schema("alert"),
}


@dataclass(kw_only=True)
class Alerter:
    """One test's alerter. ``unique`` is the environment, the prefix of all its topics."""

    kafka: str
    registry_url: str
    unique: str
    state: Path
    settings: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None
    ids: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.topics = Topics("shop", self.unique)
        self.config = {"bootstrap.servers": self.kafka}
        self.admin = AdminClient(self.config)
        new = [NewTopic(self.topics.stream(name), count, 1) for name, count in _PARTITIONS.items()]
        for future in self.admin.create_topics(new).values():
            future.result(20)
        with SchemaRegistry(self.registry_url) as registry:
            for name, schema in _SCHEMAS.items():
                self.ids[name] = registry.register(Topics.subject(self.topics.stream(name)), schema)
        self.producer = Producer({**self.config, "partitioner": "murmur2_random", "linger.ms": 1})

    # The process

    def write_rules(self, *routes: Mapping[str, Any], **section: Any) -> None:
        content = {"alerts": {"grouping": "100ms", "routes": list(routes), **section}}
        self.rules.write_text(yaml.safe_dump(content))

    @property
    def rules(self) -> Path:
        return self.state / "alerts.yaml"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "SCHEMA_REGISTRY_URL": self.registry_url,
            "DRIFTLINE_PROJECT": str(SHOP),
            "DRIFTLINE_ENVIRONMENT": self.unique,
            "DRIFTLINE_STATE": str(self.state),
            "DRIFTLINE_LOG_FORMAT": "json",
            "DRIFTLINE_ALERTER_RULES": str(self.rules),
            **self.settings,
        }

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.launch()
        wait_for(self._ready, seconds=60, explain=self.explain)

    def launch(self) -> None:
        self.process = spawn(
            [sys.executable, "-P", "-m", "services.alerter"],
            environment={**os.environ, **self.environment, "DRIFTLINE_INSTANCE": INSTANCE},
            log=self.log,
        )

    def _ready(self) -> bool:
        try:
            written = json.loads((self.state / "run" / f"{INSTANCE}.json").read_text())
        except (OSError, ValueError):
            return False
        return self.process is not None and written["pid"] == self.process.pid and is_ready(written["port"])

    def metrics(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """Return what /metrics says of alerts: values by name and labels' values (in the order of their names)."""
        written = json.loads((self.state / "run" / f"{INSTANCE}.json").read_text())
        text = httpx.get(f"http://127.0.0.1:{written['port']}/metrics", trust_env=False).text
        return {
            (sample.name, tuple(sample.labels[name] for name in sorted(sample.labels))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """Stop it and return its exit code."""
        if self.process is None:
            return 0
        return end(self.process, patience=25)

    @property
    def log(self) -> Path:
        return self.state / "logs" / f"{INSTANCE}.log"

    def explain(self) -> str:
        return tail(self.log, 30)

    def remove_topics(self) -> None:
        found = self.admin.list_topics(timeout=20).topics
        mine = [topic for topic in found if topic.startswith(f"{self.unique}.")]
        for future in self.admin.delete_topics(mine).values():
            future.result(20)

    # What goes in

    def signal(self, signal_id: str, *, model: str = "fraud", level: str = "ALERT", **changes: Any) -> None:
        self._publish(DRIFT_SIGNALS, "drift_signal", signal_id=signal_id, model=model, level=level, **changes)

    def model_event(self, event_id: str, kind: str, **changes: Any) -> None:
        changes = {"model": "fraud", **changes}
        self._publish(MODEL_EVENTS, "model_event", event_id=event_id, kind=kind, **changes)

    def _publish(self, stream: str, name: str, **changes: Any) -> None:
        text = (ROOT / "schemas" / "examples" / f"{name}.json").read_text()
        codec = RecordCodec(_SCHEMAS[stream])
        record = {**codec.from_json(json.loads(text)), **changes}
        self.publish_bytes(stream, record["model"], frame(self.ids[stream], codec.encode(record)))

    def publish_bytes(self, stream: str, key: str, value: bytes) -> None:
        self.producer.produce(self.topics.stream(stream), key=key, value=value)
        assert self.producer.flush(20) == 0

    # What comes out

    def records(self, stream: str) -> list[dict[str, Any]]:
        codec = RecordCodec(_SCHEMAS[stream])
        with TopicReader(self.config, [self.topics.stream(stream)]) as reader:
            return [codec.decode(split(message.value())[1]) for message in reader.read_to_end()]

    def alerts(self) -> list[Alert]:
        return [Alert.from_record(record) for record in self.records(ALERTS)]

    def inputs(self) -> list[Input]:
        return [input_of(record) for record in self.records(ALERT_INPUTS)]

    def newest(self) -> dict[str, Alert]:
        return {alert.alert_id: alert for alert in self.alerts()}

    def wait_newest(
        self, status: AlertStatus, *, count: int = 1, told: int = 0, seconds: float = 30
    ) -> list[Alert]:
        """Wait until so many alerts have a status, and as many routes of it (at least) know; return them."""

        def found() -> list[Alert]:
            alerts = [
                one for one in self.newest().values() if one.status is status and len(one.notified) >= told
            ]
            return alerts if len(alerts) >= count else []

        alerts: list[Alert] = wait_for(found, seconds=seconds, explain=self.explain)
        return alerts

    def lines(self, name: str = "alerts.jsonl") -> list[dict[str, Any]]:
        path = self.state / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def dead_letters(self) -> int:
        with TopicReader(self.config, [self.topics.dead_letters]) as reader:
            return len(list(reader.read_to_end()))
