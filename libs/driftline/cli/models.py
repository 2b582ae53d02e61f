"""`driftline models ...`: which versions there are, who is champion, and what a person wants done about it.

Reading commands fold the topic ``model-events``. The others add a command to it, or a retrain request, after asking
the same rules that the model registry will ask, so that what is impossible is told at once.
"""

import getpass
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from driftline.cli.options import JsonOption, ProjectOption, echo_json, settings_for
from driftline.contracts.project_schemas import outcome_schema, platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import MODEL_EVENTS, RETRAIN_REQUESTS, Topics
from driftline.contracts.wire import frame, split
from driftline.models.commands import answer
from driftline.models.life_log import LifeLog
from driftline.models.lifecycle import ModelHistory, fold
from driftline.models.model_event import Kind, ModelEvent, TrainingCause
from driftline.models.retraining import Cause, RetrainRequest, request
from driftline.playback.topic_reading import TopicReader
from driftline.project import Project
from driftline.runtime.acknowledged_producer import AcknowledgedProducer
from driftline.runtime.clock import instant_us, text_us
from driftline.runtime.errors import BadMessageError, RefusedError, UnavailableError
from driftline.runtime.ids import new_id
from driftline.runtime.settings import PlatformSettings

app = typer.Typer(help="Versions of models, their champion, and their life.", no_args_is_help=True)

ModelArgument = Annotated[str, typer.Argument(help="Name of the model; may be left out where there is one.")]
VersionArgument = Annotated[str, typer.Argument(help="Version, as `driftline models list` shows it.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, in a sentence; it is kept for ever.")]
WaitOption = Annotated[
    float, typer.Option("--wait", min=0, help="Seconds to wait for the registry's answer.")
]
_ANSWER_SECONDS = 20.0
_TAIL = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """A project with its topics and registry."""

    settings: PlatformSettings
    project: Project
    registry: SchemaRegistry

    @property
    def topics(self) -> Topics:
        return self.settings.topics(self.project)

    def model(self, name: str) -> str:
        """Return the model that is meant."""
        known = ", ".join(sorted(self.project.models)) or "none"
        if name in self.project.models:
            return name
        if not name and len(self.project.models) == 1:
            return next(iter(self.project.models))
        what = f"has no model {name!r}" if name else "has not exactly one model"
        raise RefusedError(f"project {self.project.name!r} {what}; its models: {known}")

    def events(self) -> list[ModelEvent]:
        with LifeLog(self.settings.kafka_config(), self.topics.stream(MODEL_EVENTS), self.registry) as log:
            return log.read_to_end()

    def history(self, model: str) -> ModelHistory:
        return fold(model, self.events())

    def send(self, stream: str, schema: str, key: str, record: Mapping[str, Any]) -> None:
        topic = self.topics.stream(stream)
        declared = platform_schema(schema)
        body = RecordCodec(declared).encode(record)
        value = frame(self.registry.schema_id(self.topics.subject(topic), declared), body)
        producer = AcknowledgedProducer(self.settings.kafka_config())
        try:
            producer.submit(topic, key, value).result(30)
        finally:
            producer.close()

    def event_clock_us(self) -> int:
        """Return how far event time has come: the newest label that an outcome has; now where there is none."""
        codec = RecordCodec(outcome_schema(self.project))
        newest = 0
        with TopicReader(self.settings.kafka_config(), [self.topics.outcomes]) as reader:
            reader.seek_back(_TAIL)
            for message in reader.read_to_end():
                try:
                    schema_id, body = split(message.value())
                    record = codec.decode(body, self.registry.schema(schema_id))
                except BadMessageError:
                    continue
                newest = max(newest, instant_us(record["label_known_at"]))
        return newest or time.time_ns() // 1000


@contextmanager
def _desk(folder: Path) -> Iterator[_Desk]:
    settings, project = settings_for(folder)
    with SchemaRegistry(settings.schema_registry_url) as registry:
        yield _Desk(settings=settings, project=project, registry=registry)


