"""The values that a project folder is loaded into."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from driftline.features import Entity, FeatureView


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


@dataclass(frozen=True, slots=True, kw_only=True)
class InputField:
    """A value that the caller of a prediction brings (null where it is not known)."""

    name: str
    type: InputType
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRule:
    """Turns a score into a decision: ``above`` where score >= threshold, else ``below``."""

    threshold: float
    above: str
    below: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDeclaration:
    """A model as its project declares it.

    ``columns`` are the model's inputs in order: the requests' ``inputs``, entity names (used as
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

    @property
    def numeric_columns(self) -> tuple[str, ...]:
        """Double inputs, then the views' feature columns, in declared order."""
        own = tuple(field.name for field in self.inputs if field.type is InputType.DOUBLE)
        return own + tuple(column for view in self.views for column in view.columns)

    @property
    def categorical_columns(self) -> tuple[str, ...]:
        """Entities' keys, then string inputs, in declared order."""
        own = tuple(field.name for field in self.inputs if field.type is InputType.STRING)
        return tuple(entity.name for entity in self.entities) + own


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A loaded project."""

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

    def views_of(self, event_type: str) -> Iterator[FeatureView]:
        """Yield the views that an event type feeds, in declared order."""
        return (view for view in self.views.values() if view.source.event_type == event_type)

    @property
    def request_entities(self) -> tuple[str, ...]:
        """Names of all entities that any model's requests name, sorted."""
        return tuple(sorted({entity.name for model in self.models.values() for entity in model.entities}))

    @property
    def request_inputs(self) -> tuple[InputField, ...]:
        """All inputs of all models, sorted by name (one name has one type)."""
        fields = {field.name: field for model in self.models.values() for field in model.inputs}
        return tuple(fields[name] for name in sorted(fields))

    @property
    def request_views(self) -> tuple[FeatureView, ...]:
        """All views that any model reads, sorted by name."""
        views = {view.name: view for model in self.models.values() for view in model.views}
        return tuple(views[name] for name in sorted(views))
