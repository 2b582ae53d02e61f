"""What is done with one record, whoever brings it: decode, handle, write the changes. Knows nothing of Faust.

1. A record that the table already includes is done: its outputs were acknowledged before its changes were written.
2. Decode, strictly. Handle. Each output is acknowledged before the handler goes on.
3. Write all its changes and the watermark in one step.
4. A bad message goes aside, acknowledged, in place of 3.

Ended between two steps, the record comes again and finds the table as it was, so the handler decides the same and
its outputs have the same ids.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from confluent_kafka import Message

from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame
from driftline.control.context import Context, Incoming
from driftline.control.outbox import Outbox
from driftline.control.routes import Route
from driftline.control.tables import Tables, TableView
from driftline.runtime import metrics
from driftline.runtime.errors import BadMessageError, ConfigurationError, LostOwnershipError
from driftline.runtime.logging import get_logger
from driftline.streaming.dead_letters import DeadLetterCeiling, count_dead_letters, dead_letter

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Output:
    """An output topic's codec and the id of its schema."""

    codec: RecordCodec
    schema_id: int


class Processor:
    """Handles records one after the other."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        outputs: Mapping[str, Output],
        tables: Tables,
        outbox: Outbox,
        *,
        dead_letters: str,
        ceiling: DeadLetterCeiling,
        service: str,
        instance: str,
    ) -> None:
        self._routes = routes
        self._outputs = outputs
        self._tables = tables
        self._outbox = outbox
        self._dead_letters = dead_letters
        self._ceiling = ceiling
        self._service = service
        self._instance = instance

    async def process(
        self, incoming: Incoming, *, generation: int, ours: Callable[[], bool] = lambda: True
    ) -> None:
        """Do everything that a record asks for; on return it counts as done.

        ``ours`` tells whether the partition is still this process's; it is asked before anything of the table is written.

        Raises
        ------
        LostOwnershipError
            It is not; nothing was written.
        DeadLetterCeilingError
            Too many messages are bad; this one was not set aside.
        """
        route = self._routes[incoming.topic]
        state = None
        if route.table is not None:
            state = await self._tables.state(route.table, incoming.partition, generation=generation)
            if state.includes(incoming.topic, incoming.offset):  # (1)
                _log.info("redelivered, included already", topic=incoming.topic, offset=incoming.offset)
                return
        view = None if state is None else TableView(state)
        context = Context(incoming, send=self._send, table=view)
        try:
            with metrics.STEP_SECONDS.labels("handle").time():
                record = await asyncio.to_thread(route.decode, incoming.value)  # (2)
                await route.handler(record, context)
        except BadMessageError as error:
            await self._set_aside(incoming, error)  # (4)
            return
        self._ceiling.check(total=1, bad=0)
        if state is None or view is None or route.table is None or not view.staged:
            return
        if not ours():
            raise LostOwnershipError(
                f"{incoming.topic}/{incoming.partition} moved to another process meanwhile"
            )
        with metrics.STEP_SECONDS.labels("commit").time():
            await self._tables.commit(  # (3)
                route.table,
                incoming.partition,
                state,
                topic=incoming.topic,
                offset=incoming.offset,
                view=view,
            )

    async def _send(self, topic: str, key: str | bytes | None, record: Mapping[str, Any]) -> None:
        output = self._outputs.get(topic)
        if output is None:
            raise ConfigurationError(
                f"{self._service} has not declared that it sends to {topic}: app.sends(...)"
            )
        try:
            value = frame(output.schema_id, output.codec.encode(record))
        except BadMessageError as error:
            raise ConfigurationError(f"a handler's record for {topic} {error.reason}") from error
        await self._outbox.send(topic, key=key.encode() if isinstance(key, str) else key, value=value)

    async def _set_aside(self, incoming: Incoming, error: BadMessageError) -> None:
        self._ceiling.check(total=1, bad=1)
        message = cast(Message, _AsMessage(incoming))
        letter = dead_letter(message, error, service=self._service, instance=self._instance)
        await self._outbox.send(
            self._dead_letters, key=letter.key, value=letter.value, headers=letter.headers
        )
        count_dead_letters([letter])
        _log.warning("dead letter", topic=incoming.topic, offset=incoming.offset, reason=error.reason)


class _AsMessage:
    """A record in the shape that ``dead_letter`` reads."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming

    def topic(self) -> str:
        return self._incoming.topic

    def partition(self) -> int:
        return self._incoming.partition

    def offset(self) -> int:
        return self._incoming.offset

    def key(self) -> bytes | None:
        return self._incoming.key

    def value(self) -> bytes | None:
        return self._incoming.value

    def headers(self) -> list[tuple[str, bytes | None]]:
        return list(self._incoming.headers)

    def timestamp(self) -> tuple[int, int]:
        return 1, self._incoming.timestamp_ms
