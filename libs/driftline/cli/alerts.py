"""`driftline alerts list|show|ack|silence|unsilence`: what is wrong, who was told, and who takes care of it."""

import getpass
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from driftline.alerts.alert import Alert, AlertStatus, Severity, to_iso
from driftline.alerts.input_log import InputLog
from driftline.alerts.inputs import (
    ALERT_INPUT,
    Acknowledge,
    Delivered,
    Failed,
    Input,
    Silence,
    Started,
    Unsilence,
    input_of,
)
from driftline.cli.options import JsonOption, ProjectOption, settings_for
from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import ALERT_INPUTS, ALERTS
from driftline.contracts.wire import split
from driftline.playback.topic_reading import TopicReader
from driftline.project import Project
from driftline.runtime.clock import instant_us
from driftline.runtime.durations import parse_duration_us
from driftline.runtime.errors import BadMessageError, ConfigurationError, RefusedError
from driftline.runtime.ids import new_id
from driftline.runtime.settings import PlatformSettings

app = typer.Typer(help="What is wrong, who was told, and who takes care of it.", no_args_is_help=True)

_COLOURS = {Severity.CRITICAL: "red", Severity.WARNING: "yellow", Severity.INFO: "blue"}
_PATIENCE_SECONDS = 10.0

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The alert's UUID, or its begin.")]
WhatArgument = Annotated[
    str, typer.Argument(metavar="ID|GROUP", help="An alert's UUID (or its begin), or a group.")
]
ByOption = Annotated[str, typer.Option(help="Who; you, if left out.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One record of the inputs: the input, and when it was written (microseconds)."""

    event: Input
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Reads and writes a project's alerts."""

    settings: PlatformSettings
    project: Project
    registry: SchemaRegistry

    def history(self) -> list[Alert]:
        """Return every change of every alert, in order within a group."""
        return [Alert.from_record(record) for record in self._records(ALERTS, platform_schema("alert"))]

    def newest(self) -> dict[str, Alert]:
        """Return the newest record of each alert by its UUID, the alert that changed last at the end."""
        found: dict[str, Alert] = {}
        for alert in sorted(self.history(), key=lambda one: one.at):
            found.pop(alert.alert_id, None)
            found[alert.alert_id] = alert
        return found

    def find(self, beginning: str) -> Alert:
        """Return the alert whose UUID begins so; RefusedError where there is none, or more than one."""
        found = [alert for name, alert in self.newest().items() if name.startswith(beginning.lower())]
        if len(found) != 1:
            what = "more than one alert" if found else "no alert"
            raise RefusedError(
                f"there is {what} whose id begins with {beginning!r}; see `driftline alerts list`"
            )
        return found[0]

    def inputs(self, group: str) -> list[Entry]:
        """Return a group's inputs in order."""
        return [
            Entry(event=input_of(record), at=instant_us(record["at"]))
            for record in self._records(ALERT_INPUTS, ALERT_INPUT)
            if record["group"] == group
        ]

    def put(self, event: Input) -> None:
        """Write what a person wants into the log of inputs."""
        log = InputLog(self.settings.kafka_config(), self.settings.topics(self.project), self.registry)
        try:
            log.put(event)
        finally:
            log.close()

    def wait(self, done: Callable[[Iterable[Alert]], bool]) -> bool:
        """Wait until the alerter has followed; False where it has not for a while."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < until:
            if done(self.newest().values()):
                return True
            time.sleep(0.3)
        return False

    def _records(self, stream: str, schema: dict[str, Any]) -> Iterable[dict[str, Any]]:
        topic = self.settings.topics(self.project).stream(stream)
        codec = RecordCodec(schema)
        with TopicReader(self.settings.kafka_config(), [topic]) as reader:
            for message in reader.read_to_end():
                try:
                    schema_id, body = split(message.value())
                    yield codec.decode(body, self.registry.schema(schema_id))
                except BadMessageError:
                    continue  # the alerter has set it aside


@app.command("list")
def list_alerts(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Those that are over as well.")] = False,
    status: Annotated[AlertStatus | None, typer.Option(help="Only those.", case_sensitive=False)] = None,
    severity: Annotated[Severity | None, typer.Option(help="Only those.", case_sensitive=False)] = None,
    model: Annotated[str, typer.Option(help="Only those about this model.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest to show.")] = 50,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """List the alerts that are open, newest last."""
    with _desk(project) as desk:
        found = [
            alert
            for alert in desk.newest().values()
            if (everything or status is AlertStatus.RESOLVED or alert.status is not AlertStatus.RESOLVED)
            and status in (None, alert.status)
            and severity in (None, alert.severity)
            and model in ("", alert.model)
        ]
    shown = found[-limit:]
    if as_json:
        typer.echo(orjson.dumps([alert.as_json() for alert in shown]).decode())
        return
    table = Table(title=f"{len(shown):,} of {len(found):,} alerts" if found else "no alerts")
    for heading in ("id", "status", "severity", "what", "since", "causes", "told"):
        table.add_column(heading, overflow="fold")
    for alert in shown:
        table.add_row(
            alert.alert_id[:8],
            alert.status + (f" by {escape(alert.by)}" if alert.status is AlertStatus.ACKNOWLEDGED else ""),
            f"[{_COLOURS[alert.severity]}]{alert.severity}[/]",
            escape(alert.title),
            to_iso(alert.started_at),
            f"{alert.count:,}",
            ", ".join(alert.notified),
        )
    Console().print(table)


@app.command("show")
def show_alert(alert_id: IdArgument, *, project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Show one alert: what is wrong, what to do, its history, and who was told when."""
    with _desk(project) as desk:
        alert = desk.find(alert_id)
        history = [one for one in desk.history() if one.alert_id == alert.alert_id]
        deliveries = [_delivery(entry) for entry in desk.inputs(alert.group) if _is_delivery(entry)]
    if as_json:
        content = {
            **alert.as_json(),
            "history": [one.as_json() for one in history],
            "group_deliveries": deliveries,
        }
        typer.echo(orjson.dumps(content).decode())
        return
    console = Console()
    colour = _COLOURS[alert.severity]
    console.print(f"[bold {colour}]{escape(alert.title)}[/]", highlight=False)
    facts = {
        "alert": alert.alert_id,
        "group": alert.group,
        "status": f"{alert.status} by {alert.by}, {alert.severity}, {alert.count:,} causes",
        "team": alert.team,
        "since": to_iso(alert.started_at),
        "runbook": alert.runbook or "none",
        "told": ", ".join(alert.notified) or "nobody of this status",
    }
    for name, text in facts.items():
        console.print(f"  {name:<8}{text}", markup=False, highlight=False)
    console.print(f"\n{alert.text}\n", markup=False, highlight=False)
    for one in history:
        told = f"; told: {', '.join(one.notified)}" if one.notified else ""
        line = f"  {to_iso(one.at)}  {one.status} {one.severity} by {one.by}, {one.count:,} causes{told}"
        console.print(line, style="dim", markup=False, highlight=False)


@app.command("ack")
def acknowledge(
    alert_id: IdArgument,
    *,
    by: ByOption = "",
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Take care of an alert: no more reminders, no escalation."""
    with _desk(project) as desk:
        alert = desk.find(alert_id)
        if alert.status is AlertStatus.RESOLVED:
            raise RefusedError(f"alert {alert.alert_id} is over already")
        desk.put(
            Acknowledge(input_id=new_id(), group=alert.group, alert_id=alert.alert_id, by=by or _person())
        )

        def done(alerts: Iterable[Alert]) -> bool:
            wanted = (AlertStatus.ACKNOWLEDGED, AlertStatus.RESOLVED)
            return any(one.alert_id == alert.alert_id and one.status in wanted for one in alerts)

        _say(desk, done, {"alert_id": alert.alert_id, "asked": "ack"}, as_json=as_json)


@app.command("silence")
def silence(
    what: WhatArgument,
    *,
    duration: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 1d.")],
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    by: ByOption = "",
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Tell nobody of an alert's group for a while. What still burns afterwards fires again."""
    try:
        until = time.time_ns() // 1_000 + parse_duration_us(duration)
    except ValueError as error:
        raise ConfigurationError(f"--for {error}") from error
    with _desk(project) as desk:
        group = _group(desk, what)
        desk.put(Silence(input_id=new_id(), group=group, until=until, reason=reason, by=by or _person()))

        def done(alerts: Iterable[Alert]) -> bool:
            firing = (AlertStatus.FIRING, AlertStatus.ACKNOWLEDGED)
            return not any(one.group == group and one.status in firing for one in alerts)

        answer = {"group": group, "asked": "silence", "until": to_iso(until)}
        _say(desk, done, answer, as_json=as_json)


@app.command("unsilence")
def unsilence(
    what: WhatArgument,
    *,
    by: ByOption = "",
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """End a silence now."""
    with _desk(project) as desk:
        group = _group(desk, what)
        desk.put(Unsilence(input_id=new_id(), group=group, by=by or _person()))

        def done(alerts: Iterable[Alert]) -> bool:
            return not any(one.group == group and one.status is AlertStatus.SILENCED for one in alerts)

        _say(desk, done, {"group": group, "asked": "unsilence"}, as_json=as_json)


@contextmanager
def _desk(folder: Path) -> Iterator[Desk]:
    settings, project = settings_for(folder)
    with SchemaRegistry(settings.schema_registry_url) as registry:
        yield Desk(settings=settings, project=project, registry=registry)


def _group(desk: Desk, what: str) -> str:
    """Return a group as it is, or that of an alert; a group may be silenced before it has an alert."""
    return what if "/" in what else desk.find(what).group


def _say(
    desk: Desk, done: Callable[[Iterable[Alert]], bool], answer: dict[str, str], *, as_json: bool
) -> None:
    followed = desk.wait(done)
    if as_json:
        typer.echo(orjson.dumps({**answer, "done": followed}).decode())
    elif followed:
        Console().print(f"{answer['asked']}: done", highlight=False)
    else:
        Console().print(
            f"{answer['asked']}: written down, but the alerter has not followed yet; does it run? `driftline status`",
            highlight=False,
        )


def _is_delivery(entry: Entry) -> bool:
    return isinstance(entry.event, Started | Delivered | Failed)


def _delivery(entry: Entry) -> dict[str, Any]:
    event = entry.event
    return {
        "what": type(event).__name__.lower(),
        "notification": getattr(event, "notice_id", ""),
        "attempt": getattr(event, "attempt", 0),
        "reason": getattr(event, "reason", ""),
        "by": event.by,
        "at": to_iso(entry.at),
    }


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
