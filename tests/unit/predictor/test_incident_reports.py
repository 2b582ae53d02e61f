"""What a predictor saw is told again until the broker has it, under the same id. There is no broker here."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driftline.contracts.registry import SchemaRegistry
from driftline.models.life_log import LifeCodec
from driftline.project import load_project
from driftline.runtime.acknowledged_producer import AcknowledgedProducer
from driftline.runtime.errors import UnavailableError
from driftline.serving.rack import ModelRack
from driftline.serving.succession import Change
from services.predictor.incident_reports import IncidentReports
from tests.small_model import write_model

SHOP = Path(__file__).parents[2] / "e2e" / "shop"
NOBODY = "127.0.0.1:1"


class Asked:
    """A registry that is away until it is told to answer; every event that is encoded is kept."""

    away = True

    def __init__(self) -> None:
        self.encoded: list[tuple[str, str]] = []
        self.codec = LifeCodec(SchemaRegistry(f"http://{NOBODY}"), 1)
        encode = self.codec.encode

        def keep(event):  # type: ignore[no-untyped-def]
            self.encoded.append((event.kind.value, event.event_id))
            return encode(event)

        self.codec.encode = keep  # type: ignore[method-assign]

    def __call__(self) -> LifeCodec:
        if self.away:
            raise UnavailableError("the registry does not answer")
        return self.codec


@pytest.fixture
def producer() -> Iterator[AcknowledgedProducer]:
    producer = AcknowledgedProducer({"bootstrap.servers": NOBODY}, delivery_seconds=0.3)
    yield producer
    producer.close(0.1)


def wait(enough: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not enough():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_it_is_told_again_until_it_is_acknowledged(tmp_path: Path, producer: AcknowledgedProducer) -> None:
    project = load_project(SHOP)
    write_model(project, tmp_path)
    rack = ModelRack(tmp_path, project)
    asked = Asked()
    reports = IncidentReports(project, rack, producer, asked, topic="model-events", by="predictor a")
    reports.send()
    loaded = rack.get("fraud")
    assert loaded is not None
    rack.note(loaded, [Change(version="1", failing=True, reason="out of beans", answered_by="0")], 7)
    reports.send()
    assert (asked.encoded, rack.take_incidents()) == ([], [])
    asked.away = False
    reports.send()
    assert [kind for kind, _ in asked.encoded] == ["FAILING", "ROLL_BACK"]

    def again() -> bool:
        reports.send()
        return len(asked.encoded) >= 4

    wait(again)
    assert set(asked.encoded[2:4]) == set(asked.encoded[:2])
