"""The predictor put together from its settings; the only place where its clients are made."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from driftline.contracts.batch_codec import BatchDecoder, BatchEncoder
from driftline.contracts.project_schemas import (
    platform_schema,
    prediction_request_schema,
    prediction_schema,
)
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import MODEL_EVENTS, event_partitions
from driftline.features.online import TIMEOUT_SECONDS, OnlineStore
from driftline.features.store_connection import ReadConnection
from driftline.models.life_log import LifeCodec
from driftline.project import Project
from driftline.runtime.acknowledged_producer import AcknowledgedProducer
from driftline.runtime.clock import SystemClock
from driftline.runtime.errors import UnavailableError
from driftline.runtime.health import Health
from driftline.runtime.http import create_app
from driftline.runtime.logging import get_logger
from driftline.runtime.pipelined_redis import PipelinedRedis
from driftline.serving.bounded_reads import BoundedReads
from driftline.serving.predict import PredictionEngine
from driftline.serving.rack import ModelRack
from driftline.serving.service_levels import ServiceLevels
from driftline.serving.view_watch import ViewWatch
from driftline.streaming.kafka_sink import transactional_member
from driftline.streaming.loop import run_pipeline
from driftline.streaming.overlapped import Overlapped
from driftline.streaming.service import wait_for_schema, wait_for_topics
from services.predictor.api import PredictorState, predictor_routes
from services.predictor.batching import HttpBatches
from services.predictor.documentation import DESCRIPTION, TAGS
from services.predictor.endpoint import QuickPredictions
from services.predictor.feature_endpoint import QuickFeatures
from services.predictor.feature_reads import FeatureReads
from services.predictor.feature_rows import feature_rows_routes
from services.predictor.incident_reports import IncidentReports
from services.predictor.live import live_routes
from services.predictor.live_feed import LiveFeed
from services.predictor.loop_batches import LoopReads
from services.predictor.pipeline import SERVICE, PredictorPipeline
from services.predictor.repeats_assembly import DELIVERY_SHARE, repeats_of, topic_repeats_of
from services.predictor.settings import PredictorSettings

_log = get_logger(__name__)


class Predictor:
    """HTTP and stream over one set of models. Services start in any order, so it waits for what is not there yet.

    ``app`` answers 503 until ``run`` has reached the registry; ``run`` then goes on with the stream.
    """

    def __init__(self, settings: PredictorSettings, project: Project, health: Health) -> None:
        self._settings = settings
        self._project = project
        self._health = health
        self._topics = settings.topics(project)
        self._registry = SchemaRegistry(settings.schema_registry_url)
        self._watch = self._watch_views()
        self._watch.refresh()
        self._rack = ModelRack(settings.models, project, incomplete=self._watch.incomplete)
        self._store = self._connect_store()
        self.engine = PredictionEngine(project, self._store, self._rack)
        self._encoder: BatchEncoder | None = None
        self._producer: AcknowledgedProducer | None = None
        self._bounded: BoundedReads | None = None
        self._loop_redis: PipelinedRedis | None = None
        self._degrading = [name for name, model in project.models.items() if model.store.degrades]
        self._reports: IncidentReports | None = None
        # Connections of their own: the stream's large reads do not hold up a caller's small one.
        self._features = FeatureReads(
            self._connect_store(),
            project.views,
            max_batch=settings.max_http_batch,
            max_waiting=settings.max_waiting,
            incomplete=self._watch.incomplete,
        )
        self._state = PredictorState(project, self._features, self._rack, SystemClock())
        rules = {
            name: model.service_levels
            for name, model in project.models.items()
            if model.service_levels is not None
        }
        self._levels = ServiceLevels(rules, now=time.monotonic, degrading=self._degrading)
        health.show("service_levels", lambda: [level.as_json() for level in self._levels.levels()])
        self.app = create_app(
            title=f"driftline predictor: {project.name}",
            service=SERVICE,
            health=health,
            description=DESCRIPTION.strip(),
            deadline_seconds=settings.deadline_seconds,
            lifespan=self._lifespan,
            tags=TAGS,
        )
        self.app.include_router(predictor_routes(self._state))
        self.app.include_router(feature_rows_routes(self._state))
        self._live = LiveFeed(
            settings.kafka_config(),
            self._topics.predictions,
            project,
            self._registry.schema,
            max_listeners=settings.max_listeners,
        )
        self.app.include_router(live_routes(project, self._live))
        self.app.direct.finders += (QuickPredictions(self._state).find, QuickFeatures(self._state).find)
        health.set("http", ready=False, detail="waiting for the schema registry")

    def run(self, stop: threading.Event) -> None:
        """Open HTTP, then run the stream's loop until ``stop`` is set."""
        self._health.set("stream", ready=False)  # not ready by HTTP alone, before the loop says so itself
        topics = self._topics
        try:
            if self.open(stop) and wait_for_topics(
                self._settings.kafka_config(),
                (topics.prediction_requests, topics.predictions, topics.dead_letters),
                health=self._health,
                stop=stop,
                meanwhile=self._look_after,
            ):
                self.run_stream(stop)
        finally:
            self._live.close()  # who listens would hold up the server's end

    def open(self, stop: threading.Event) -> bool:
        """Wait for the registry, then take requests over HTTP; False where ``stop`` came first."""
        schema = prediction_schema(self._project)
        schema_id = wait_for_schema(
            self._registry,
            self._topics.subject(self._topics.predictions),
            schema,
            health=self._health,
            stop=stop,
            meanwhile=self._look_after,
        )
        if schema_id is not None:
            self._encoder = BatchEncoder(schema, schema_id)
            self._open_http(schema, schema_id)
        return schema_id is not None

    def close(self) -> None:
        """Answer what waits, wait for the log's acknowledgements. For after the server has stopped."""
        self._features.close()
        if self._state.batches is not None:
            self._state.batches.close()
        if self._bounded is not None:
            self._bounded.close()
        if self._producer is not None and (left := self._producer.close()):
            _log.warning("stopped with unacknowledged predictions; their callers were told", count=left)
        if self._state.batches is not None:
            self._state.batches.close_repeats()
        self._registry.close()
        self._watch.close()

    def _open_http(self, schema: Mapping[str, Any], schema_id: int) -> None:
        settings = self._settings
        self._producer = AcknowledgedProducer(
            settings.kafka_config(),
            delivery_seconds=settings.deadline_seconds * DELIVERY_SHARE,
            linger_ms=0,  # a batch of requests is sent at once; whatever comes meanwhile is the next
            requests_in_flight=1,
            health=self._health,
            on_fatal=lambda _reason: os.kill(os.getpid(), signal.SIGTERM),
        )
        repeats, reads = repeats_of(settings, self._project, self._topics, self._registry.schema)
        # A connection of its own: the stream's large reads do not hold up a caller's small one.
        store, models = self._connect_store(reads), self._project.models.values()
        if BoundedReads.wanted(models):
            self._bounded = BoundedReads(store, models)
        self._state.batches = HttpBatches(
            PredictionEngine(self._project, store, self._rack, bounded=self._bounded),
            self._project,
            schema,
            schema_id,
            self._producer,
            levels=self._levels,
            log=self._topics.predictions,
            max_batch=settings.max_http_batch,
            max_waiting=settings.max_waiting,
            repeats=repeats,
            on_loop=self._loop_reads(store),
        )
        self._reports = IncidentReports(
            self._project,
            self._rack,
            self._producer,
            self._life_codec,
            topic=self._topics.stream(MODEL_EVENTS),
            by=f"{SERVICE} {settings.instance}",
        )
        self._health.set("http", ready=True)

    def _loop_reads(self, store: OnlineStore) -> LoopReads | None:
        """Return what features are read with on the event loop; None where Redis is a cluster, or behind TLS."""
        if not PipelinedRedis.takes(self._settings.redis_url):
            return None
        self._loop_redis = PipelinedRedis(self._settings.redis_url, timeout_seconds=TIMEOUT_SECONDS)
        return LoopReads(store, self._loop_redis, self._bounded)

    @asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        yield
        if self._loop_redis is not None:
            self._loop_redis.close()
            await asyncio.sleep(0)  # until it is closed

    def _life_codec(self) -> LifeCodec:
        subject = self._topics.subject(self._topics.stream(MODEL_EVENTS))
        return LifeCodec(self._registry, self._registry.schema_id(subject, platform_schema("model_event")))

    def run_stream(self, stop: threading.Event, until: Callable[[], bool] = lambda: False) -> None:
        """Run the stream's loop until ``stop`` is set or ``until`` says so. For after ``open``."""
        settings, topics = self._settings, self._topics
        assert self._encoder is not None  # noqa: S101
        consumer, sink = transactional_member(settings, topics, [topics.prediction_requests], service=SERVICE)
        repeats = topic_repeats_of(settings, self._project, topics, self._registry.schema)
        pipeline = PredictorPipeline(
            self.engine,
            BatchDecoder(prediction_request_schema(self._project), self._registry.schema),
            self._encoder,
            sink,
            log=topics.predictions,
            ceiling=settings.ceiling(),
            look_after=self._look_after,
            repeats=repeats,
        )
        try:
            run_pipeline(consumer, Overlapped(pipeline), stop=stop, health=self._health, until=until)
        finally:
            sink.close()
            if repeats is not None:
                repeats.close()

    def _look_after(self) -> None:
        """Follow the active models and the views that are filled; report models and store."""
        self._watch.refresh()
        self._rack.refresh()
        troubles = self._rack.troubles
        missing = self._rack.missing
        faulty = missing.keys() - self._rack.withdrawn.keys()
        detail = "; ".join(f"{name}: {why}" for name, why in {**troubles, **missing}.items())
        self._health.set("models", ready=not faulty, detail=detail)
        if self._reports is not None:
            self._reports.send()
        try:
            self._store.applied_offsets(next(iter(self._project.event_types)))
        except UnavailableError as error:
            # Who answers without the store is not to be taken out of service with it.
            without = f"; answered without it: {', '.join(self._degrading)}" if self._degrading else ""
            self._health.set("store", ready=bool(self._degrading), detail=f"{error}{without}")
        else:
            self._health.set("store", ready=True)

    def _connect_store(self, connection: ReadConnection | None = None) -> OnlineStore:
        return OnlineStore(
            connection or self._settings.redis_url,
            prefix=self._topics.prefix,
            project=self._project,
            partitions=event_partitions(self._topics, self._project),
        )

    def _watch_views(self) -> ViewWatch:
        return ViewWatch(
            self._settings.redis_url,
            prefix=self._topics.prefix,
            project=self._project,
            partitions=event_partitions(self._topics, self._project),
        )
