"""A canary takes over by steps and goes back where it fails; an A/B test is analysed from the real topics."""

import json
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.batch_codec import BatchEncoder
from driftline.contracts.project_schemas import outcome_schema, prediction_schema
from driftline.models.lifecycle import ModelHistory, State
from driftline.models.model_event import Kind
from driftline.models.standing import Split, read_standing
from driftline.project import CanaryRule, Project
from driftline.runtime.health import Health
from driftline.serving.incidents import Incident, events_of
from services.model_registry.assembly import run_model_registry
from services.model_registry.settings import ModelRegistrySettings
from tests.integration.model_registry.market_life import MODEL, Life, Prepared, running
from tests.integration.model_registry.test_model_registry import UNTIL

MINUTE_US = 60_000_000


def with_canary(project: Project) -> Project:
    rule = CanaryRule(shares=(0.1, 0.5), hold_us=60 * MINUTE_US, least_requests=50, sticky="shop")
    model = project.models[MODEL]
    return replace(
        project,
        models={**project.models, MODEL: replace(model, promotion=replace(model.promotion, canary=rule))},
    )


def registry(life: Life, project: Project) -> AbstractContextManager[Health]:
    settings = life.settings(ModelRegistrySettings, "model_registry-0")

    def run(health: Health, stop: threading.Event) -> None:
        run_model_registry(settings, project, health=health, stop=stop)

    return running(run, "model_registry")


def split_of(life: Life) -> Split | None:
    found = read_standing(life.models, MODEL)
    return None if found is None else found.split


def share_of(life: Life) -> float | None:
    split = split_of(life)
    return None if split is None else split.arms[0].share


def produce(life: Life, schema: dict[str, Any], topic: str, rows: list[dict[str, Any]]) -> None:
    """Publish rows; what they do not say is null, or nothing."""
    fields = arrow_schema(schema)
    blank = {one.name: None if one.nullable else [] if pa.types.is_list(one.type) else 0 for one in fields}
    texts = {one.name for one in fields if pa.types.is_string(one.type) and not one.nullable}
    full = [{**blank, **dict.fromkeys(texts, ""), "model": MODEL, **row} for row in rows]
    values = BatchEncoder(schema, life.ids[topic]).encode(pa.RecordBatch.from_pylist(full, schema=fields))
    for row, value in zip(rows, values, strict=True):
        life.producer.produce(topic, value, row["request_id"])
    assert life.producer.flush(20) == 0


def predictions(
    life: Life, arm: str, version: str, since_us: int, count: int, every_us: int
) -> list[dict[str, Any]]:
    rows = [
        {
            "request_id": str(uuid.uuid4()),
            "arm": arm,
            "model_version": version,
            "status": "ANSWERED",
            "channel": "HTTP",
            "score": 0.5,
            "decision": "kept",
            "shop": f"shop-{number}",
            "event_time": since_us + number * every_us,
            "predicted_at": time.time_ns() // 1_000,
        }
        for number in range(count)
    ]
    produce(life, prediction_schema(life.project), life.topics.predictions, rows)
    return rows


