"""A project with its topics and schemas on the real servers, and a terminal to type commands into."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from driftline.cli import contracts, dead_letters
from driftline.cli.publishing import publish, tail
from driftline.contracts.topics import Topics
from driftline.project import Project, load_project
from driftline.runtime.health import Health
from driftline.runtime.http import BackgroundServer
from driftline.runtime.settings import PlatformSettings
from services.ingest.assembly import build_app
from services.ingest.settings import IngestSettings

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"

Driftline = Callable[..., Result]


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
def settings(
    servers: dict[str, str], monkeypatch: pytest.MonkeyPatch, unique: str, tmp_path: Path
) -> PlatformSettings:
    """Set the environment that the commands read."""
    for name, value in {
        **servers,
        "DRIFTLINE_PROJECT": str(FLIGHTS),
        "DRIFTLINE_ENVIRONMENT": unique,
        "DRIFTLINE_STATE": str(tmp_path / "state"),
    }.items():
        monkeypatch.setenv(name, value)
    return PlatformSettings.from_environment()


@pytest.fixture
def driftline(settings: PlatformSettings) -> Driftline:
    app = typer.Typer()
    app.command()(publish)
    app.command()(tail)
    app.add_typer(dead_letters.app, name="dead-letters")
    app.add_typer(contracts.topics, name="topics")
    app.add_typer(contracts.schemas, name="schemas")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    return run


@pytest.fixture
def prepared(driftline: Driftline) -> None:
    """Create topics and register schemas, with the commands that do it."""
    for command in (("topics", "create"), ("schemas", "register")):
        result = driftline(*command)
        assert result.exit_code == 0, result.output


@pytest.fixture
def ingest(prepared: None, settings: PlatformSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    own = IngestSettings.from_environment()
    app = build_app(own, Health("ingest", own.instance))
    server = BackgroundServer(app, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.start()}"
    monkeypatch.setenv("DRIFTLINE_INGEST_URL", url)
    until = time.monotonic() + 30
    while httpx.get(f"{url}/readyz").status_code != 200 and time.monotonic() < until:
        time.sleep(0.1)
    yield url
    server.stop()
