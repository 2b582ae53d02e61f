"""`driftline up`, `down`, `status` and `doctor`."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from driftline.cli.diagnosis import Level, diagnose
from driftline.cli.local_platform import (
    LocalPlatform,
    PlatformStatus,
    missing_servers,
    models_folder,
    models_without_version,
    read_platform,
)
from driftline.cli.options import JsonOption, ProjectOption, echo_json
from driftline.cli.process_status import ServiceStatus, ViewFreshness, service_statuses, view_freshness
from driftline.embedded import running_environment
from driftline.embedded.cache import ArtifactCache
from driftline.project import load_project
from driftline.project.services import SERVICES, services_of
from driftline.runtime.durations import format_duration
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.runtime.processes import tail

StateOption = Annotated[
    Path, typer.Option("--state", envvar="DRIFTLINE_STATE", help="Folder for this machine's state.")
]
_STATE = Path(".driftline")
_UP_SECONDS = 300.0
_DOWN_SECONDS = 90.0
_POLL_SECONDS = 0.1


def up(
    *,
    project: ProjectOption = Path(),
    services: Annotated[
        str,
        typer.Option(
            help="Services to start, separated by commas; named twice, started twice. All that the project needs unless said."
        ),
    ] = "",
    state: StateOption = _STATE,
    foreground: Annotated[bool, typer.Option(help="Stay until Ctrl-C instead of returning.")] = False,
) -> None:
    """Start everything for a project and return when it is ready; `driftline down` stops it.

    Servers that KAFKA_BOOTSTRAP_SERVERS, SCHEMA_REGISTRY_URL and REDIS_URL name are used; the others are started.

    Example: driftline up --project examples/flights
    """
    console = Console(stderr=True)
    state = state.resolve()
    loaded = load_project(project)
    names = [name.strip() for name in services.split(",") if name.strip()] or list(services_of(loaded))
    _check_services(names)
    running = read_platform(state)
    if running is not None and running.alive:
        if Path(running.project) != loaded.folder:
            msg = f"{running.project} runs in {state}; stop it with `driftline down`, or use another --state"
            raise ConfigurationError(msg)
        console.print("It is already running.")
        _wait_until_ready(state, running.pid, console)
    else:
        if missing_servers(os.environ):
            ArtifactCache().ensure()  # here, where the progress is seen
        if foreground:
            _run_here(LocalPlatform(loaded.folder, state, names))
            return
        daemon = _start_daemon(loaded.folder, state, names)
        _wait_until_ready(state, daemon.pid, console, daemon)
    _print_services(console, service_statuses(state))
    for model in models_without_version(loaded, models_folder(state)):
        console.print(
            f"[yellow]{model} has no version yet, so the predictor waits:[/yellow] driftline train --help"
        )


def down(*, state: StateOption = _STATE) -> None:
    """Stop what `driftline up` started, services first; nothing stays behind.

    Example: driftline down
    """
    console = Console(stderr=True)
    running = read_platform(state)
    if running is None or not running.alive:
        console.print(f"Nothing runs in {state}.", highlight=False)
        return
    process = psutil.Process(running.pid)
    process.send_signal(signal.SIGTERM)
    try:
        with console.status("Stopping"):
            process.wait(_DOWN_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()  # its children end with it
        process.wait(10)
        raise UnavailableError(f"it did not stop within {_DOWN_SECONDS:.0f} s and was killed") from None
    console.print("Stopped.")


def status(*, state: StateOption = _STATE, as_json: JsonOption = False) -> None:
    """Say of each service whether it is alive and ready, how far behind, and its last error; of each view how fresh it is.

    The exit code is 0 when all are ready, 1 otherwise.

    Example: driftline status --json
    """
    running = read_platform(state)
    services = service_statuses(state)
    ready = bool(services) and all(service.ready for service in services)
    views = view_freshness(services, time.time())
    if as_json:
        content = {
            "ready": ready,
            "project": running.project if running is not None else None,
            "phase": _phase(running),
            "servers": running_environment(state),
            "services": [_told(service) for service in services],
            "freshness": [asdict(view) for view in views],
        }
        echo_json(content)
    else:
        console = Console()
        if running is not None:
            console.print(f"{running.project}: {_phase(running)}", highlight=False)
        if any(service.alive for service in services) or (running is not None and running.alive):
            _print_services(console, services)
            _print_freshness(console, views)
        else:
            console.print(f"Nothing runs in {state}; `driftline up` starts it.", highlight=False)
    if not ready:
        raise typer.Exit(1)


def doctor(
    *, project: ProjectOption = Path(), state: StateOption = _STATE, as_json: JsonOption = False
) -> None:
    """Find what is missing or wrong on this machine, with the remedy of each.

    The exit code is 1 where something must be mended.

    Example: driftline doctor --project examples/flights
    """
    findings = diagnose(project, state)
    if as_json:
        echo_json([asdict(finding) for finding in findings])
    else:
        table = Table(show_header=False, box=None, pad_edge=False)
        signs = {
            Level.GOOD: "[green]ok[/green]",
            Level.NOTE: "[yellow]note[/yellow]",
            Level.BAD: "[red]wrong[/red]",
        }
        for finding in findings:
            remedy = f"\n[bold]->[/bold] {escape(finding.remedy)}" if finding.remedy else ""
            table.add_row(signs[finding.level], finding.subject, escape(finding.found) + remedy)
        Console().print(table)
    if any(finding.level is Level.BAD for finding in findings):
        raise typer.Exit(1)


def _phase(running: PlatformStatus | None) -> str:
    if running is None:
        return "never started"
    if running.phase in {"starting", "ready"} and not running.alive:
        return "ended without being stopped"
    return running.phase


def _check_services(names: list[str]) -> None:
    unknown = sorted(set(names) - set(SERVICES))
    if unknown:
        msg = f"there is no service {', '.join(unknown)}; there are {', '.join(SERVICES)}"
        raise ConfigurationError(msg)


def _run_here(platform: LocalPlatform) -> None:
    from driftline.cli.daemon import run

    run(platform)


def _start_daemon(project: Path, state: Path, services: list[str]) -> "subprocess.Popen[bytes]":
    """Start the process that runs the platform, in a session of its own: it outlives this one."""
    log = _log(state)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "driftline.cli.daemon", project, state, *services],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until_ready(
    state: Path, pid: int, console: Console, daemon: "subprocess.Popen[bytes] | None" = None
) -> None:
    """Follow the platform's process until it is ready; raise what stopped it."""
    until = time.monotonic() + _UP_SECONDS
    with console.status("Starting") as line:
        while time.monotonic() < until:
            found = read_platform(state)
            current = found if found is not None and found.pid == pid else None
            if current is not None and current.phase == "ready":
                return
            if current is not None and current.phase == "failed":
                raise ConfigurationError(current.detail)
            if (daemon is not None and daemon.poll() is not None) or (
                daemon is None and (current is None or not current.alive)
            ):
                raise UnavailableError(f"it ended while starting:\n{tail(_log(state))}")
            if current is not None:
                line.update(f"{current.detail[:1].upper()}{current.detail[1:]}")
            time.sleep(_POLL_SECONDS)
    raise UnavailableError(f"not ready after {_UP_SECONDS:.0f} s; see {_log(state)}")


