"""A model's life as a fold of its events: which state each version is in, and who was champion at any instant.

The fold is over the *set* of events: redelivered ones count once, and the order in which they arrive does not matter.
Facts hold from their ``effective_us``. Where several hold from one instant, a version's steps come in their natural
order. A fact that is not legal when its turn comes changes nothing and is kept in ``ignored`` with the reason.

From the first promotion on there is exactly one champion: every fact that ends a reign names or implies its successor.

- PROMOTED: the version reigns; the one before it is FORMER, and can be rolled back to.
- ROLLED_BACK: the version was champion and leaves; the newest FORMER one reigns again.
- PULLED: the version may never score again. Of a champion it is a rollback too; without a former one it keeps its
  title, and the model is out of service until another version is promoted.

Beside the champion versions may be on trial (``driftline.models.trial``), one trial at a time:

- CANARY_STARTED, AB_STARTED: the trial begins; the versions stand where they stood. CANARY_STEPPED: its share grows.
- CANARY_ENDED: its version is rolled back, and can be tried or promoted again by a person. AB_ENDED: nothing else changes.
- A trial ends too with whatever changes the champion, takes the model out of service, or rejects, retires or pulls a
  version that is on trial.

Commands (APPROVE and so on) change no state: ``commands.answer`` says which facts follow from one. Nor do reports.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from driftline.models.model_event import Kind, ModelEvent, TrainingCause
from driftline.models.trial import ENDED, STARTED, Trial, TrialKind, names_trial, trial_of


class State(StrEnum):
    """Where a version stands."""

    TRAINING = "training"
    FAILED = "failed"
    REFUSED = "data refused"
    REGISTERED = "registered"
    VALIDATED = "validated"
    CHALLENGER = "challenger"
    PENDING = "waits for approval"
    REJECTED = "rejected"
    CHAMPION = "champion"
    FORMER = "former champion"
    ROLLED_BACK = "rolled back"
    PULLED = "pulled"
    RETIRED = "retired"


_RANK = {kind: rank for rank, kind in enumerate(Kind)}
_NEW = None
_S = State
#: Facts that leave the champion alone: from which states they are legal, and where they lead.
_STEPS: Mapping[Kind, tuple[frozenset[State | None], State]] = {
    Kind.TRAINING_STARTED: (frozenset({_NEW}), _S.TRAINING),
    Kind.TRAINING_FAILED: (frozenset({_NEW, _S.TRAINING}), _S.FAILED),
    Kind.DATA_REFUSED: (frozenset({_NEW, _S.TRAINING}), _S.REFUSED),
    Kind.REGISTERED: (frozenset({_NEW, _S.TRAINING}), _S.REGISTERED),
    Kind.VALIDATED: (frozenset({_S.REGISTERED}), _S.VALIDATED),
    Kind.CHALLENGER: (frozenset({_S.VALIDATED}), _S.CHALLENGER),
    Kind.APPROVAL_WANTED: (frozenset({_S.VALIDATED, _S.CHALLENGER}), _S.PENDING),
    Kind.REJECTED: (frozenset({_S.REGISTERED, _S.VALIDATED, _S.CHALLENGER, _S.PENDING}), _S.REJECTED),
    Kind.RETIRED: (
        frozenset({_S.REGISTERED, _S.VALIDATED, _S.CHALLENGER, _S.PENDING, _S.FORMER, _S.ROLLED_BACK}),
        _S.RETIRED,
    ),
}
#: States from which a version may become champion.
PROMOTABLE = frozenset({_S.VALIDATED, _S.CHALLENGER, _S.PENDING, _S.FORMER, _S.ROLLED_BACK, _S.RETIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reign:
    """A span of event time in which a version was champion; ``until_us`` is None for the one that is."""

    version: str
    since_us: int
    until_us: int | None
    event_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionLife:
    """A version: where it stands since when, why, and what its training knew."""

    version: str
    state: State
    since_us: int
    reason: str
    data_until_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """A fact that was not legal when its turn came."""

    event: ModelEvent
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelHistory:
    """What a model's events say; ``events`` are its facts and commands, each once, in the order of their effect."""

    model: str
    events: tuple[ModelEvent, ...] = ()
    versions: Mapping[str, VersionLife] = field(default_factory=dict)
    reigns: tuple[Reign, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    #: Former champions that can be rolled back to, the newest last.
    formers: tuple[str, ...] = ()
    #: The fact that took the model out of service: its only champion was pulled.
    withdrawal: ModelEvent | None = None
    #: All trials, the newest last.
    trials: tuple[Trial, ...] = ()

    @property
    def trial(self) -> Trial | None:
        """The trial that runs; None without one."""
        return _running(self.trials)

    @property
    def trials_until_us(self) -> int:
        """The last instant from which anything of a trial holds; 0 before the first."""
        return max((one.until_us or one.since_us for one in self.trials[-1:]), default=0)

    @property
    def serving(self) -> str | None:
        """The version that scores: the champion; None before the first promotion, and out of service."""
        return None if self.withdrawal is not None else self.champion

    @property
    def champion(self) -> str | None:
        """The version that reigns; None before the first promotion."""
        return self.reigns[-1].version if self.reigns else None

    @property
    def last_change_us(self) -> int | None:
        """Since when the champion reigns; None without one."""
        return self.reigns[-1].since_us if self.reigns else None

    @property
    def previous(self) -> str | None:
        """The version that a rollback would bring back."""
        return self.formers[-1] if self.formers else None

    @property
    def challenger(self) -> str | None:
        """The newest version in shadow; a newer challenger takes the place of an older one."""
        return self._newest(State.CHALLENGER)

    @property
    def pending(self) -> str | None:
        """The newest version that waits for approval."""
        return self._newest(State.PENDING)

    def champion_at(self, instant_us: int) -> str | None:
        """Return who was champion at an instant of event time; None before the first promotion."""
        found = [reign.version for reign in self.reigns if reign.since_us <= instant_us]
        return found[-1] if found else None

    def state_of(self, version: str) -> State | None:
        """Return where a version stands; None where nothing is known of it."""
        life = self.versions.get(version)
        return None if life is None else life.state

    def in_state(self, state: State) -> list[str]:
        """Return the versions in a state, the one that came to it last at the end."""
        lives = [life for life in self.versions.values() if life.state is state]
        return [life.version for life in sorted(lives, key=lambda life: (life.since_us, life.version))]

    def cause_of(self, version: str) -> TrainingCause | None:
        """Return why a version was trained; None where a person did it, or nothing is known of it."""
        own = (event for event in self.events if event.version == version and event.kind.is_fact)
        return next((found for event in own if (found := TrainingCause.of(event.told)) is not None), None)

    def _newest(self, state: State) -> str | None:
        found = self.in_state(state)
        return found[-1] if found else None


def fold(model: str, events: Iterable[ModelEvent]) -> ModelHistory:
    """Return the history that a set of events makes, in whatever order and however often they came.

    Events of other models are passed over. Two events with one id are one event; the one written first stands.
    """
    once: dict[str, ModelEvent] = {}
    for event in events:
        if event.model == model:
            known = once.get(event.event_id)
            if known is None or _written(event) < _written(known):
                once[event.event_id] = event
    ordered = sorted(once.values(), key=_turn)
    life = _Life()
    for event in ordered:
        if event.kind.is_fact:
            life.apply(event)
    return ModelHistory(
        model=model,
        events=tuple(ordered),
        versions=life.versions,
        reigns=tuple(life.reigns),
        ignored=tuple(life.ignored),
        formers=tuple(life.formers),
        withdrawal=life.withdrawal,
        trials=tuple(life.trials),
    )


def fold_all(events: Iterable[ModelEvent]) -> dict[str, ModelHistory]:
    """Return the history of every model that has events."""
    by_model: dict[str, list[ModelEvent]] = {}
    for event in events:
        by_model.setdefault(event.model, []).append(event)
    return {name: fold(name, found) for name, found in sorted(by_model.items())}


def _turn(event: ModelEvent) -> tuple[int, int, str]:
    return event.effective_us, _RANK[event.kind], event.event_id


def _written(event: ModelEvent) -> tuple[int, str]:
    """Of two copies of one event the older stands; of two as old, the one whose content sorts first."""
    return event.at_us, repr(event)


class _Life:
    """The state of the fold."""

    def __init__(self) -> None:
        self.versions: dict[str, VersionLife] = {}
        self.reigns: list[Reign] = []
        self.formers: list[str] = []
        self.ignored: list[Ignored] = []
        self.withdrawal: ModelEvent | None = None
        self.trials: list[Trial] = []

    def apply(self, event: ModelEvent) -> None:
        why = self._refusal(event)
        if why:
            self.ignored.append(Ignored(event=event, why=why))
            return
        version = event.version or ""
        match event.kind:
            case Kind.PROMOTED:
                self._promote(version, event)
            case Kind.ROLLED_BACK:
                self._leave(version, State.ROLLED_BACK, event)
            case Kind.PULLED if version == self._champion and not self.formers:
                self.withdrawal = event
                self._end_trial(event)
            case Kind.PULLED if version == self._champion:
                self._leave(version, State.PULLED, event)
            case Kind.PULLED:
                self._drop_former(version)
                self._set(version, State.PULLED, event)
                self._end_trial_of(version, event)
            case Kind.CANARY_STARTED | Kind.AB_STARTED:
                self.trials.append(trial_of(event))
            case Kind.CANARY_STEPPED:
                self.trials[-1] = self.trials[-1].stepped(event)
            case Kind.AB_ENDED:
                self._end_trial(event)
            case Kind.CANARY_ENDED:
                self._end_trial(event)
                self._drop_former(version)
                self._set(version, State.ROLLED_BACK, event)
            case kind:
                if _STEPS[kind][1] in {State.REJECTED, State.RETIRED}:
                    self._end_trial_of(version, event)
                self._drop_former(version)
                self._set(version, _STEPS[kind][1], event)

    @property
    def _champion(self) -> str | None:
        return self.reigns[-1].version if self.reigns else None

    @property
    def _trial(self) -> Trial | None:
        return _running(self.trials)

    def _end_trial(self, event: ModelEvent) -> None:
        if self._trial is not None:
            self.trials[-1] = self._trial.over(event, "")

    def _end_trial_of(self, version: str, event: ModelEvent) -> None:
        if self._trial is not None and version in self._trial.versions:
            self._end_trial(event)

    def _refusal(self, event: ModelEvent) -> str:
        """Return why a fact is not legal now; empty where it is."""
        if event.version is None:
            return "it names no version"
        state = self._state(event.version)
        shown = "unknown" if state is None else state.value
        match event.kind:
            case Kind.PROMOTED:
                return "" if state in PROMOTABLE else f"{event.version} is {shown}, so it cannot be promoted"
            case Kind.ROLLED_BACK:
                if state is not State.CHAMPION:
                    return f"{event.version} is {shown}, so it cannot be rolled back"
                return "" if self.formers else "there is no former champion to roll back to"
            case Kind.PULLED:
                if state in {None, State.PULLED}:
                    return f"{event.version} is {shown}, so it cannot be pulled"
                again = state is State.CHAMPION and self.withdrawal is not None
                return f"{event.version} is pulled, so it cannot be pulled" if again else ""
            case Kind.CANARY_STARTED | Kind.AB_STARTED:
                return self._refuse_start(event)
            case Kind.CANARY_STEPPED | Kind.CANARY_ENDED | Kind.AB_ENDED:
                return self._refuse_later(event)
            case kind:
                legal = state in _STEPS[kind][0]
                return (
                    ""
                    if legal
                    else f"{event.version} is {shown}, so it cannot become {_STEPS[kind][1].value}"
                )

    def _refuse_start(self, event: ModelEvent) -> str:
        """Return why a trial cannot begin now; empty where it can."""
        try:
            trial = trial_of(event)
        except ValueError as error:
            return str(error)
        if trial.kind is not STARTED[event.kind] or (trial.steps is None) is (trial.kind is TrialKind.CANARY):
            return f"it tells of another kind of trial than {event.kind}"
        if self._champion is None or self.withdrawal is not None:
            return "no champion answers the other requests"
        if self._trial is not None:
            return f"the trial {self._trial.name} runs"
        if trial.name in {one.name for one in self.trials}:
            return f"there was a trial {trial.name} before"
        return next(
            (
                f"{version} is {'unknown' if state is None else state.value}, so it cannot be tried"
                for version in sorted({*trial.versions, event.version or ""})
                if (state := self._state(version)) not in PROMOTABLE
            ),
            "",
        )

    def _refuse_later(self, event: ModelEvent) -> str:
        """Return why what a fact says cannot become of the trial; empty where it can."""
        name, step = names_trial(event)
        trial = self._trial
        if trial is None or trial.name != name or event.version != trial.version:
            return f"no trial {name!r} of {event.version} runs"
        if event.kind is Kind.CANARY_STEPPED:
            right = trial.kind is TrialKind.CANARY and not trial.last_step and step == trial.step + 1
            return "" if right else f"step {step} does not follow in {name}"
        return "" if trial.kind is ENDED[event.kind] else f"{name} is no such trial"

    def _state(self, version: str) -> State | None:
        return self.versions[version].state if version in self.versions else None

    def _promote(self, version: str, event: ModelEvent) -> None:
        before = self._champion
        self._drop_former(version)
        if before is not None and self.withdrawal is not None:
            self._set(before, State.PULLED, self.withdrawal)
        elif before is not None:
            self.formers.append(before)
            self._set(before, State.FORMER, event)
        self.withdrawal = None
        self._crown(version, event)

    def _leave(self, version: str, state: State, event: ModelEvent) -> None:
        self._set(version, state, event)
        self._crown(self.formers.pop(), event)

    def _crown(self, version: str, event: ModelEvent) -> None:
        self._end_trial(event)
        if self.reigns:
            last = self.reigns[-1]
            self.reigns[-1] = Reign(
                version=last.version,
                since_us=last.since_us,
                until_us=event.effective_us,
                event_id=last.event_id,
            )
        self.reigns.append(
            Reign(version=version, since_us=event.effective_us, until_us=None, event_id=event.event_id)
        )
        self._set(version, State.CHAMPION, event)

    def _drop_former(self, version: str) -> None:
        if version in self.formers:
            self.formers.remove(version)

    def _set(self, version: str, state: State, event: ModelEvent) -> None:
        known = self.versions.get(version)
        own = event.data_until_us if event.version == version else None
        self.versions[version] = VersionLife(
            version=version,
            state=state,
            since_us=event.effective_us,
            reason=event.reason,
            data_until_us=own if known is None or known.data_until_us is None else known.data_until_us,
        )


def _running(trials: Sequence[Trial]) -> Trial | None:
    return trials[-1] if trials and trials[-1].until_us is None else None
