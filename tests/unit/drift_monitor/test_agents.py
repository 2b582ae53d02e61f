"""Which signals there are does not depend on what comes first; windows wait for partitions that are only behind."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from driftline.control import Context
from driftline.control.context import Incoming
from driftline.control.tables import PartitionState, TableView
from driftline.models.model_reference import ModelReference, build_model_reference
from driftline.project import ModelDeclaration, MonitorRule, load_project
from services.drift_monitor.agents import OUTCOMES, PREDICTIONS, DriftAgents
from services.profiler.summaries import profiled_outcomes, profiled_predictions
from tests.unit.profiler.conftest import World
from tests.unit.profiler.conftest import model as declared
from tests.unit.profiler.test_summaries import DAY_US, table

SHOP = Path(__file__).parents[2] / "e2e" / "shop"
RULE = MonitorRule(alert_log_loss=0.01, retrain_log_loss=0.03, least_windows=1, damage_windows=2)
DAYS = 9
#: From this day on the world is another one, for three days.
SHIFTED = range(3, 6)


class Held:
    """References by version, as `ModelReferences` finds them."""

    def __init__(self, reference: ModelReference) -> None:
        self._reference = reference

    def find(self, _model: str, _version: str) -> ModelReference:
        return self._reference


class Monitor:
    """The agents with a table that is kept, and what they sent."""

    def __init__(self, model: ModelDeclaration, reference: ModelReference) -> None:
        project = replace(load_project(SHOP), models={model.name: model})
        self._agents = DriftAgents(project, Held(reference), signals="signals", reports="reports")  # type: ignore[arg-type]
        self._table = TableView(PartitionState())
        self.sent: dict[str, list[Mapping[str, Any]]] = {"signals": [], "reports": []}

    def take(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            asyncio.run(self._agents.on_profile(record, self._context()))

    def signals(self) -> list[tuple[Any, ...]]:
        return [
            (one["window_start"] // DAY_US, one["segment"], one["level"], one["damage_log_loss"])
            for one in self.sent["signals"]
        ]

    def _context(self) -> Context:
        async def send(topic: str, _key: str | bytes | None, record: Mapping[str, Any]) -> None:
            self.sent[topic].append(record)

        incoming = Incoming(
            topic="t", partition=0, offset=0, key=None, value=None, headers=(), timestamp_ms=1
        )
        return Context(incoming, send=send, table=self._table)


@pytest.fixture(scope="module")
def model() -> ModelDeclaration:
    return replace(declared.__wrapped__(), monitor=RULE)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def reference(model: ModelDeclaration) -> ModelReference:
    rows = World(0).rows(12_000)
    return build_model_reference(model, rows["numeric"], {"site": rows["site"]}, rows["score"], rows["label"])


def profiles(
    model: ModelDeclaration, reference: ModelReference
) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Yield each day's profiles of predictions and of outcomes."""
    world = World(5)
    for day in range(DAYS):
        rows = world.rows(1_500, shift=1.5 if day in SHIFTED else 0.0)
        labels = 1.0 - rows["label"] if day in SHIFTED else rows["label"].astype(float)
        times = np.full(1_500, day * DAY_US)
        batch = table(
            rows,
            times,
            kind=pa.array(["JOINED"] * 1_500),
            label=pa.array(labels),
            label_known_at=pa.array(times, pa.timestamp("us")),
            value=pa.array(np.ones(1_500)),
        )
        both = (
            (PREDICTIONS, profiled_predictions(batch, model, "1", reference)),
            (OUTCOMES, profiled_outcomes(batch, model, "1", reference)),
        )
        predictions, outcomes = (
            [record(kind, key.window, key.segment, one) for key, one in found] for kind, found in both
        )
        yield predictions, outcomes


def record(kind: str, start: int, segment: str, profile: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "model_version": "1",
        "kind": kind,
        "segment": segment,
        "window_start": start,
        "window_end": start + DAY_US,
        "rows": profile.rows,
        "data": profile.to_bytes(),
        "source": f"{kind}/0",
        "sources": 1,
        "watermark": start + RULE.grace_us,  # the day before is over, this one is not
        "quiet": False,
    }


def of(source: int, record: dict[str, Any]) -> dict[str, Any]:
    """Return a record as one of two partitions brings it."""
    return {**record, "source": f"{PREDICTIONS}/{source}", "sources": 2}


def quiet(source: int, record: dict[str, Any]) -> dict[str, Any]:
    """Return the mark that a partition of two is quiet."""
    mark = {"quiet": True, "rows": 0, "data": b"", "watermark": 0, "window_start": 0, "window_end": 0}
    return of(source, {**record, **mark})


