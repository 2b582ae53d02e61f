"""The market with a champion and a challenger, on topics of the test's own."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from driftline.cli.models import app
from tests.integration.model_registry.market_life import Life, Prepared, copy_models, prepare
from tests.unit.models_life.market import day_us


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(tmp_path_factory.mktemp("prepared"), day_us(2024, 4, 10))


@pytest.fixture
def life(prepared: Prepared, kafka: str, registry_url: str, unique: str, tmp_path: Path) -> Iterator[Life]:
    copy_models(prepared.models, tmp_path / "models")
    made = Life(
        project=prepared.project,
        state=tmp_path,
        kafka=kafka,
        registry_url=registry_url,
        environment=unique,
    )
    yield made
    made.close()


_LOGGED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[")


@pytest.fixture
def models(life: Life, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": life.kafka,
        "SCHEMA_REGISTRY_URL": life.registry_url,
        "DRIFTLINE_PROJECT": str(life.project.folder),
        "DRIFTLINE_ENVIRONMENT": life.environment,
        "DRIFTLINE_STATE": str(life.state),
    }.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        # The registry's thread logs to the same stream.
        shown = "".join(line for line in result.stdout.splitlines(keepends=True) if not _LOGGED.match(line))
        return json.loads(shown) if "--json" in arguments else shown

    return run