def _log(state: Path) -> Path:
    return state / "logs" / "platform.log"


def _print_services(console: Console, services: list[ServiceStatus]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("instance", "alive", "ready", "lag", "restarts", "address"):
        table.add_column(heading, no_wrap=True)
    for item in services:
        table.add_row(
            item.instance,
            "yes" if item.alive else "[red]no[/red]",
            "yes" if item.ready else "[yellow]no[/yellow]",
            "" if item.lag is None else f"{item.lag:,}",
            str(item.restarts),
            item.url or "",
        )
    console.print(table)
    _print_levels(console, services)
    for item in services:
        if item.last_error and (item.restarts or not item.ready):
            console.print(f"{item.instance}: {escape(item.last_error)}", highlight=False, soft_wrap=True)


def _told(service: ServiceStatus) -> dict[str, Any]:
    """Return a service's status as plain values; its views stand with those of the others."""
    return {name: value for name, value in asdict(service).items() if name != "views"}


def _print_freshness(console: Console, views: list[ViewFreshness]) -> None:
    if not views:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("view", "newest event", "logged", "target"):
        table.add_column(heading, no_wrap=True)
    for one in views:
        age = _age(one.age_seconds)
        table.add_row(
            one.view,
            f"[red]{age}, too old[/red]" if one.breached else age,
            _age(one.logged_age_seconds),
            "" if one.target_seconds is None else format_duration(round(one.target_seconds * 1e6)),
        )
    console.print(table)


def _age(seconds: float | None) -> str:
    """Return an age in words.

    >>> _age(0.2), _age(90), _age(4_000), _age(200_000), _age(None)
    ('0 s ago', '90 s ago', '67 min ago', '56 h ago', 'none')
    """
    if seconds is None:
        return "none"
    if seconds < 120:
        return f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 7_200 else f"{seconds / 3_600:.0f} h ago"


def _print_levels(console: Console, services: list[ServiceStatus]) -> None:
    """Print how the models' service levels stand, where any are declared and were measured."""
    measured = [
        (item, level) for item in services for level in item.service_levels if level["good"] is not None
    ]
    if not measured:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("service level", "instance", "good in 6 h", "promised", "requests", "budget burns"):
        table.add_column(heading, no_wrap=True)
    for item, level in measured:
        burning = {"no": "", "slowly": "[yellow]slowly[/yellow]", "fast": "[red]fast[/red]"}[level["burning"]]
        table.add_row(
            f"{level['model']} {level['objective']}",
            item.instance,
            f"{level['good']:.3%}",
            f"{level['target']:.3%}",
            f"{level['requests']:,}",
            burning,
        )
    console.print(table)
