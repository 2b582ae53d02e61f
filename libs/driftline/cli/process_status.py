"""What each service process says about itself now: alive, ready, lag, last error."""

from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from driftline.runtime.instance_file import InstanceFile, read_instance_file, read_instance_files
from driftline.runtime.processes import is_alive
from driftline.runtime.supervisor import InstanceStatus, read_statuses

_LAG = "driftline_lag_messages"
_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """One process. ``lag`` counts messages that wait; None where the service reads no topic or does not answer."""

    instance: str
    service: str
    alive: bool
    ready: bool
    lag: int | None
    restarts: int
    last_error: str
    pid: int | None
    url: str | None


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
    if url is not None:
        try:
            answer = client.get(f"{url}/readyz")
            ready = answer.status_code == httpx.codes.OK
            report = answer.json()
            error = report.get("last_error") or ""
            if not ready and not error:
                waiting = [part for part, shown in report["components"].items() if not shown["ready"]]
                error = f"waiting for {', '.join(waiting)}" if waiting else ""
            lag = parse_lag(client.get(f"{url}/metrics").text)
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
