"""The client for ordinary, blocking code."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx

from driftline.client.errors import ClientError
from driftline.client.exchange import (
    DEFAULT_EVENT_ID,
    Event,
    Exchange,
    Publication,
    Retries,
    Time,
    feature_rows_exchange,
    features_exchange,
    no_answer,
    predict_exchange,
    read_answer,
    read_feature_rows,
    read_features,
    read_prediction,
)
from driftline.client.live import LivePrediction, live_predictions
from driftline.client.results import EntityFeatures, PredictionAnswer, PublishResult, ServedView
from driftline.client.subscription import PredictionSubscription


class Client:
    """Publishes events, asks for predictions and features. Thread-safe; keeps its connections.

    ::

        with Client(ingest_url="http://127.0.0.1:8080") as client:
            client.publish("arrivals", {"dest": "BOS", "arrived_at": "2013-04-01T12:30:00Z"})
    """

    def __init__(
        self,
        *,
        ingest_url: str = "",
        predictor_url: str = "",
        retries: Retries | None = None,
        timeout: float = 15.0,
    ) -> None:
        self._ingest_url = ingest_url.rstrip("/")
        self._predictor_url = predictor_url.rstrip("/")
        self._retries = retries or Retries()
        self._http = httpx.Client(timeout=timeout)

    def publish(
        self, event_type: str, events: Event | Sequence[Event], *, event_id: str = DEFAULT_EVENT_ID
    ) -> PublishResult:
        """Publish one event or many; return when the broker has every accepted one.

        Times may be ``datetime`` with a time zone. An event without an id gets one; ``event_id`` names the field.

        Raises
        ------
        InvalidRequestError
            No event of a request is acceptable; ``results`` says why, event by event.
        NotFoundError
            There is no such event type.
        TryAgainError
            The events may not be published: call again with the same ids (``results`` has those that were made).
        """
        publication = Publication(self._ingest_url, event_type, events, event_id)
        for exchange in publication.exchanges:  # in turn: events of one key keep their order
            try:
                publication.take(self._send(exchange))
            except ClientError as error:
                publication.refuse(error)
        return publication.result()

    def predict(
        self,
        model: str,
        *,
        entities: Mapping[str, str],
        inputs: Mapping[str, float | str | None] | None = None,
        event_time: Time | None = None,
        request_id: str | None = None,
        caller: str | None = None,
    ) -> PredictionAnswer:
        """Ask a model. The answer is in the prediction log before it is returned.

        ``event_time`` is the instant that features are read as of: a ``datetime``, ISO 8601, or microseconds.
        The same ``request_id`` may be sent again; one is made where none is given.
        """
        exchange = predict_exchange(
            self._predictor_url,
            model,
            entities=entities,
            inputs=inputs,
            event_time=event_time,
            request_id=request_id,
            caller=caller,
        )
        return read_prediction(self._send(exchange))

    def features_of_many(
        self,
        views: Sequence[str],
        entities: Sequence[Mapping[str, str]],
        *,
        as_of: datetime | str | None = None,
    ) -> list[dict[str, ServedView]]:
        """Return several views of many entities, each with the keys that the views need, as of one instant."""
        exchange = feature_rows_exchange(self._predictor_url, views, entities, as_of)
        return read_feature_rows(self._send(exchange))

    def features(self, view: str, entity: str, *, as_of: datetime | str | None = None) -> EntityFeatures:
        """Return an entity's features in a view, now or as of an instant."""
        return read_features(self._send(features_exchange(self._predictor_url, view, entity, as_of)))

    def live_predictions(
        self,
        model: str,
        *,
        statuses: Sequence[str] = (),
        entities: Mapping[str, str] | None = None,
        sample: float = 1.0,
        since: str | None = None,
    ) -> Iterator[LivePrediction]:
        """Yield a model's predictions as they enter the log, for ever; a stream that breaks off is resumed.

        Parameters
        ----------
        statuses, entities, sample
            Only those: ``ANSWERED``, ``REFUSED`` or ``FAILED``; about these entities; a share of the requests.
        since
            The ``place`` of a prediction after which to go on; from now on if None.

        Raises
        ------
        NotFoundError
            There is no such model.
        BusyError, ServiceUnavailableError
            It stayed so after all retries.
        """
        return live_predictions(
            self._http,
            self._predictor_url,
            model,
            self._retries,
            statuses=statuses,
            entities=entities or {},
            sample=sample,
            since=since,
        )

    def subscribe(
        self, project: str, bootstrap: str, registry: str, **options: Any
    ) -> PredictionSubscription:
        """Return the prediction log of a project, to iterate over; see ``PredictionSubscription``."""
        return PredictionSubscription(project, bootstrap, registry, **options)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Return the client, to be closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    def _send(self, exchange: Exchange) -> Any:
        attempt = 0
        while True:
            attempt += 1
            try:
                return read_answer(self._http.request(**exchange.arguments))
            except httpx.TransportError as lost:
                failed: ClientError = no_answer(exchange, lost)
            except ClientError as error:
                failed = error
            time.sleep(self._retries.wait(attempt, failed))
