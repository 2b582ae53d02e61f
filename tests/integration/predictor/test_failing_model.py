"""A version that fails is answered for, told to `model-events` with the wish to roll back; out of service says so."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import MODEL_EVENTS
from driftline.models.life_log import LifeLog
from driftline.models.model_event import Kind, ModelEvent
from driftline.models.scoring import Scorer
from driftline.models.standing import Arm, Pinned, Split, Standing, read_standing, write_standing
from tests.integration.predictor.conftest import Running, Shop
from tests.small_model import write_model

GOOD = {"entities": {"customer": "c1", "merchant": "m1"}, "inputs": {"amount": 1.5}}


@pytest.fixture
def own(shop: Shop, tmp_path: Path) -> Shop:
    """The shop with a folder of models of its own, in which version 2 came after version 1."""
    models = Path(shutil.copytree(shop.settings.models, tmp_path / "models"))
    write_model(shop.project, models, "2", seed=5)
    shop.settings = shop.settings.model_copy(update={"models": models})
    return shop


@pytest.fixture
def predictor(own: Shop) -> Iterator[Running]:
    running = Running(own.settings, own.project)
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


def told(shop: Shop, enough: Callable[[list[ModelEvent]], bool]) -> list[ModelEvent]:
    until = time.monotonic() + 20
    with (
        SchemaRegistry(shop.settings.schema_registry_url) as registry,
        LifeLog(shop.settings.kafka_config(), shop.topics.stream(MODEL_EVENTS), registry) as log,
    ):
        found = log.read_to_end()
        while not enough(found) and time.monotonic() < until:
            found += log.poll(0.2)
    assert enough(found)
    return found


def test_the_version_before_answers_and_the_log_of_models_hears_of_it(
    own: Shop, predictor: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Scorer.score

    def fail(self: Scorer, *given: object) -> object:
        if self.manifest.version == "2":
            raise RuntimeError("out of beans")
        return score(self, *given)  # type: ignore[arg-type]

    assert predictor.ask(**GOOD).json()["version"] == "2"
    monkeypatch.setattr(Scorer, "score", fail)
    answers = [predictor.ask(**GOOD) for _ in range(8)]
    assert {(one.status_code, one.json()["version"]) for one in answers} == {(200, "1")}
    logged = own.log(9)
    (record,) = logged[answers[0].json()["request_id"]]
    assert (record["status"], record["model_version"]) == ("ANSWERED", "1")
    assert record["error"] == "fraud@2 failed: out of beans; fraud@1 answered"
    events = told(own, lambda found: len(found) == 2)
    assert [(one.kind, one.version) for one in events] == [(Kind.FAILING, "2"), (Kind.ROLL_BACK, "2")]
    assert events[1].cause_id == events[0].event_id


def test_a_canary_that_fails_is_answered_for_and_its_report_names_the_arm(
    own: Shop, predictor: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing = read_standing(own.settings.models, "fraud")
    assert standing is not None
    arm = Arm(name="canary", pinned=Pinned(version="1", sha256=""), share=1.0)
    tried = Split(trial="canary-1", arms=(arm,), sticky="customer")
    write_standing(own.settings.models, "fraud", replace(standing, split=tried))
    until, asked = time.monotonic() + 10, 1
    while (answer := predictor.ask(**GOOD)).json()["version"] == "2" and time.monotonic() < until:
        time.sleep(0.1)
        asked += 1
    assert answer.json()["version"] == "1"
    score = Scorer.score

    def fail(self: Scorer, *given: object) -> object:
        if self.manifest.version == "1":
            raise RuntimeError("out of beans")
        return score(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Scorer, "score", fail)
    failed = [predictor.ask(**GOOD).json() for _ in range(8)]
    assert {one["version"] for one in failed} == {"2"}
    (report,) = told(own, lambda found: len(found) == 1)
    assert (report.kind, report.version) == (Kind.FAILING, "1")
    assert report.told == {"answered_by": "2", "champion": False, "arm": "canary-1/canary"}
    logged = own.log(asked + len(failed))
    for answered in (answer.json(), failed[0]):
        (record,) = logged[answered["request_id"]]
        assert (record["arm"], record["model_version"]) == ("canary-1/canary", answered["version"])


def test_a_model_out_of_service_answers_503_that_says_so_and_the_predictor_stays_ready(
    own: Shop, predictor: Running
) -> None:
    write_standing(own.settings.models, "fraud", Standing(active=None, withdrawn="fraud@2 was pulled by ann"))
    until = time.monotonic() + 10
    while (found := predictor.ask(**GOOD)).status_code == 200 and time.monotonic() < until:
        time.sleep(0.1)
    assert found.status_code == 503
    assert found.json()["detail"] == "model 'fraud' is out of service: fraud@2 was pulled by ann"
    assert predictor.http.get("/readyz").status_code == 200
