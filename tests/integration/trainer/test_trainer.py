"""One request, one version; bad requests and stopped trainings are told, and hold nobody up."""

import threading
from contextlib import AbstractContextManager
from dataclasses import replace

from driftline.models.bundle import versions
from driftline.models.lifecycle import State
from driftline.models.model_event import Kind
from driftline.runtime.health import Health
from services.trainer.assembly import run_trainer
from services.trainer.settings import TrainerSettings
from tests.integration.model_registry.market_life import MODEL, Life, Prepared, running
from tests.unit.models_life.market import ask, day_us

UNTIL = day_us(2024, 4, 10)
DONE = {State.CHALLENGER, State.FAILED, State.REFUSED, State.REJECTED}


def trainer(life: Life) -> AbstractContextManager[Health]:
    settings = life.settings(TrainerSettings, "trainer-0")

    def run(health: Health, stop: threading.Event) -> None:
        run_trainer(settings, life.project, health=health, stop=stop)

    return running(run, "trainer")


def test_a_request_makes_one_version_however_often_it_comes(life: Life, prepared: Prepared) -> None:
    request, bad = ask(UNTIL), ask(day_us(2024, 5, 20), "s2")
    stopped = ask(day_us(2024, 4, 12), "s3")
    life.request(request)
    life.request(replace(request, model="unheard"))
    life.producer.produce(life.topics.stream("retrain-requests"), b"nonsense", MODEL)
    life.request(request)
    life.command(Kind.REJECT, stopped.version)
    life.request(stopped)
    life.request(bad)
    with trainer(life):
        found = life.wait(
            lambda found: all(found.state_of(one.version) in DONE for one in (request, stopped, bad)), 120
        )
    assert found.state_of(request.version) is State.CHALLENGER
    assert found.state_of(stopped.version) is State.FAILED
    assert found.versions[stopped.version].reason == "stopped by ann: because"
    assert found.state_of(bad.version) is State.REFUSED
    kinds = [one.kind for one in life.log() if one.version == request.version]
    assert kinds == [Kind.TRAINING_STARTED, Kind.REGISTERED, Kind.VALIDATED, Kind.CHALLENGER]
    assert versions(life.models, MODEL) == sorted([prepared.champion, request.version])
    assert life.dead_letters() == 2

    life.request(request)
    last = ask(UNTIL, "s4", model="overfitted")
    life.request(last)
    with trainer(life):
        life.wait(lambda _: any(one.kind is Kind.REJECTED for one in life.log()), 120)
    assert [one.kind for one in life.log() if one.version == request.version] == kinds
    assert [one.kind for one in life.log() if one.version == last.version] == [
        Kind.TRAINING_STARTED,
        Kind.REGISTERED,
        Kind.REJECTED,
    ]
