"""Requests and answers without the network: what both clients share."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from driftline.client.errors import (
    BusyError,
    ClientError,
    InvalidRequestError,
    NotFoundError,
    ServiceFaultError,
    ServiceUnavailableError,
)
from driftline.client.results import EntityFeatures, EventResult, PredictionAnswer, PublishResult, ServedView
from driftline.contracts import prediction_fields as fields
from driftline.runtime.ids import new_id

Event = Mapping[str, Any]
Time = datetime | int | str

#: Events of one request; longer lists become several requests.
EVENTS_PER_REQUEST = 1_000
DEFAULT_EVENT_ID = "event_id"
_AGAIN = frozenset({408, 429, 503})
_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_SERIALIZE_NUMPY
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often and how long a request is repeated that was answered 429 or 503, or not at all.

    Safe, for each repetition carries the same ids. ``Retry-After`` is honoured, up to ``longest_wait``.
    """

    attempts: int = 5
    first_wait: float = 0.1
    longest_wait: float = 10.0

    def wait(self, attempt: int, error: ClientError) -> float:
        """Return the seconds to wait after the given attempt, from 1; raise the error where that is no use."""
        if attempt >= self.attempts or not (error.status is None or error.status in _AGAIN):
            raise error
        backoff: float = self.first_wait * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.5)  # not all at once
        return min(max(backoff, error.retry_after or 0.0), self.longest_wait)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request, ready to be sent, and sent again."""

    method: str
    url: str
    body: bytes | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What ``httpx.Client.request`` takes."""
        if self.body is None:
            return {"method": self.method, "url": self.url}
        return {"method": self.method, "url": self.url, "content": self.body, "headers": _JSON}


class Publication:
    """A list of events on its way, request by request; ids are made here, so that a repetition has the same."""

    def __init__(
        self, ingest_url: str, event_type: str, events: Event | Sequence[Event], event_id: str
    ) -> None:
        many = [events] if isinstance(events, Mapping) else events
        identified = [event if event.get(event_id) else {**event, event_id: new_id()} for event in many]
        self._ids = [str(event[event_id]) for event in identified]
        self._results: list[EventResult] = []
        self._refusal: InvalidRequestError | None = None
        url = f"{needed(ingest_url, 'ingest_url')}/v1/events/{quote(event_type, safe='')}"
        self.exchanges = [
            Exchange(method="POST", url=url, body=_dump(identified[low : low + EVENTS_PER_REQUEST]))
            for low in range(0, len(identified), EVENTS_PER_REQUEST)
        ]

    def take(self, answer: Any) -> None:
        """Take the results of a request."""
        self._results += _event_results(answer)

    def refuse(self, error: ClientError) -> None:
        """Take a request's failure: go on where only its events are wrong, else raise it with all results."""
        if isinstance(error, InvalidRequestError):
            if not error.results:
                raise error
            self._results += error.results
            self._refusal = error
            return
        known = [*self._results, *error.results]
        rest = [
            EventResult(event_id=event_id, status="unknown", error=error.detail)
            for event_id in self._ids[len(known) :]
        ]
        error.results = (*known, *rest)
        raise error

    def result(self) -> PublishResult:
        """Return all results; raise InvalidRequestError where no event was accepted."""
        result = PublishResult(results=self._results)
        if self._refusal is not None and not result.accepted:
            self._refusal.results = tuple(self._results)
            raise self._refusal
        return result


def predict_exchange(
    predictor_url: str,
    model: str,
    *,
    entities: Mapping[str, str],
    inputs: Mapping[str, float | str | None] | None,
    event_time: Time | None,
    request_id: str | None,
    caller: str | None,
) -> Exchange:
    """Return the request for a prediction; its UUID is made here where there is none."""
    body = {
        fields.REQUEST_ID: request_id or new_id(),
        fields.EVENT_TIME: event_time,
        fields.CALLER: caller,
        "entities": entities,
        "inputs": inputs or {},
    }
    return Exchange(
        method="POST",
        url=f"{needed(predictor_url, 'predictor_url')}/v1/models/{quote(model, safe='')}/predictions",
        body=_dump({name: value for name, value in body.items() if value is not None}),
    )


