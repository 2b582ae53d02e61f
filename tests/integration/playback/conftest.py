"""The flights project with a model, and the three services on the test run's servers."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from driftline.contracts.admin import create_topics
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.models.training import train
from driftline.playback.demonstration import Platform
from driftline.project import Project, load_project
from driftline.runtime.supervisor import Supervisor

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"
SERVICES = ("ingest", "feature_store", "predictor")


@pytest.fixture
def flights() -> Project:
    return load_project(FLIGHTS)


@pytest.fixture
def topics(flights: Project, unique: str) -> Topics:
    return Topics(flights.name, unique)


@pytest.fixture
def platform(
    flights: Project,
    topics: Topics,
    kafka: str,
    registry_url: str,
    redis_url: str,
    tmp_path: Path,
    unique: str,
) -> Iterator[Platform]:
    """Start the services with a model of two weeks; end them."""
    train(flights, "lateness", tmp_path / "models", start=date(2013, 3, 17), end=date(2013, 4, 1))
    create_topics({"bootstrap.servers": kafka}, flights, topics)
    with SchemaRegistry(registry_url) as registry:
        registry.register_project(flights, topics)
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "SCHEMA_REGISTRY_URL": registry_url,
        "REDIS_URL": redis_url,
        "DRIFTLINE_PROJECT": str(FLIGHTS),
        "DRIFTLINE_ENVIRONMENT": unique,
        "DRIFTLINE_MODELS": str(tmp_path / "models"),
    }
    with Supervisor(tmp_path / "state", SERVICES, environment) as supervisor:
        supervisor.wait_ready(120)
        urls = {name: f"http://127.0.0.1:{supervisor.port(f'{name}-0')}" for name in SERVICES}
        yield Platform(
            kafka={"bootstrap.servers": kafka},
            registry_url=registry_url,
            redis_url=redis_url,
            ingest_url=urls["ingest"],
            predictor_url=urls["predictor"],
            urls=list(urls.values()),
            watchdog=lambda: None,
        )
