"""A model's live predictions over HTTP: server-sent events, read and resumed."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from driftline.client.errors import ClientError
from driftline.client.exchange import Exchange, Retries, needed, no_answer, read_answer, read_prediction
from driftline.client.results import PredictionAnswer

#: Longer than the service is ever silent.
_SILENCE_SECONDS = 45.0
_RETRY_MS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePrediction:
    """A prediction as it entered the log.

    ``place`` may be given to ``live_predictions`` as ``since``; ``missed_before`` is how many predictions were left out
    right before this one, for the listener was too slow or away for too long.
    """

    answer: PredictionAnswer
    entities: Mapping[str, str | None]
    channel: str
    error: str | None
    predicted_at: datetime
    place: str
    missed_before: int


@dataclass(slots=True)
class ServerEvent:
    """One event of a stream; ``kind`` is empty where there was only an id."""

    kind: str = ""
    data: str = ""
    id: str | None = None
    retry_ms: int | None = None


def server_events(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """Yield the events that lines hold; what is cut off at the end is left out.

    >>> list(server_events(["id: 7", "event: missed", 'data: {"missed":2}', ""]))
    [ServerEvent(kind='missed', data='{"missed":2}', id='7', retry_ms=None)]
    """
    event = ServerEvent()
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "" if not line:
                yield event
                event = ServerEvent()
            case "event":
                event.kind = value
            case "data":
                event.data = f"{event.data}\n{value}" if event.data else value
            case "id":
                event.id = value
            case "retry" if value.isdigit():
                event.retry_ms = int(value)
            case _:  # a comment
                pass


def live_predictions(
    http: httpx.Client,
    predictor_url: str,
    model: str,
    retries: Retries,
    *,
    statuses: Sequence[str],
    entities: Mapping[str, str],
    sample: float,
    since: str | None,
) -> Iterator[LivePrediction]:
    """Yield predictions as they come, for ever; a stream that ends is taken up again where it ended."""
    path = f"/v1/models/{quote(model, safe='')}/predictions/live"
    exchange = Exchange(method="GET", url=f"{needed(predictor_url, 'predictor_url')}{path}")
    asked: dict[str, str | float | Sequence[str]] = {
        "status": list(statuses),
        "entity": [f"{name}:{key}" for name, key in entities.items()],
        "sample": sample,
    }
    place, retry_ms, attempt, left_out = since, _RETRY_MS, 0, 0
    while True:
        headers = {"Last-Event-ID": place} if place else {}
        timeout = httpx.Timeout(_SILENCE_SECONDS)
        wait = retry_ms / 1_000
        try:
            with http.stream("GET", exchange.url, params=asked, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                    read_answer(response)
                for event in server_events(response.iter_lines()):
                    attempt, place = 0, event.id or place
                    retry_ms = event.retry_ms or retry_ms
                    if event.kind == "missed":
                        left_out += int(orjson.loads(event.data)["missed"])
                    elif event.kind == "prediction":
                        yield _read(orjson.loads(event.data), place or "", left_out)
                        left_out = 0
                wait = retry_ms / 1_000
        except httpx.TransportError as lost:
            attempt += 1
            wait = retries.wait(attempt, no_answer(exchange, lost))
        except ClientError as error:
            attempt += 1
            wait = retries.wait(attempt, error)
        time.sleep(wait)


def _read(told: Mapping[str, Any], place: str, left_out: int) -> LivePrediction:
    return LivePrediction(
        answer=read_prediction(told),
        entities=told["entities"],
        channel=told["channel"],
        error=told["error"],
        predicted_at=datetime.fromisoformat(told["predicted_at"]),
        place=place,
        missed_before=left_out,
    )