def test_signals_are_the_same_whichever_half_of_a_day_comes_first(
    model: ModelDeclaration, reference: ModelReference
) -> None:
    first, second = Monitor(model, reference), Monitor(model, reference)
    for predictions, outcomes in profiles(model, reference):
        first.take([*predictions, *outcomes])
        second.take([*outcomes, *predictions])
    assert {level for _, _, level, _ in first.signals()} >= {"RETRAIN", "ALERT"}
    assert second.signals() == first.signals()


def test_outcomes_are_judged_though_predictions_have_ceased(
    model: ModelDeclaration, reference: ModelReference
) -> None:
    monitor = Monitor(model, reference)
    for _, outcomes in profiles(model, reference):
        monitor.take(outcomes)
    judged = {one["window_start"] for one in monitor.sent["reports"] if one["segment"] == ""}
    assert judged == {day * DAY_US for day in range(DAYS - 1)}


@pytest.fixture(scope="module")
def days(model: ModelDeclaration, reference: ModelReference) -> list[dict[str, Any]]:
    """Each day's profile of all predictions."""
    return [
        next(one for one in predictions if one["segment"] == "")
        for predictions, _ in profiles(model, reference)
    ]


def reported(monitor: Monitor) -> list[tuple[int, int]]:
    """Return (day, rows) of each report."""
    return [(one["window_start"] // DAY_US, one["rows"]) for one in monitor.sent["reports"]]


def test_a_window_waits_for_a_partition_that_nobody_has_read(
    model: ModelDeclaration, reference: ModelReference, days: list[dict[str, Any]]
) -> None:
    monitor = Monitor(model, reference)
    monitor.take([of(0, days[day]) for day in range(4)])
    assert reported(monitor) == []
    monitor.take([of(1, days[day]) for day in range(4)])
    assert reported(monitor) == [(0, 3_000), (1, 3_000), (2, 3_000)]


def test_a_quiet_partition_holds_no_window_until_it_brings_rows(
    model: ModelDeclaration, reference: ModelReference, days: list[dict[str, Any]]
) -> None:
    monitor = Monitor(model, reference)
    monitor.take([of(0, days[0]), of(0, days[1]), of(0, days[2])])
    assert reported(monitor) == []
    monitor.take([quiet(1, days[0])])
    assert reported(monitor) == [(0, 1_500), (1, 1_500)]
    monitor.take([of(0, days[3])])
    assert reported(monitor)[2:] == [(2, 1_500)]
    monitor.take([of(1, days[3]), of(0, days[4]), of(0, days[5])])
    assert reported(monitor)[3:] == []  # it stands on the fourth day
    monitor.take([of(1, days[5])])
    assert reported(monitor)[3:] == [(3, 3_000), (4, 1_500)]


def test_after_a_lull_of_all_no_partition_is_left_behind(
    model: ModelDeclaration, reference: ModelReference, days: list[dict[str, Any]]
) -> None:
    """The profiler was away; then it brings one partition's days first, and the other's next."""
    monitor = Monitor(model, reference)
    monitor.take([of(0, days[0]), of(1, days[0]), quiet(0, days[0]), quiet(1, days[0])])
    monitor.take([of(0, days[day]) for day in range(1, 5)])
    assert reported(monitor) == []
    monitor.take([of(1, days[day]) for day in range(1, 5)])
    assert reported(monitor) == [(0, 3_000), (1, 3_000), (2, 3_000), (3, 3_000)]


def test_a_lull_that_one_partition_ends_is_over_when_the_other_is_called_quiet_again(
    model: ModelDeclaration, reference: ModelReference, days: list[dict[str, Any]]
) -> None:
    monitor = Monitor(model, reference)
    monitor.take([of(0, days[0]), of(1, days[0]), quiet(0, days[0]), quiet(1, days[0])])
    monitor.take([of(0, days[1]), of(0, days[2]), quiet(1, days[0])])
    assert reported(monitor) == [(0, 3_000), (1, 1_500)]


def test_when_all_are_quiet_everything_was_read(
    model: ModelDeclaration, reference: ModelReference, days: list[dict[str, Any]]
) -> None:
    """Whichever is called quiet first: the one that brought the newest rows, or the other."""
    for first, second in ((0, 1), (1, 0)):
        monitor = Monitor(model, reference)
        monitor.take([of(0, days[0]), of(1, days[0]), of(0, days[1]), of(0, days[2])])
        assert reported(monitor) == []
        monitor.take([quiet(first, days[0]), quiet(second, days[0])])
        assert reported(monitor) == [(0, 3_000), (1, 1_500)]
