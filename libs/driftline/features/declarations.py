"""What a data scientist writes: entities, sources, features and views. Pure values, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from driftline.features.aggregations import Feature, all_of
from driftline.features.conditions import Condition
from driftline.features.derivations import Derived
from driftline.features.names import check_name
from driftline.runtime.durations import parse_duration_us


class OnStale(StrEnum):
    """What is served once an entity's newest event is older than the view's time-to-live."""

    SERVE = "serve"
    DEFAULT = "default"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Entity:
    """Something that features describe: an airport, a customer. Its key is a string field of that name.

    A composite entity, like an airline at an airport, is keyed by several: ``keys=("origin", "carrier")``. Requests
    name each of them, and events have a field for each.
    """

    name: str
    description: str = ""
    keys: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_name("entity", self.name)
        if isinstance(self.keys, str):
            msg = f'entity {self.name!r}: keys are several names, like keys=("origin", "carrier")'
            raise TypeError(msg)
        object.__setattr__(self, "keys", tuple(self.keys) or (self.name,))
        if self.keys == (self.name,):
            return
        for key in self.keys:
            check_name(f"entity {self.name!r}: key", key)
        if len(self.keys) < 2 or len(set(self.keys)) < len(self.keys) or self.name in self.keys:
            msg = (
                f"entity {self.name!r}: keys {', '.join(self.keys)} make no composite entity: it has two or more "
                "different ones, and a name of its own"
            )
            raise ValueError(msg)

    @property
    def composite(self) -> bool:
        """Whether several keys make up the entity's."""
        return len(self.keys) > 1


@dataclass(frozen=True, slots=True)
class Source:
    """Where a view's events come from: an event type of the project, the entity they are about, their time.

    ``entity_field`` is the event field that holds the entity's key; the entity's name unless said. A composite
    entity's are ``entity_fields``, in the order of its keys; fields of those names unless said.
    """

    event_type: str
    entity: Entity
    event_time: str
    entity_field: str = ""
    entity_fields: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_name("event type", self.event_type)
        keys, fields = self.entity.keys, tuple(self.entity_fields)
        if not fields:
            fields = (self.entity_field,) if self.entity_field else tuple(keys)
        said_twice = bool(self.entity_field) and fields != (self.entity_field,)
        if isinstance(self.entity_fields, str) or said_twice or len(fields) != len(keys):
            wanted = "entity_fields=(...), one for each, in this order" if len(keys) > 1 else "entity_field="
            msg = (
                f"source {self.event_type!r}: the key of {self.entity.name!r} is {', '.join(keys)}: name its event "
                f"{'fields' if len(keys) > 1 else 'field'} with {wanted}"
            )
            raise ValueError(msg)
        object.__setattr__(self, "entity_fields", fields)
        object.__setattr__(self, "entity_field", "" if self.entity.composite else fields[0])


@dataclass(frozen=True, slots=True)
class FeatureView:
    """A versioned group of features over one source; the unit that is stored, served and versioned.

    ``features`` are aggregated from the events, or derived from such ones (``derived``) when they are read.

    ``tile`` fixes the width of the time tiles, which is the windows' resolution; derived when empty.
    ``where`` says which of the source's events the view is about; for it, the others have not happened.
    """

    name: str
    version: int
    source: Source
    features: Sequence[Feature | Derived]
    ttl: str = ""
    on_stale: OnStale | str = OnStale.SERVE
    tile: str = ""
    description: str = ""
    owner: str = ""
    where: Condition | None = None
    ttl_us: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_name("feature view", self.name)
        object.__setattr__(self, "features", tuple(self.features))
        if self.on_stale not in tuple(OnStale):
            msg = f"feature view {self.name!r}: on_stale is {', '.join(OnStale)}, got {self.on_stale!r}"
            raise ValueError(msg)
        object.__setattr__(self, "on_stale", OnStale(self.on_stale))
        object.__setattr__(self, "ttl_us", parse_duration_us(self.ttl) if self.ttl else None)
        if self.version < 1:
            msg = f"feature view {self.name!r}: versions start at 1, got {self.version}"
            raise ValueError(msg)
        if self.where is not None:
            all_of(None, self.where)
        if not self.features:
            msg = f"feature view {self.name!r} declares no features"
            raise ValueError(msg)
        for feature in self.aggregated:
            if mistake := feature.mistake():
                msg = f"feature view {self.name!r}: {mistake}"
                raise ValueError(msg)
        names = [feature.name for feature in self.features]
        for name in names:
            if names.count(name) > 1:
                msg = f"feature view {self.name!r}: two features are named {name!r}; use .named(...)"
                raise ValueError(msg)
        self._check_derived()

    def _check_derived(self) -> None:
        """Check that formulas name features: aggregated ones, and derived ones that stand before them."""
        known = [feature.name for feature in self.aggregated]
        for feature in self.features:
            if not isinstance(feature, Derived):
                continue
            for name in feature.expression.references():
                if name not in known:
                    msg = (
                        f"feature view {self.name!r}: {feature.name} is derived from {name!r}, which is no feature "
                        f"that stands before it; those are {', '.join(known)}"
                    )
                    raise ValueError(msg)
            known.append(feature.name)

    @property
    def ref(self) -> str:
        """The view with its version, like ``origin_delays@1``."""
        return f"{self.name}@{self.version}"

    @property
    def entity(self) -> Entity:
        """The entity that the view describes."""
        return self.source.entity

    @property
    def aggregated(self) -> tuple[Feature, ...]:
        """The features that are aggregated from events, and so stored; the others are derived from these."""
        return tuple(feature for feature in self.features if isinstance(feature, Feature))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the view's features as columns of a table or a record, like ``origin_delays__count_1h``."""
        return tuple(f"{self.name}__{feature.name}" for feature in self.features)

    @property
    def age_column(self) -> str:
        """Name of the column with the age of the view's values, in milliseconds."""
        return f"{self.name}__age_ms"
