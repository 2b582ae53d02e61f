"""What each service process says about itself now: alive, ready, lag, last error."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from driftline.runtime.instance_file import InstanceFile, read_instance_file, read_instance_files
from driftline.runtime.processes import is_alive
from driftline.runtime.supervisor import InstanceStatus, read_statuses

_LAG = "driftline_lag_messages"
_EVENT_TIME = "driftline_view_event_timestamp_seconds"
_LOGGED_TIME = "driftline_view_logged_timestamp_seconds"
_TARGET = "driftline_view_freshness_target_seconds"
_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewTimes:
    """What one process says of a view, in seconds since the epoch: its newest readable event, and when that was logged."""

    view: str
    event_seconds: float | None = None
    logged_seconds: float | None = None
    target_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewFreshness:
    """How old a view's newest readable event is, and how old it may be (None: no target).

    ``age_seconds`` is by the event's own time, ``logged_age_seconds`` by when it came into the log.
    """

    view: str
    age_seconds: float | None
    logged_age_seconds: float | None
    target_seconds: float | None
    breached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """One process. ``lag`` counts messages that wait; None where the service reads no topic or does not answer.

    ``views`` has what a feature store says of its views' freshness.
    """

    instance: str
    service: str
    alive: bool
    ready: bool
    lag: int | None
    restarts: int
    last_error: str
    pid: int | None
    url: str | None
    views: tuple[ViewTimes, ...] = ()
    service_levels: tuple[dict[str, Any], ...] = ()


def view_freshness(services: Iterable[ServiceStatus], now_seconds: float) -> list[ViewFreshness]:
    """Return how fresh each view is over all processes, by name; what none has an event of has no age."""
    found: dict[str, list[ViewTimes]] = {}
    for service in services:
        for one in service.views:
            found.setdefault(one.view, []).append(one)
    return [_freshness(view, found[view], now_seconds) for view in sorted(found)]


def _freshness(view: str, told: list[ViewTimes], now_seconds: float) -> ViewFreshness:
    event = max((one.event_seconds for one in told if one.event_seconds is not None), default=None)
    logged = max((one.logged_seconds for one in told if one.logged_seconds is not None), default=None)
    targets = [one.target_seconds for one in told if one.target_seconds is not None]
    age = None if event is None else max(0.0, now_seconds - event)
    return ViewFreshness(
        view=view,
        age_seconds=age,
        logged_age_seconds=None if logged is None else max(0.0, now_seconds - logged),
        target_seconds=max(targets, default=None),
        breached=bool(targets) and (age is None or age > max(targets)),
    )


def service_statuses(state: Path) -> list[ServiceStatus]:
    """Ask every process that the supervisor, or its own instance file, names."""
    supervised = {item.instance: item for item in read_statuses(state)}
    names = [
        *supervised,
        *(item.instance for item in read_instance_files(state) if item.instance not in supervised),
    ]
    with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
        return [_ask(client, name, supervised.get(name), read_instance_file(state, name)) for name in names]


def _ask(
    client: httpx.Client, name: str, supervised: InstanceStatus | None, file: InstanceFile | None
) -> ServiceStatus:
    alive = file is not None and is_alive(file.pid)
    if supervised is not None and supervised.state != "running":
        alive = False
    url = f"http://127.0.0.1:{file.port}" if file is not None and alive else None
    ready, error, lag = False, "", None
    views: tuple[ViewTimes, ...] = ()
    levels: tuple[dict[str, Any], ...] = ()
    if url is not None:
        try:
            answer = client.get(f"{url}/readyz")
            ready = answer.status_code == httpx.codes.OK
            report = answer.json()
            error = report.get("last_error") or ""
            levels = tuple(report.get("service_levels", ()))
            if not ready and not error:
                waiting = [part for part, shown in report["components"].items() if not shown["ready"]]
                error = f"waiting for {', '.join(waiting)}" if waiting else ""
            metrics = client.get(f"{url}/metrics").text
            lag, views = parse_lag(metrics), parse_views(metrics)
        except (httpx.HTTPError, ValueError) as failure:
            error = f"does not answer: {failure}"
    elif supervised is not None:
        error = supervised.reason
    return ServiceStatus(
        instance=name,
        service=supervised.service if supervised is not None else file.service if file is not None else "",
        alive=alive,
        ready=ready,
        lag=lag,
        restarts=supervised.restarts if supervised is not None else 0,
        last_error=error,
        pid=file.pid if file is not None and alive else None,
        url=url,
        views=views,
        service_levels=levels,
    )


def parse_views(metrics: str) -> tuple[ViewTimes, ...]:
    """Return what a process says of its views' freshness, by name.

    >>> parse_views('driftline_view_event_timestamp_seconds{view="delays@1"} 12.5\\n')
    (ViewTimes(view='delays@1', event_seconds=12.5, logged_seconds=None, target_seconds=None),)
    """
    names = {_EVENT_TIME: "event_seconds", _LOGGED_TIME: "logged_seconds", _TARGET: "target_seconds"}
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples if family.name in names else ():
            found.setdefault(sample.labels["view"], {})[names[family.name]] = sample.value
    return tuple(
        ViewTimes(
            view=view,
            event_seconds=times.get("event_seconds"),
            logged_seconds=times.get("logged_seconds"),
            target_seconds=times.get("target_seconds"),
        )
        for view, times in sorted(found.items())
    )


def parse_lag(metrics: str) -> int | None:
    """Return the messages that wait in all partitions; None where the service reads none.

    >>> parse_lag('driftline_lag_messages{topic="a",partition="0"} 3.0\\n')
    3
    >>> parse_lag("") is None
    True
    """
    found = [
        sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == _LAG
    ]
    return int(sum(found)) if found else None
