"""The client for asyncio: the same calls, awaited."""

import asyncio
from collections.abc import Mapping, Sequence
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
from driftline.client.results import EntityFeatures, PredictionAnswer, PublishResult, ServedView
from driftline.client.subscription import PredictionSubscription


class AsyncClient:
    """Publishes events, asks for predictions and features. See ``Client`` for what the calls mean."""

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
        self._http = httpx.AsyncClient(timeout=timeout)

    async def publish(
        self, event_type: str, events: Event | Sequence[Event], *, event_id: str = DEFAULT_EVENT_ID
    ) -> PublishResult:
        """Publish one event or many; return when the broker has every accepted one."""
        publication = Publication(self._ingest_url, event_type, events, event_id)
        for exchange in publication.exchanges:  # in turn: events of one key keep their order
            try:
                publication.take(await self._send(exchange))
            except ClientError as error:
                publication.refuse(error)
        return publication.result()

    async def predict(
        self,
        model: str,
        *,
        entities: Mapping[str, str],
        inputs: Mapping[str, float | str | None] | None = None,
        event_time: Time | None = None,
        request_id: str | None = None,
        caller: str | None = None,
    ) -> PredictionAnswer:
        """Ask a model. The answer is in the prediction log before it is returned."""
        exchange = predict_exchange(
            self._predictor_url,
            model,
            entities=entities,
            inputs=inputs,
            event_time=event_time,
            request_id=request_id,
            caller=caller,
        )
        return read_prediction(await self._send(exchange))

    async def features_of_many(
        self,
        views: Sequence[str],
        entities: Sequence[Mapping[str, str]],
        *,
        as_of: datetime | str | None = None,
    ) -> list[dict[str, ServedView]]:
        """Return several views of many entities, each with the keys that the views need, as of one instant."""
        exchange = feature_rows_exchange(self._predictor_url, views, entities, as_of)
        return read_feature_rows(await self._send(exchange))

    async def features(
        self, view: str, entity: str, *, as_of: datetime | str | None = None
    ) -> EntityFeatures:
        """Return an entity's features in a view, now or as of an instant."""
        return read_features(await self._send(features_exchange(self._predictor_url, view, entity, as_of)))

    async def subscribe(
        self, project: str, bootstrap: str, registry: str, **options: Any
    ) -> PredictionSubscription:
        """Return the prediction log of a project, to iterate over with ``async for``."""
        return await asyncio.to_thread(PredictionSubscription, project, bootstrap, registry, **options)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Return the client, to be closed at the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    async def _send(self, exchange: Exchange) -> Any:
        attempt = 0
        while True:
            attempt += 1
            try:
                return read_answer(await self._http.request(**exchange.arguments))
            except httpx.TransportError as lost:
                failed: ClientError = no_answer(exchange, lost)
            except ClientError as error:
                failed = error
            await asyncio.sleep(self._retries.wait(attempt, failed))
