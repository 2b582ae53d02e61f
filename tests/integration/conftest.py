"""The real servers, started once per run: tests share them and keep apart by unique names."""

import gc
import uuid
from collections.abc import Iterator

import pytest

from driftline.embedded import EmbeddedStack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    with EmbeddedStack(tmp_path_factory.mktemp("stack")) as running:
        yield running
        gc.collect()  # clients of tests that failed would report for ever that the broker is gone


@pytest.fixture(scope="session")
def kafka(stack: EmbeddedStack) -> str:
    """The broker's address."""
    return stack.environment["KAFKA_BOOTSTRAP_SERVERS"]


@pytest.fixture(scope="session")
def registry_url(stack: EmbeddedStack) -> str:
    """The root of the registry's Confluent-compatible API."""
    return stack.environment["SCHEMA_REGISTRY_URL"]


@pytest.fixture(scope="session")
def redis_url(stack: EmbeddedStack) -> str:
    """The store's address."""
    return stack.environment["REDIS_URL"]


@pytest.fixture
def unique() -> str:
    """A name that no other test uses; good for projects, topics, groups and key prefixes."""
    return f"t{uuid.uuid4().hex[:10]}"
