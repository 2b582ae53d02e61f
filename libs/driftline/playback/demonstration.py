"""A whole demonstration on running services: plan, play, read back, reconcile, compare, judge."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa

from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics, event_partitions
from driftline.features.online import OnlineStore, connect
from driftline.models.bundle import Quality
from driftline.playback.errors import PlaybackError
from driftline.playback.journal import Journal, read_journal
from driftline.playback.parity import PUBLISHED_AT, Parity, check_parity
from driftline.playback.plan import Plan, Step, make_plan
from driftline.playback.platform import Platform
from driftline.playback.player import Endpoints, Played, Player
from driftline.playback.reconciliation import Counts, read_service_counts, reconcile, subtract
from driftline.playback.rivals import compare_with_rivals
from driftline.playback.summary import Percentiles
from driftline.project import Project
from driftline.project.history import load_history

#: So many days of events before the first request fill the windows.
WARM_UP = timedelta(days=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a demonstration found out; ``example`` is a request that was answered over HTTP."""

    counts: Counts
    http: Percentiles
    freshness: Percentiles
    parity: Parity
    quality: Mapping[str, Quality]
    example: str
    labels: int
    seconds: float


def plan_days(project: Project, *, start: date, days: int, seed: int) -> tuple[Plan, pa.Table]:
    """Plan the play of some days; return the plan and all requests since the warm-up, with their labels."""
    end = start + timedelta(days=days)
    history = load_history(project, start - WARM_UP, end)
    plan = make_plan(history, start=_midnight(start), end=_midnight(end), seed=seed)
    return plan, history.requests


def demonstrate(
    project: Project,
    model: str,
    topics: Topics,
    platform: Platform,
    *,
    plan: Plan,
    requests: pa.Table,
    base_rate: float,
    progress: Callable[[Step], None],
) -> Findings:
    """Play a plan and hold what came out against what should have.

    Raises
    ------
    PlaybackError
        Where the play cannot go on.
    """
    partitions = event_partitions(topics, project)
    with SchemaRegistry(platform.registry_url) as registry, connect(platform.redis_url) as client:
        endpoints = Endpoints(
            kafka=platform.kafka,
            registry=registry,
            store=OnlineStore(client, prefix=topics.prefix, project=project, partitions=partitions),
            ingest_url=platform.ingest_url,
            predictor_url=platform.predictor_url,
            watchdog=platform.watchdog,
        )
        before = read_service_counts(platform.urls)
        with closing(Player(project, model, topics, endpoints)) as player:
            played = player.play(plan, progress)
        counted = subtract(read_service_counts(platform.urls), before)
        journal = read_journal(platform.kafka, project, topics, registry, played.began)
    return Findings(
        counts=reconcile(journal, played.sent, played.requested, counted),
        http=Percentiles.of(played.http_ms),
        freshness=Percentiles.of(played.freshness_ms),
        parity=check_parity(project, published_events(project, topics, plan, journal), journal.predictions),
        quality=compare_with_rivals(journal.predictions, requests, base_rate=base_rate),
        example=_example(played),
        labels=played.labels,
        seconds=played.seconds,
    )


def published_events(project: Project, topics: Topics, plan: Plan, journal: Journal) -> dict[str, pa.Table]:
    """Return the applied events, as the topics hold them, with the instant at which each was published."""
    found = {}
    for name, events in journal.events.items():
        event_id = project.event_types[name].event_id
        planned = plan.events[name]
        published = dict(
            zip(planned.table[event_id].to_pylist(), planned.published_at_us.tolist(), strict=True)
        )
        applied = events.applied[event_id].to_pylist()
        strangers = [identity for identity in applied if identity not in published]
        if strangers:
            msg = f"{topics.events(name)} holds {len(strangers):,} events that the player did not send; play alone"
            raise PlaybackError(msg)
        times = [published[identity] for identity in applied]
        found[name] = events.applied.append_column(PUBLISHED_AT, pa.array(times, pa.timestamp("us")))
    return found


def _example(played: Played) -> str:
    """Return a request from the middle of the play, that went over HTTP."""
    return played.over_http[len(played.over_http) // 2] if played.over_http else ""


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
