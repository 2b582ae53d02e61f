"""Under more load than it bears, the predictor takes what it can answer within the time that a model's callers are promised."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest

from driftline.contracts.project_schemas import prediction_schema
from driftline.project import ServiceLevelRule, load_project
from driftline.runtime.clock import ManualClock
from driftline.serving.predict import PredictionEngine
from driftline.serving.rack import ModelRack
from driftline.serving.service_levels import ServiceLevels
from services.predictor.batching import HttpBatches
from tests.unit.predictor.harness import NOW_US, SHOP, Log, Store
from tests.unit.serving.test_predict import request

_BATCH, _BATCH_SECONDS = 4, 0.02


@dataclass
class SlowStore(Store):
    """A store that takes its time for each batch."""

    def read(self, requests: Any, as_of_us: Any) -> Any:
        time.sleep(_BATCH_SECONDS)
        return super().read(requests, as_of_us)


class Predictions:
    """Batches of a model whose callers are promised an answer within some time; None: nothing is promised."""

    def __init__(self, rack: ModelRack, latency_us: int | None) -> None:
        shop = load_project(SHOP)
        rule = None if latency_us is None else ServiceLevelRule(latency_us=latency_us)
        project = replace(shop, models={"fraud": replace(shop.models["fraud"], service_levels=rule)})
        self.store = SlowStore()
        self.store.open.set()
        self.levels = ServiceLevels({"fraud": rule} if rule else {}, now=time.monotonic)
        self.batches = HttpBatches(
            PredictionEngine(project, self.store, rack, ManualClock(NOW_US)),
            project,
            prediction_schema(project),
            7,
            Log(),  # type: ignore[arg-type]
            levels=self.levels,
            log="log",
            max_batch=_BATCH,
            max_waiting=1_000,
        )
        self.rows: list[Any] = []

    async def ask(self, number: int, in_bulk: int = 0) -> Counter[str]:
        """Ask so many times at once, behind rows of a bulk call; return how many were answered, and how many refused."""
        told: list[Any] = []
        refused = 0
        for _ in range(in_bulk):
            self.batches.ask(request(), self.rows.append, brought=False, in_bulk=True)
        for _ in range(number):
            if self.batches.sheds("fraud") is not None:
                refused += 1
            else:
                self.batches.ask(request(), told.append, brought=False)
        while len(told) + refused < number:
            await asyncio.sleep(0.001)
        return Counter([one["status"] for one in told] + ["refused"] * refused)


def play(rack: ModelRack, latency_us: int | None, *numbers: int) -> tuple[list[Counter[str]], Predictions]:
    """Ask some times at once, and again, each time when all are answered."""
    predictions = Predictions(rack, latency_us)

    async def story() -> list[Counter[str]]:
        return [await predictions.ask(number) for number in numbers]

    try:
        return asyncio.run(story()), predictions
    finally:
        predictions.batches.close()


def test_no_more_is_taken_than_can_be_answered_in_time(rack: ModelRack) -> None:
    # A batch takes at least 20 ms: of 200 ms half are five batches, of which the first is under way.
    (first, second, third), predictions = play(rack, 200_000, 2 * _BATCH, 200, 2 * _BATCH)
    assert first == third == {"ANSWERED": 2 * _BATCH}  # nothing is known at first, and at last nobody waits
    assert second.total() == 200
    assert 2 * _BATCH < second["ANSWERED"] <= 5 * _BATCH + 1
    availability, _ = predictions.levels.levels()
    assert (availability.requests, availability.good) == (
        200 + 4 * _BATCH,
        1 - second["refused"] / (200 + 4 * _BATCH),
    )


def test_two_batches_are_always_taken(rack: ModelRack) -> None:
    (_, second, _), _ = play(rack, 1_000, 2 * _BATCH, 50, 1)
    assert second == {"ANSWERED": 2 * _BATCH + 1, "refused": 49 - 2 * _BATCH}


def test_rows_of_a_bulk_call_count_for_nobody(rack: ModelRack) -> None:
    predictions = Predictions(rack, 1_000)

    async def story() -> list[Counter[str]]:
        return [await predictions.ask(2 * _BATCH), await predictions.ask(2 * _BATCH, in_bulk=100)]

    try:
        assert asyncio.run(story()) == [{"ANSWERED": 2 * _BATCH}] * 2
    finally:
        predictions.batches.close()
    assert len(predictions.rows) == 100


@pytest.mark.parametrize("latency_us", [None, 60_000_000])
def test_where_there_is_time_all_are_taken(rack: ModelRack, latency_us: int | None) -> None:
    (_, second), _ = play(rack, latency_us, 2 * _BATCH, 100)
    assert second == {"ANSWERED": 100}