@app.command("list")
def list_versions(
    model: ModelArgument = "", *, project: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """List versions with where they stand, the champion marked."""
    with _desk(project) as desk:
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
        table.add_row(name, row["state"], row["since"][:10], loss, escape(row["why"]), style=style)
    Console().print(table)


@app.command("show")
def show_version(
    version: VersionArgument,
    model: ModelArgument = "",
    *,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show everything that happened to a version, with the evidence."""
    with _desk(project) as desk:
        history = desk.history(desk.model(model))
    if history.state_of(version) is None:
        known = ", ".join(sorted(history.versions)) or "none"
        raise RefusedError(f"model {history.model!r} has no version {version!r}; its versions: {known}")
    row = next(row for row in _rows(history) if row["version"] == version)
    found = [_told(event) for event in history.events if event.version == version]
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


@app.command("history")
def show_history(
    model: ModelArgument = "", *, project: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Show all facts and commands of a model, and who reigned when."""
    with _desk(project) as desk:
        history = desk.history(desk.model(model))
    if as_json:
        reigns = [
            {
                "version": one.version,
                "since": _time(one.since_us),
                "until": one.until_us and _time(one.until_us),
            }
            for one in history.reigns
        ]
        ignored = {one.event.event_id: one.why for one in history.ignored}
        told = [
            {
                **_told(event),
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
            _time(event.effective_us),
            event.kind.value,
            event.version or "",
            "" if cause is None else cause.cause.lower(),
            event.by,
            escape(event.reason),
        )
    Console().print(table)


@app.command("champion")
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
    instant = _instant(at) if at else None
    with _desk(project) as desk:
        history = desk.history(desk.model(model))
    version = history.champion if instant is None else history.champion_at(instant)
    if as_json:
        echo_json(
            {"model": history.model, "at": None if instant is None else _time(instant), "champion": version}
        )
    elif version is None:
        raise RefusedError(f"model {history.model!r} has no champion" + (f" at {at}" if at else " yet"))
    else:
        typer.echo(version)


@app.command("promote")
def promote(
    version: VersionArgument,
    model: ModelArgument = "",
    *,
    reason: ReasonOption = "",
    wait: WaitOption = _ANSWER_SECONDS,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Make a version champion, whatever the evidence says."""
    _command(Kind.PROMOTE, version, model, reason, wait, project, as_json=as_json)


@app.command("approve")
def approve(
    model: ModelArgument = "",
    *,
    version: Annotated[str, typer.Option(help="The version; the one that waits if left out.")] = "",
    reason: ReasonOption = "",
    wait: WaitOption = _ANSWER_SECONDS,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Promote the version that waits for approval."""
    _command(Kind.APPROVE, version, model, reason, wait, project, as_json=as_json)


@app.command("reject")
def reject(
    version: VersionArgument,
    model: ModelArgument = "",
    *,
    reason: ReasonOption = "",
    wait: WaitOption = _ANSWER_SECONDS,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Reject a version that is not decided yet; of one in training, stop the training."""
    _command(Kind.REJECT, version, model, reason, wait, project, as_json=as_json)


@app.command("rollback")
def rollback(
    model: ModelArgument = "",
    *,
    reason: ReasonOption = "",
    wait: WaitOption = _ANSWER_SECONDS,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Bring the champion before this one back."""
    _command(Kind.ROLL_BACK, "", model, reason, wait, project, as_json=as_json)


@app.command("pull")
def pull(
    model: ModelArgument = "",
    *,
    version: Annotated[str, typer.Option(help="The version; the champion if left out.")] = "",
    reason: ReasonOption = "",
    wait: WaitOption = _ANSWER_SECONDS,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Take a version out of service for good; of the champion, the one before it comes back."""
    _command(Kind.PULL, version, model, reason, wait, project, as_json=as_json)


@app.command("retrain")
def retrain(
    model: ModelArgument = "",
    *,
    reason: ReasonOption = "",
    until: Annotated[
        str, typer.Option("--until", help="Learn from what was known before; the newest label if left out.")
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            "--since", help="Learn from requests since this day; as the trainer is set if left out."
        ),
    ] = "",
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Ask for a new version, whatever the cooldown says.

    Example: driftline models retrain lateness --since 2013-07-01 --until 2013-10-01
    """
    with _desk(project) as desk:
        made = request(
            Cause.PERSON,
            new_id(),
            desk.model(model),
            reason or f"{_person()} asked for it",
            _instant(until) if until else desk.event_clock_us(),
            by=_person(),
            at_us=time.time_ns() // 1000,
            data_from_us=_instant(since) if since else None,
        )
        desk.send(RETRAIN_REQUESTS, "retrain_request", made.model, made.record())
    _tell_request(made, as_json=as_json)


def _tell_request(made: RetrainRequest, *, as_json: bool) -> None:
    until = _time(made.data_until_us)
    if as_json:
        echo_json(
            {"request_id": made.request_id, "model": made.model, "version": made.version, "data_until": until}
        )
    else:
        typer.echo(f"asked for {made.model}@{made.version}, from what was known before {until}")


def _command(
    kind: Kind, version: str, model: str, reason: str, wait: float, folder: Path, *, as_json: bool
) -> None:
    """Add a command to the log and wait for the fact that follows."""
    with _desk(folder) as desk:
        name = desk.model(model)
        now = time.time_ns() // 1000
        history = desk.history(name)
        clock = desk.event_clock_us() if desk.project.models[name].label is not None else now
        command = ModelEvent(
            event_id=new_id(),
            model=name,
            version=version or None,
            kind=kind,
            reason=reason or f"{_person()} asked for it",
            effective_us=max(clock, history.last_change_us or 0),
            by=_person(),
            at_us=now,
        )
        expected = answer(history, command, by="", at_us=now)  # refused here, it would be refused there
        desk.send(MODEL_EVENTS, "model_event", name, command.record())
        fact = _answered(desk, command, wait) if expected is not None and wait else None
    if as_json:
        echo_json({"command_id": command.event_id, "fact": None if fact is None else _told(fact)})
    elif fact is not None:
        typer.echo(f"{fact.kind.value.lower().replace('_', ' ')}: {name}@{fact.version}")
    elif expected is None:
        typer.echo("asked the trainer to stop; see `driftline models list`")
    elif not wait:
        typer.echo("asked for it")
    if expected is not None and wait and fact is None:
        msg = f"the command is in the log, but nothing followed in {wait:g} s: is the model registry running?"
        raise UnavailableError(msg)


def _answered(desk: _Desk, command: ModelEvent, seconds: float) -> ModelEvent | None:
    until = time.monotonic() + seconds
    with LifeLog(desk.settings.kafka_config(), desk.topics.stream(MODEL_EVENTS), desk.registry) as log:
        found = log.read_to_end()
        while True:
            for event in found:
                if event.cause_id == command.event_id:
                    return event
            left = until - time.monotonic()
            if left <= 0:
                return None
            found = log.poll(min(left, 0.5))


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
            "state": life.state.value,
            "since": _time(life.since_us),
            "data_until": None if life.data_until_us is None else _time(life.data_until_us),
            "log_loss": losses.get(life.version),
            "why": life.reason,
            "cause": None if (cause := history.cause_of(life.version)) is None else cause.as_json(),
        }
        for life in lives
    ]


def _told(event: ModelEvent) -> dict[str, Any]:
    return {
        **event.record(),
        "effective_at": _time(event.effective_us),
        "at": _time(event.at_us),
        "data_until": None if event.data_until_us is None else _time(event.data_until_us),
        "evidence": event.told,
    }


def _cause(history: ModelHistory, version: str | None) -> TrainingCause | None:
    return None if version is None else history.cause_of(version)


def _instant(text: str) -> int:
    try:
        return text_us(text)
    except ValueError as error:
        raise RefusedError(f"{text!r} is no ISO 8601 instant, like 2013-06-15T12:00") from error


def _time(us: int) -> str:
    return (
        datetime.fromtimestamp(us / 1e6, tz=UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
    )


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "someone"
