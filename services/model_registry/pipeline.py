"""Model events in, decisions out: the registry folds the log, and brings the world to what the log says.

1. On assignment the whole log is read: it is the truth, and small. There is no other state to lose.
2. Events are taken in the log's order. A person's command is judged by the history before it (with the facts that
   earlier commands are owed), so it means the same whenever the log is read; the fact that follows from it is *owed*
   until it is read back.
3. Outcomes are read from their beginning for the pairs that are to be compared, again whenever the pairs change.
   Of the predictions what became of the canaries' requests, while canaries run.
4. Reconcile, whenever something is new: adopt what a person activated, send owed facts, decide on comparisons, set the
   predictors' pointer to the champion and those before it, mirror the states in MLflow. Each step is safe to repeat: facts have ids made
   from their cause, and are sent in a transaction that an older process of this name cannot finish.
5. A sent fact changes nothing before it is read back from the log. Until then no other decision falls on its model.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from driftline.features.keys import partition_of
from driftline.models.bundle import BundleError
from driftline.models.commands import answer
from driftline.models.comparison import compare
from driftline.models.life_log import LifeCodec, LifeLog
from driftline.models.lifecycle import ModelHistory, fold
from driftline.models.model_event import ModelEvent
from driftline.models.shadow import Shadow
from driftline.models.standing import (
    Standing,
    active_version,
    load_active,
    load_pinned,
    read_standing,
    write_standing,
)
from driftline.models.tracking import Tracking
from driftline.models.trial import Trial, TrialKind
from driftline.project import Project, PromotionRule
from driftline.runtime.clock import Clock
from driftline.runtime.durations import DAY_US
from driftline.runtime.errors import BadMessageError, RefusedError, UnavailableError
from driftline.runtime.health import Health
from driftline.runtime.logging import get_logger
from driftline.streaming.dead_letters import DeadLetterCeiling
from driftline.streaming.kafka_sink import KafkaSink
from driftline.streaming.partitions import Partition, PartitionBatch
from services.model_registry.decisions import Verdict, adopt, decide, pairs_of
from services.model_registry.facts import BY
from services.model_registry.outcomes import OutcomeFollower
from services.model_registry.pointing import standing_of
from services.model_registry.traffic import TrafficFollower

SERVICE = "model_registry"
_log = get_logger(__name__)


@dataclass(slots=True)
class _Life:
    """What is known of a model: its events in the order of the log, facts owed to commands, facts on their way."""

    events: list[ModelEvent] = field(default_factory=list)
    owed: dict[str, ModelEvent] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    history: ModelHistory | None = None
    mirrored: int = -1
    unsound: bool = False


class ModelRegistryPipeline:
    """The steps of the registry (a ``driftline.streaming.loop.Pipeline``)."""

    def __init__(
        self,
        project: Project,
        models_dir: Path,
        sink: KafkaSink,
        codec: LifeCodec,
        open_log: Callable[[], LifeLog],
        outcomes: OutcomeFollower,
        traffic: TrafficFollower,
        tracking: Tracking,
        *,
        topic: str,
        partitions: int,
        ceiling: DeadLetterCeiling,
        health: Health,
        clock: Clock,
    ) -> None:
        self._project = project
        self._models_dir = models_dir
        self._sink = sink
        self._codec = codec
        self._open_log = open_log
        self._outcomes = outcomes
        self._traffic = traffic
        self._tracking = tracking
        self._topic = topic
        self._partitions = partitions
        self._ceiling = ceiling
        self._health = health
        self._clock = clock
        self._lives: dict[str, _Life] = {}
        self._owned: set[int] = set()

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """Read the whole log (1.), and start behind it."""
        self._sink.positions(partitions)  # fences an older process of this name
        numbers = {partition.number for partition in partitions}
        with self._open_log() as log:
            events = log.read_to_end()
            ends = log.positions
        for name in self._models_in(numbers):
            self._lives[name] = _Life()
        for event in events:
            if event.model in self._lives and self._partition(event.model) in numbers:
                self._take(event)
        self._owned |= numbers
        return {partition: ends.get(partition.number) for partition in partitions}

    def process(self, batches: Sequence[PartitionBatch]) -> None:
        """Take new events in the log's order, then reconcile."""
        bad = []
        for batch in batches:
            for message in batch.messages:
                try:
                    self._take(self._codec.decode(message.value()))
                    self._ceiling.check(total=1, bad=0)
                except BadMessageError as error:
                    self._ceiling.check(total=1, bad=1)
                    bad.append((message, error))
        with self._sink.transaction(batches) as transaction:
            for message, reason in bad:
                transaction.dead_letter(message, reason)
        self._reconcile()

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop the models of partitions: whoever owns them reads the log."""
        numbers = {partition.number for partition in partitions}
        self._owned -= numbers
        for name in self._models_in(numbers):
            self._lives.pop(name, None)

    def idle(self) -> Mapping[Partition, float]:
        """Once a second: look at new outcomes, and reconcile."""
        if self._owned:
            self._reconcile()
        return {}

    def _take(self, event: ModelEvent) -> None:
        life = self._lives.get(event.model)
        if life is None:
            return  # a model of which the project says nothing any more
        if event.kind.is_command and all(one.event_id != event.event_id for one in life.events):
            before = fold(event.model, [*life.events, *life.owed.values()])
            try:
                fact = answer(before, event, by=BY, at_us=self._clock.now_us())
            except RefusedError as error:
                _log.warning("command refused", model=event.model, command=event.kind.value, why=str(error))
                self._health.error(str(error))
            else:
                if fact is not None:
                    life.owed[fact.event_id] = fact
        life.events.append(event)
        life.owed.pop(event.event_id, None)
        life.sent.discard(event.event_id)
        life.history = None

    def _reconcile(self) -> None:
        """Bring everything to what the log says (4.)."""
        histories = {name: self._history(name) for name in self._lives}
        pairs = [pair for name, found in histories.items() for pair in pairs_of(found, self._rule(name))]
        shadow = self._outcomes.follow(pairs)
        seen = self._traffic.follow(_canaries(histories))
        for name, history in histories.items():
            life = self._lives[name]
            if life.sent:  # 5.
                continue
            facts = [*self._adopted(name, history), *life.owed.values()]
            if not facts:
                verdicts = [] if shadow is None else self._verdicts(history, shadow)
                facts = decide(
                    history,
                    verdicts,
                    self._rule(name),
                    self._clock.now_us(),
                    levels=self._project.models[name].service_levels,
                    evidence=seen.get(name),
                )
            self._send(life, facts)
            if not facts:
                self._point(name, life, history)
                self._mirror(name, life, history)
        self._show(histories)

    def _verdicts(self, history: ModelHistory, shadow: Shadow) -> list[Verdict]:
        """Compare a model's pairs on the days that are closed, the challenger's first."""
        rule, verdicts = self._rule(history.model), []
        for pair in pairs_of(history, rule):
            if pair in shadow.pairs:
                first, closed = pair.start_us // DAY_US, shadow.closed_day(pair)
                found = compare(shadow.closed(pair), rule.comparison, first_day=first, closed_day=closed)
                known = 0 if found.last_day is None else shadow.known_us(pair, found.last_day)
                verdicts.append(Verdict(pair=pair, comparison=found, known_us=known))
        return verdicts

    def _rule(self, name: str) -> PromotionRule:
        return self._project.models[name].promotion

    def _adopted(self, name: str, history: ModelHistory) -> list[ModelEvent]:
        version = active_version(self._models_dir, name)
        if version is None or history.state_of(version) is not None:
            return []
        try:
            bundle = load_active(self._models_dir, name)
        except BundleError as error:
            self._health.error(str(error))
            return []
        if bundle is None:
            return []
        return adopt(history, bundle.manifest, self._clock.now_us(), sha256=bundle.sha256)

    def _send(self, life: _Life, facts: Sequence[ModelEvent]) -> None:
        if not facts:
            return
        with self._sink.transaction([]) as transaction:
            values = [self._codec.encode(fact) for fact in facts]
            transaction.send(self._topic, [fact.model for fact in facts], values)
        life.sent.update(fact.event_id for fact in facts)
        for fact in facts:
            _log.info(
                "decided", model=fact.model, version=fact.version, kind=fact.kind.value, reason=fact.reason
            )

    def _point(self, name: str, life: _Life, history: ModelHistory) -> None:
        """Point the predictors to what serves. A champion that cannot be loaded has those before it answer."""
        if history.champion is None:
            return
        try:
            before = read_standing(self._models_dir, name)
        except BundleError as error:
            self._health.error(str(error))
            before = None
        wanted = standing_of(history, self._models_dir, before)
        if wanted != before:
            write_standing(self._models_dir, name, wanted)
            active = wanted.active and wanted.active.version
            _log.info("activated", model=name, version=active, withdrawn=wanted.withdrawn)
        elif not life.unsound:
            return
        self._verify(name, life, wanted)

    def _verify(self, name: str, life: _Life, standing: Standing) -> None:
        life.unsound = False
        try:
            if standing.active is not None:
                load_pinned(self._models_dir, name, standing.active)
        except BundleError as error:
            life.unsound = True
            self._health.set(f"champion {name}", ready=False, detail=f"cannot be used: {error}")
            return
        detail = standing.withdrawn if standing.active is None else standing.active.version
        self._health.set(f"champion {name}", ready=True, detail=detail)

    def _mirror(self, name: str, life: _Life, history: ModelHistory) -> None:
        if life.mirrored == len(life.events):
            return
        states = {version: found.state.value for version, found in history.versions.items()}
        try:
            self._tracking.mirror(name, history.champion, states)
        except UnavailableError as error:  # the log is the truth; the mirror follows when it can
            self._health.error(str(error))
            return
        life.mirrored = len(life.events)

    def _show(self, histories: Mapping[str, ModelHistory]) -> None:
        shown = [
            f"{name}@{found.champion}{_tried(found)}" for name, found in histories.items() if found.champion
        ]
        self._health.set("models", ready=True, detail=", ".join(shown) or "no champion yet")

    def _history(self, name: str) -> ModelHistory:
        life = self._lives[name]
        if life.history is None:
            life.history = fold(name, life.events)
        return life.history

    def _models_in(self, numbers: Collection[int]) -> list[str]:
        return [name for name in self._project.models if self._partition(name) in numbers]

    def _partition(self, model: str) -> int:
        return partition_of(model, self._partitions)


def _canaries(histories: Mapping[str, ModelHistory]) -> dict[str, Trial]:
    running = {name: found.trial for name, found in histories.items()}
    return {
        name: trial for name, trial in running.items() if trial is not None and trial.kind is TrialKind.CANARY
    }


def _tried(history: ModelHistory) -> str:
    if history.trial is None:
        return ""
    return "".join(f" and {one.version} for {one.share:.2%}" for one in history.trial.arms)
