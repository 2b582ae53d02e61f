"""Builds ingest's application from its settings; the only place where its clients are made."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from driftline.contracts.registry import SchemaRegistry
from driftline.project import load_project
from driftline.runtime.acknowledged_producer import AcknowledgedProducer
from driftline.runtime.clock import SystemClock
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.runtime.health import Health
from driftline.runtime.http import create_app
from driftline.runtime.logging import get_logger
from services.ingest.api import DESCRIPTION, TAGS, IngestState, ingest_routes
from services.ingest.event_channel import open_channels
from services.ingest.settings import IngestSettings

_log = get_logger(__name__)
_RETRY_SECONDS = 1.0


def build_app(settings: IngestSettings, health: Health) -> FastAPI:
    """Return the application. It connects when it starts, and waits for what is not there yet.

    Raises
    ------
    ConfigurationError
        The project cannot be loaded.
    """
    project = load_project(settings.project)
    topics = settings.topics(project)
    state = IngestState(project, topics, max_events=settings.max_events)

    async def open_when_possible() -> None:
        with SchemaRegistry(settings.schema_registry_url) as registry:
            while state.channels is None:
                try:
                    state.channels = await asyncio.to_thread(
                        open_channels, project, topics, registry, SystemClock()
                    )
                except (UnavailableError, ConfigurationError) as error:
                    # Services start in any order: the schemas may be registered a moment later.
                    health.set("registry", False, str(error))
                    await asyncio.sleep(_RETRY_SECONDS)
        health.set("registry", True)
        _log.info("ready for events", event_types=sorted(state.channels))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        health.set("registry", False, "no answer yet")
        state.producer = AcknowledgedProducer(
            settings.kafka_config(),
            max_in_flight=settings.max_in_flight,
            delivery_seconds=settings.delivery_seconds,
            health=health,
            on_fatal=lambda _reason: os.kill(os.getpid(), signal.SIGTERM),
        )
        opening = asyncio.create_task(open_when_possible())
        try:
            yield
        finally:
            health.stop()
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            left = await asyncio.to_thread(state.producer.close)
            if left:
                _log.warning("stopped with unacknowledged events; their callers were told", count=left)

    app = create_app(
        title=f"driftline ingest: {project.name}",
        service="ingest",
        health=health,
        description=DESCRIPTION.strip(),
        max_body_bytes=settings.max_body_bytes,
        deadline_seconds=settings.deadline_seconds,
        lifespan=lifespan,
        tags=TAGS,
    )
    app.include_router(ingest_routes(state))
    return app
