"""The SDK for applications: publish events, ask for predictions and features, subscribe to the prediction log."""

from driftline.client.async_client import AsyncClient
from driftline.client.errors import (
    BusyError,
    ClientError,
    InvalidRequestError,
    NotFoundError,
    ServiceFaultError,
    ServiceUnavailableError,
    TryAgainError,
)
from driftline.client.event_publisher import EventPublisher
from driftline.client.exchange import Retries
from driftline.client.live import LivePrediction
from driftline.client.results import (
    EntityFeatures,
    EventResult,
    LoggedPrediction,
    PredictionAnswer,
    PublishResult,
    ServedView,
)
from driftline.client.subscription import PredictionSubscription
from driftline.client.sync_client import Client

__all__ = [
    "AsyncClient",
    "BusyError",
    "Client",
    "ClientError",
    "EntityFeatures",
    "EventPublisher",
    "EventResult",
    "InvalidRequestError",
    "LivePrediction",
    "LoggedPrediction",
    "NotFoundError",
    "PredictionAnswer",
    "PredictionSubscription",
    "PublishResult",
    "Retries",
    "ServedView",
    "ServiceFaultError",
    "ServiceUnavailableError",
    "TryAgainError",
]
