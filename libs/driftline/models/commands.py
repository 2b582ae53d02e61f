"""What follows from a person's command: one fact, or the reason why not. Pure, from a history to the next fact."""

import json
from typing import Any

from driftline.models.lifecycle import PROMOTABLE, ModelHistory, State
from driftline.models.model_event import TRIAL_COMMANDS, Kind, ModelEvent, life_id
from driftline.models.trial import STARTED, Trial, TrialKind, stepping, trial_of
from driftline.runtime.errors import RefusedError

_UNDECIDED = frozenset({State.REGISTERED, State.VALIDATED, State.CHALLENGER, State.PENDING})


def change_instant(history: ModelHistory, version: str, wanted_us: int) -> int:
    """Return the instant from which a decision on a version can hold: as wanted, or later.

    It lies behind the last change of champion and the last of a trial, so that reigns and trials follow each other as the
    decisions did, and not before what the version's own last fact holds from.
    """
    last, life = history.last_change_us, history.versions.get(version)
    return max(
        wanted_us,
        wanted_us if last is None else last + 1,
        wanted_us if life is None else life.since_us,
        history.trials_until_us + 1 if history.trials else wanted_us,
    )


def answer(history: ModelHistory, command: ModelEvent, *, by: str, at_us: int) -> ModelEvent | None:
    """Return the fact that follows from a person's command; None where another service answers it.

    A command without a version means the one that is meant: the version that waits for approval, or the champion.

    Raises
    ------
    RefusedError
        The command is not possible; the message says why. Nothing follows from it then.
    """
    told: dict[str, Any] = {}
    match command.kind:
        case kind if kind in TRIAL_COMMANDS:
            kind, version, told = _about_trial(history, command)
        case Kind.APPROVE:
            version = _chosen(history, command.version or history.pending, "no version waits for approval")
            _require(history, version, frozenset({State.PENDING}), "approved")
            kind = Kind.PROMOTED
        case Kind.PROMOTE:
            version = _chosen(history, command.version, "name the version to promote")
            _require(history, version, PROMOTABLE, "promoted")
            kind = Kind.PROMOTED
        case Kind.REJECT:
            version = _chosen(history, command.version or history.pending, "no version waits for approval")
            if history.state_of(version) is State.TRAINING:
                return None  # the trainer, which stops the training
            _require(history, version, _UNDECIDED, "rejected")
            kind = Kind.REJECTED
        case Kind.ROLL_BACK:
            version = _chosen(history, command.version or history.champion, "there is no champion")
            _require(history, version, frozenset({State.CHAMPION}), "rolled back")
            _require_former(history)
            kind = Kind.ROLLED_BACK
        case Kind.PULL:
            version = _chosen(history, command.version or history.champion, "there is no champion")
            _require(history, version, frozenset(State) - {State.PULLED}, "pulled")
            if version == history.champion and history.withdrawal is not None:
                raise RefusedError(f"{history.model}@{version} is pulled, so it cannot be pulled")
            kind = Kind.PULLED
        case kind:
            raise RefusedError(f"{kind} is a fact, not a command")
    cause = history.cause_of(version)
    return ModelEvent(
        event_id=life_id(command.event_id, kind),
        model=history.model,
        version=version,
        kind=kind,
        cause_id=command.event_id,
        reason=command.reason or f"{command.by} asked for it",
        evidence=json.dumps({**told, **({} if cause is None else {"cause": cause.as_json()})}),
        effective_us=change_instant(history, version, command.effective_us),
        by=by,
        at_us=at_us,
    )


def _about_trial(history: ModelHistory, command: ModelEvent) -> tuple[Kind, str, dict[str, Any]]:
    """Return the fact that follows from a command about a trial, the version it is about, and what it holds."""
    if command.kind in {Kind.START_CANARY, Kind.START_AB}:
        kind = Kind.CANARY_STARTED if command.kind is Kind.START_CANARY else Kind.AB_STARTED
        trial = _startable(history, command, STARTED[kind])
        return kind, trial.version, trial.evidence()
    kind = Kind.CANARY_ENDED if command.kind is Kind.STOP_CANARY else Kind.AB_ENDED
    wanted = TrialKind.CANARY if kind is Kind.CANARY_ENDED else TrialKind.AB
    running = history.trial
    if running is None or running.kind is not wanted:
        raise RefusedError(f"model {history.model!r} has no {wanted} that runs")
    return kind, running.version, stepping(running, running.step, {})


def _startable(history: ModelHistory, command: ModelEvent, kind: TrialKind) -> Trial:
    try:
        trial = trial_of(command)
    except ValueError as error:
        raise RefusedError(f"no trial can begin: {error}") from error
    if trial.kind is not kind or (trial.steps is None) is (kind is TrialKind.CANARY):
        raise RefusedError(f"{command.kind} needs a {kind}")
    if history.serving is None:
        raise RefusedError(f"model {history.model!r} has no champion that would answer the other requests")
    if history.trial is not None:
        running = history.trial
        raise RefusedError(f"{running.name} of {history.model!r} runs; stop that {running.kind} first")
    if trial.name in {one.name for one in history.trials}:
        raise RefusedError(f"model {history.model!r} had a trial {trial.name!r} before; name it otherwise")
    for version in sorted(trial.versions):
        _require(history, version, PROMOTABLE, "tried")
    return trial


def _chosen(history: ModelHistory, version: str | None, otherwise: str) -> str:
    if version is None:
        raise RefusedError(f"model {history.model!r}: {otherwise}")
    return version


def _require(history: ModelHistory, version: str, states: frozenset[State], what: str) -> None:
    state = history.state_of(version)
    if state is None:
        known = ", ".join(sorted(history.versions)) or "none"
        raise RefusedError(f"model {history.model!r} has no version {version!r}; its versions: {known}")
    if state not in states:
        raise RefusedError(f"{history.model}@{version} is {state.value}, so it cannot be {what}")


def _require_former(history: ModelHistory) -> None:
    if history.previous is None:
        msg = (
            f"model {history.model!r} has no former champion to fall back on: promote another version, or take the "
            "model out of service with `driftline models pull`"
        )
        raise RefusedError(msg)
