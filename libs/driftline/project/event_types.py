"""A project's event types: what ``driftline.yaml`` says of them, checked against their Avro schemas."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from driftline.project.declaration import EventType
from driftline.project.mistakes import Mistake, ProjectError, meant
from driftline.project.sections import EventTypeSection

#: Streams of the platform, so that no event type may have their names.
_STREAMS = frozenset(
    {
        *(
            "predictions",
            "prediction-requests",
            "labels",
            "outcomes",
            "profiles",
            "window-reports",
            "drift-signals",
        ),
        *("retrain-requests", "model-events", "alerts", "alert-inputs", "dead-letters"),
    }
)


def field_type(schema: Mapping[str, Any], name: str) -> Any:
    """Return the Avro type of a record's field without ``null``; None where there is no such field."""
    for field in schema["fields"]:
        if field["name"] == name:
            kind = field["type"]
            if isinstance(kind, list):
                kinds = [branch for branch in kind if branch != "null"]
                return kinds[0] if len(kinds) == 1 else kinds
            return kind
    return None


def load_event_type(folder: Path, name: str, spec: EventTypeSection) -> EventType:
    """Return an event type with its schema; raise ProjectError with all that is wrong with it."""
    path = folder / spec.schema_
    if not path.is_file():
        text = f"event type {name!r} has no schema: {spec.schema_} does not exist; mend its name, or write it"
        raise ProjectError(
            [Mistake(path=folder / "driftline.yaml", text=text, keys=("events", name, "schema"))]
        )
    try:
        schema = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        text = f"event type {name!r} has no readable schema: {error}"
        raise ProjectError([Mistake(path=path, text=text, line=getattr(error, "lineno", None))]) from error
    if not isinstance(schema, dict) or schema.get("type") != "record" or not _named_fields(schema):
        raise ProjectError.of(path, f"the schema of event type {name!r} must be a record with fields")
    mistakes = tuple(_mistakes(folder, path, name, spec, schema))
    if mistakes:
        raise ProjectError(mistakes)
    return EventType(
        name=name,
        schema=schema,
        schema_path=path,
        key=spec.key,
        event_time=spec.event_time,
        event_id=spec.event_id,
        partitions=spec.partitions,
        table=spec.table,
    )


def _named_fields(schema: Mapping[str, Any]) -> bool:
    fields = schema.get("fields")
    return (
        isinstance(fields, list)
        and bool(fields)
        and all(isinstance(one, dict) and {"name", "type"} <= one.keys() for one in fields)
    )


def _mistakes(
    folder: Path, path: Path, name: str, spec: EventTypeSection, schema: Mapping[str, Any]
) -> Iterator[Mistake]:
    declaration = folder / "driftline.yaml"
    if name in _STREAMS:
        text = f"event type {name!r} has the name of a platform stream; rename it"
        yield Mistake(path=declaration, text=text, keys=("events", name))
    names = [field["name"] for field in schema["fields"]]
    for role, field in (("key", spec.key), ("event_id", spec.event_id)):
        kind = field_type(schema, field)
        if (kind.get("type") if isinstance(kind, dict) else kind) != "string":
            near = "" if kind else meant(field, names)
            text = f"{role} {field!r} of event type {name!r} must be a string field of {path.name}{near}"
            yield Mistake(path=declaration, text=text, keys=("events", name, role))
    kind = field_type(schema, spec.event_time)
    if not isinstance(kind, dict) or kind.get("logicalType") != "timestamp-micros":
        near = "" if kind else meant(spec.event_time, names)
        text = (
            f"event time {spec.event_time!r} of event type {name!r} must be a timestamp-micros field of {path.name}"
            f"{near}"
        )
        yield Mistake(path=declaration, text=text, keys=("events", name, "event_time"))
