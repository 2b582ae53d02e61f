"""What a data scientist writes: entities, sources, features and views. Pure values, no I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum

from driftline.features.aggregations import Feature, all_of
from driftline.features.code_lists import CodedField
from driftline.features.conditions import Condition
from driftline.features.derivations import Derived
from driftline.features.names import check_name
from driftline.runtime.durations import parse_duration_us

_REF = re.compile(r"[a-z][a-z0-9_]*@[1-9][0-9]*")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


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
    entity's are ``entity_fields``, in the order of its keys; fields of those names unless said. ``name`` tells it from
    the other sources of its view; the event type unless said.

    The predictions of the project's models are events too, of the type ``predictions``: their fields are
    ``request_id``, ``model``, ``score``, ``decision``, ``event_time`` and the requests' entities and inputs.
    """

    event_type: str
    entity: Entity
    event_time: str
    entity_field: str = ""
    entity_fields: Sequence[str] = ()
    name: str = ""
    #: Fields whose values are of code lists; set from ``driftline.yaml``.
    codes: tuple[CodedField, ...] = ()
    #: Whether it is a table of rows that are replaced, so that none grows stale; set from ``driftline.yaml``.
    table: bool = False

    def __post_init__(self) -> None:
        check_name("event type", self.event_type)
        object.__setattr__(self, "name", self.name or self.event_type)
        check_name("source", self.name)
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
    """A versioned group of features of an entity; the unit that is served and versioned.

    ``features`` are aggregated from the events, or derived from such ones (``derived``) when they are read.

    ``joins`` are further sources of the same entity, whose events features read with ``.of(source)``, and other views
    of it, whose features formulas name by column: ``feature("origin_weather__last_wind")``. What is aggregated from each
    source is stored apart (``parts``) and joined when it is read; a joined view is read as it stands.

    ``tile`` fixes the width of the time tiles, which is the windows' resolution; derived when empty.
    ``where`` says which of the source's events the view is about; for it, the others have not happened.
    ``deprecated`` is the last day that models should read it, like ``2026-12-31``; ``successor`` what to read instead.
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
    deprecated: str = ""
    successor: str = ""
    joins: Sequence[Source | FeatureView] = ()
    #: Of what is stored of a view with several sources: the view's name.
    part_of: str = field(default="", repr=False)
    ttl_us: int | None = field(init=False, default=None)
    #: What is stored of the view itself: the view, or for each source a view of what is aggregated from it.
    parts: tuple[FeatureView, ...] = field(init=False, default=(), repr=False, compare=False)
    #: All that is read to serve the view: its parts, and those of the views that it joins, each once.
    stored: tuple[FeatureView, ...] = field(init=False, default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.part_of:
            check_name("feature view", self.name)
        object.__setattr__(self, "features", tuple(self.features))
        object.__setattr__(self, "joins", tuple(self.joins))
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
        self._check_deprecation()
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
        self._check_joins()
        self._check_derived()
        parts = _parts(self) if self.joins else (self,)
        others = [part for view in self.views for part in view.stored]
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "stored", tuple(dict.fromkeys((*parts, *others))) if others else parts)

    def _check_joins(self) -> None:
        """Check that what is joined is of one entity, and that features name sources that are there."""
        what = f"feature view {self.name!r}"
        for one in self.joins:
            if one.entity.keys != self.entity.keys:
                msg = f"{what} is of {self.entity.name!r} and joins {one.name!r}, which is of {one.entity.name!r}"
                raise ValueError(msg)
        names = [one.name for one in self.sources] + [one.name for one in self.views]
        for name in names:
            if names.count(name) > 1:
                msg = f"{what} joins two sources or views named {name!r}; give a source a name of its own: Source(..., name=...)"
                raise ValueError(msg)
        known = [one.name for one in self.sources]
        read = {feature.source or self.source.name for feature in self.aggregated}
        for feature in self.aggregated:
            if feature.source and feature.source not in known:
                msg = f"{what}: {feature.name} is of source {feature.source!r}, which the view does not join: joins=[...]"
                raise ValueError(msg)
        for name in known[1:]:
            if name not in read:
                msg = f"{what} joins {name!r}, and no feature reads it; say which do with .of(...)"
                raise ValueError(msg)
        if not self.joins:
            return
        if self.where is not None:
            msg = f"{what} has several sources, so its condition is said of features: count().where(...), or of a view that it joins"
            raise ValueError(msg)
        refusing = [view.name for view in self.views if view.on_stale is OnStale.REFUSE]
        if refusing and self.on_stale is not OnStale.REFUSE:
            msg = f'{what} joins {refusing[0]!r}, which refuses once it is stale; so must this one: on_stale="refuse"'
            raise ValueError(msg)

    def _check_deprecation(self) -> None:
        """Check that a deprecation has a real date, and names its successor as one."""
        what = f"feature view {self.name!r}"
        if self.successor and not self.deprecated:
            msg = f'{what} has a successor and no date; add the last day to read it, like deprecated="2026-12-31"'
            raise ValueError(msg)
        if self.successor and not _REF.fullmatch(self.successor):
            msg = f"{what}: successor is a view and its version, like origin_departures@2, got {self.successor!r}"
            raise ValueError(msg)
        if self.successor == self.ref:
            msg = f"{what}: successor is the view itself; name the one to read instead"
            raise ValueError(msg)
        try:
            if self.deprecated and not _DATE.fullmatch(self.deprecated):
                raise ValueError(self.deprecated)
            _ = self.deprecated_until
        except (TypeError, ValueError):
            msg = f"{what}: deprecated is the last day to read it, like 2026-12-31, got {self.deprecated!r}"
            raise ValueError(msg) from None

    def _check_derived(self) -> None:
        """Check that formulas name features: aggregated ones, and derived ones that stand before them."""
        known = [feature.name for feature in self.aggregated]
        known += [column for view in self.views for column in view.columns]
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
    def deprecated_until(self) -> date | None:
        """The last day that models should read it; None where it is not deprecated."""
        return date.fromisoformat(self.deprecated) if self.deprecated else None

    @property
    def entity(self) -> Entity:
        """The entity that the view describes."""
        return self.source.entity

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where the view's own features come from: its source, and those that it joins."""
        return (self.source, *(one for one in self.joins if isinstance(one, Source)))

    @property
    def views(self) -> tuple[FeatureView, ...]:
        """The views that it joins."""
        return tuple(one for one in self.joins if isinstance(one, FeatureView))

    def with_sources(self, change: Callable[[Source], Source]) -> FeatureView:
        """Return the view with each source changed, those of the views that it joins too."""
        joins = [
            one.with_sources(change) if isinstance(one, FeatureView) else change(one) for one in self.joins
        ]
        return replace(self, source=change(self.source), joins=joins)

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


def _parts(view: FeatureView) -> tuple[FeatureView, ...]:
    found = []
    for source in view.sources:
        of = [one for one in view.aggregated if (one.source or view.source.name) == source.name]
        own = [replace(one.named(one.name), source="") for one in of]
        if own:
            part = FeatureView(
                name=f"{view.name}.{source.name}",
                version=view.version,
                source=source,
                features=own,
                ttl="" if source.table else view.ttl,
                on_stale=OnStale.DEFAULT if view.on_stale is OnStale.DEFAULT else OnStale.SERVE,
                tile=view.tile,
                owner=view.owner,
                part_of=view.name,
            )
            found.append(part)
    return tuple(found)
