"""What a changed project changes: what breaks, and what has to be done beside deploying it."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from driftline.checking.code_list_changes import code_list_changes
from driftline.checking.places import located
from driftline.checking.project_check import GENERATED
from driftline.checking.schema_fields import ALIKE, field_named, fields_of, likely_name, way_to_field
from driftline.contracts.compatibility import BACKWARD_ADVICE, explain_incompatibility
from driftline.features import FeatureView
from driftline.features.differences import computation, fields_read, view_differences
from driftline.features.layout import ViewLayout
from driftline.project import EventType, ModelDeclaration, Project
from driftline.project.loading import FILE, Examination
from driftline.project.mistakes import Mistake
from driftline.runtime.errors import ConfigurationError

_MOST_TOLD = 3


class ChangeKind(StrEnum):
    """What a change is about."""

    PROJECT = "project"
    EVENT_TYPE = "event type"
    FIELD = "field"
    SCHEMA = "schema"
    VIEW = "view"
    CODE_LIST = "code list"
    MODEL = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change.

    Attributes
    ----------
    breaks
        Whether the project must not be deployed so.
    place
        Where it is in the changed project, what it is, what to do.
    views, models
        The references of the views, and the names of the models, that it reaches.
    """

    kind: ChangeKind
    breaks: bool
    place: Mistake
    views: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A project before and after, both there."""

    before: Project
    after: Project
    old: Examination
    new: Examination

    def in_file(self, text: str, *keys: str) -> Mistake:
        """Return a place in the changed project's ``driftline.yaml``."""
        return Mistake(path=self.after.folder / FILE, text=text, keys=keys)

    def in_features(self, text: str, *names: str) -> Mistake:
        """Return a place in the changed project's features file."""
        return Mistake(path=self.new.features_file or self.after.folder, text=text, names=names)


def project_changes(old: Examination, new: Examination) -> tuple[Change, ...]:
    """Return what changes from one state of a project to another, what breaks first.

    What has mistakes is compared as far as it can be read.
    """
    if old.project is None or new.project is None:
        return ()
    pair = _Pair(before=old.project, after=new.project, old=old, new=new)
    found = [
        *_project_changes(pair),
        *_event_changes(pair),
        *_view_changes(pair),
        *_code_list_changes(pair),
        *_model_changes(pair),
    ]
    placed = [replace(change, place=located(change.place)) for change in found]
    return tuple(sorted(placed, key=lambda change: not change.breaks))


