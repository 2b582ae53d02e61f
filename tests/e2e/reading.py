"""Read everything back the way a careful auditor would: committed records only, and the store's own bytes.

The tests of a package share their topics, and each looks at all that is in them. So nothing is read or replayed twice.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import redis
from confluent_kafka import Consumer, TopicPartition

from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import split
from driftline.features import FeatureView
from driftline.features.keys import blob_key
from driftline.features.layout import ViewLayout
from driftline.features.update import apply_events

#: A process that was killed in a transaction and does not come back leaves it open until the broker aborts it.
_OPEN_SECONDS = 120


def end_offsets(bootstrap: str, topic: str, partitions: int) -> dict[int, int]:
    consumer = _uncommitted(bootstrap)
    ends = _ends(consumer, topic, partitions)
    consumer.close()
    return ends


def _uncommitted(bootstrap: str) -> Consumer:
    """A consumer that is told where partitions end, be it committed or not."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "audit",
            "isolation.level": "read_uncommitted",
            "log_level": 2,
        }
    )


def _ends(consumer: Consumer, topic: str, partitions: int) -> dict[int, int]:
    return {
        p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=20)[1] for p in range(partitions)
    }


class Record(NamedTuple):
    """A committed record and where it lies."""

    partition: int
    value: dict[str, Any]


class Journal:
    """The committed records of a topic: they never change, so each look reads on from where the last one ended."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, codec: RecordCodec) -> None:
        self._bootstrap, self._topic, self._codec = bootstrap, topic, codec
        self._uncommitted = _uncommitted(bootstrap)
        self._records: list[Record] = []
        self._ends = dict.fromkeys(range(partitions), 0)

    def records(self) -> list[Record]:
        """All of them up to now, each partition's in its order; open transactions are waited for."""
        ends = _ends(self._uncommitted, self._topic, len(self._ends))
        until = time.monotonic() + _OPEN_SECONDS
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "audit",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
            }
        )
        consumer.assign([TopicPartition(self._topic, *place) for place in self._ends.items()])
        read = dict.fromkeys(ends, -1)
        while any(read[partition] < end for partition, end in ends.items()):
            assert time.monotonic() < until, f"{self._topic}: read {read}, the partitions end at {ends}"
            for message in consumer.consume(10_000, 0.1):
                partition = message.partition() or 0
                if message.error() is not None:  # the end of what is committed
                    read[partition] = message.offset() or 0
                    continue
                self._records.append(Record(partition, self._codec.decode(split(message.value())[1])))
                self._ends[partition] = (message.offset() or 0) + 1
        consumer.close()
        return self._records

    def values(self) -> list[dict[str, Any]]:
        """The records of all partitions, without where they lie."""
        return [record.value for record in self.records()]

    def ends(self) -> dict[int, int]:
        """The offset after each partition's last record: a transaction's marker may follow it, which nobody consumes."""
        self.records()
        return dict(self._ends)


class Replay:
    """What a sequential replay of a topic leaves of a view: each entity's events in their order, one after the other.

    Entities do not depend on each other, so the first new events of all of them are applied in one call, then the
    second ones, and so on.
    """

    def __init__(self, view: FeatureView) -> None:
        self._source, self._layout = view.source, ViewLayout.of(view)
        self._state = self._layout.empty(0)
        self._rows: dict[tuple[int, str], int] = {}
        self._read = 0
        self._seen: set[str] = set()

    def blobs(self, records: list[Record]) -> dict[tuple[int, str], bytes]:
        """The bytes of (partition, entity) after these records, of which the first ones are those of the last call."""
        turns: list[list[tuple[int, dict[str, Any]]]] = []
        times = dict.fromkeys(self._rows.values(), 0)
        for partition, event in records[self._read :]:
            if event["event_id"] in self._seen:
                continue
            self._seen.add(event["event_id"])
            row = self._rows.setdefault((partition, event[self._source.entity_field]), len(self._rows))
            turn = times.setdefault(row, 0)
            times[row] += 1
            if turn == len(turns):
                turns.append([])
            turns[turn].append((row, event))
        self._read = len(records)
        self._state = np.concatenate([self._state, self._layout.empty(len(self._rows) - len(self._state))])
        for events in turns:
            self._apply(events)
        return {key: self._state[row].tobytes() for key, row in self._rows.items()}

    def _apply(self, events: list[tuple[int, dict[str, Any]]]) -> None:
        """Apply at most one event of each entity."""
        rows = np.array([row for row, _ in events])
        when = [round(event[self._source.event_time].timestamp() * 1_000_000) for _, event in events]
        inputs = {
            name: np.array([np.nan if event[name] is None else float(event[name]) for _, event in events])
            for name in self._layout.inputs
        }
        apply_events(self._layout, self._state, rows, np.array(when, dtype=np.int64), inputs)


def stored(
    client: "redis.Redis", prefix: str, view: FeatureView, keys: Iterable[tuple[int, str]]
) -> dict[tuple[int, str], bytes | None]:
    keys = list(keys)
    names = [
        blob_key(prefix, view.source.event_type, partition, view.ref, entity) for partition, entity in keys
    ]
    return dict(zip(keys, client.mget(names), strict=True))


def differences(
    expected: Mapping[tuple[int, str], bytes], found: Mapping[tuple[int, str], bytes | None]
) -> list[tuple[int, str]]:
    return [key for key, value in expected.items() if found[key] != value]
