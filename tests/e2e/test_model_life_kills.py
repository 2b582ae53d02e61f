"""One retrain per cause, one version per request, exactly one champion at any time, whichever process is killed when."""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.topics import DRIFT_SIGNALS, RETRAIN_REQUESTS, schemas_folder
from driftline.contracts.wire import split
from driftline.embedded import EmbeddedStack
from driftline.models.bundle import versions
from driftline.models.lifecycle import State, fold
from driftline.models.model_event import Kind
from driftline.models.retraining import Cause, RetrainRequest, request
from driftline.models.standing import active_version
from driftline.models.training import train
from driftline.playback.topic_reading import TopicReader
from driftline.project import load_project
from driftline.runtime.supervisor import Supervisor
from tests.integration.model_registry.market_life import MODEL, Life
from tests.unit.models_life.market import START, TURN, day_us, write_market

#: How often each test kills.
KILLS = int(os.environ.get("E2E_KILLS", "5"))
SERVICES = ("trainer", "model_registry", "retrain_trigger")
DECIDED = {State.CHALLENGER, State.REJECTED, State.CHAMPION, State.RETIRED, State.FORMER}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("life")


@pytest.fixture(scope="module")
def life(state: Path) -> Iterator[Life]:
    project = load_project(write_market(state / "market"))
    train(project, MODEL, state / "models", start=START, end=TURN)
    with EmbeddedStack(state) as stack:
        found = Life(
            project=project,
            state=state,
            kafka=stack.environment["KAFKA_BOOTSTRAP_SERVERS"],
            registry_url=stack.environment["SCHEMA_REGISTRY_URL"],
            environment="",
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def supervisor(life: Life, state: Path) -> Iterator[Supervisor]:
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": life.kafka,
        "SCHEMA_REGISTRY_URL": life.registry_url,
        "DRIFTLINE_PROJECT": str(life.project.folder),
        "DRIFTLINE_STATE": str(state),
        "DRIFTLINE_MODELS": str(state / "models"),
        "DRIFTLINE_LOG_FORMAT": "json",
    }
    made = Supervisor(state, SERVICES, environment)
    made.start()
    try:
        made.wait_ready(120)
        yield made
    finally:
        made.stop()


def send_signal(life: Life, name: str, end_us: int) -> None:
    codec = RecordCodec(platform_schema("drift_signal"))
    example = codec.from_json(json.loads((schemas_folder() / "examples" / "drift_signal.json").read_text()))
    changes: dict[str, Any] = {
        "signal_id": name,
        "model": MODEL,
        "level": "RETRAIN",
        "check": "log_loss",
        "window_end": end_us,
    }
    life.send(DRIFT_SIGNALS, "drift_signal", MODEL, {**example, **changes})


def requests(life: Life) -> list[RetrainRequest]:
    codec = RecordCodec(platform_schema("retrain_request"))
    with TopicReader(life.config, [life.topics.stream(RETRAIN_REQUESTS)]) as reader:
        return [
            RetrainRequest.of(codec.decode(split(message.value())[1])) for message in reader.read_to_end()
        ]


def kill_at_random_moments(supervisor: Supervisor, seed: int, services: tuple[str, ...], kills: int) -> None:
    source = random.Random(seed)
    for number in range(kills):
        time.sleep(source.uniform(0.1, 4.0))
        instance = f"{services[number % len(services)]}-0"
        supervisor.kill(instance, signal.SIGKILL)
        supervisor.restart(instance)
        supervisor.wait_ready(90)


def wait_for(what: str, seconds: float, done: Any) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, what
        time.sleep(0.5)


def assert_one_champion_at_any_time(life: Life) -> None:
    """Read at whatever moment: after each event of the log there is one champion, and the past stays as it was."""
    events = life.log()
    before: list[tuple[str, int]] = []
    for number in range(len(events) + 1):
        history = fold(MODEL, events[:number])
        champions = history.in_state(State.CHAMPION)
        assert len(champions) == (1 if history.reigns else 0)
        reigns = [(reign.version, reign.since_us) for reign in history.reigns]
        assert reigns[: len(before)] == before
        before = reigns
    assert fold(MODEL, events).ignored == ()


def test_retrains_and_promotions_survive_kills(life: Life, supervisor: Supervisor, state: Path) -> None:
    first, second = day_us(2024, 3, 20), day_us(2024, 4, 10)
    life.wait(lambda found: found.champion is not None)
    for name, end in [
        ("a", first),
        ("a", first),
        ("cooling", first + 1),
        ("b", second),
        ("a", first),
        ("b", second),
    ]:
        send_signal(life, name, end)
    expected = [
        request(Cause.ACCURACY, name, MODEL, "", end, by="", at_us=0)
        for name, end in [("a", first), ("b", second)]
    ]
    kill_at_random_moments(supervisor, 1, ("trainer", "retrain_trigger", "trainer", "model_registry"), KILLS)
    wait_for(
        "both versions are decided",
        240,
        lambda: all(life.history().state_of(one.version) in DECIDED for one in expected),
    )
    assert {one.request_id for one in requests(life)} == {one.request_id for one in expected}
    assert set(versions(state / "models", MODEL)) >= {one.version for one in expected}
    assert len(versions(state / "models", MODEL)) == 3

    life.outcomes(date(2024, 4, 10), date(2024, 4, 20))
    kill_at_random_moments(supervisor, 2, ("model_registry",), KILLS)
    challenger = expected[1].version
    wait_for(
        "the challenger reigns",
        120,
        lambda: (
            life.history().champion == challenger and active_version(state / "models", MODEL) == challenger
        ),
    )
    supervisor.kill("model_registry-0", signal.SIGKILL)
    life.command(Kind.ROLL_BACK)
    life.command(Kind.ROLL_BACK)
    supervisor.restart("model_registry-0")
    wait_for("it is rolled back", 120, lambda: active_version(state / "models", MODEL) != challenger)

    assert_one_champion_at_any_time(life)
    ids = Counter((one.kind, one.version) for one in {event.event_id: event for event in life.log()}.values())
    for one in expected:
        assert ids[Kind.REGISTERED, one.version] == 1
        assert ids[Kind.PROMOTED, one.version] <= 1
        started = [event for event in life.log() if event.version == one.version]
        facts = [event.kind for event in started if event.kind not in {Kind.TRAINING_STARTED}]
        assert facts.count(Kind.REGISTERED) == 1  # not even a second copy of it
    assert ids[Kind.ROLLED_BACK, challenger] == 1
    assert life.history().state_of(challenger) is State.ROLLED_BACK
    assert active_version(state / "models", MODEL) == life.history().champion
