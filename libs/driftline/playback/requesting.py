"""Send a step's prediction requests: most on the topic, every tenth over HTTP."""

import http.client
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson
from confluent_kafka import KafkaError, Message, Producer

from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame
from driftline.playback.errors import PlaybackError
from driftline.project import Project

_ATTEMPTS = 10
_TIMEOUT_SECONDS = 30.0


class TopicRequester:
    """Produces requests to the prediction-requests topic."""

    def __init__(self, config: Mapping[str, Any], topic: str, codec: RecordCodec, schema_id: int) -> None:
        self._producer = Producer(
            {
                **config,
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 0,
            }
        )
        self._topic, self._codec, self._schema_id = topic, codec, schema_id
        self._failures: list[str] = []

    def send(self, requests: Sequence[Mapping[str, Any]]) -> None:
        """Hand the requests to the producer; ``flush`` waits for the broker."""
        for request in requests:
            value = frame(self._schema_id, self._codec.encode(self._codec.from_json(request)))
            self._producer.produce(self._topic, value, request["request_id"], on_delivery=self._acknowledged)

    def flush(self) -> None:
        """Wait until the broker has acknowledged every request."""
        self._producer.flush(_TIMEOUT_SECONDS)
        if self._failures or len(self._producer):
            raise PlaybackError(f"Kafka did not take requests: {self._failures[:1] or 'time is up'}")

    def _acknowledged(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(str(error))


class HttpRequester:
    """Asks the predictor over one kept-alive connection and notes how long each answer took."""

    def __init__(self, predictor_url: str, project: Project) -> None:
        parts = urlsplit(predictor_url)
        self._connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port or 80, timeout=_TIMEOUT_SECONDS
        )
        self._entities = project.request_entities
        self._inputs = tuple(field.name for field in project.request_inputs)
        self.latencies_ms: list[float] = []
        self.resent = 0

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the answer to one request.

        Raises
        ------
        PlaybackError
            Where the predictor refuses, or stays unavailable.
        """
        body = orjson.dumps(
            {
                "request_id": request["request_id"],
                "event_time": request["event_time"],
                "entities": {name: request[name] for name in self._entities if request[name] is not None},
                "inputs": {name: request[name] for name in self._inputs if request[name] is not None},
            }
        )
        path = f"/v1/models/{request['model']}/predictions"
        for attempt in range(_ATTEMPTS):
            started = time.perf_counter()
            try:
                self._connection.request("POST", path, body, {"Content-Type": "application/json"})
                response = self._connection.getresponse()
                status, answer = response.status, response.read()
            except (http.client.HTTPException, OSError) as error:
                self._connection.close()
                status, answer = 503, str(error).encode()
            if status == 200:
                self.latencies_ms.append((time.perf_counter() - started) * 1e3)
                found: Mapping[str, Any] = orjson.loads(answer)
                return found
            if status not in (429, 503):
                break
            self.resent += 1
            time.sleep(min(0.1 * 2**attempt, 5.0))
        msg = f"the predictor answered {status} to {request['request_id']}: {answer[:500].decode(errors='replace')}"
        raise PlaybackError(msg)