def models_that_read(project: Project, views: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the models that read any of the views with these names."""
    wanted = set(views)
    return tuple(
        model.name for model in project.models.values() if wanted & {view.name for view in model.views}
    )


def _project_changes(pair: _Pair) -> Iterator[Change]:
    if pair.before.name != pair.after.name:
        text = (
            f"the project was {pair.before.name!r} and is {pair.after.name!r}: its topics and models get new names, "
            "and begin empty; keep the name unless that is meant"
        )
        yield Change(kind=ChangeKind.PROJECT, breaks=False, place=pair.in_file(text, "name"))


def _event_changes(pair: _Pair) -> Iterator[Change]:
    for name, old in pair.before.event_types.items():
        new = pair.after.event_types.get(name)
        if new is not None:
            yield from _lost_fields(pair.after, old, new)
            yield from _key_changes(pair, old, new)
        elif name not in pair.new.broken_events:
            yield _dropped_event(pair, name)
    if pair.before.name == pair.after.name:
        yield from _incompatible_schemas(pair)


def _dropped_event(pair: _Pair, name: str) -> Change:
    readers = list(pair.after.readers_of(name))
    models = models_that_read(pair.after, (view.name for view in readers))
    new = [one for one in pair.after.event_types if one not in pair.before.event_types]
    near = get_close_matches(name, new, n=1, cutoff=ALIKE)
    became = f" (now {near[0]!r}?)" if near else ""
    text = (
        f"event type {name!r} is gone{became}; {_reached(readers, models)}; keep it, or change what reads it"
        if readers
        else f"event type {name!r} is gone{became}, and nothing reads it any more; stop what publishes it"
    )
    place = pair.in_file(text, "events")
    return Change(
        kind=ChangeKind.EVENT_TYPE, breaks=bool(readers), place=place, views=_refs(readers), models=models
    )


def _lost_fields(project: Project, old: EventType, new: EventType) -> Iterator[Change]:
    written, there = fields_of(old), fields_of(new)
    for name in written:
        if name in there:
            continue
        readers = [view for view in project.readers_of(new.name) if name in _fields_of(view, new.name)]
        models = models_that_read(project, (view.name for view in readers))
        now = likely_name(written[name], [one for key, one in there.items() if key not in written])
        became = f"was renamed to {now!r}, it seems" if now else "was dropped"
        remedy = (
            f"read {now!r} in their next versions" if now else "read something else in their next versions"
        )
        text = f"field {name!r} of event type {new.name!r} {became}; " + (
            f"{_reached(readers, models)}; {remedy}, or put the field back"
            if readers
            else "no view reads it; tell who else reads the topic"
        )
        yield Change(
            kind=ChangeKind.FIELD,
            breaks=bool(readers),
            place=Mistake(path=new.schema_path, text=text, keys=way_to_field(new, now)),
            views=_refs(readers),
            models=models,
        )


def _fields_of(view: FeatureView, event_type: str) -> frozenset[str]:
    """Return the fields of an event type that a view reads."""
    parts = (part for part in view.stored if part.source.event_type == event_type)
    return frozenset(name for part in parts for name in fields_read(part))


def _key_changes(pair: _Pair, old: EventType, new: EventType) -> Iterator[Change]:
    if old.key != new.key:
        text = (
            f"event type {new.name!r} was keyed by {old.key!r} and is by {new.key!r}: records that lie in its topic "
            "stay in the partitions of the old key; declare a new event type instead"
        )
        place = pair.in_file(text, "events", new.name, "key")
        readers = list(pair.after.readers_of(new.name))
        models = models_that_read(pair.after, (view.name for view in readers))
        yield Change(
            kind=ChangeKind.EVENT_TYPE, breaks=True, place=place, views=_refs(readers), models=models
        )


def _incompatible_schemas(pair: _Pair) -> Iterator[Change]:
    for name, new in pair.after.event_types.items():
        old = pair.before.event_types.get(name)
        reason = None if old is None else _incompatibility(reader=new.schema, writer=old.schema)
        if reason is not None:
            text = f"event type {name!r}: {reason}. {BACKWARD_ADVICE}"
            keys = way_to_field(new, field_named(reason))
            place = Mistake(path=new.schema_path, text=text, keys=keys)
            yield Change(kind=ChangeKind.SCHEMA, breaks=True, place=place)
    for stream, make in GENERATED.items():
        with suppress(ConfigurationError):  # such a project has a mistake, which the check tells
            reason = _incompatibility(reader=make(pair.after), writer=make(pair.before))
            if reason is not None:
                text = f"the schema of {stream}, made from the models: {reason}. {BACKWARD_ADVICE}"
                place = pair.in_file(text, "models")
                yield Change(kind=ChangeKind.SCHEMA, breaks=True, place=place)


def _incompatibility(*, reader: Any, writer: Any) -> str | None:
    try:
        return explain_incompatibility(reader=reader, writer=writer)
    except ConfigurationError:  # one of them is no schema: a mistake, which the check tells
        return None


def _view_changes(pair: _Pair) -> Iterator[Change]:
    for name, old in pair.before.views.items():
        new = pair.after.views.get(name)
        if new is not None:
            yield from _view_change(pair, old, new)
            if new.deprecated and (new.deprecated, new.successor) != (old.deprecated, old.successor):
                yield _deprecation(pair, new)
        elif pair.new.features_whole:
            text = f"feature view {old.ref} is gone; its values are served no more"
            place = pair.in_features(text)
            yield Change(kind=ChangeKind.VIEW, breaks=False, place=place, views=(old.ref,))


def _view_change(pair: _Pair, old: FeatureView, new: FeatureView) -> Iterator[Change]:
    differences = _first(map(str, view_differences(old, new)), "; ")
    if new.version < old.version:
        breaks = True
        text = f"feature view {new.ref} was {old.ref}: versions only grow; take {old.version + 1}"
    elif new.version > old.version:
        breaks = False
        text = f"feature view {old.ref} became {new.ref} ({differences or 'with no difference'})"
    elif not differences:
        return
    elif _needs_version(old, new):
        breaks = True
        text = f"feature view {new.ref} changed under the same version ({differences}); set version={old.version + 1}"
    else:
        breaks = False
        text = f"feature view {new.ref} answers otherwise from the same rows ({differences}); its version may stay"
    place = pair.in_features(text, pair.new.variables[new.name])
    models = models_that_read(pair.after, [new.name])
    yield Change(kind=ChangeKind.VIEW, breaks=breaks, place=place, views=(new.ref,), models=models)


def _deprecation(pair: _Pair, view: FeatureView) -> Change:
    models = models_that_read(pair.after, [view.name])
    after = f"its successor is {view.successor}" if view.successor else "it has no successor"
    text = f"feature view {view.ref} is deprecated, read it until {view.deprecated} at most; {after}"
    place = pair.in_features(text, pair.new.variables[view.name], view.deprecated)
    return Change(kind=ChangeKind.VIEW, breaks=False, place=place, views=(view.ref,), models=models)


def _code_list_changes(pair: _Pair) -> Iterator[Change]:
    for one in code_list_changes(pair.before, pair.after):
        place = pair.in_file(one.text, "code_lists", one.name)
        yield Change(kind=ChangeKind.CODE_LIST, breaks=False, place=place, views=one.views, models=one.models)


def _needs_version(old: FeatureView, new: FeatureView) -> bool:
    """Whether a view no longer fits the rows that are stored of it, or the columns that models learned from."""
    try:
        same_rows = _rows_of(old) == _rows_of(new)
    except ConfigurationError:  # one of them has a mistake, which the check tells
        return True
    before, after = _computed(old), _computed(new)
    return not same_rows or any(after.get(column) != how for column, how in before.items())


def _rows_of(view: FeatureView) -> list[tuple[str, int, dict[str, str]]]:
    """Return what is stored of a view: under which name, what its rows hold, which fields make up their keys."""
    return [
        (
            part.ref,
            ViewLayout.of(part).fingerprint,
            dict(zip(part.entity.keys, part.source.entity_fields, strict=True)),
        )
        for part in view.stored
    ]


def _computed(view: FeatureView) -> dict[str, str]:
    return dict(zip(view.columns, map(computation, view.features), strict=True))


def _model_changes(pair: _Pair) -> Iterator[Change]:
    for name, old in pair.before.models.items():
        new = pair.after.models.get(name)
        if {name} & (pair.new.incomplete_models | pair.old.incomplete_models):
            continue
        if new is None:
            text = f"model {name!r} is gone; nothing answers for it any more"
            place = pair.in_file(text, "models")
            yield Change(kind=ChangeKind.MODEL, breaks=False, place=place, models=(name,))
            continue
        told = "; ".join(_model_differences(old, new))
        if told:
            text = f"model {name!r} needs a new training ({told}); run `driftline train`, its active version has the old columns"
            place = pair.in_file(text, "models", name)
            yield Change(
                kind=ChangeKind.MODEL,
                breaks=False,
                place=place,
                views=_refs(view for view in new.views if view not in old.views),
                models=(name,),
            )


def _model_differences(old: ModelDeclaration, new: ModelDeclaration) -> Iterator[str]:
    before = (*old.numeric_columns, *old.categorical_columns)
    after = (*new.numeric_columns, *new.categorical_columns)
    added = [column for column in after if column not in before]
    removed = [column for column in before if column not in after]
    if added:
        yield f"columns added: {_first(added)}"
    if removed:
        yield f"columns removed: {_first(removed)}"
    if not added and not removed and before != after:
        yield "its columns have another order or type"
    versions = {view.name: view.ref for view in old.views}
    for view in new.views:
        if versions.get(view.name, view.ref) != view.ref:
            yield f"it reads {view.ref} instead of {versions[view.name]}"


def _refs(views: Iterable[FeatureView]) -> tuple[str, ...]:
    return tuple(view.ref for view in views)


def _reached(views: Iterable[FeatureView], models: Iterable[str]) -> str:
    named = [_counted("view", _refs(views)), _counted("model", tuple(models))]
    return f"it breaks {' and '.join(filter(None, named))}"


def _counted(what: str, names: tuple[str, ...]) -> str:
    return f"the {what}{'s' if len(names) > 1 else ''} {', '.join(names)}" if names else ""


def _first(texts: Iterable[str], between: str = ", ") -> str:
    """Join the first texts, and say how many more there are."""
    every = list(texts)
    more = len(every) - _MOST_TOLD
    return between.join(every[:_MOST_TOLD]) + (f"{between}and {more} more" if more > 0 else "")
