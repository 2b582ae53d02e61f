"""The second act of a demonstration: months in larger steps, while the loop watches, retrains and promotes."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.project_schemas import outcome_schema
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import ALERTS, DRIFT_SIGNALS, Topics, event_partitions
from driftline.features.online import OnlineStore, connect
from driftline.models.bundle import load_bundle
from driftline.models.outcomes import decisions_of, log_losses, values
from driftline.models.retraining import RetrainRequest
from driftline.models.scoring import Scorer
from driftline.models.shadow import score_logged
from driftline.playback.faults import FaultRates
from driftline.playback.loop_watch import LoopWatch
from driftline.playback.plan import Plan, Step, make_plan
from driftline.playback.platform import Platform
from driftline.playback.player import Endpoints, Player
from driftline.playback.topic_reading import TopicReader
from driftline.project import ModelDeclaration, Project
from driftline.project.history import load_history

STEP_MINUTES = 30
HTTP_EVERY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Season:
    """What happened in the second act.

    ``versions`` maps each version that served to its outcomes, log loss and value, and what the first version would
    have reached on the same outcomes.
    """

    start: str
    end: str
    predictions: int
    outcomes: Mapping[str, int]
    signals: Mapping[str, int]
    alerts: Mapping[str, int]
    retrains: list[dict[str, Any]]
    models: list[dict[str, Any]]
    versions: list[dict[str, Any]]
    unclosed_windows: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chronicle:
    """What a watched play left: the requests' outcomes, and what the loop did meanwhile.

    ``signals`` are the records of drift signals; ``waited`` says what the player waited for, in seconds.
    """

    requested: int
    outcomes: pa.Table
    signals: list[dict[str, Any]]
    signal_counts: Mapping[str, int]
    alert_counts: Mapping[str, int]
    retrains: list[dict[str, Any]]
    models: list[dict[str, Any]]
    unclosed_windows: int
    waited: Mapping[str, float]
    seconds: float


def plan_season(
    project: Project, *, since: date, start: date, end: date, step_minutes: int = STEP_MINUTES
) -> Plan:
    """Plan requests of ``[start, end)``; events since ``since`` come before, so that the store has no gap."""
    history = load_history(project, since, end)
    return make_plan(
        history,
        start=datetime.combine(start, datetime.min.time(), UTC),
        end=datetime.combine(end, datetime.min.time(), UTC),
        rates=FaultRates(duplicate=0, late=0, malformed=0),
        step_us=step_minutes * 60_000_000,
    )


def play_watched(
    project: Project,
    model: ModelDeclaration,
    topics: Topics,
    platform: Platform,
    *,
    plan: Plan,
    progress: Callable[[Step], None],
    offers: Sequence[RetrainRequest] = (),
    http_every: int = HTTP_EVERY,
) -> Chronicle:
    """Play the plan, with the loop at the player's heels; ``offers`` are requested at the end of their data."""
    partitions = event_partitions(topics, project)
    began = time.monotonic()
    with (
        SchemaRegistry(platform.registry_url) as registry,
        connect(platform.redis_url) as client,
        closing(LoopWatch(platform, topics, registry, model, offers)) as watch,
    ):
        endpoints = Endpoints(
            kafka=platform.kafka,
            registry=registry,
            store=OnlineStore(client, prefix=topics.prefix, project=project, partitions=partitions),
            ingest_url=platform.ingest_url,
            predictor_url=platform.predictor_url,
            watchdog=platform.watchdog,
        )

        def stepped(step: Step) -> None:
            watch.step(step)
            progress(step)

        with closing(Player(project, model.name, topics, endpoints, http_every=http_every)) as player:
            played = player.play(plan, stepped)
        watch.finish()
        outcomes = read_outcomes(platform.kafka, project, topics, registry)
    return Chronicle(
        requested=len(played.requested),
        outcomes=outcomes.filter(pc.is_in(outcomes["request_id"], pa.array(played.requested))),
        signals=watch.once(DRIFT_SIGNALS, "signal_id"),
        signal_counts=watch.count(DRIFT_SIGNALS, "level", "signal_id"),
        alert_counts=watch.count(ALERTS, "status", "alert_id"),
        retrains=watch.retrains(),
        models=watch.models(),
        unclosed_windows=watch.unclosed,
        waited={name: round(seconds, 1) for name, seconds in watch.seconds.items()},
        seconds=time.monotonic() - began,
    )


def play_season(
    project: Project,
    model: ModelDeclaration,
    topics: Topics,
    platform: Platform,
    models: Path,
    *,
    plan: Plan,
    first_version: str,
    progress: Callable[[Step], None],
) -> Season:
    """Play the plan and return what the loop made of it."""
    found = play_watched(project, model, topics, platform, plan=plan, progress=progress)
    return Season(
        start=plan.steps[0].at.date().isoformat(),
        end=plan.steps[-1].at.date().isoformat(),
        predictions=found.requested,
        outcomes=dict(Counter(found.outcomes["kind"].to_pylist())),
        signals=found.signal_counts,
        alerts=found.alert_counts,
        retrains=found.retrains,
        models=found.models,
        versions=versions(model, found.outcomes, models, first_version),
        unclosed_windows=found.unclosed_windows,
        seconds=found.seconds,
    )


def read_outcomes(
    kafka: Mapping[str, Any], project: Project, topics: Topics, registry: SchemaRegistry
) -> pa.Table:
    """Return all outcomes of a project as columns."""
    with TopicReader(kafka, [topics.outcomes]) as reader:
        found = [message.value() for message in reader.read_to_end()]
    return pa.Table.from_batches([BatchDecoder(outcome_schema(project), registry.schema).decode(found).table])


def with_label(outcomes: pa.Table) -> pa.Table:
    """Return the outcomes that brought a prediction its first label."""
    return outcomes.filter(
        pc.and_(pc.is_valid(outcomes["label"]), pc.not_equal(outcomes["kind"], "CORRECTED"))
    )


def versions(
    model: ModelDeclaration, outcomes: pa.Table, models: Path, first_version: str
) -> list[dict[str, Any]]:
    """Return per version that served how it did, and how the first version would have done on the same outcomes."""
    labelled = with_label(outcomes)
    scorer = Scorer(load_bundle(models / model.name / first_version), model.coded_inputs)
    found = []
    for version in dict.fromkeys(labelled[fields.MODEL_VERSION].to_pylist()):
        rows = labelled.filter(pc.equal(labelled[fields.MODEL_VERSION], version))
        labels = rows["label"].to_numpy()
        would = score_logged(scorer, rows)
        found.append(
            {
                "version": version,
                "outcomes": len(rows),
                "log_loss": float(np.mean(rows["log_loss"].to_numpy())),
                "value": float(np.nansum(rows["value"].to_numpy())),
                "first_version": {
                    "log_loss": float(log_losses(labels, would).mean()),
                    "value": float(np.nansum(_worth(model, labels, would))),
                },
            }
        )
    return found


def _worth(
    model: ModelDeclaration,
    labels: np.ndarray[Any, np.dtype[np.float64]],
    scores: np.ndarray[Any, np.dtype[np.float64]],
) -> np.ndarray[Any, np.dtype[np.float64]]:
    return values(labels, decisions_of(scores, model.decision).tolist(), model.value)
