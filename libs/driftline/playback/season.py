"""The second act of a demonstration: months in larger steps, while the loop watches, retrains and promotes.

The player stops once a day of event time, until the monitor has closed the day before and a retrain that was asked for
has come to a model or a refusal. So the same data lead to the same decisions, however fast the machine is.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.project_schemas import PLATFORM_RECORDS, outcome_schema, platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import (
    ALERTS,
    DRIFT_SIGNALS,
    MODEL_EVENTS,
    RETRAIN_REQUESTS,
    WINDOW_REPORTS,
    Topics,
)
from driftline.contracts.wire import split
from driftline.features.online import OnlineStore, connect
from driftline.models.bundle import load_bundle
from driftline.models.outcomes import log_losses, values
from driftline.models.scoring import Scorer
from driftline.models.shadow import score_logged
from driftline.playback.faults import FaultRates
from driftline.playback.plan import Plan, Step, make_plan
from driftline.playback.platform import Platform
from driftline.playback.player import Endpoints, Player
from driftline.playback.topic_reading import TopicReader
from driftline.project import ModelDeclaration, Project
from driftline.project.history import load_history
from driftline.runtime.clock import instant_us

STEP_MINUTES = 30
_DAY_US = 86_400_000_000
#: By this time of the UTC day the flights' (and most people's) last labels of the day before are known.
_SETTLED_US = 6 * 3_600_000_000
_WINDOW_SECONDS = 30.0
_HTTP_EVERY = 100
_RETRAIN_SECONDS = 240.0
_WATCHED = (WINDOW_REPORTS, DRIFT_SIGNALS, RETRAIN_REQUESTS, MODEL_EVENTS, ALERTS)
#: What a training comes to.
_SETTLED = frozenset(
    {"TRAINING_FAILED", "DATA_REFUSED", "REJECTED", "CHALLENGER", "APPROVAL_WANTED", "PROMOTED"}
)


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


def plan_season(project: Project, *, since: date, start: date, end: date) -> Plan:
    """Plan requests of ``[start, end)``; events since ``since`` come before, so that the store has no gap."""
    history = load_history(project, since, end)
    return make_plan(
        history,
        start=datetime.combine(start, datetime.min.time(), UTC),
        end=datetime.combine(end, datetime.min.time(), UTC),
        rates=FaultRates(duplicate=0, late=0, malformed=0),
        step_us=STEP_MINUTES * 60_000_000,
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
    partitions = {
        name: topics.all_of(project)[topics.events(name)].partitions for name in project.event_types
    }
    began = time.monotonic()
    with (
        SchemaRegistry(platform.registry_url) as registry,
        connect(platform.redis_url) as client,
        closing(Watch(platform.kafka, topics, registry, model.monitor.window_us)) as watch,
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

        with closing(Player(project, model.name, topics, endpoints, http_every=_HTTP_EVERY)) as player:
            played = player.play(plan, stepped)
        watch.finish()
        outcomes = read_outcomes(platform.kafka, project, topics, registry)
    inside = outcomes.filter(pc.is_in(outcomes["request_id"], pa.array(played.requested)))
    return Season(
        start=plan.steps[0].at.date().isoformat(),
        end=plan.steps[-1].at.date().isoformat(),
        predictions=len(played.requested),
        outcomes=dict(Counter(inside["kind"].to_pylist())),
        signals=watch.count(DRIFT_SIGNALS, "level", "signal_id"),
        alerts=watch.count(ALERTS, "status", "alert_id"),
        retrains=watch.retrains(),
        models=watch.models(),
        versions=versions(model, inside, models, first_version),
        unclosed_windows=watch.unclosed,
        seconds=time.monotonic() - began,
    )


@dataclass(slots=True)
class Watch:
    """What the loop writes while the player plays."""

    kafka: Mapping[str, Any]
    topics: Topics
    registry: SchemaRegistry
    window_us: int
    unclosed: int = 0
    seen: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    _reader: TopicReader = field(init=False)
    _codecs: dict[str, tuple[str, RecordCodec]] = field(init=False)
    _asked: set[int] = field(default_factory=set)
    _closed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Begin where the topics end now."""
        names = {self.topics.stream(stream): stream for stream in _WATCHED}
        with TopicReader(self.kafka, names) as reader:
            ends = reader.ends()
        self._reader = TopicReader(self.kafka, names, positions=ends)
        self._codecs = {
            topic: (stream, RecordCodec(platform_schema(PLATFORM_RECORDS[stream])))
            for topic, stream in names.items()
        }
        self.seen = {stream: {} for stream in _WATCHED}

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    def step(self, step: Step) -> None:
        """After a step: at the settled hour of each day wait until the loop has followed."""
        if len(step.requests):
            self._asked.add(step.at_us // self.window_us * self.window_us)
        before = (step.at_us - _SETTLED_US) // _DAY_US * _DAY_US
        if before in self._closed or not len(step.requests):
            return
        self._closed.add(before)
        self._wait_for_windows(before)
        self._wait_for_trainings()

    def finish(self) -> None:
        """Read what is still coming."""
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            self._read(0.5)
        self._wait_for_trainings()

    def count(self, stream: str, name: str, identity: str) -> dict[str, int]:
        """Return how many records of a stream there were by a field, each identity and value once."""
        found = {(one[identity], one[name]) for one in self.seen[stream].values()}
        return dict(sorted(Counter(value for _, value in found).items()))

    def retrains(self) -> list[dict[str, Any]]:
        """Return the retrain requests, with what each came to."""
        ends = {
            one["cause_id"]: one["kind"]
            for one in self.seen[MODEL_EVENTS].values()
            if one["kind"] in _SETTLED
        }
        return [
            {
                "cause": one["cause"],
                "reason": one["reason"],
                "data_until": one["data_until"].isoformat(),
                "came_to": ends.get(one["request_id"], "nothing yet"),
            }
            for one in self.seen[RETRAIN_REQUESTS].values()
        ]

    def models(self) -> list[dict[str, Any]]:
        """Return the facts of the models' life in order."""
        return [
            {
                "at": one["effective_at"].isoformat(),
                "kind": one["kind"],
                "version": one["version"],
                "reason": one["reason"],
            }
            for one in self.seen[MODEL_EVENTS].values()
        ]

    def _wait_for_windows(self, before_us: int) -> None:
        """Wait until every asked window that ended before an instant is reported, with its outcomes."""
        wanted = {window for window in self._asked if window + self.window_us <= before_us}
        if not wanted:
            return
        last = max(wanted)
        until = time.monotonic() + _WINDOW_SECONDS
        while time.monotonic() < until:
            kinds = {
                one["kind"]
                for one in self.seen[WINDOW_REPORTS].values()
                if one["segment"] == "" and instant_us(one["window_start"]) == last
            }
            if len(kinds) == 2:
                return
            self._read(0.2)
        self.unclosed += 1

    def _wait_for_trainings(self) -> None:
        """Wait until every retrain request has come to something."""
        until = time.monotonic() + _RETRAIN_SECONDS
        while time.monotonic() < until:
            self._read(0.1)
            if all(one["came_to"] != "nothing yet" for one in self.retrains()):
                return

    def _read(self, seconds: float) -> None:
        for message in self._reader.poll(seconds):
            stream, codec = self._codecs[message.topic() or ""]
            schema_id, body = split(message.value())
            record = codec.decode(body, self.registry.schema(schema_id))
            place = f"{message.partition()}/{message.offset()}"
            self.seen[stream][place] = record


def read_outcomes(
    kafka: Mapping[str, Any], project: Project, topics: Topics, registry: SchemaRegistry
) -> pa.Table:
    """Return all outcomes of a project as columns."""
    with TopicReader(kafka, [topics.outcomes]) as reader:
        found = [message.value() for message in reader.read_to_end()]
    return pa.Table.from_batches([BatchDecoder(outcome_schema(project), registry.schema).decode(found).table])


def versions(
    model: ModelDeclaration, outcomes: pa.Table, models: Path, first_version: str
) -> list[dict[str, Any]]:
    """Return per version that served how it did, and how the first version would have done on the same outcomes."""
    labelled = outcomes.filter(
        pc.and_(pc.is_valid(outcomes["label"]), pc.not_equal(outcomes["kind"], "CORRECTED"))
    )
    scorer = Scorer(load_bundle(models / model.name / first_version))
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
    rule = model.decision
    decisions = np.where(scores >= rule.threshold, rule.above, rule.below).tolist()
    return values(labels, decisions, model.value)