def test_a_canary_steps_while_all_goes_well_and_goes_back_where_it_fails(
    life: Life, prepared: Prepared
) -> None:
    challenger = prepared.facts[0].version or ""
    project = with_canary(life.project)
    arm = f"canary-{challenger}/canary"
    with registry(life, project):
        life.wait(lambda found: found.champion == prepared.champion)
        life.event(*prepared.facts)
        life.outcomes(UNTIL, date(2024, 4, 25))
        begun = life.wait(lambda found: found.trial is not None and share_of(life) == 0.1)
        assert begun.trial is not None
        assert begun.champion == prepared.champion
        split = split_of(life)
        assert split is not None
        assert (split.sticky, len(split.arms[0].pinned.sha256)) == ("shop", 64)
        # Enough requests, but in less than an hour; another hour of the champion's says nothing.
        predictions(life, arm, challenger, begun.trial.since_us, 60, MINUTE_US // 2)
        predictions(
            life, f"canary-{challenger}/champion", prepared.champion, begun.trial.since_us, 60, 2 * MINUTE_US
        )
        time.sleep(3)
        assert share_of(life) == 0.1
    with registry(life, project):  # what was seen before it ended counts
        predictions(life, arm, challenger, begun.trial.since_us + 61 * MINUTE_US, 1, 0)
        stepped = life.wait(lambda found: found.trial is not None and found.trial.step == 1)
        life.wait(lambda _: share_of(life) == 0.5)
        assert stepped.trial is not None
        assert stepped.trial.since_us == begun.trial.since_us + 61 * MINUTE_US
        (step,) = [one for one in life.log() if one.kind is Kind.CANARY_STEPPED]
        assert json.loads(step.evidence)["canary"]["requests"] == 61
        incident = Incident(
            model=MODEL,
            version=challenger,
            reign="",
            champion=False,
            failing=True,
            reason="out of beans",
            answered_by=prepared.champion,
            event_us=stepped.trial.since_us + MINUTE_US,
            at_us=time.time_ns() // 1_000,
            arm=arm,
        )
        for sender in ("predictor-0", "predictor-1"):
            life.event(*events_of(incident, project.models[MODEL].promotion, by=sender))
        over = life.wait(lambda found: found.state_of(challenger) is State.ROLLED_BACK)
        life.wait(lambda _: split_of(life) is None)
    assert (over.champion, over.trial) == (prepared.champion, None)
    kinds = [one.kind for one in life.log() if one.by == "model_registry"]
    assert kinds[-3:] == [Kind.CANARY_STARTED, Kind.CANARY_STEPPED, Kind.CANARY_ENDED]


def test_an_ab_test_on_the_command_line(life: Life, prepared: Prepared, models: Callable[..., Any]) -> None:
    challenger = prepared.facts[0].version or ""

    def running_test(found: ModelHistory) -> bool:
        return found.trial is not None

    with registry(life, life.project):
        life.wait(lambda found: found.champion == prepared.champion)
        life.event(*prepared.facts)
        life.wait(lambda found: found.challenger == challenger)
        started = models(
            "ab",
            "start",
            MODEL,
            "--arm",
            f"{challenger}=0.5",
            "--sticky",
            "shop",
            "--effect",
            "0.1",
            "--json",
        )
        assert started["fact"]["kind"] == "AB_STARTED"
        trial = life.wait(running_test).trial
        assert trial is not None
        life.wait(lambda _: share_of(life) == 0.5)
        listed = {row["version"]: row["trial"] for row in models("list", MODEL, "--json")}
        assert listed == {prepared.champion: None, challenger: f"0.5 in ab-{challenger}"}
        rng = np.random.default_rng(4)
        for arm, version, loss in (("champion", prepared.champion, 0.5), (challenger, challenger, 0.3)):
            asked = predictions(life, f"{trial.name}/{arm}", version, trial.since_us, 300, MINUTE_US)
            labelled = [
                {
                    **{name: value for name, value in one.items() if name not in {"status", "channel"}},
                    "kind": "JOINED",
                    "label": 1.0,
                    "log_loss": loss + float(rng.normal(0, 0.1)),
                    "label_id": one["request_id"],
                    "label_known_at": one["event_time"] + MINUTE_US,
                }
                for one in asked
            ]
            produce(life, outcome_schema(life.project), life.topics.outcomes, labelled)
        told = models("ab", "analyse", MODEL, "--json")
        assert models("ab", "stop", MODEL).startswith("ab ended")
        life.wait(lambda _: split_of(life) is None)
    (result,) = told["result"]
    assert result["always_valid"]["verdict"] == result["fixed_horizon"]["verdict"] == "better"
    assert {one["arm"]: (one["requests"], one["units"]) for one in told["arms"]} == {
        "champion": (300, 300),
        challenger: (300, 300),
    }
    assert told["sample_ratio"]["sound"] is True
    assert models("ab", "analyse", MODEL, "--json")["ended"]
