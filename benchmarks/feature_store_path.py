"""The feature store's exactly-once path, from the topic to Redis, as the service runs it."""

import threading
import time
from pathlib import Path

import redis

from driftline.features.keys import owner_key
from driftline.project import load_project
from driftline.runtime.health import Health
from services.feature_store.assembly import run_feature_store
from services.feature_store.settings import FeatureStoreSettings

PROJECT = Path(__file__).parent / "project"


def applied_per_second(environment: dict[str, str], rows: int, folder: Path = PROJECT) -> float:
    """Empty the store, apply a project's whole topic, return events a second between the first and the last batch."""
    project = load_project(folder)
    client = redis.Redis.from_url(environment["REDIS_URL"])
    client.flushdb()
    settings = FeatureStoreSettings.model_validate(
        {**environment, "DRIFTLINE_PROJECT": str(folder), "DRIFTLINE_INSTANCE": "feature_store-bench"}
    )
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            run_feature_store(settings, project, health=Health(), stop=stop)
        except BaseException as error:
            failures.append(error)
            raise

    worker = threading.Thread(target=work)
    worker.start()
    first: tuple[int, float] | None = None
    try:
        while True:
            owner = client.get(owner_key(project.name, "readings", 0))
            offset = int(owner.split(b"|")[1]) if isinstance(owner, bytes) else 0
            if offset and first is None:
                first = (offset, time.perf_counter())
            if first is not None and offset >= rows:
                return (offset - first[0]) / (time.perf_counter() - first[1])
            if failures:
                raise failures[0]
            time.sleep(0.001)
    finally:
        stop.set()
        worker.join(30)
