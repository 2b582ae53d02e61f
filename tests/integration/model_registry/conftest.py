"""The market with a champion and a challenger, on topics of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

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
