"""The shop of the end-to-end tests on the real servers, a model, and a predictor in this process."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from driftline.contracts.admin import create_topics
from driftline.contracts.project_schemas import prediction_request_schema, prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.contracts.wire import frame, split
from driftline.features.keys import blob_key, partition_of
from driftline.features.layout import ViewLayout
from driftline.features.update import apply_events
from driftline.project import Project, load_project
from driftline.runtime.health import Health
from driftline.runtime.http import BackgroundServer
from driftline.runtime.ids import new_id
from driftline.runtime.pipelined_redis import PipelinedRedis
from services.predictor.assembly import Predictor
from services.predictor.settings import PredictorSettings
from tests.small_model import write_model

SHOP = Path(__file__).parents[2] / "e2e" / "shop"
NOW_US = 1_750_000_000_000_000


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_model(load_project(SHOP), folder)
    return folder


@dataclass(kw_only=True)
class Shop:
    """The project, its topics and what can be done with them."""

    project: Project
    settings: PredictorSettings
    topics: Topics
    ids: dict[str, int]
    redis: Any
    producer: Producer = field(init=False)

    def __post_init__(self) -> None:
        config = {"bootstrap.servers": self.settings.kafka_bootstrap_servers}
        self.producer = Producer({**config, "partitioner": "murmur2_random"})

    def feed(self, events: list[dict[str, Any]]) -> None:
        """Put events into the online store, as the feature store would."""
        for view in self.project.views.values():
            layout = ViewLayout.of(view)
            states: dict[tuple[int, str], Any] = {}
            for event in events:
                place = (partition_of(event["customer"], 3), event[view.source.entity_field])
                state = states.setdefault(place, layout.empty(1))
                inputs = {
                    name: np.array([np.nan if event.get(name) is None else float(event[name])])
                    for name in layout.inputs
                }
                apply_events(layout, state, np.zeros(1, np.int64), np.array([event["paid_at"]]), inputs)
            for (partition, entity), state in states.items():
                key = blob_key(self.topics.prefix, "payments", partition, view.ref, entity)
                self.redis.set(key, state.tobytes())

    def request(self, **changes: Any) -> dict[str, Any]:
        """A good request as it stands on the topic."""
        good = {
            "request_id": new_id(),
            "model": "fraud",
            "requested_at": NOW_US,
            "event_time": NOW_US,
            "caller": "test",
            "customer": "c1",
            "merchant": "m1",
            "amount": 42.5,
        }
        return {**good, **changes}

    def ask_topic(self, *requests: dict[str, Any] | bytes | None) -> None:
        """Put requests (or raw bytes) on the topic."""
        codec = RecordCodec(prediction_request_schema(self.project))
        topic = self.topics.prediction_requests
        for request in requests:
            if isinstance(request, dict):
                value = frame(self.ids[topic], codec.encode(request))
                self.producer.produce(topic, value, request["request_id"])
            else:
                self.producer.produce(topic, request, b"raw")
        assert self.producer.flush(20) == 0

    def log(self, count: int, seconds: float = 30) -> dict[str, list[dict[str, Any]]]:
        """Wait for so many committed predictions; return them by request id."""
        codec = RecordCodec(prediction_schema(self.project))
        found: dict[str, list[dict[str, Any]]] = {}
        for message in self.read(self.topics.predictions, 2, count, seconds):
            record = codec.decode(split(message.value())[1])  # type: ignore[arg-type]
            assert message.key() == record["request_id"].encode()
            found.setdefault(record["request_id"], []).append(record)
        return found

    def read(self, topic: str, partitions: int, count: int, seconds: float = 30) -> list[Message]:
        """Wait for so many committed messages of a topic."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.kafka_bootstrap_servers,
                "group.id": "reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "log_level": 2,
            }
        )
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        found: list[Message] = []
        until = time.monotonic() + seconds
        while len(found) < count and time.monotonic() < until:
            found += [message for message in consumer.consume(1000, 0.2) if message.error() is None]
        # One more look: what should not be there would come now.
        found += [message for message in consumer.consume(1000, 0.5) if message.error() is None]
        consumer.close()
        assert len(found) == count
        return found


@pytest.fixture
def shop(
    tmp_path: Path, kafka: str, registry_url: str, redis_url: str, unique: str, models: Path
) -> Iterator[Shop]:
    project = load_project(SHOP)
    settings = PredictorSettings(
        kafka_bootstrap_servers=kafka,
        schema_registry_url=registry_url,
        redis_url=redis_url,
        project=SHOP,
        environment=unique,
        instance="predictor-0",
        state=tmp_path / "state",
        models=models,
    )
    topics = settings.topics(project)
    create_topics(settings.kafka_config(), project, topics)
    with SchemaRegistry(registry_url) as registry:
        ids = registry.register_project(project, topics)
    with redis.Redis.from_url(redis_url) as client:
        yield Shop(project=project, settings=settings, topics=topics, ids=ids, redis=client)


class Running:
    """A predictor that runs in threads of this process."""

    def __init__(self, settings: PredictorSettings, project: Project) -> None:
        self.health = Health("predictor", settings.instance)
        self.predictor = Predictor(settings, project, self.health)
        self._server = BackgroundServer(self.predictor.app)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self._server.start()}", timeout=30)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.predictor.run(self._stop)
        except BaseException as error:  # noqa: BLE001 - shown by stop()
            self._failure = error

    def wait_ready(self, seconds: float = 40) -> None:
        until = time.monotonic() + seconds
        while not self.health.ready:
            assert time.monotonic() < until, self.health.report()
            assert self._failure is None, self._failure
            time.sleep(0.05)

    def ask(self, model: str = "fraud", **body: Any) -> httpx.Response:
        return self.http.post(f"/v1/models/{model}/predictions", json=body)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        self._server.stop()
        self.predictor.close()
        self.http.close()
        if self._failure is not None:
            raise self._failure


@pytest.fixture(params=["on the event loop", "by the worker's thread"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Have plain requests predicted one way and the other; whether it is the event loop."""
    on_loop: bool = request.param == "on the event loop"
    if not on_loop:
        monkeypatch.setattr(PipelinedRedis, "takes", lambda _url: False)
    return on_loop


@pytest.fixture
def predictor(shop: Shop) -> Iterator[Running]:
    running = Running(shop.settings, shop.project)
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture
def payments() -> list[dict[str, Any]]:
    """Events of some customers and merchants over the hours before now."""
    random = np.random.default_rng(5)
    return [
        {
            "event_id": new_id(),
            "customer": f"c{random.integers(8)}",
            "merchant": f"m{random.integers(4)}",
            "paid_at": NOW_US - int(random.integers(1, 5 * 3_600_000_000)),
            "amount": None if random.random() < 0.1 else float(round(random.normal(60, 30), 2)),
            "refunded": bool(random.random() < 0.2),
        }
        for _ in range(200)
    ]
