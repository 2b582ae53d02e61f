"""Each model is retrained by its own rule: its section of the project says what asks."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.topics import schemas_folder
from driftline.control import Context
from driftline.control.context import Incoming
from driftline.control.tables import PartitionState, TableView
from driftline.project import AskingLevel, Project, load_project
from driftline.runtime.durations import DAY_US
from services.retrain_trigger.agents import TriggerAgents
from tests.unit.models_life.market import day_us, write_market


def example(name: str, **changes: Any) -> dict[str, Any]:
    codec = RecordCodec(platform_schema(name))
    record = codec.from_json(json.loads((schemas_folder() / "examples" / f"{name}.json").read_text()))
    return codec.decode(codec.encode({**record, **changes}))


class Trigger:
    """The agents with a table that is kept, and the requests that they made."""

    def __init__(self, project: Project) -> None:
        self.agents = TriggerAgents(project, requests="market.retrain-requests")
        self.requests: list[Mapping[str, Any]] = []
        self.table = TableView(PartitionState())

    def signal(self, model: str, day: int, level: str) -> None:
        end = day_us(2024, 4, day)
        record = example("drift_signal", signal_id=f"s{day}", model=model, level=level, window_end=end)
        asyncio.run(self.agents.on_drift_signal(record, self._context()))

    def window(self, model: str, day: int, rows: int) -> None:
        record = example(
            "window_report",
            model=model,
            window_end=day_us(2024, 4, day),
            rows=rows,
            kind="OUTCOMES",
            segment="",
        )
        asyncio.run(self.agents.on_window_report(record, self._context()))

    @property
    def asked(self) -> list[tuple[str, str]]:
        return [(one["model"], one["cause"]) for one in self.requests]

    def _context(self) -> Context:
        async def send(topic: str, key: str | bytes | None, record: Mapping[str, Any]) -> None:
            assert (topic, key) == ("market.retrain-requests", record["model"])
            self.requests.append(record)

        incoming = Incoming(
            topic="t", partition=0, offset=0, key=None, value=None, headers=(), timestamp_ms=1
        )
        return Context(incoming, send=send, table=self.table)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One model asks at ALERT with a cooldown of a day, the other only by volume."""
    project = load_project(write_market(tmp_path / "market"))
    first, second = project.models["returns"], project.models["overfitted"]
    quick = replace(first.retrain, drift=AskingLevel.ALERT, cooldown_us=DAY_US)
    models = {
        "returns": replace(first, retrain=quick),
        "overfitted": replace(second, retrain=replace(second.retrain, drift=AskingLevel.NEVER, volume=100)),
    }
    return replace(project, models=models)


def test_the_level_and_the_cooldown_are_the_models_own(project: Project) -> None:
    trigger = Trigger(project)
    for model in ("returns", "overfitted", "unheard"):
        for day, level in [(1, "WARNING"), (2, "ALERT"), (4, "RETRAIN")]:
            trigger.signal(model, day, level)
    assert trigger.asked == [("returns", "DRIFT")] * 2


def test_the_volume_is_the_models_own(project: Project) -> None:
    trigger = Trigger(project)
    for model in ("returns", "overfitted"):
        trigger.window(model, 1, 60)
        trigger.window(model, 2, 60)
    assert trigger.asked == [("overfitted", "VOLUME")]
