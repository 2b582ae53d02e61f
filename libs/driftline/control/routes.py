"""What a service declares: which topic goes to which handler, which tables, which ticks, which outputs."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import split
from driftline.control.context import Context
from driftline.runtime.errors import BadMessageError, ConfigurationError

Handler = Callable[[dict[str, Any], Context], Awaitable[None]]
#: Turns a message's value into a record; BadMessageError where it is none. May block.
Decode = Callable[[bytes | None], dict[str, Any]]
#: Gives the schema of an id; BadMessageError for an unknown one. May block.
Resolve = Callable[[int], Mapping[str, Any]]

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,60}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """An input topic: how its values are read, who handles them, with which table."""

    topic: str
    decode: Decode
    handler: Handler
    table: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A timer: every ``seconds`` one record to each partition of ``topic``."""

    topic: str
    seconds: float
    table: str | None


@dataclass(slots=True, kw_only=True)
class Declarations:
    """Everything that a control app was told, checked as it is told."""

    group: str
    routes: dict[str, Route] = field(default_factory=dict)
    ticks: dict[str, Tick] = field(default_factory=dict)
    outputs: dict[str, RecordCodec] = field(default_factory=dict)

    def on(self, topic: str, decode: Decode, handler: Handler, table: str | None) -> None:
        """Add an input; ConfigurationError for a second handler of a topic or a bad table name."""
        if topic in self.routes:
            raise ConfigurationError(f"{self.group}: {topic} already has a handler; call both from one")
        if table is not None:
            _check_name("table", table)
        self.routes[topic] = Route(topic=topic, decode=decode, handler=handler, table=table)

    def tick(self, name: str, seconds: float, handler: Handler, table: str | None) -> None:
        """Add a timer; ConfigurationError for a second one of a name or a period that is no time."""
        _check_name("tick", name)
        if not seconds > 0:
            raise ConfigurationError(f"{self.group}: the tick {name!r} has a period of {seconds} s")
        topic = f"{self.group}.{name}-ticks"
        self.on(topic, decode_tick, handler, table)
        self.ticks[topic] = Tick(topic=topic, seconds=seconds, table=table)

    def sends(self, topic: str, schema: Mapping[str, Any]) -> None:
        """Add an output."""
        self.outputs[topic] = RecordCodec(schema)

    @property
    def inputs(self) -> list[str]:
        """Topics that others write."""
        return sorted(self.routes.keys() - self.ticks.keys())

    @property
    def changelogs(self) -> dict[str, str]:
        """Tables with the topics that keep them."""
        tables = sorted({route.table for route in self.routes.values() if route.table is not None})
        return {table: f"{self.group}.{table}-changelog" for table in tables}

    def partitions(self, found: Mapping[str, int]) -> dict[str, int]:
        """Return the partition counts of the app's own topics, from those of its inputs.

        Raises
        ------
        ConfigurationError
            Inputs of one table have different counts, so a key has no one partition; or a table has no input.
        """
        counts: dict[str, int] = {}
        for table, changelog in self.changelogs.items():
            sources = {topic: found[topic] for topic in self.inputs if self.routes[topic].table == table}
            if len(set(sources.values())) != 1:
                shown = ", ".join(f"{topic} ({count})" for topic, count in sources.items()) or "none"
                msg = (
                    f"the input topics of table {table!r} must exist and have equally many partitions, so that a key is "
                    f"always in the same one; there are {shown}. Give the streams the same count in schemas/topics.yaml"
                )
                raise ConfigurationError(msg)
            counts[changelog] = next(iter(sources.values()))
        for topic, tick in self.ticks.items():
            widest = max((found[one] for one in self.inputs), default=1)
            counts[topic] = widest if tick.table is None else counts[self.changelogs[tick.table]]
        return counts


def avro_decoder(schema: Mapping[str, Any], resolve: Resolve) -> Decode:
    """Return a strict decoder of framed Avro, whatever compatible schema a value was written with."""
    codec = RecordCodec(schema)

    def decode(value: bytes | None) -> dict[str, Any]:
        schema_id, body = split(value)
        return codec.decode(body, resolve(schema_id))

    return decode


def tick_record(at_us: int) -> bytes:
    """Return a tick's value: the time of its making, in microseconds since the epoch."""
    return orjson.dumps({"at_us": at_us})


def decode_tick(value: bytes | None) -> dict[str, Any]:
    """Return a tick as a record with ``at_us``."""
    try:
        found = orjson.loads(value or b"")
        return {"at_us": int(found["at_us"])}
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise BadMessageError(f"no tick: {error}") from error


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} cannot name a {what}: small letters, digits, _ and - only")
