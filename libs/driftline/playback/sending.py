"""Send the planned events: whole ones to ingest over HTTP, damaged ones straight to Kafka."""

import http.client
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson
from confluent_kafka import KafkaError, Message, Producer

from driftline.playback.errors import PlaybackError

_LIST_LIMIT = 1_000
_ATTEMPTS = 20
_TIMEOUT_SECONDS = 60.0

#: A record as JSON has it.
Record = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Sent:
    """What was acknowledged so far, where the damaged ones lie, and the offsets that must be applied for all to count."""

    acknowledged: int = 0
    resent: int = 0
    damaged: set[tuple[str, int, int]] = field(default_factory=set)
    reached: dict[tuple[str, int], int] = field(default_factory=dict)

    def note(self, event_type: str, partition: int, offset: int) -> None:
        """Count one acknowledged message."""
        self.acknowledged += 1
        place = (event_type, partition)
        self.reached[place] = max(self.reached.get(place, 0), offset + 1)


class EventSender:
    """Publishes lists of events through ingest, one kept-alive connection per event type.

    All lists of a step are on their way before the first answer is read, so that a step waits for the
    slowest event type, not for their sum.
    """

    def __init__(self, ingest_url: str, event_types: Sequence[str], sent: Sent) -> None:
        parts = urlsplit(ingest_url)
        self._connections = {
            name: http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_TIMEOUT_SECONDS)
            for name in event_types
        }
        self._sent = sent

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()

    def send(self, events: Mapping[str, Sequence[Record]]) -> None:
        """Publish the events of a step and wait until the broker has acknowledged every one.

        Raises
        ------
        PlaybackError
            Where ingest rejects an event, or stays unavailable.
        """
        lists = {
            name: [records[low : low + _LIST_LIMIT] for low in range(0, len(records), _LIST_LIMIT)]
            for name, records in events.items()
        }
        for turn in range(max((len(chunks) for chunks in lists.values()), default=0)):
            waiting = {name: chunks[turn] for name, chunks in lists.items() if turn < len(chunks)}
            for attempt in range(_ATTEMPTS):
                waiting = self._exchange(waiting)
                if not waiting:
                    break
                self._sent.resent += sum(len(records) for records in waiting.values())
                time.sleep(min(0.1 * 2**attempt, 5.0))
            else:
                raise PlaybackError(f"ingest took no {' or '.join(waiting)} in {_ATTEMPTS} attempts")

    def _exchange(self, lists: Mapping[str, Sequence[Record]]) -> dict[str, Sequence[Record]]:
        """Post all lists, then read all answers; return the lists that have to be sent again."""
        again: dict[str, Sequence[Record]] = {}
        for name, records in lists.items():
            body = orjson.dumps(records)
            with suppress(http.client.HTTPException, OSError):  # reading the answer will fail, too
                self._connections[name].request(
                    "POST", f"/v1/events/{name}", body, {"Content-Type": "application/json"}
                )
        for name, records in lists.items():
            connection = self._connections[name]
            try:
                response = connection.getresponse()
                status, body = response.status, response.read()
            except (http.client.HTTPException, OSError):
                connection.close()
                again[name] = records
                continue
            if status in (429, 503):
                again[name] = records
            elif status != 202:
                raise PlaybackError(
                    f"ingest answered {status} to {name}: {body[:500].decode(errors='replace')}"
                )
            else:
                self._note(name, body)
        return again

    def _note(self, name: str, body: bytes) -> None:
        for result in orjson.loads(body)["results"]:
            if result["status"] != "accepted":
                raise PlaybackError(f"ingest rejected {name} {result.get('event_id')}: {result.get('error')}")
            self._sent.note(name, result["partition"], result["offset"])


class DamagedSender:
    """Produces values as they are, valid or not, and waits for their acknowledgement."""

    def __init__(self, config: Mapping[str, Any], sent: Sent) -> None:
        self._producer = Producer(
            {
                **config,
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 0,
            }
        )
        self._sent = sent

    def send(self, messages: Sequence[tuple[str, str, str, bytes | None]]) -> None:
        """Produce (event type, topic, key, value), and wait for all acknowledgements."""
        failures: list[str] = []
        for event_type, topic, key, value in messages:

            def acknowledged(
                error: KafkaError | None, message: Message, event_type: str = event_type
            ) -> None:
                if error is not None:
                    failures.append(str(error))
                    return
                partition, offset = message.partition() or 0, message.offset() or 0
                self._sent.damaged.add((message.topic() or "", partition, offset))
                self._sent.note(event_type, partition, offset)

            self._producer.produce(topic, value, key, on_delivery=acknowledged)
        self._producer.flush(_TIMEOUT_SECONDS)
        if failures or len(self._producer):
            raise PlaybackError(f"Kafka did not take damaged messages: {failures[:1] or 'time is up'}")
