"""A version that fails is answered for by the one before it within the same request, and the log says which and why."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from prometheus_client import REGISTRY

from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.project_schemas import prediction_request_schema
from driftline.models.bundle import load_bundle
from driftline.models.scoring import Scorer
from driftline.models.standing import activate
from driftline.project import BreakerRule, Project, load_project
from driftline.runtime.clock import ManualClock
from driftline.serving.breaker import BreakerState
from driftline.serving.incidents import Incident
from driftline.serving.predict import PredictionEngine
from driftline.serving.rack import ModelRack
from driftline.serving.time_limit import CallTimeoutError
from tests.small_model import write_model
from tests.unit.serving.test_predict import NOW_US, SHOP, Features, Rows, predict, request

Behaviour = Callable[[Scorer, NDArray[np.float64]], NDArray[np.float64]]
RULE = BreakerRule(window=6, least_calls=3, probes=2)


class World:
    """Versions 1, 2 and 3 of a model, of which 3 is active; what each does is set by a test. Time stands."""

    def __init__(self, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shop = load_project(SHOP)
        self.project: Project = replace(shop, models={"fraud": replace(shop.models["fraud"], breaker=RULE)})
        self.now = 0.0
        self.asked: list[str] = []
        self.does: dict[str, Behaviour] = {}
        for version in ("1", "2", "3"):
            write_model(self.project, models, version, seed=int(version))
        self.scorers = {
            version: Scorer(load_bundle(models / "fraud" / version)) for version in ("1", "2", "3")
        }
        self.rack = ModelRack(models, self.project, ManualClock(NOW_US + 5), lambda: self.now)
        self.engine = PredictionEngine(self.project, Features(), self.rack, ManualClock(NOW_US))
        self.schema = arrow_schema(prediction_request_schema(self.project))
        usual = Scorer.score

        def score(scorer: Scorer, numeric: Any, categorical: Any) -> NDArray[np.float64]:
            self.asked.append(scorer.manifest.version)
            scores = usual(scorer, numeric, categorical)
            behaviour = self.does.get(scorer.manifest.version)
            return scores if behaviour is None else behaviour(scorer, scores)

        monkeypatch.setattr(Scorer, "score", score)

    def predict(self, *asked: dict[str, Any]) -> Rows:
        return predict(self.engine, self.schema, *(asked or (request(),)))

    def break_down(self, version: str) -> None:
        """Have a version fail until its breaker opens."""
        self.does[version] = fails
        for _ in range(RULE.least_calls):
            self.predict()
        assert self.states()[version] is BreakerState.OPEN

    def states(self) -> dict[str, BreakerState]:
        loaded = self.rack.get("fraud")
        assert loaded is not None
        return {one.version: one.breaker.state for one in loaded.line}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield World(tmp_path, monkeypatch)


def fails(_scorer: Scorer, _scores: NDArray[np.float64]) -> NDArray[np.float64]:
    raise RuntimeError("out of beans")


def is_late(_scorer: Scorer, _scores: NDArray[np.float64]) -> NDArray[np.float64]:
    raise CallTimeoutError(2.0)


def test_the_version_before_answers_and_the_log_says_why(world: World) -> None:
    asked = [request(customer=f"fresh-{number}") for number in (10, 90)]
    world.does["2"] = lambda _, scores: scores
    for version in ("3", "2"):
        (before,) = (world.predict(*asked),) if version == "2" else ([],)
        world.does[version] = fails
        if version == "3":
            found = world.predict(*asked)
            assert [one["model_version"] for one in found] == ["2", "2"]
            assert {one["error"] for one in found} == {"fraud@3 failed: out of beans; fraud@2 answered"}
        else:
            found = world.predict(*asked)
            assert {one["model_version"] for one in before} == {"2"}
            assert {one["model_version"] for one in found} == {"1"}
            why = "fraud@3 failed: out of beans; fraud@2 failed: out of beans; fraud@1 answered"
            assert {one["error"] for one in found} == {why}
        assert {one["status"] for one in found} == {"ANSWERED"}
        assert all(one["score"] is not None and one["decision"] for one in found)


def test_the_scores_of_the_version_before_are_its_own(world: World) -> None:
    alone = world.predict(request(customer="fresh-60"))[0]
    world.does["3"] = fails
    (found,) = world.predict(request(customer="fresh-60"))
    world.does = {"3": fails, "2": fails}
    (oldest,) = world.predict(request(customer="fresh-60"))
    assert len({alone["score"], found["score"], oldest["score"]}) == 3
    assert (alone["error"], alone["model_version"]) == (None, "3")


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (is_late, "it took longer than 2 s"),
        (lambda _, scores: scores[:-1], "it gave scores of shape (2,) for 3 rows"),
        (lambda _, scores: np.column_stack([scores, scores]), "it gave scores of shape (3, 2) for 3 rows"),
    ],
)
def test_every_kind_of_failure_falls_back(world: World, behaviour: Behaviour, why: str) -> None:
    world.does["3"] = behaviour
    found = world.predict(request(), request(), request())
    assert {(one["status"], one["model_version"]) for one in found} == {("ANSWERED", "2")}
    assert {one["error"] for one in found} == {f"fraud@3 failed: {why}; fraud@2 answered"}


def test_only_the_rows_without_a_number_fall_back(world: World) -> None:
    world.does["3"] = lambda _, scores: np.where(np.arange(len(scores)) == 1, np.nan, scores)
    asked = [request(customer=f"fresh-{number}") for number in (10, 50, 90)]
    found = world.predict(*asked)
    assert [one["model_version"] for one in found] == ["3", "2", "3"]
    note = "fraud@3 gave a score that is no number; fraud@2 answered"
    assert [one["error"] for one in found] == [None, note, None]
    world.does = {"3": fails}
    assert found[1]["score"] == world.predict(*asked)[1]["score"]
    assert world.rack.take_incidents() == []


def test_where_nobody_can_answer_the_row_says_what_each_of_them_did(world: World) -> None:
    world.does = dict.fromkeys(("1", "2", "3"), fails)
    (found,) = world.predict()
    assert (found["status"], found["score"], found["model_version"]) == ("FAILED", None, "3")
    assert found["error"] == "; ".join(f"fraud@{version} failed: out of beans" for version in ("3", "2", "1"))


def test_a_broken_version_is_not_asked_on_every_request_and_comes_back_after_its_probes(world: World) -> None:
    world.break_down("3")
    world.asked.clear()
    found = [world.predict()[0] for _ in range(4)]
    assert world.asked == ["2"] * 4
    why = "fraud@3 is not asked: its breaker is open (out of beans); fraud@2 answered"
    assert {(one["model_version"], one["error"]) for one in found} == {("2", why)}
    world.now = 10.0
    (probe,) = world.predict()
    assert probe["error"] == "fraud@3 failed: out of beans; fraud@2 answered"
    del world.does["3"]
    world.now = 20.0
    assert [world.predict()[0]["model_version"] for _ in range(3)] == ["3", "3", "3"]
    assert world.states()["3"] is BreakerState.CLOSED


def test_those_passed_over_are_asked_where_nobody_else_can_answer(world: World) -> None:
    world.break_down("3")
    world.does = {"1": fails, "2": fails}
    (found,) = world.predict()
    assert (found["status"], found["model_version"]) == ("ANSWERED", "3")
    assert found["error"].endswith("fraud@1 failed: out of beans; fraud@3 answered")


def test_what_opened_and_who_answered_is_told_once(world: World) -> None:
    world.break_down("3")
    world.predict()
    (found,) = world.rack.take_incidents()
    assert found == Incident(
        model="fraud",
        version="3",
        reign="",
        champion=True,
        failing=True,
        reason="out of beans",
        answered_by="2",
        event_us=NOW_US,
        at_us=NOW_US + 5,
    )
    del world.does["3"]
    world.now = 10.0
    for _ in range(3):
        world.predict()
    (recovered,) = world.rack.take_incidents()
    assert (recovered.version, recovered.failing) == ("3", False)


def test_what_nobody_can_answer_names_nobody(world: World) -> None:
    world.does = dict.fromkeys(("1", "2", "3"), fails)
    for _ in range(RULE.least_calls):
        world.predict()
    assert {(one.version, one.answered_by, one.champion) for one in world.rack.take_incidents()} == {
        ("1", None, False), ("2", None, False), ("3", None, True),
    }  # fmt: skip


def test_a_slow_answer_stands_and_counts_as_a_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 5))
    monkeypatch.setattr("driftline.serving.succession.time.perf_counter", lambda: float(next(clock)))
    found = [world.predict()[0] for _ in range(RULE.least_calls)]
    assert {(one["model_version"], one["error"]) for one in found} == {("3", None)}
    assert world.states()["3"] is BreakerState.OPEN


def fallbacks() -> float:
    return REGISTRY.get_sample_value("driftline_model_fallbacks_total", {"model": "fraud"}) or 0.0


def test_only_answers_by_another_version_count_as_fallbacks(world: World) -> None:
    before = fallbacks()
    world.predict(request(), request())
    assert fallbacks() == before
    world.break_down("3")
    world.predict(request(), request())
    assert fallbacks() == before + RULE.least_calls + 2
    world.does = {"1": fails, "2": fails}
    world.predict()
    assert fallbacks() == before + RULE.least_calls + 2


def test_ten_thousand_rows_fall_back_in_one_call(world: World) -> None:
    world.does["3"] = lambda _, scores: np.where(np.arange(len(scores)) % 7 == 0, np.nan, scores)
    world.asked.clear()
    rows = [request(customer=f"fresh-{number % 90}") for number in range(10_000)]
    found = world.engine.predict(pa.RecordBatch.from_pylist(rows, schema=world.schema), "TOPIC")
    assert world.asked == ["3", "2"]
    versions = np.array(found.column("model_version").to_pylist())
    assert (versions == np.where(np.arange(10_000) % 7 == 0, "2", "3")).all()


def test_a_reloaded_line_keeps_its_breakers(world: World, tmp_path: Path) -> None:
    world.break_down("3")
    write_model(world.project, tmp_path, "4", seed=4)
    activate(tmp_path, "fraud", "3")
    world.rack.refresh()
    assert world.states() == {
        "3": BreakerState.OPEN,
        "4": BreakerState.CLOSED,
        "2": BreakerState.CLOSED,
    }
