"""The flights project with a model, and the three services on the test run's servers."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from driftline.contracts.admin import create_topics
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.models.training import train
from driftline.playback.platform import Platform
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
def servers(kafka: str, registry_url: str, redis_url: str) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "SCHEMA_REGISTRY_URL": registry_url,
        "REDIS_URL": redis_url,
    }


@pytest.fixture
def platform(
    flights: Project, topics: Topics, servers: dict[str, str], tmp_path: Path, unique: str
) -> Iterator[Platform]:
    """Start the services with a model of two weeks; end them."""
    train(flights, "lateness", tmp_path / "models", start=date(2013, 3, 17), end=date(2013, 4, 1))
    kafka = {"bootstrap.servers": servers["KAFKA_BOOTSTRAP_SERVERS"]}
    create_topics(kafka, flights, topics)
    with SchemaRegistry(servers["SCHEMA_REGISTRY_URL"]) as registry:
        registry.register_project(flights, topics)
    environment = {
        **servers,
        "DRIFTLINE_PROJECT": str(FLIGHTS),
        "DRIFTLINE_ENVIRONMENT": unique,
        "DRIFTLINE_MODELS": str(tmp_path / "models"),
    }
    with Supervisor(tmp_path / "state", SERVICES, environment) as supervisor:
        supervisor.wait_ready(120)
        urls = {name: f"http://127.0.0.1:{supervisor.port(f'{name}-0')}" for name in SERVICES}
        yield Platform(
            kafka=kafka,
            registry_url=servers["SCHEMA_REGISTRY_URL"],
            redis_url=servers["REDIS_URL"],
            ingest_url=urls["ingest"],
            predictor_url=urls["predictor"],
            urls=list(urls.values()),
            watchdog=lambda: None,
        )
