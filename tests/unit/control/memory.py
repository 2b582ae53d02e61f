"""Topics in memory, behind the ports of the control plane: a broker for tests that need none."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame, split
from driftline.control.context import Context, Incoming
from driftline.control.processing import Output, Processor
from driftline.control.routes import Handler, Route, avro_decoder
from driftline.control.tables import Tables
from driftline.runtime.errors import UnavailableError
from driftline.streaming.dead_letters import DeadLetterCeiling
from driftline.streaming.partitions import Partition

EVENTS, COUNTS, LETTERS, CHANGELOG = "p.events", "p.counts", "p.dead-letters", "p.counter.counts-changelog"
EVENT = {
    "type": "record",
    "name": "Event",
    "fields": [{"name": "key", "type": "string"}, {"name": "number", "type": "long"}],
}
COUNT = {
    "type": "record",
    "name": "Count",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "key", "type": "string"},
        {"name": "count", "type": "long"},
    ],
}
CODEC = RecordCodec(EVENT)


class Crash(BaseException):
    """The process dies here."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message in memory, read like a client's."""

    key_: bytes | None
    value_: bytes | None
    headers_: Sequence[tuple[str, bytes | None]] = ()

    def key(self) -> bytes | None:
        return self.key_

    def value(self) -> bytes | None:
        return self.value_


@dataclass(kw_only=True)
class MemoryBroker:
    """Takes what is sent; ``dies_at`` is the number of the write before which the process dies."""

    topics: dict[Partition, list[Stored]] = field(default_factory=dict)
    offsets: dict[Partition, int] = field(default_factory=dict)
    hidden: set[tuple[Partition, int]] = field(default_factory=set)
    ends: dict[Partition, int] = field(default_factory=dict)
    down: bool = False
    dies_at: int | None = None
    writes: int = 0

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        partition: int | None = None,
    ) -> None:
        self._write()
        self.topics.setdefault(Partition(topic, partition or 0), []).append(Stored(key, value, headers))

    async def append(self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        self._write()
        self.topics.setdefault(Partition(topic, partition), []).extend(Stored(*one) for one in records)

    def _write(self) -> None:
        if self.down:
            raise UnavailableError("the broker does not answer")
        if self.writes == self.dies_at:
            raise Crash
        self.writes += 1

    def committed(self, partition: Partition) -> int | None:
        return self.offsets.get(partition)

    def end(self, partition: Partition) -> int:
        if self.down:
            raise UnavailableError("the broker does not answer")
        return self.ends.get(partition, 1_000_000)

    def first_visible(self, partition: Partition, offset: int | None) -> int | None:
        found = (number for number in range(offset or 0, self.end(partition)))
        return next((number for number in found if (partition, number) not in self.hidden), None)

    def read_all(self, partition: Partition) -> Iterator[Any]:
        return iter(self.topics.get(partition, []))

    def outputs(self) -> list[dict[str, Any]]:
        codec = RecordCodec(COUNT)
        stored = self.topics.get(Partition(COUNTS, 0), [])
        return [codec.decode(split(one.value_)[1]) for one in stored]


async def count(record: dict[str, Any], context: Context) -> None:
    """Count each key's records, and all of them; say each new count."""
    new = context.table.get(record["key"], 0) + 1
    await context.send(COUNTS, record["key"], {"id": context.id_of(), "key": record["key"], "count": new})
    context.table.put(record["key"], new)
    context.table.put("all", context.table.get("all", 0) + 1)


def framed(key: str, number: int = 1) -> bytes:
    return frame(7, CODEC.encode({"key": key, "number": number}))


def incoming(offset: int, value: bytes | None, *, topic: str = EVENTS, partition: int = 0) -> Incoming:
    return Incoming(
        topic=topic,
        partition=partition,
        offset=offset,
        key=b"k",
        value=value,
        headers=(("trace", b"t-1"),),
        timestamp_ms=1_700_000_000_123,
    )


def make_processor(
    broker: MemoryBroker,
    handlers: Mapping[str, Handler] | None = None,
    *,
    table: str | None = "counts",
    ceiling: DeadLetterCeiling | None = None,
) -> Processor:
    """A processor of a process that has just started."""
    routes = {
        topic: Route(topic=topic, decode=avro_decoder(EVENT, lambda _: EVENT), handler=handler, table=table)
        for topic, handler in (handlers or {EVENTS: count}).items()
    }
    return Processor(
        routes,
        {COUNTS: Output(RecordCodec(COUNT), 9)},
        Tables(broker, broker, topic_of={"counts": CHANGELOG}),
        broker,
        dead_letters=LETTERS,
        ceiling=ceiling or DeadLetterCeiling(),
        service="counter",
        instance="counter-0",
    )
