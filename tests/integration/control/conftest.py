"""The counting service on the real servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.integration.control.harness import Counting


@pytest.fixture
def counting(kafka: str, registry_url: str, unique: str, tmp_path: Path) -> Iterator[Counting]:
    harness = Counting(kafka=kafka, registry_url=registry_url, prefix=f"control{unique}", state=tmp_path)
    harness.prepare()
    yield harness
    harness.stop()
    admin = AdminClient(harness.config)
    mine = [topic for topic in admin.list_topics(timeout=20).topics if topic.startswith(harness.prefix)]
    for future in admin.delete_topics(mine).values():
        future.result(20)
