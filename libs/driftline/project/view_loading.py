"""A project's feature views: what its Python file declares, checked against the event types."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from driftline.features import Aggregate, Entity, Feature, FeatureView, Source
from driftline.features.conditions import FieldKind, FieldUse
from driftline.project.condition_fields import condition_mistakes, use_mistake
from driftline.project.declaration import EventType
from driftline.project.event_types import field_type
from driftline.project.mistakes import Mistake, meant
from driftline.project.modules import ModuleRun, run_module

_INTEGERS = ("int", "long")
_NUMERIC = (*_INTEGERS, "float", "double")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredViews:
    """The feature views of a Python file.

    ``variables`` says which variable holds a view, ``lost`` is what ``ModuleRun.texts`` is, ``whole`` says whether all of
    the file could be run.
    """

    views: Mapping[str, FeatureView]
    variables: Mapping[str, str]
    mistakes: tuple[Mistake, ...]
    lost: frozenset[str] | None
    whole: bool


def load_views(path: Path) -> DeclaredViews:
    """Return the views that a file declares, those before and after a mistake too."""
    ran = run_module(path)
    views: dict[str, FeatureView] = {}
    variables: dict[str, str] = {}
    twice: list[Mistake] = []
    for variable, value in ran.values.items():
        if not isinstance(value, FeatureView) or value in views.values():
            continue
        if value.name in views:
            text = f"two feature views are named {value.name!r}; rename one, or remove the older version"
            twice.append(Mistake(path=path, text=text, names=(variable,)))
        else:
            views[value.name], variables[value.name] = value, variable
    return DeclaredViews(
        views=views,
        variables=variables,
        mistakes=(*ran.mistakes, *twice),
        lost=None if ran.texts is None else ran.texts | _entities(ran),
        whole=not ran.mistakes,
    )


def _entities(ran: ModuleRun) -> frozenset[str]:
    """Return the entities that views with mistakes may have; none where all of the file could be run."""
    if not ran.mistakes:
        return frozenset()
    sources = (value.entity for value in ran.values.values() if isinstance(value, Source))
    entities = (value for value in ran.values.values() if isinstance(value, Entity))
    return frozenset(one.name for one in (*sources, *entities))


def _either(kinds: Sequence[str]) -> str:
    *first, last = kinds
    return f"{', '.join(first)} or {last}" if first else last


def view_mistakes(
    path: Path, view: FeatureView, variable: str, event_types: Mapping[str, EventType]
) -> Iterator[Mistake]:
    """Yield what a view asks of the event types that they do not have."""
    source = view.source
    event_type = event_types.get(source.event_type)
    if event_type is None:
        text = (
            f"feature view {view.name!r} reads event type {source.event_type!r}, which driftline.yaml does not "
            f"declare; it declares {', '.join(sorted(event_types))}{meant(source.event_type, event_types)}"
        )
        yield Mistake(path=path, text=text, names=(variable, source.event_type))
        return
    if source.event_time != event_type.event_time:
        text = (
            f"feature view {view.name!r} takes {source.event_time!r} as event time, but event type "
            f"{event_type.name!r} has {event_type.event_time!r}"
        )
        yield Mistake(path=path, text=text, names=(variable, source.event_time))
    names = [field["name"] for field in event_type.schema["fields"]]
    for field in source.entity_fields:
        if field_type(event_type.schema, field) != "string":
            near = "" if field in names else meant(field, names)
            text = (
                f"{field!r}, the entity of {view.name!r}, is no string field of "
                f"{event_type.schema_path.name}{near}"
            )
            yield Mistake(path=path, text=text, names=(variable, field))
    yield from _condition_mistakes(path, view, variable, event_type)
    for index, feature in enumerate(view.aggregated):
        if feature.field and (mistake := _field_mistake(feature, event_type)):
            nth = [one.field for one in view.aggregated[:index]].count(feature.field)
            text = f"feature {feature.name!r} of {view.name!r} {mistake}"
            yield Mistake(path=path, text=text, names=(variable, feature.field), nth=nth)


def _field_mistake(feature: Feature, event_type: EventType) -> str:
    """Return what a feature asks of its field that the event type does not have; empty where it has it."""
    kind = field_type(event_type.schema, feature.field)
    names = [field["name"] for field in event_type.schema["fields"]]
    if feature.reads_text and feature.field in names:
        if feature.aggregate is Aggregate.DISTINCT_COUNT and kind in _INTEGERS:
            return ""
        mistake = use_mistake(FieldUse(feature.field, FieldKind.TEXT, feature.categories), kind)
        return f"{mistake} in {event_type.schema_path.name}" if mistake else ""
    wanted: tuple[str, ...] = (*_NUMERIC, "boolean")
    if feature.aggregate is Aggregate.RATE:
        wanted = ("boolean",)
    elif feature.reads_text:
        wanted = ("string", "enum")
    if isinstance(kind, str) and kind in wanted:
        return ""
    usable = [name for name in names if field_type(event_type.schema, name) in wanted]
    found = kind if feature.field in names else f"no such field{meant(feature.field, usable)}"
    return f"needs a field {feature.field!r} of type {_either(wanted)} in {event_type.schema_path.name}, found {found}"


def _condition_mistakes(
    path: Path, view: FeatureView, variable: str, event_type: EventType
) -> Iterator[Mistake]:
    """Yield what the conditions of a view and of its features ask of the event type that it does not have."""
    conditions = [(f"the condition of {view.name!r}", view.where)]
    conditions += [
        (f"the condition of {one.name!r} of {view.name!r}", one.condition) for one in view.aggregated
    ]
    for what, condition in conditions:
        for field, mistake in condition_mistakes(condition, partial(field_type, event_type.schema)):
            text = f"{what} {mistake} in {event_type.schema_path.name}"
            yield Mistake(path=path, text=text, names=(variable, field))


def entity_mistakes(path: Path, found: DeclaredViews) -> Iterator[Mistake]:
    """Yield where one entity's name stands for different keys."""
    entities: dict[str, Entity] = {}
    for view in found.views.values():
        known = entities.setdefault(view.entity.name, view.entity)
        if known.keys != view.entity.keys:
            text = (
                f"entity {known.name!r} is made of {', '.join(known.keys)} in one view and of "
                f"{', '.join(view.entity.keys)} in {view.name!r}; declare it once"
            )
            yield Mistake(path=path, text=text, names=(found.variables[view.name], known.name))


def joined_mistakes(path: Path, found: DeclaredViews) -> Iterator[Mistake]:
    """Yield where a view joins another one than the project has under that name."""
    for view in found.views.values():
        for one in view.views:
            known = found.views.get(one.name)
            if known is not None and known != one:
                text = (
                    f"feature view {view.name!r} joins {one.ref}, which is not the {known.ref} that this file declares under "
                    "that name; join that one"
                )
                yield Mistake(path=path, text=text, names=(found.variables[view.name], one.name))
