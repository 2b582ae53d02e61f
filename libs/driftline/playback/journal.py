"""What the topics hold after a play: events, dead letters and predictions, read back and decoded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from confluent_kafka import Message
from numpy.typing import NDArray

from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.playback.topic_reading import Positions, TopicReader
from driftline.project import Project
from driftline.streaming.dead_letters import read_origin

#: Topic, partition and offset of a message.
Place = tuple[str, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventJournal:
    """The messages of one event topic.

    ``applied`` are the first messages of each event id that are no dead letters, as columns of the event
    type's schema; ``duplicates`` counts the repeats, ``messages`` everything.
    """

    messages: int
    applied: pa.Table
    duplicates: int
    dead: frozenset[Place]


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """The topics of a project from the places where a play began to their ends; dead letters with their reasons."""

    events: Mapping[str, EventJournal]
    dead_letters: Mapping[Place, str]
    predictions: pa.Table
    undecodable_predictions: int


def read_journal(
    config: Mapping[str, Any], project: Project, topics: Topics, registry: SchemaRegistry, began: Positions
) -> Journal:
    """Read a project's topics from ``began`` to their ends, as a consumer of committed records sees them."""
    dead = _read_dead_letters(config, topics, began)
    events = {}
    for name, event_type in project.event_types.items():
        messages = _read(config, topics.events(name), began)
        decoder = BatchDecoder(dict(event_type.schema), registry.schema)
        events[name] = _event_journal(messages, decoder, event_type.event_id, dead)
    messages = _read(config, topics.predictions, began)
    decoded = BatchDecoder(prediction_schema(project), registry.schema).decode(_values(messages))
    return Journal(
        events=events,
        dead_letters=dead,
        predictions=pa.Table.from_batches([decoded.table]),
        undecodable_predictions=len(decoded.bad),
    )


def first_occurrences(values: Sequence[str]) -> NDArray[np.int64]:
    """Return the positions of the first occurrence of each value, ascending.

    >>> first_occurrences(["a", "b", "a"]).tolist()
    [0, 1]
    """
    seen: set[str] = set()
    positions = []
    for position, value in enumerate(values):
        if value not in seen:
            seen.add(value)
            positions.append(position)
    return np.array(positions, np.int64)


def _event_journal(
    messages: Sequence[Message], decoder: BatchDecoder, event_id: str, dead_letters: Mapping[Place, str]
) -> EventJournal:
    places = [_place(message) for message in messages]
    dead = dead_letters.keys() & set(places)
    alive = [position for position, place in enumerate(places) if place not in dead]
    decoded = decoder.decode([messages[position].value() for position in alive])
    # A message that cannot be decoded and is no dead letter is neither applied nor a duplicate: the counts will tell.
    table = pa.Table.from_batches([decoded.table])
    order = np.argsort(decoded.rows, kind="stable")
    table = table.take(pa.array(order))
    firsts = first_occurrences(table[event_id].to_pylist())
    return EventJournal(
        messages=len(messages),
        applied=table.take(pa.array(firsts)),
        duplicates=len(table) - len(firsts),
        dead=frozenset(dead),
    )


def _read_dead_letters(config: Mapping[str, Any], topics: Topics, began: Positions) -> dict[Place, str]:
    """Return all dead letters since the play began, each once however often it was written."""
    found = {}
    for message in _read(config, topics.dead_letters, began):
        origin = read_origin(_headers(message))
        if origin is not None:
            found[origin.topic, origin.partition, origin.offset] = origin.message
    return found


def _read(config: Mapping[str, Any], topic: str, began: Positions) -> list[Message]:
    with TopicReader(config, [topic], positions=began) as reader:
        return list(reader.read_to_end())


def _values(messages: Sequence[Message]) -> list[bytes | None]:
    return [message.value() for message in messages]


def _place(message: Message) -> Place:
    return message.topic() or "", message.partition() or 0, message.offset() or 0


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    return cast(list[tuple[str, bytes | None]], message.headers() or [])
