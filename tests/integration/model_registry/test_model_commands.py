"""`driftline models ...` against the real log and a running registry."""

from collections.abc import Callable
from typing import Any

import pytest

from driftline.contracts.topics import RETRAIN_REQUESTS
from driftline.models.model_event import Kind
from driftline.playback.topic_reading import TopicReader
from driftline.runtime.errors import RefusedError, UnavailableError
from tests.integration.model_registry.market_life import MODEL, Life, Prepared
from tests.integration.model_registry.test_model_registry import registry
from tests.unit.models_life.market import TURN, day_us


def test_a_life_on_the_command_line(life: Life, prepared: Prepared, models: Callable[..., Any]) -> None:
    challenger = prepared.facts[0].version or ""
    with registry(life):
        life.wait(lambda found: found.champion == prepared.champion)
        life.event(*prepared.facts)
        life.wait(lambda found: found.challenger == challenger)
        assert models("champion", MODEL).strip() == prepared.champion
        listed = models("list", "--json")
        assert [(row["version"], row["state"]) for row in listed] == [
            (prepared.champion, "champion"),
            (challenger, "challenger"),
        ]
        assert 0 < listed[1]["log_loss"] < 1
        assert challenger in models("list", MODEL)

        done = models("promote", challenger, MODEL, "--reason", "I know better", "--json")
        assert done["fact"]["kind"] == "PROMOTED"
        assert done["fact"]["reason"] == "I know better"
        assert models("champion", MODEL, "--json")["champion"] == challenger
        assert models("champion", MODEL, "--at", "2024-03-15", "--json")["champion"] == prepared.champion
        assert models("champion", MODEL, "--at", "2024-02-01", "--json")["champion"] is None
        assert models("rollback", MODEL).strip() == f"rolled back: {MODEL}@{challenger}"
        with pytest.raises(RefusedError, match="no former champion"):
            models("rollback", MODEL)
        assert models("pull", MODEL, "--version", challenger).startswith("pulled")
        with pytest.raises(RefusedError, match="is pulled, so it cannot be promoted"):
            models("promote", challenger, MODEL)

    shown = models("show", challenger, MODEL, "--json")
    assert [one["kind"] for one in shown["events"]][:3] == ["REGISTERED", "VALIDATED", "CHALLENGER"]
    assert shown["state"] == "pulled"
    assert "PROMOTED by model_registry: I know better" in models("show", challenger, MODEL)
    told = models("history", MODEL, "--json")
    assert [reign["version"] for reign in told["reigns"]] == [
        prepared.champion,
        challenger,
        prepared.champion,
    ]
    assert told["reigns"][0]["since"] == f"{TURN} 00:00:00Z"
    causes = {one["version"]: one["cause"] for one in told["events"]}
    assert causes[prepared.champion] is None
    assert (causes[challenger]["cause"], causes[challenger]["reason"]) == ("DRIFT", "log loss rose")
    table = models("history", MODEL)
    assert "ROLLED_BACK" in table
    assert "drift" in table
    assert "trained because of DRIFT (s1), asked for by test: log loss rose" in models(
        "show", challenger, MODEL
    )
    with pytest.raises(RefusedError, match="has no version 'unheard'"):
        models("show", "unheard", MODEL)


def test_what_nobody_answers_is_told(life: Life, prepared: Prepared, models: Callable[..., Any]) -> None:
    with registry(life):
        life.wait(lambda found: found.champion == prepared.champion)
    life.event(*prepared.facts)
    with pytest.raises(UnavailableError, match="is the model registry running"):
        models("promote", prepared.facts[0].version or "", MODEL, "--wait", "1")
    assert [one.kind for one in life.log() if one.kind.is_command] == [Kind.PROMOTE]
    with pytest.raises(RefusedError, match="has not exactly one model"):
        models("champion")


def test_a_person_asks_for_a_retrain(life: Life, models: Callable[..., Any]) -> None:
    life.outcomes(TURN, TURN.replace(day=3))
    newest = models("retrain", MODEL, "--reason", "new fares", "--json")
    assert newest["data_until"].startswith("2024-03-03 0")
    asked = models("retrain", MODEL, "--until", "2024-04-10", "--json")
    assert asked["version"].startswith("20240410T000000Z-")
    with TopicReader(life.config, [life.topics.stream(RETRAIN_REQUESTS)]) as reader:
        assert len(list(reader.read_to_end())) == 2
    assert day_us(2024, 4, 10) == 1_712_707_200_000_000
