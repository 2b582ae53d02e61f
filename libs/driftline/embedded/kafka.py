"""Apache Kafka in KRaft mode: one process, broker and controller."""

import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from driftline.embedded.cache import ArtifactCache
from driftline.embedded.java import java, jvm_environment, jvm_flags
from driftline.embedded.part import Part
from driftline.embedded.ports import LOOPBACK, answers
from driftline.runtime.errors import UnavailableError

_FORMAT_SECONDS = 60

#: Settings beside addresses and folders; what is not here is Kafka's own.
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    # A mistyped topic is an error, not a new topic.
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    # A broker that starts again reads these topics whole before it serves groups and transactions. In small segments they
    # are compacted soon.
    "offsets.topic.segment.bytes": "1048576",
    "transaction.state.log.segment.bytes": "1048576",
    # After a kill the broker leads its partitions by what the metadata still says, and loads groups; once its old session
    # is over it is no leader for a moment, then loads them again. In Kafka 4.1 to 4.3 a first load that ends during
    # the second one makes the group coordinator serve what it has not read: offsets are gone, or go back. Between
    # two reads a load looks whether it is still wanted. So reads are small: by default one takes a whole partition.
    "offsets.load.buffer.size": "8192",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # A killed producer's open transaction holds read_committed consumers up: look for it every second.
    "transaction.max.timeout.ms": "900000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    # After a kill the controller refuses the broker until its old session is over (9 s by default).
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.min.session.timeout.ms": "1000",
    # Larger than our own limit, so that an oversized record meets it and becomes a dead letter.
    "message.max.bytes": "4194304",
    "replica.fetch.max.bytes": "4194304",
    "log.retention.check.interval.ms": "60000",
    "log.cleaner.threads": "1",
    "log.cleaner.dedupe.buffer.size": "16777216",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "num.recovery.threads.per.data.dir": "2",
}


class Kafka(Part):
    """The broker. Writes are not forced to the disk: they survive a killed process, not a power failure."""

    name: ClassVar[str] = "kafka"
    port_names: ClassVar[tuple[str, ...]] = ("kafka", "kafka_controller")
    patience: ClassVar[float] = 30.0

    def __init__(self, folder: Path, ports: Mapping[str, int], cache: ArtifactCache) -> None:
        super().__init__(folder, ports)
        self._cache = cache
        self._admin: AdminClient | None = None

    @property
    def bootstrap(self) -> str:
        """The broker's address."""
        return f"{LOOPBACK}:{self.ports['kafka']}"

    def prepare(self) -> None:
        """Write the settings; format the folder if this is the first start."""
        scratch = self.folder / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        controller = f"{LOOPBACK}:{self.ports['kafka_controller']}"
        addresses = {
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "log.dirs": _escaped(self.folder / "data"),
        }
        lines = [f"{name}={value}" for name, value in (_SETTINGS | addresses).items()]
        self._settings.write_text("\n".join(lines) + "\n")
        self._admin = None
        if not (self.folder / "data" / "meta.properties").exists():
            self._format()

    def _format(self) -> None:
        # Never a dash in front: it would be taken for an option.
        cluster = "k" + urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        command = [*self._jvm("-XX:TieredStopAtLevel=1"), "kafka.tools.StorageTool", "format"]
        result = subprocess.run(
            [*command, "--ignore-formatted", "--cluster-id", cluster, "--config", self._settings],
            capture_output=True,
            text=True,
            env=jvm_environment(),
            timeout=_FORMAT_SECONDS,
            check=False,
        )
        if result.returncode:
            msg = f"Kafka could not format {self.folder}: {result.stderr.strip() or result.stdout.strip()}"
            raise UnavailableError(msg)

    def command(self) -> list[str | Path]:
        """Run the broker."""
        return [*self._jvm(), "kafka.Kafka", self._settings]

    def _jvm(self, *more: str) -> list[str | Path]:
        return [
            java(),
            *jvm_flags(heap="512m", scratch=self.folder / "tmp", archive=self._cache.archive(self.name)),
            *more,
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
            # Some classes look for Log4j's API, which has no back end here.
            "-Dlog4j2.loggerContextFactory=org.apache.logging.log4j.simple.SimpleLoggerContextFactory",
            "-cp",
            self._cache.kafka_class_path,
        ]

    @property
    def _settings(self) -> Path:
        return self.folder / "server.properties"

    def ready(self) -> bool:
        """Whether the broker answers with metadata that names itself."""
        if not answers(self.ports["kafka"]):
            return False
        if self._admin is None:
            quiet: dict[str, Any] = {
                "log_level": 0,
                "error_cb": lambda _error: None,
                "socket.timeout.ms": 5000,
            }
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap, **quiet})
        try:
            metadata = self._admin.list_topics(timeout=2)
        except KafkaException:
            return False
        ready = bool(metadata.brokers) and metadata.controller_id >= 0
        if ready:
            self._admin = None  # its threads would go on looking for the broker
        return ready

    @property
    def environment(self) -> dict[str, str]:
        """Return the bootstrap servers."""
        return {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap}


def _escaped(path: Path) -> str:
    """Return a path as a Java properties value."""
    return str(path).replace("\\", "\\\\")
