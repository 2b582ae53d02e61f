"""The values that a project folder is loaded into."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from driftline.features import Entity, FeatureView
from driftline.features.code_lists import CodedField, CodeList
from driftline.project.life_rules import BreakerRule, PromotionRule, RetrainRule
from driftline.project.store_rule import StoreRule


class InputType(StrEnum):
    """Types of a request's own inputs."""

    DOUBLE = "double"
    STRING = "string"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventType:
    """One kind of event: its Avro schema, the field that keys its topic, its UUID and its time.

    ``schema`` is the parsed ``.avsc`` (a record). ``key``, ``event_id`` and ``event_time`` are names of
    its fields: a string, a string and a ``timestamp-micros``.
    """

    name: str
    schema: Mapping[str, Any]
    schema_path: Path
    key: str
    event_time: str
    event_id: str = "event_id"
    partitions: int | None = None
    #: Whether each event replaces the one of the same key: the topic is compacted, and views read the last values.
    table: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InputField:
    """A value that the caller of a prediction brings (null where it is not known)."""

    name: str
    type: InputType
    description: str = ""
    #: An identifier is logged, and labels may name it; it is no column of the model.
    identifier: bool = False
    #: The code list that its values are of.
    codes: CodeList | None = None


class Never(StrEnum):
    """What a label without a value (it will never be known) means for a prediction."""

    EXCLUDE = "exclude"
    NEGATIVE = "negative"
    POSITIVE = "positive"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """How a model's labels find their predictions.

    Attributes
    ----------
    key
        The identifier among the inputs that labels may name instead of the request's UUID.
    horizon_us
        How long after its event time a prediction waits for its label, in microseconds.
    never
        What it means that a label will never be known.
    """

    horizon_us: int
    key: str | None = None
    never: Never = Never.EXCLUDE
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payoff:
    """What a decision is worth: ``positive`` where the label is 1, ``negative`` where it is 0, in any one unit."""

    positive: float
    negative: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorRule:
    """How a model is watched.

    Attributes
    ----------
    window_us, grace_us
        Length of a window, and how long after its end late records still count, in event-time microseconds.
    damage_windows, least_windows
        Windows of outcomes that damage is measured over at most and at least: one alone is noisy.
    alert_log_loss, retrain_log_loss, alert_value, retrain_value
        Damage beyond which drift alerts, or asks for a retrain; None: not by this measure. Log loss in nats, value in
        the project's unit per prediction.
    quiet_windows
        Windows without a signal after which a problem is over.
    ignore
        Columns whose drift means nothing, like a day of the week in windows of a day.
    """

    window_us: int = 86_400_000_000
    grace_us: int = 3_600_000_000
    damage_windows: int = 7
    least_windows: int = 5
    alert_log_loss: float | None = 0.02
    retrain_log_loss: float | None = 0.04
    alert_value: float | None = None
    retrain_value: float | None = None
    quiet_windows: int = 2
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLevelRule:
    """What a model's callers over HTTP are promised.

    Attributes
    ----------
    latency_us, latency_share
        The share of answers that must come within so many microseconds.
    availability
        The share of valid requests that must be answered.
    """

    latency_us: int
    latency_share: float = 0.99
    availability: float = 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRule:
    """Turns a score into a decision: ``above`` where score >= threshold, else ``below``."""

    threshold: float
    above: str
    below: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDeclaration:
    """A model as its project declares it.

    ``columns`` are the model's inputs in order: the requests' ``inputs``, entity keys (used as
    categories) and feature columns ``view__feature``.
    """

    name: str
    description: str
    owner: str
    entities: tuple[Entity, ...]
    views: tuple[FeatureView, ...]
    inputs: tuple[InputField, ...]
    decision: DecisionRule
    module: Path
    label: LabelRule | None = None
    #: By decision; empty where the project declares no value.
    value: Mapping[str, Payoff] = field(default_factory=dict)
    #: Entities and text inputs by whose values windows are looked at apart.
    segments: tuple[str, ...] = ()
    #: A feature column that serves as the moving-average baseline: the label's recent mean, as it was served.
    baseline: str | None = None
    monitor: MonitorRule = field(default_factory=MonitorRule)
    promotion: PromotionRule = field(default_factory=PromotionRule)
    breaker: BreakerRule = field(default_factory=BreakerRule)
    retrain: RetrainRule = field(default_factory=RetrainRule)
    service_levels: ServiceLevelRule | None = None
    store: StoreRule = field(default_factory=StoreRule)

    @property
    def numeric_columns(self) -> tuple[str, ...]:
        """Double inputs, then the views' feature columns, in declared order."""
        own = tuple(one.name for one in self.inputs if one.type is InputType.DOUBLE)
        return own + tuple(column for view in self.views for column in view.columns)

    @property
    def categorical_columns(self) -> tuple[str, ...]:
        """Entities' keys (each part of a composite one's), then string inputs that are no identifiers."""
        own = tuple(one.name for one in self.inputs if one.type is InputType.STRING and not one.identifier)
        return self.entity_keys + own

    @property
    def coded_inputs(self) -> tuple[CodedField, ...]:
        """The inputs whose values are of code lists."""
        return tuple(CodedField(field=one.name, codes=one.codes) for one in self.inputs if one.codes)

    @property
    def entity_keys(self) -> tuple[str, ...]:
        """What a request names to say which entities it is about, each once, in declared order."""
        return tuple(dict.fromkeys(key for entity in self.entities for key in entity.keys))


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A loaded project. ``freshness`` is how old a view's newest readable event may be, by view, in microseconds."""

    name: str
    owner: str
    description: str
    folder: Path
    event_types: Mapping[str, EventType]
    entities: Mapping[str, Entity]
    views: Mapping[str, FeatureView]
    models: Mapping[str, ModelDeclaration]
    future_skew_us: int
    max_jump_us: int | None
    history_module: Path | None = None
    #: Whether a model that reads a deprecated view after its last day is a mistake to `driftline check`.
    refuse_past_deprecations: bool = False
    freshness: Mapping[str, int] = field(default_factory=dict)
    #: Streams of the platform that views may read like event types, by name.
    platform_events: Mapping[str, EventType] = field(default_factory=dict)

    def event_type(self, name: str) -> EventType:
        """Return an event type that views read, one of the platform's too; KeyError where there is none."""
        return self.event_types.get(name) or self.platform_events[name]

    def views_of(self, event_type: str) -> Iterator[FeatureView]:
        """Yield what is stored of views that an event type feeds, in declared order, each once."""
        stored = dict.fromkeys(part for view in self.views.values() for part in view.stored)
        return (part for part in stored if part.source.event_type == event_type)

    def readers_of(self, event_type: str) -> Iterator[FeatureView]:
        """Yield the views that are served from an event type's events, in declared order."""
        for view in self.views.values():
            if any(part.source.event_type == event_type for part in view.stored):
                yield view

    @property
    def fed_by(self) -> Mapping[str, EventType]:
        """The event types whose events the feature store applies: the project's, and the platform's that views read."""
        read = {part.source.event_type for view in self.views.values() for part in view.stored}
        own = {name: one for name, one in self.platform_events.items() if name in read}
        return {**self.event_types, **own}

    @property
    def request_entities(self) -> tuple[str, ...]:
        """All keys of entities that any model's requests name, sorted."""
        return tuple(sorted({key for model in self.models.values() for key in model.entity_keys}))

    @property
    def request_inputs(self) -> tuple[InputField, ...]:
        """All inputs of all models, sorted by name (one name has one type)."""
        fields = {one.name: one for model in self.models.values() for one in model.inputs}
        return tuple(fields[name] for name in sorted(fields))

    @property
    def labelled_models(self) -> tuple[ModelDeclaration, ...]:
        """The models whose predictions wait for labels."""
        return tuple(model for model in self.models.values() if model.label is not None)

    @property
    def request_views(self) -> tuple[FeatureView, ...]:
        """All views that any model reads, sorted by name."""
        views = {view.name: view for model in self.models.values() for view in model.views}
        return tuple(views[name] for name in sorted(views))