def features_exchange(predictor_url: str, view: str, entity: str, as_of: datetime | str | None) -> Exchange:
    """Return the request for an entity's features."""
    url = f"{needed(predictor_url, 'predictor_url')}/v1/features/{quote(view, safe='')}/{quote(entity, safe='')}"
    if as_of is not None:
        text = as_of if isinstance(as_of, str) else _aware(as_of).isoformat()
        url += f"?as_of={quote(text, safe='')}"
    return Exchange(method="GET", url=url)


def feature_rows_exchange(
    predictor_url: str,
    views: Sequence[str],
    entities: Sequence[Mapping[str, str]],
    as_of: datetime | str | None,
) -> Exchange:
    """Return the request for several views of many entities."""
    body: dict[str, Any] = {"views": list(views), "entities": [dict(one) for one in entities]}
    if as_of is not None:
        body["as_of"] = as_of if isinstance(as_of, str) else _aware(as_of).isoformat()
    url = f"{needed(predictor_url, 'predictor_url')}/v1/features"
    return Exchange(method="POST", url=url, body=_dump(body))


def read_feature_rows(answer: Any) -> list[dict[str, ServedView]]:
    """Return what was served of each entity, by view."""
    return [{name: _served(view) for name, view in row["views"].items()} for row in answer["rows"]]


def read_prediction(answer: Any) -> PredictionAnswer:
    """Return a prediction's answer."""
    return PredictionAnswer(
        request_id=answer["request_id"],
        status=answer["status"],
        score=answer["score"],
        decision=answer["decision"],
        model=answer["model"],
        version=answer["version"],
        event_time=datetime.fromisoformat(answer["event_time"]),
        features={name: _served(view) for name, view in answer["features"].items()},
        degraded=answer.get("degraded"),
    )


def read_features(answer: Any) -> EntityFeatures:
    """Return an entity's features."""
    return EntityFeatures(
        view=answer["view"],
        entity=answer["entity"],
        as_of=datetime.fromisoformat(answer["as_of"]),
        served=_served(answer),
    )


def _served(view: Mapping[str, Any]) -> ServedView:
    return ServedView(
        version=view["version"],
        status=view["status"],
        age_ms=view["age_ms"],
        values=view["values"],
        defaults=tuple(view.get("defaults", ())),
    )


def read_answer(response: httpx.Response) -> Any:
    """Return the JSON of a success; raise the error that another answer means."""
    if response.is_success:
        return orjson.loads(response.content)
    try:
        problem = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        problem = None
    if not isinstance(problem, dict):  # not ours: a proxy's
        problem = {"detail": response.text[:500]}
    after = response.headers.get("Retry-After", "")
    raise _error_class(response.status_code)(
        problem.get("detail") or response.reason_phrase,
        status=response.status_code,
        problem=problem,
        results=_event_results(problem),
        retry_after=float(after) if after.isdigit() else None,
    )


def _event_results(answer: Mapping[str, Any]) -> list[EventResult]:
    return [EventResult(**result) for result in answer.get("results", ())]


def _error_class(status: int) -> type[ClientError]:
    if status == 429:
        return BusyError
    if status in _AGAIN:
        return ServiceUnavailableError
    if status == 404:
        return NotFoundError
    return ServiceFaultError if status >= 500 else InvalidRequestError


def no_answer(exchange: Exchange, error: httpx.TransportError) -> ServiceUnavailableError:
    """Return the error for a request that got no answer."""
    reason = str(error) or type(error).__name__
    failed = ServiceUnavailableError(f"{exchange.method} {exchange.url} got no answer: {reason}")
    failed.__cause__ = error
    return failed


def needed(url: str, name: str) -> str:
    """Return a client's URL; raise ValueError where it was not given."""
    if not url:
        msg = f"this call needs the client's {name}"
        raise ValueError(msg)
    return url


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=_default, option=_OPTIONS)
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error.__cause__ or error)) from error


def _default(value: Any) -> str:
    if isinstance(value, datetime):
        return _aware(value).isoformat()
    msg = f"{type(value).__name__} is no JSON value"
    raise TypeError(msg)


def _aware(time: datetime) -> datetime:
    if time.tzinfo is None:
        msg = f"{time.isoformat()} has no time zone; use datetime(..., tzinfo=UTC)"
        raise ValueError(msg)
    return time
