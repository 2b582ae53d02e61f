"""`driftline models list`, `show`, `history` and `champion`: the topic ``model-events``, folded."""

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from driftline.cli.model_desk import (
    ModelArgument,
    VersionArgument,
    open_desk,
    read_instant,
    shown_time,
    told_event,
)
from driftline.cli.options import JsonOption, ProjectOption, echo_json
from driftline.models.lifecycle import ModelHistory, VersionLife, fold
from driftline.models.model_event import Kind, TrainingCause
from driftline.runtime.errors import RefusedError


def list_versions(
    model: ModelArgument = "", *, project: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """List versions with where they stand, the champion marked."""
    with open_desk(project) as desk:
        events = desk.events()
        names = [desk.model(model)] if model else sorted(desk.project.models)
    histories = [fold(name, events) for name in names]
    rows = [row for history in histories for row in _rows(history)]
    if as_json:
        echo_json(rows)
        return
    table = Table(title=f"{len(rows)} versions of {', '.join(names)}")
    for heading in ("version", "state", "since", "log loss", "why"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "version")
    for row in rows:
        style = "bold green" if row["state"] == "champion" else ""
        loss = "" if row["log_loss"] is None else f"{row['log_loss']:.4f}"
        name = row["version"] if len(names) == 1 else f"{row['model']}@{row['version']}"
        state = row["state"] + (f", {row['trial']}" if row["trial"] else "")
        table.add_row(name, state, row["since"][:10], loss, escape(row["why"]), style=style)
    Console().print(table)


def show_version(
    version: VersionArgument,
    model: ModelArgument = "",
    *,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show everything that happened to a version, with the evidence."""
    with open_desk(project) as desk:
        history = desk.history(desk.model(model))
    if history.state_of(version) is None:
        known = ", ".join(sorted(history.versions)) or "none"
        raise RefusedError(f"model {history.model!r} has no version {version!r}; its versions: {known}")
    row = next(row for row in _rows(history) if row["version"] == version)
    found = [told_event(event) for event in history.events if event.version == version]
    if as_json:
        echo_json({**row, "events": found})
        return
    console = Console()
    console.print(f"{history.model}@{version}: {row['state']}", style="bold", highlight=False)
    cause = history.cause_of(version)
    if cause is not None:
        told = f"  trained because of {cause.cause} ({cause.cause_id}), asked for by {cause.requested_by}: {cause.reason}"
        console.print(told, markup=False, highlight=False)
    for event in found:
        console.print(
            f"  {event['effective_at']}  {event['kind']} by {event['by']}: {event['reason']}", markup=False
        )
        if event["evidence"]:
            text = orjson.dumps(event["evidence"], option=orjson.OPT_INDENT_2).decode()
            console.print("\n".join(f"      {line}" for line in text.splitlines()), style="dim", markup=False)


def show_history(
    model: ModelArgument = "", *, project: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Show all facts and commands of a model, and who reigned when."""
    with open_desk(project) as desk:
        history = desk.history(desk.model(model))
    if as_json:
        reigns = [
            {
                "version": one.version,
                "since": shown_time(one.since_us),
                "until": one.until_us and shown_time(one.until_us),
            }
            for one in history.reigns
        ]
        ignored = {one.event.event_id: one.why for one in history.ignored}
        told = [
            {
                **told_event(event),
                "ignored": ignored.get(event.event_id),
                "cause": None if (cause := _cause(history, event.version)) is None else cause.as_json(),
            }
            for event in history.events
        ]
        echo_json({"model": history.model, "reigns": reigns, "events": told})
        return
    table = Table(title=f"{history.model}: {len(history.events)} events")
    for heading in ("from", "what", "version", "cause", "by", "why"):
        table.add_column(heading, overflow="fold")
    for event in history.events:
        cause = _cause(history, event.version)
        table.add_row(
            shown_time(event.effective_us),
            event.kind.value,
            event.version or "",
            "" if cause is None else cause.cause.lower(),
            event.by,
            escape(event.reason),
        )
    Console().print(table)


def show_champion(
    model: ModelArgument = "",
    *,
    at: Annotated[
        str, typer.Option("--at", help="ISO 8601 instant of event time (UTC); now if left out.")
    ] = "",
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Say who is champion, or who was at an instant.

    Example: driftline models champion lateness --at 2013-06-15T12:00
    """
    instant = read_instant(at) if at else None
    with open_desk(project) as desk:
        history = desk.history(desk.model(model))
    version = history.champion if instant is None else history.champion_at(instant)
    if as_json:
        echo_json(
            {
                "model": history.model,
                "at": None if instant is None else shown_time(instant),
                "champion": version,
            }
        )
    elif version is None:
        raise RefusedError(f"model {history.model!r} has no champion" + (f" at {at}" if at else " yet"))
    else:
        typer.echo(version)


def _rows(history: ModelHistory) -> list[dict[str, Any]]:
    losses = {}
    for event in history.events:
        if event.kind is Kind.REGISTERED:
            metrics = event.told.get("metrics", {})
            losses[event.version] = metrics.get("model", {}).get("log_loss")
    lives = sorted(history.versions.values(), key=lambda life: (life.since_us, life.version))
    return [
        {
            "model": history.model,
            "version": life.version,
            "state": _state(history, life),
            "trial": _tried(history, life.version),
            "since": shown_time(life.since_us),
            "data_until": None if life.data_until_us is None else shown_time(life.data_until_us),
            "log_loss": losses.get(life.version),
            "why": life.reason,
            "cause": None if (cause := history.cause_of(life.version)) is None else cause.as_json(),
        }
        for life in lives
    ]


def _state(history: ModelHistory, life: VersionLife) -> str:
    withdrawn = history.withdrawal is not None and life.version == history.champion
    return "champion, out of service" if withdrawn else life.state.value


def _tried(history: ModelHistory, version: str) -> str | None:
    """Return which share of the requests a version answers in the trial that runs; None where it is not tried."""
    trial = history.trial
    arms = () if trial is None else trial.arms
    shares = [
        f"{one.share:.4g} in {trial.name}" for one in arms if trial is not None and one.version == version
    ]
    return shares[0] if shares else None


def _cause(history: ModelHistory, version: str | None) -> TrainingCause | None:
    return None if version is None else history.cause_of(version)
