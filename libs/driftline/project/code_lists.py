"""A project's code lists: what ``driftline.yaml`` says of them, checked, and laid onto views and inputs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from driftline.features import FeatureView, Source
from driftline.features.code_lists import CodedField, CodeList, CodeVersion
from driftline.project.declaration import EventType, InputType, ModelDeclaration
from driftline.project.event_types import field_type
from driftline.project.mistakes import Mistake, meant
from driftline.project.sections import CodeListSection, CodeVersionSection
from driftline.runtime.clock import instant_us


def build_code_list(name: str, spec: CodeListSection) -> CodeList:
    """Return a code list as it is declared."""
    versions = tuple(
        CodeVersion(
            version=one.version,
            since_us=instant_us(one.since),
            forward=tuple(one.from_.items()),
            backward=tuple({**{new: old for old, new in one.from_.items()}, **one.back}.items()),
        )
        for one in spec.versions
    )
    return CodeList(name=name, versions=versions, reads=spec.reads)


def with_codes(
    views: Mapping[str, FeatureView], lists: Mapping[str, CodeListSection]
) -> dict[str, FeatureView]:
    """Return views that know which of their events' fields are coded."""

    def coded(source: Source) -> Source:
        return replace(source, codes=_coded(source.event_type, lists))

    return {name: view.with_sources(coded) for name, view in views.items()}


def codes_of_input(name: str, lists: Mapping[str, CodeListSection]) -> CodeList | None:
    """Return the list that a request's input has codes of; None where none names it."""
    return next((build_code_list(one, spec) for one, spec in lists.items() if name in spec.inputs), None)


def _coded(event_type: str, lists: Mapping[str, CodeListSection]) -> tuple[CodedField, ...]:
    return tuple(
        CodedField(field=field, codes=build_code_list(name, spec))
        for name, spec in lists.items()
        for field in spec.events.get(event_type, ())
    )


def code_list_mistakes(
    path: Path,
    lists: Mapping[str, CodeListSection],
    event_types: Mapping[str, EventType],
    broken: frozenset[str],
    views: Mapping[str, FeatureView],
    models: Mapping[str, ModelDeclaration],
) -> Iterator[Mistake]:
    """Yield what code lists say of themselves, of events and of inputs that does not fit; ``broken`` are event types."""
    used = Counter(
        [
            (event, field)
            for spec in lists.values()
            for event, fields in spec.events.items()
            for field in fields
        ]
        + [("", one) for spec in lists.values() for one in spec.inputs]
    )
    for name, spec in lists.items():
        found = [
            *_version_mistakes(spec),
            *_field_mistakes(spec, event_types, broken, views),
            *_input_mistakes(spec, models),
        ]
        for (event, field), times in used.items():
            own = spec.inputs if not event else spec.events.get(event, ())
            if times > 1 and field in own:
                found.append(
                    ("events" if event else "inputs", f"{field!r} is named twice; a value is of one list")
                )
        for key, text in found:
            yield Mistake(
                path=path, text=f"code list {name!r}: {text}", keys=("code_lists", name, *key.split("."))
            )


def _version_mistakes(spec: CodeListSection) -> Iterator[tuple[str, str]]:
    numbers = [one.version for one in spec.versions]
    if numbers != list(range(2, len(numbers) + 2)):
        yield "versions", "its versions are 2, 3 and so on, in order; the first is what there was before them"
    sinces = [one.since for one in spec.versions]
    if sinces != sorted(set(sinces)):
        yield "versions", "each version is written since a later instant than the one before"
    if spec.reads > len(numbers) + 1:
        yield "reads", f"it reads version {spec.reads}, and the newest is {len(numbers) + 1}"
    for one in spec.versions:
        yield from _merged_codes(one)


def _merged_codes(version: CodeVersionSection) -> Iterator[tuple[str, str]]:
    for code, times in Counter(version.from_.values()).items():
        if times > 1 and code not in version.back:
            olds = ", ".join(repr(old) for old, new in version.from_.items() if new == code)
            text = f"{olds} all became {code!r} in version {version.version}; say with back: which of them it is read as"
            yield "versions", text


def _field_mistakes(
    spec: CodeListSection,
    event_types: Mapping[str, EventType],
    broken: frozenset[str],
    views: Mapping[str, FeatureView],
) -> Iterator[tuple[str, str]]:
    for event, fields in spec.events.items():
        if event in broken:
            continue
        event_type = event_types.get(event)
        if event_type is None:
            yield "events", f"there is no event type {event!r}{meant(event, event_types)}"
            continue
        keys = {event_type.key, event_type.event_id}
        keys |= {
            one
            for view in views.values()
            for source in view.sources
            if source.event_type == event
            for one in source.entity_fields
        }
        for field in fields:
            kind = field_type(event_type.schema, field)
            kind = kind.get("type") if isinstance(kind, dict) else kind
            if kind not in ("string", "enum"):
                names = [one["name"] for one in event_type.schema["fields"]]
                near = "" if kind else meant(field, names)
                yield (
                    f"events.{event}",
                    f"{field!r} is no string or enum of {event_type.schema_path.name}{near}",
                )
            elif field in keys:
                yield f"events.{event}", f"{field!r} is a key, and keys are not translated"


def _input_mistakes(
    spec: CodeListSection, models: Mapping[str, ModelDeclaration]
) -> Iterator[tuple[str, str]]:
    inputs = [one for model in models.values() for one in model.inputs]
    texts = {one.name for one in inputs if one.type is InputType.STRING and not one.identifier}
    for name in spec.inputs:
        if name not in texts:
            yield "inputs", f"no model has a text input {name!r} that is no identifier{meant(name, texts)}"
