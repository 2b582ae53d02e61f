"""The models that are loaded: of each the version that answers and those to fall back on, followed as they change."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from driftline.models.bundle import BundleError
from driftline.models.scoring import Scorer
from driftline.models.standing import Arm, Pinned, Split, Standing, load_pinned, read_standing
from driftline.project import ModelDeclaration, Project
from driftline.runtime import metrics
from driftline.runtime.clock import Clock, SystemClock
from driftline.runtime.logging import get_logger
from driftline.serving.arms import LoadedArm, LoadedSplit
from driftline.serving.breaker import Breaker, BreakerState
from driftline.serving.incidents import Incident
from driftline.serving.succession import Change, ServedVersion
from driftline.serving.time_limit import TimeLimit

_log = get_logger(__name__)

#: Incidents that wait to be told; older ones are dropped beyond this.
_MOST_INCIDENTS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """A declared model with the versions that answer, in the order in which they are asked.

    ``unusable`` says why the version that is active is not among them; empty where it is. ``split`` has the arms of a
    trial, if one is on.
    """

    declaration: ModelDeclaration
    standing: Standing
    line: tuple[ServedVersion, ...]
    unusable: str = ""
    split: LoadedSplit | None = None

    @property
    def active(self) -> str | None:
        """The version that should answer."""
        active = self.standing.active
        return None if active is None else active.version

    @property
    def version(self) -> str:
        """The version that is asked first."""
        return self.line[0].version

    @property
    def whole(self) -> LoadedArm:
        """The champion's line, for all requests where nothing is tried."""
        return LoadedArm(label="", version=self.active, line=self.line, unusable=self.unusable)

    @property
    def versions(self) -> dict[str, ServedVersion]:
        """Every version that is loaded, by name."""
        arms = () if self.split is None else self.split.arms
        return {one.version: one for line in (self.line, *(arm.line for arm in arms)) for one in line}

    @property
    def sound(self) -> bool:
        """Whether everything that the standing names to answer is loaded."""
        return not self.unusable and (self.split is None or not any(arm.unusable for arm in self.split.arms))


