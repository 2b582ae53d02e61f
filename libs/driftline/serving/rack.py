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
from driftline.models.standing import Pinned, Standing, load_pinned, read_standing
from driftline.project import ModelDeclaration, Project
from driftline.runtime import metrics
from driftline.runtime.clock import Clock, SystemClock
from driftline.runtime.logging import get_logger
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

    ``unusable`` says why the version that is active is not among them; empty where it is.
    """

    declaration: ModelDeclaration
    standing: Standing
    line: tuple[ServedVersion, ...]
    unusable: str = ""

    @property
    def active(self) -> str | None:
        """The version that should answer."""
        active = self.standing.active
        return None if active is None else active.version

    @property
    def version(self) -> str:
        """The version that is asked first."""
        return self.line[0].version


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
        self._unusable: dict[str, tuple[str, float, bool]] = {}
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
        waits = held is not None and any(map(self._waits, held.line))
        if held is not None and held.standing == standing and not held.unusable and not waits:
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
        known = dict(self._aside.get(name, {}))
        known |= {} if held is None else {one.version: one for one in held.line}
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
        line = line or [
            one for one in known.values() if one.version not in standing.pulled and not self._waits(one)
        ]
        self._set_aside(name, active, aside, waiting)
        if unusable:
            self._trouble(name, unusable, held)
        else:
            self._broken.pop(name, None)
        self._judge_unusable(name, standing, active, unusable, line)
        if not line:
            self._loaded.pop(name, None)
            return
        note = f"{name}@{active.version} cannot be used: {unusable}" if unusable else ""
        note = f"{name}@{active.version} waits: {waiting}" if waiting else note
        self._loaded[name] = LoadedModel(
            declaration=declaration, standing=standing, line=tuple(line), unusable=note
        )
        if held is None or held.version != line[0].version:
            _log.info("model loaded", model=name, version=line[0].version, before=held and held.version)

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

    def _judge_unusable(
        self, name: str, standing: Standing, active: Pinned, error: str, line: list[ServedVersion]
    ) -> None:
        """Tell of a bundle that cannot be used for as long as a breaker's pause: it may still be on its way here."""
        version, since, told = self._unusable.get(name, ("", 0.0, False))
        if not error:
            if told and version == active.version:
                change = Change(version=version, failing=False, reason="its bundle can be used again")
                self._incidents.append(self._incident(name, standing, change, 0))
            self._unusable.pop(name, None)
            return
        if version != active.version:
            since, told = self._now(), False
        if not told and self._now() - since >= self._project.models[name].breaker.pause_us / 1e6:
            told = True
            metrics.MODEL_FAILURES.labels(name, "bundle").inc()
            answers = line[0].version if line else None
            change = Change(version=active.version, failing=True, reason=error, answered_by=answers)
            self._incidents.append(self._incident(name, standing, change, 0))
        self._unusable[name] = (active.version, since, told)

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
        )

    def _show(self, name: str) -> None:
        """Say in the metrics how many versions answer, and how many breakers are not closed."""
        loaded = self._loaded.get(name)
        line = () if loaded is None else loaded.line
        states = [one.breaker.state for one in line]
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
