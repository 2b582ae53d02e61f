"""The prediction log as a subscription: decoded records, in a ``for`` or an ``async for``."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from types import TracebackType
from typing import Any, Literal, Self

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from driftline.client.errors import ServiceUnavailableError
from driftline.client.results import LoggedPrediction
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.contracts.wire import split
from driftline.runtime.errors import BadMessageError

_HEADER = frozenset(field.name for field in dataclass_fields(LoggedPrediction)) - {"values"}
_AT_ONCE = 500
_POLL_SECONDS = 0.5


class PredictionSubscription:
    """Iterates over a project's predictions, only those of finished transactions.

    With a ``group``, its members share the partitions and its place is kept: a record counts as read once the
    next one is asked for, so after a crash the last record may come again, and none is missed. Without a group,
    every subscription gets all records ``since`` the ``"beginning"`` or from ``"now"``.

    Parameters
    ----------
    project, environment
        Whose predictions.
    bootstrap, registry
        Kafka brokers and the root of the registry's Confluent-compatible API.
    group, since
        See above. A new group starts at ``since``.
    idle_seconds
        End the iteration after so long without a record; None never ends it.
    kafka
        More settings of librdkafka, as for TLS and SASL.
    """

    def __init__(
        self,
        project: str,
        bootstrap: str,
        registry: str,
        *,
        environment: str = "",
        group: str | None = None,
        since: Literal["beginning", "now"] = "now",
        idle_seconds: float | None = None,
        kafka: Mapping[str, Any] | None = None,
    ) -> None:
        self._topic = Topics(project, environment).predictions
        self._registry = SchemaRegistry(registry)
        self._codecs: dict[int, RecordCodec] = {}
        self._group = group
        self._idle_seconds = idle_seconds
        self._waiting: deque[Message] = deque()
        self._read: Message | None = None
        self._closed = False
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group or f"driftline-subscription-{project}",
                "isolation.level": "read_committed",
                "enable.auto.commit": group is not None,
                "enable.auto.offset.store": False,  # a record is stored as read when the next one is asked for
                "auto.offset.reset": "earliest" if since == "beginning" else "latest",
                "log_level": 2,
                **(kafka or {}),
            }
        )
        if group is not None:
            self._consumer.subscribe([self._topic])
        else:
            self._assign_all(OFFSET_BEGINNING if since == "beginning" else OFFSET_END)

    def _assign_all(self, start: int) -> None:
        try:
            found = self._consumer.list_topics(self._topic, timeout=10).topics[self._topic]
        except KafkaException as error:
            self.close()
            raise ServiceUnavailableError(f"the broker does not answer: {error}") from error
        if found.error is not None:
            self.close()
            raise ServiceUnavailableError(f"{self._topic}: {found.error.str()}")
        places = [TopicPartition(self._topic, number, start) for number in found.partitions]
        if start == OFFSET_END:  # fixed here and now: what is written after this call is read
            places = [
                TopicPartition(
                    self._topic, place.partition, self._consumer.get_watermark_offsets(place, timeout=10)[1]
                )
                for place in places
            ]
        self._consumer.assign(places)

    def __iter__(self) -> Self:
        """Return the subscription."""
        return self

    def __next__(self) -> LoggedPrediction:
        """Return the next prediction; wait for it."""
        self._done()
        idle_since = time.monotonic()
        while not self._waiting:
            if self._closed:
                raise StopIteration
            self._fetch()
            if (
                not self._waiting
                and self._idle_seconds is not None
                and time.monotonic() - idle_since > self._idle_seconds
            ):
                raise StopIteration
        return self._take()

    def __aiter__(self) -> Self:
        """Return the subscription."""
        return self

    async def __anext__(self) -> LoggedPrediction:
        """Return the next prediction; wait for it without blocking the event loop."""
        if self._waiting and not self._closed:
            self._done()
            return self._take()
        try:
            return await asyncio.to_thread(self._next_or_end)
        except EOFError:
            raise StopAsyncIteration from None

    def _next_or_end(self) -> LoggedPrediction:
        try:
            return next(self)
        except StopIteration:  # may not pass through a future
            raise EOFError from None

    def _fetch(self) -> None:
        for message in self._consumer.consume(_AT_ONCE, _POLL_SECONDS):
            error = message.error()
            if error is None:
                self._waiting.append(message)
            elif error.fatal() or not error.retriable():
                raise ServiceUnavailableError(f"{self._topic}: {error.str()}")

    def _done(self) -> None:
        if self._read is not None and self._group is not None and not self._closed:
            self._consumer.store_offsets(self._read)
        self._read = None

    def _take(self) -> LoggedPrediction:
        message = self._waiting.popleft()
        self._read = message
        try:
            record = self._decode(message)
        except BadMessageError as error:
            place = f"{self._topic}/{message.partition()}/{message.offset()}"
            raise BadMessageError(f"{place}: {error.reason}", stage=error.stage) from error
        own = {name: value for name, value in record.items() if name not in _HEADER}
        return LoggedPrediction(**{name: record[name] for name in _HEADER if name in record}, values=own)

    def _decode(self, message: Message) -> dict[str, Any]:
        schema_id, body = split(message.value())
        if schema_id not in self._codecs:
            self._codecs[schema_id] = RecordCodec(self._registry.schema(schema_id))
        return self._codecs[schema_id].decode(body)

    def close(self) -> None:
        """Leave the group and close the connections. The record returned last does not count as read."""
        if not self._closed:
            self._closed = True
            self._consumer.close()
            self._registry.close()

    def __enter__(self) -> Self:
        """Return the subscription, to be closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return the subscription, to be closed at the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        await asyncio.to_thread(self.close)
