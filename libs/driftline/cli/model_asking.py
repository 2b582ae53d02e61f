"""`driftline models promote`, `approve`, `reject`, `rollback`, `pull` and `retrain`: what a person wants done.

Each adds a command to ``model-events``, or a retrain request, after asking the same rules that the model registry will
ask, so that what is impossible is told at once.
"""

import getpass
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from driftline.cli.model_desk import (
    Desk,
    ModelArgument,
    VersionArgument,
    open_desk,
    read_instant,
    shown_time,
    told_event,
)
from driftline.cli.options import JsonOption, ProjectOption, echo_json
from driftline.contracts.topics import MODEL_EVENTS, RETRAIN_REQUESTS
from driftline.models.commands import answer
from driftline.models.life_log import LifeLog
from driftline.models.lifecycle import ModelHistory
from driftline.models.model_event import Kind, ModelEvent
from driftline.models.retraining import Cause, RetrainRequest, request
from driftline.runtime.errors import UnavailableError
from driftline.runtime.ids import new_id

ReasonOption = Annotated[str, typer.Option("--reason", help="Why, in a sentence; it is kept for ever.")]
WaitOption = Annotated[
    float, typer.Option("--wait", min=0, help="Seconds to wait for the registry's answer.")
]
ANSWER_SECONDS = 20.0
#: Makes a command's evidence of the project and the model's history.
Evidence = Callable[[Desk, ModelHistory], str]


def promote(
    version: VersionArgument,
    model: ModelArgument = "",
    *,
    reason: ReasonOption = "",
    wait: WaitOption = ANSWER_SECONDS,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Make a version champion, whatever the evidence says."""
    ask_registry(Kind.PROMOTE, version, model, reason, wait, project, as_json=as_json)


def approve(
    model: ModelArgument = "",
    *,
    version: Annotated[str, typer.Option(help="The version; the one that waits if left out.")] = "",
    reason: ReasonOption = "",
    wait: WaitOption = ANSWER_SECONDS,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Promote the version that waits for approval."""
    ask_registry(Kind.APPROVE, version, model, reason, wait, project, as_json=as_json)


def reject(
    version: VersionArgument,
    model: ModelArgument = "",
    *,
    reason: ReasonOption = "",
    wait: WaitOption = ANSWER_SECONDS,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Reject a version that is not decided yet; of one in training, stop the training."""
    ask_registry(Kind.REJECT, version, model, reason, wait, project, as_json=as_json)


def rollback(
    model: ModelArgument = "",
    *,
    reason: ReasonOption = "",
    wait: WaitOption = ANSWER_SECONDS,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Bring the champion before this one back."""
    ask_registry(Kind.ROLL_BACK, "", model, reason, wait, project, as_json=as_json)


def pull(
    model: ModelArgument = "",
    *,
    version: Annotated[str, typer.Option(help="The version; the champion if left out.")] = "",
    reason: ReasonOption = "",
    wait: WaitOption = ANSWER_SECONDS,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Take a version out of service for good; of the champion, the one before it comes back.

    Without one before it the model is out of service: callers are told so (503) until another version is promoted.
    """
    ask_registry(Kind.PULL, version, model, reason, wait, project, as_json=as_json)


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
    with open_desk(project) as desk:
        made = request(
            Cause.PERSON,
            new_id(),
            desk.model(model),
            reason or f"{_person()} asked for it",
            read_instant(until) if until else desk.event_clock_us(),
            by=_person(),
            at_us=time.time_ns() // 1000,
            data_from_us=read_instant(since) if since else None,
        )
        desk.send(RETRAIN_REQUESTS, "retrain_request", made.model, made.record())
    _tell_request(made, as_json=as_json)


def _tell_request(made: RetrainRequest, *, as_json: bool) -> None:
    until = shown_time(made.data_until_us)
    if as_json:
        echo_json(
            {"request_id": made.request_id, "model": made.model, "version": made.version, "data_until": until}
        )
    else:
        typer.echo(f"asked for {made.model}@{made.version}, from what was known before {until}")


def ask_registry(
    kind: Kind,
    version: str,
    model: str,
    reason: str,
    wait: float,
    folder: Path,
    *,
    as_json: bool,
    evidence: Evidence = lambda _desk, _history: "{}",
) -> None:
    """Add a command to the log and wait for the fact that follows; ``evidence`` is what the command holds beside."""
    with open_desk(folder) as desk:
        name = desk.model(model)
        now = time.time_ns() // 1000
        history = desk.history(name)
        clock = desk.event_clock_us() if desk.project.models[name].label is not None else now
        command = ModelEvent(
            event_id=new_id(),
            model=name,
            version=version or None,
            kind=kind,
            evidence=evidence(desk, history),
            reason=reason or f"{_person()} asked for it",
            effective_us=max(clock, history.last_change_us or 0),
            by=_person(),
            at_us=now,
        )
        expected = answer(history, command, by="", at_us=now)  # refused here, it would be refused there
        desk.send(MODEL_EVENTS, "model_event", name, command.record())
        fact = _answered(desk, command, wait) if expected is not None and wait else None
    if as_json:
        echo_json({"command_id": command.event_id, "fact": None if fact is None else told_event(fact)})
    elif fact is not None:
        typer.echo(f"{fact.kind.value.lower().replace('_', ' ')}: {name}@{fact.version}")
    elif expected is None:
        typer.echo("asked the trainer to stop; see `driftline models list`")
    elif not wait:
        typer.echo("asked for it")
    if expected is not None and wait and fact is None:
        msg = f"the command is in the log, but nothing followed in {wait:g} s: is the model registry running?"
        raise UnavailableError(msg)


def _answered(desk: Desk, command: ModelEvent, seconds: float) -> ModelEvent | None:
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


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "someone"
