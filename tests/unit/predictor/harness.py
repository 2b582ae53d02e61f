"""The predictor's application over HTTP, with a store without events and a log in memory that can be made to wait or to fail."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import split
from driftline.features import FeatureView
from driftline.features.layout import ViewLayout
from driftline.features.read import ViewValues, read_state
from driftline.runtime.acknowledged_producer import Acknowledgement, Sending
from driftline.runtime.errors import DriftlineError
from driftline.runtime.http import Application
from driftline.serving.service_levels import ServiceLevels
from services.predictor.batching import HttpBatches

SHOP = Path(__file__).parents[2] / "e2e" / "shop"
NOW_US = 1_750_000_000_000_000
PATH = "/v1/models/fraud/predictions"
GOOD: dict[str, Any] = {
    "entities": {"customer": "c1", "merchant": "m1"},
    "inputs": {"amount": 1.5},
    "event_time": NOW_US,
}


@dataclass
class Store:
    """A store without events, that can be made to wait or to fail."""

    open: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    failure: Exception | None = None
    rows: list[int] = field(default_factory=list)

    def read_each(
        self, requests: Sequence[tuple[FeatureView, Sequence[str], NDArray[np.int64]]]
    ) -> list[ViewValues]:
        return [self.read([(view, entities)], as_of_us)[0] for view, entities, as_of_us in requests]

    def read(
        self, requests: Sequence[tuple[FeatureView, Sequence[str | None]]], as_of_us: NDArray[np.int64]
    ) -> list[ViewValues]:
        self.entered.set()
        assert self.open.wait(20)
        self.rows.append(len(as_of_us))
        if self.failure is not None:
            raise self.failure
        layouts = [ViewLayout.of(view) for view, _ in requests]
        return [read_state(layout, layout.empty(len(as_of_us)), as_of_us) for layout in layouts]


@dataclass
class Log:
    """A log in memory. It acknowledges at once, or when it is told to."""

    prompt: bool = True
    failure: DriftlineError | None = None
    values: list[bytes] = field(default_factory=list)
    unacknowledged: list[Callable[[], object]] = field(default_factory=list)

    def send_together(self, topic: str, messages: Sequence[Sending]) -> None:
        for one in messages:
            if self.failure is None:
                assert one.value is not None
                self.values.append(one.value)
            outcome = self.failure or Acknowledgement(topic, 0, len(self.values))
            tell = partial(one.loop.call_soon_threadsafe, one.tell, outcome)
            if self.prompt:
                tell()
            else:
                self.unacknowledged.append(tell)


@dataclass
class Service:
    """The application with its batches, as the predictor puts them together."""

    app: Application
    batches: HttpBatches
    store: Store
    log: Log
    codec: RecordCodec
    levels: ServiceLevels
    port: int
    incomplete: dict[str, str] = field(default_factory=dict)

    def run(self, story: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        """Play a story with a client."""

        async def play() -> Any:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=30) as client:
                return await story(client)

        return asyncio.run(play())

    def ask(self, body: Any = GOOD, path: str = PATH, **headers: str) -> httpx.Response:
        """Ask once."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        found: httpx.Response = self.run(lambda client: client.post(path, json=body, headers=named))
        return found

    @property
    def logged(self) -> list[dict[str, Any]]:
        """The log's records."""
        return [self.codec.decode(split(value)[1]) for value in self.log.values]
