"""The alerter on the real servers, with somebody to tell."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.alerter.harness import Alerter
from tests.integration.alerter.receivers import SmtpServer, Webhook


@pytest.fixture
def alerter(kafka: str, registry_url: str, unique: str, tmp_path: Path) -> Iterator[Alerter]:
    harness = Alerter(kafka=kafka, registry_url=registry_url, unique=unique, state=tmp_path)
    yield harness
    harness.stop()
    harness.remove_topics()


@pytest.fixture
def smtp() -> Iterator[SmtpServer]:
    server = SmtpServer()
    yield server
    server.close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    server = Webhook().start()
    yield server
    server.close()