class ModelRack:
    """Loads the versions that serve of each of a project's models, and switches when others do.

    A version is verified and warmed up before the switch. Where the active one cannot be, those before it answer. A
    version that was pulled is dropped, whatever else can be loaded.

    ``incomplete`` says why views must not be served yet. A version that reads one waits, and those before it answer
    meanwhile; nothing is wrong with it.
    """

    def __init__(
        self,
        models: Path,
        project: Project,
        clock: Clock | None = None,
        now: Callable[[], float] = time.monotonic,
        *,
        incomplete: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._folder = models
        self._project = project
        self._clock = clock or SystemClock()
        self._now = now
        self._limit = TimeLimit()
        self._loaded: dict[str, LoadedModel] = {}
        self._broken: dict[str, str] = {}
        self._withdrawn: dict[str, str] = {}
        self._ask_incomplete = incomplete
        self._incomplete: Mapping[str, str] = {}
        self._waiting: dict[str, str] = {}
        self._aside: dict[str, dict[str, ServedVersion]] = {}
        #: By model and version: since when its bundle cannot be used, and whether that was told.
        self._unusable: dict[tuple[str, str], tuple[float, bool]] = {}
        self._incidents: deque[Incident] = deque(maxlen=_MOST_INCIDENTS)
        self._lock = threading.Lock()
        self.refresh()

    def get(self, model: str) -> LoadedModel | None:
        """Return a model that is loaded; None for one without a version that answers."""
        return self._loaded.get(model)

    @property
    def missing(self) -> dict[str, str]:
        """Models that cannot be served, with the reason."""
        nothing = "no version is active; train one with `driftline train`"
        return {
            name: self._withdrawn.get(name) or self._waiting.get(name) or self._broken.get(name, nothing)
            for name in self._project.models
            if name not in self._loaded
        }

    @property
    def withdrawn(self) -> Mapping[str, str]:
        """Models that a person took out of service, with the reason: nothing is wrong with the predictor."""
        return dict(self._withdrawn)

    @property
    def troubles(self) -> dict[str, str]:
        """Models whose active version cannot be used, so that one before it answers."""
        return {**self._broken, **self._waiting}

    def refresh(self) -> None:
        """Load what has changed since the last call."""
        with self._lock:
            self._incomplete = self._ask_incomplete()
            for name, declaration in self._project.models.items():
                self._refresh(name, declaration)
                self._show(name)

    def note(self, loaded: LoadedModel, changes: list[Change], newest_us: int) -> None:
        """Keep what became of breakers; ``newest_us`` is the event time of the newest request they were seen on."""
        for change in changes:
            told = {"model": loaded.declaration.name, "version": change.version, "why": change.reason}
            if change.failing:
                _log.error("a version fails", **told, answered_by=change.answered_by)
            else:
                _log.info("a version answers again", **told)
            self._incidents.append(
                self._incident(loaded.declaration.name, loaded.standing, change, newest_us)
            )

    def take_incidents(self) -> list[Incident]:
        """Return what was seen of failing versions since the last call."""
        found = []
        while self._incidents:
            found.append(self._incidents.popleft())
        return found

    def _refresh(self, name: str, declaration: ModelDeclaration) -> None:
        held = self._loaded.get(name)
        try:
            standing = read_standing(self._folder, name)
        except BundleError as error:
            self._trouble(name, str(error), held)
            return
        if standing is None:
            return
        if standing.active is None:
            self._withdraw(name, standing, held)
            return
        self._withdrawn.pop(name, None)
        waits = held is not None and any(map(self._waits, held.versions.values()))
        if held is not None and held.standing == standing and held.sound and not waits:
            self._broken.pop(name, None)
            return
        self._load(name, declaration, standing, standing.active, held)

    def _load(
        self,
        name: str,
        declaration: ModelDeclaration,
        standing: Standing,
        active: Pinned,
        held: LoadedModel | None,
    ) -> None:
        known = {**self._aside.get(name, {}), **({} if held is None else held.versions)}
        unusable, waiting, line, aside = "", "", [], {}
        for pinned in (active, *standing.priors):
            try:
                version = self._version(declaration, pinned, known.get(pinned.version))
            except BundleError as error:
                if pinned is active:
                    unusable = str(error)
                elif held is None or held.standing != standing:
                    _log.warning("no version to fall back on", model=name, error=str(error))
                continue
            if waits := self._waits(version):
                aside[version.version] = version
                waiting = waits if pinned is active else waiting
            else:
                line.append(version)
        before = () if held is None else held.line
        line = line or [one for one in before if one.version not in standing.pulled and not self._waits(one)]
        self._set_aside(name, active, aside, waiting)
        if unusable:
            self._trouble(name, unusable, held)
        else:
            self._broken.pop(name, None)
        self._forget_unusable(name, standing)
        self._judge_unusable(name, standing, active, unusable, line)
        if not line:
            self._loaded.pop(name, None)
            return
        note = f"{name}@{active.version} cannot be used: {unusable}" if unusable else ""
        note = f"{name}@{active.version} waits: {waiting}" if waiting else note
        split = self._split(declaration, standing, tuple(line), note, known)
        self._loaded[name] = LoadedModel(
            declaration=declaration, standing=standing, line=tuple(line), unusable=note, split=split
        )
        if split is not None and (held is None or held.standing.split != standing.split):
            shares = {arm.pinned.version: arm.share for arm in split.split.arms}
            _log.info("versions on trial", model=name, trial=split.split.trial, shares=shares)
        if held is None or held.version != line[0].version:
            _log.info("model loaded", model=name, version=line[0].version, before=held and held.version)

    def _split(
        self,
        declaration: ModelDeclaration,
        standing: Standing,
        line: tuple[ServedVersion, ...],
        note: str,
        known: Mapping[str, ServedVersion],
    ) -> LoadedSplit | None:
        """Load the arms of a trial; the champion's line answers for one whose version cannot be used."""
        split = standing.split
        if split is None:
            return None
        entities = {one.name: one for one in declaration.entities}
        if split.sticky and split.sticky not in entities:
            told = {"model": declaration.name, "trial": split.trial, "entity": split.sticky}
            _log.error("a trial is passed over: the project declares no such entity of the model", **told)
            return None
        arms = [self._arm(declaration, standing, split, one, line, known) for one in split.arms]
        active = None if standing.active is None else standing.active.version
        control = LoadedArm(label=split.label(split.control), version=active, line=line, unusable=note)
        return LoadedSplit(
            model=declaration.name,
            split=split,
            entity=entities.get(split.sticky),
            arms=(*arms, control),
        )

    def _arm(
        self,
        declaration: ModelDeclaration,
        standing: Standing,
        split: Split,
        arm: Arm,
        line: tuple[ServedVersion, ...],
        known: Mapping[str, ServedVersion],
    ) -> LoadedArm:
        version, unusable, waiting = arm.pinned.version, "", ""
        others = tuple(one for one in line if one.version != version)
        own: tuple[ServedVersion, ...] = ()
        try:
            loaded = self._version(declaration, arm.pinned, known.get(version))
            waiting = self._waits(loaded)
            if waiting:
                self._aside[declaration.name][version] = loaded
            own = () if waiting else (loaded,)
        except BundleError as error:
            unusable = str(error)
            if (declaration.name, version) not in self._unusable:
                _log.error("an arm cannot be used", model=declaration.name, trial=split.trial, error=unusable)
        self._judge_unusable(declaration.name, standing, arm.pinned, unusable, list(others))
        note = f"{declaration.name}@{version} cannot be used: {unusable}" if unusable else ""
        note = f"{declaration.name}@{version} waits: {waiting}" if waiting else note
        return LoadedArm(
            label=split.label(arm.name), version=version, line=own + others or line, unusable=note
        )

    def _waits(self, version: ServedVersion) -> str:
        """Return why a version is not asked yet: a view that it reads is not whole; empty where nothing is in its way."""
        views = version.scorer.manifest.views
        return next((self._incomplete[ref] for ref in views if ref in self._incomplete), "")

    def _set_aside(self, name: str, active: Pinned, aside: dict[str, ServedVersion], waiting: str) -> None:
        """Keep the versions that wait; say it of the active one, once."""
        if bool(waiting) != (name in self._waiting):
            what = "a version waits" if waiting else "a version waits no longer"
            _log.info(what, model=name, version=active.version, why=waiting)
        self._aside[name] = aside
        if waiting:
            self._waiting[name] = waiting
        else:
            self._waiting.pop(name, None)

    def _version(
        self, declaration: ModelDeclaration, pinned: Pinned, known: ServedVersion | None
    ) -> ServedVersion:
        if known is not None and pinned.sha256 in {"", known.sha256}:
            return known
        bundle = load_pinned(self._folder, declaration.name, pinned)
        rule = declaration.breaker
        scorer = Scorer(bundle, declaration.coded_inputs, self._limit.runner(rule.timeout_us / 1e6))
        self._check(declaration, scorer)
        _warm_up(scorer)
        return ServedVersion(scorer=scorer, sha256=bundle.sha256, breaker=Breaker(rule, self._now))

    def _withdraw(self, name: str, standing: Standing, held: LoadedModel | None) -> None:
        self._broken.pop(name, None)
        self._waiting.pop(name, None)
        self._withdrawn[name] = f"model {name!r} is out of service: {standing.withdrawn}"
        if held is not None:
            del self._loaded[name]
            _log.warning("model out of service", model=name, before=held.version, why=standing.withdrawn)

    def _trouble(self, name: str, error: str, held: LoadedModel | None) -> None:
        if self._broken.get(name) != error:
            _log.error("a bundle cannot be used", model=name, error=error, kept=held and held.version)
        self._broken[name] = error

    def _forget_unusable(self, name: str, standing: Standing) -> None:
        """Forget versions that are not to answer any more: named again, they are told of again."""
        named = {standing.active and standing.active.version}
        if standing.split is not None:
            named |= {one.pinned.version for one in standing.split.arms}
        for model, version in list(self._unusable):
            if model == name and version not in named:
                del self._unusable[model, version]

    def _judge_unusable(
        self, name: str, standing: Standing, pinned: Pinned, error: str, line: list[ServedVersion]
    ) -> None:
        """Tell of a bundle that cannot be used for as long as a breaker's pause: it may still be on its way here."""
        since, told = self._unusable.get((name, pinned.version), (self._now(), False))
        if not error:
            if told:
                change = Change(version=pinned.version, failing=False, reason="its bundle can be used again")
                self._incidents.append(self._incident(name, standing, change, 0))
            self._unusable.pop((name, pinned.version), None)
            return
        if not told and self._now() - since >= self._project.models[name].breaker.pause_us / 1e6:
            told = True
            metrics.MODEL_FAILURES.labels(name, "bundle").inc()
            answers = line[0].version if line else None
            change = Change(version=pinned.version, failing=True, reason=error, answered_by=answers)
            self._incidents.append(self._incident(name, standing, change, 0))
        self._unusable[name, pinned.version] = since, told

    def _incident(self, name: str, standing: Standing, change: Change, newest_us: int) -> Incident:
        now_us = self._clock.now_us()
        return Incident(
            model=name,
            version=change.version,
            reign=standing.reign,
            champion=standing.active is not None and change.version == standing.active.version,
            failing=change.failing,
            reason=change.reason,
            answered_by=change.answered_by,
            event_us=min(newest_us, now_us),
            at_us=now_us,
            arm="" if standing.split is None else standing.split.arm_of(change.version),
        )

    def _show(self, name: str) -> None:
        """Say in the metrics how many versions answer, and how many breakers are not closed."""
        loaded = self._loaded.get(name)
        versions = {} if loaded is None else loaded.versions
        states = [one.breaker.state for one in versions.values()]
        for state in BreakerState:
            metrics.MODEL_VERSIONS.labels(name, state.value).set(states.count(state))

    @staticmethod
    def _check(declaration: ModelDeclaration, scorer: Scorer) -> None:
        manifest = scorer.manifest
        known = set(declaration.numeric_columns) | set(declaration.categorical_columns)
        unknown = [name for name in (*manifest.numeric, *manifest.categorical) if name not in known]
        declared = {view.ref for view in declaration.views}
        views = [ref for ref in manifest.views if ref not in declared]
        if unknown or views:
            msg = (
                f"{manifest.ref} was trained on {', '.join(unknown + views)}, which the project does not declare any more; "
                "train a new version"
            )
            raise BundleError(msg)


def _warm_up(scorer: Scorer) -> None:
    """Score two rows without values, so that the first request does not pay for set-up."""
    manifest = scorer.manifest
    numeric = np.full((2, len(manifest.numeric)), np.nan)
    try:
        scorer.score(numeric, {name: [None, None] for name in manifest.categorical})
    except Exception as error:  # ONNX Runtime raises bare exceptions of a dozen private types
        raise BundleError(f"{manifest.ref} cannot score: {error}") from error
