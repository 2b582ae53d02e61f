"""What goes out: every send is awaited until the broker has acknowledged it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]

from driftline.control.security import aiokafka_security
from driftline.runtime.errors import ConfigurationError, UnavailableError

Headers = Sequence[tuple[str, bytes | None]]

#: The broker's usual limit of a message.
_MAX_BYTES = 1_048_588
_MAX_CHANGES_BYTES = 1_000_000


class Outbox(Protocol):
    """Where a control app writes. Both methods return after the acknowledgement."""

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> None:
        """Send a message; UnavailableError where it was not acknowledged."""
        ...

    async def append(self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Append keys and values to a partition, all or none; UnavailableError where not acknowledged."""
        ...


class KafkaOutbox:
    """An idempotent producer on the event loop."""

    def __init__(self, bootstrap_servers: str, kafka_security: Mapping[str, str], *, client: str) -> None:
        self._settings: dict[str, Any] = {
            "bootstrap_servers": bootstrap_servers.split(","),
            "client_id": client,
            "acks": "all",
            "enable_idempotence": True,
            "linger_ms": 0,
            "request_timeout_ms": 20_000,
            "max_request_size": _MAX_BYTES,
            "max_batch_size": _MAX_CHANGES_BYTES,
            **aiokafka_security(kafka_security),
        }
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect; UnavailableError where the broker does not answer."""
        self._producer = AIOKafkaProducer(**self._settings)
        try:
            await self._producer.start()
        except KafkaError as error:
            raise UnavailableError(f"the broker does not answer: {error}") from error

    async def stop(self) -> None:
        """Disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> None:
        """Send a message and wait for its acknowledgement; UnavailableError where there is none."""
        try:
            await self._connected().send_and_wait(
                topic, value, key=key, partition=partition, headers=list(headers)
            )
        except KafkaError as error:
            raise UnavailableError(f"{topic} did not take a message: {error!r}") from error

    async def append(self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Append records as one batch, which the broker takes whole or not at all; ConfigurationError over 1 MB."""
        producer = self._connected()
        size = sum(len(key) + len(value or b"") for key, value in records)
        batch = producer.create_batch()
        taken = [batch.append(key=key, value=value, timestamp=None) for key, value in records]
        if size > _MAX_CHANGES_BYTES or None in taken:
            msg = f"{topic}: one event changes {size:,} bytes of state, {_MAX_CHANGES_BYTES:,} is the limit: keep less"
            raise ConfigurationError(msg)
        batch.close()
        try:
            await (await producer.send_batch(batch, topic, partition=partition))
        except KafkaError as error:
            raise UnavailableError(f"{topic} did not take a change: {error!r}") from error

    def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise UnavailableError("the producer is not started")
        return self._producer
