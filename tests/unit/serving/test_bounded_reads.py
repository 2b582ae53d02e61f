"""Features in time or not at all: nobody waits longer than declared, and what is not the store's says so."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driftline.features import FeatureView
from driftline.features.layout import ViewLayout
from driftline.features.read import DEGRADED, FRESH, MISSING, ViewValues, read_state
from driftline.project import ModelDeclaration, Project, StoreRule, Unavailable, load_project
from driftline.runtime import metrics
from driftline.runtime.errors import UnavailableError
from driftline.serving.bounded_reads import BoundedReads, without_store

SHOP = Path(__file__).parents[2] / "e2e" / "shop"
AS_OF = np.array([1_750_000_000_000_000, 1_750_000_001_000_000], np.int64)
PAUSE = 0.25


class Store:
    """A store that answers, fails or waits, and counts who came."""

    def __init__(self) -> None:
        self.open, self.entered = threading.Event(), threading.Event()
        self.open.set()
        self.failure: Exception | None = None
        self.reads = 0

    def read(
        self, requests: Sequence[tuple[FeatureView, Any]], as_of_us: NDArray[np.int64]
    ) -> list[ViewValues]:
        self.reads += 1
        self.entered.set()
        assert self.open.wait(20)
        if self.failure is not None:
            raise self.failure
        return [
            ViewValues(
                values=np.full((len(as_of_us), len(view.features)), 7.0),
                age_us=np.full(len(as_of_us), 5, np.int64),
                status=np.full(len(as_of_us), FRESH, np.uint8),
            )
            for view, _ in requests
        ]


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(scope="module")
def project() -> Project:
    return load_project(SHOP)


def model(project: Project, wait_ms: int, name: str = "fraud", *, refuse: bool = False) -> ModelDeclaration:
    does = Unavailable.REFUSE if refuse else Unavailable.DEFAULTS
    return replace(
        project.models["fraud"], name=name, store=StoreRule(wait_us=wait_ms * 1_000, unavailable=does)
    )


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.open.set()


def asked(declared: ModelDeclaration) -> list[tuple[FeatureView, list[str | None]]]:
    return [(view, ["c1", "c2"]) for view in declared.views]


def test_while_the_store_answers_its_values_are_served(project: Project, store: Store) -> None:
    patient = model(project, 2_000)
    reads = BoundedReads(store, [patient])
    values, reason = reads.read(patient, asked(patient), AS_OF)
    assert reason is None
    assert [one.values.tolist() for one in values] == [[[7.0] * len(v.features)] * 2 for v in patient.views]


def test_without_the_store_an_entity_is_as_if_it_had_no_events(project: Project) -> None:
    for view in project.views.values():
        layout = ViewLayout.of(view)
        nothing = read_state(layout, layout.empty(2), AS_OF)
        found = without_store(view, AS_OF)
        assert found.values.tobytes() == nothing.values.tobytes()
        assert (found.age_us.tolist(), set(nothing.status.tolist())) == ([-1, -1], {MISSING})
        assert found.status.tolist() == [DEGRADED, DEGRADED]


def test_a_silent_store_is_waited_for_once_and_not_again_before_the_pause_is_over(
    project: Project, store: Store
) -> None:
    clock, hurried = Clock(), model(project, 20)
    reads = BoundedReads(store, [hurried], now=clock)
    store.open.clear()
    assert reads.read(hurried, asked(hurried), AS_OF)[1] == "the feature store did not answer within 20 ms"
    for _ in range(5):
        reason = reads.read(hurried, asked(hurried), AS_OF)[1]
        assert reason is not None
        assert "just now" in reason
    clock.seconds += PAUSE
    assert "within 20 ms" in str(reads.read(hurried, asked(hurried), AS_OF)[1])  # the probe
    assert store.reads == 1, "the second read waited for the first, and was taken back"


def test_it_is_asked_again_once_it_answers(project: Project, store: Store) -> None:
    clock, hurried = Clock(), model(project, 20)
    reads = BoundedReads(store, [hurried], now=clock)
    store.failure = UnavailableError("Redis is gone")
    before = metrics.PREDICTIONS_DEGRADED.labels("fraud")._value.get()
    assert reads.read(hurried, asked(hurried), AS_OF)[1] == "Redis is gone"
    store.failure = None
    assert "just now: Redis is gone" in str(reads.read(hurried, asked(hurried), AS_OF)[1])
    clock.seconds += PAUSE
    for _ in range(3):
        assert reads.read(hurried, asked(hurried), AS_OF)[1] is None
    assert metrics.PREDICTIONS_DEGRADED.labels("fraud")._value.get() - before == 4


def test_a_late_reply_is_nobodys_and_ends_the_trouble_only_where_it_was_in_the_models_time(
    project: Project, store: Store
) -> None:
    """The store answers in 80 ms: enough for the model that waits for a second, not for the one that waits for 20 ms."""
    clock = Clock()
    hurried, patient = model(project, 20, "abuse"), model(project, 1_000, refuse=True)
    reads = BoundedReads(store, [hurried, patient], now=clock)
    store.open.clear()
    assert reads.read(hurried, asked(hurried), AS_OF)[1] is not None
    clock.seconds += 0.08
    store.open.set()
    values, reason = reads.read(patient, asked(patient), AS_OF)
    assert (reason, values[0].values[0, 0], store.reads) == (None, 7.0, 2)
    assert "just now" in str(reads.read(hurried, asked(hurried), AS_OF)[1])


def test_who_must_not_do_without_is_refused(project: Project, store: Store) -> None:
    strict, lenient = model(project, 10, refuse=True), model(project, 10, "abuse")
    reads = BoundedReads(store, [strict, lenient])
    store.failure = UnavailableError("Redis is gone")
    with pytest.raises(UnavailableError, match="Redis is gone"):
        reads.read(strict, asked(strict), AS_OF)
    assert reads.read(lenient, asked(lenient), AS_OF)[1] == "Redis is gone"


def test_callers_in_a_hurry_get_defaults_and_do_not_speak_for_the_store(
    project: Project, store: Store
) -> None:
    unhurried = model(project, 1_900)
    reads = BoundedReads(store, [unhurried])
    store.open.clear()
    assert "within 5 ms" in str(reads.read(unhurried, asked(unhurried), AS_OF, 0.005)[1])
    assert "within 0 ms" in str(reads.read(unhurried, asked(unhurried), AS_OF, -3.0)[1])
    store.open.set()
    assert reads.read(unhurried, asked(unhurried), AS_OF)[1] is None


def test_a_model_that_refuses_is_not_hurried(project: Project, store: Store) -> None:
    strict = model(project, 1_900, refuse=True)
    assert BoundedReads(store, [strict]).read(strict, asked(strict), AS_OF, 0.0)[1] is None


def test_only_models_with_a_rule_of_their_own_need_it(project: Project) -> None:
    assert not BoundedReads.wanted(project.models.values())
    assert BoundedReads.wanted([*project.models.values(), model(project, 50, refuse=True)])
