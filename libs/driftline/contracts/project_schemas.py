"""A project's request and prediction schemas, generated from what it declares: named, typed, nullable fields.

The fields that every project has are in ``schemas/prediction_request.avsc`` and ``schemas/prediction.avsc``.
"""

import json
import re
from functools import cache
from typing import Any

from driftline.contracts.prediction_fields import RESERVED
from driftline.contracts.topics import (
    ALERT_INPUTS,
    ALERTS,
    DRIFT_SIGNALS,
    LABELS,
    MODEL_EVENTS,
    PROFILES,
    RETRAIN_REQUESTS,
    WINDOW_REPORTS,
    schemas_folder,
)
from driftline.project import EventType, Project
from driftline.runtime.errors import ConfigurationError

#: Streams whose records are the same in every project, with the names of their schema files.
PLATFORM_RECORDS = {
    PROFILES: "profile",
    WINDOW_REPORTS: "window_report",
    DRIFT_SIGNALS: "drift_signal",
    RETRAIN_REQUESTS: "retrain_request",
    MODEL_EVENTS: "model_event",
    ALERTS: "alert",
    ALERT_INPUTS: "alert_input",
}
_AVRO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def prediction_request_schema(project: Project) -> dict[str, Any]:
    """Return the Avro schema of the project's prediction requests."""
    return _extended("prediction_request", project, _requested(project))


def prediction_schema(project: Project) -> dict[str, Any]:
    """Return the Avro schema of the project's prediction log."""
    return _extended("prediction", project, [*_requested(project), *_served(project)])


def outcome_schema(project: Project) -> dict[str, Any]:
    """Return the Avro schema of the project's outcomes."""
    return _extended("outcome", project, [*_requested(project), *_served(project)])


def label_schema() -> dict[str, Any]:
    """Return the Avro schema of labels, the same in every project."""
    return platform_schema("label")


def platform_schema(name: str) -> dict[str, Any]:
    """Return the schema of a platform record that is the same in every project, by its file's name."""
    schema: dict[str, Any] = json.loads(_text(name))
    return schema


def label_type() -> EventType:
    """Return labels as an event type, which ingest and the SDK publish like a project's own."""
    return EventType(
        name=LABELS,
        schema=label_schema(),
        schema_path=schemas_folder() / "label.avsc",
        key="label_id",
        event_id="label_id",
        event_time="known_at",
    )


def published_types(project: Project) -> dict[str, EventType]:
    """Return what applications publish: the project's event types, and labels where a model has them."""
    return {**project.event_types, **({LABELS: label_type()} if project.labelled_models else {})}


def _served(project: Project) -> list[dict[str, Any]]:
    """Return the fields for the features as they were served, and their ages."""
    features = []
    for view in project.request_views:
        features += [
            _nullable(column, "double", f"Feature {feature.name} of {view.ref} as it was served.")
            for column, feature in zip(view.columns, view.features, strict=True)
        ]
        features.append(
            _nullable(view.age_column, "long", f"Age of {view.ref} when served, in milliseconds.")
        )
    return features


def _extended(name: str, project: Project, fields: list[dict[str, Any]]) -> dict[str, Any]:
    names = [field["name"] for field in fields]
    for field in names:
        reason = ""
        if field in RESERVED:
            reason = "it is a field of every prediction"
        elif names.count(field) > 1:
            reason = "two things would have this name"
        elif not _AVRO_NAME.fullmatch(field):
            reason = "letters, digits and underscores make a field's name"
        if reason:
            raise ConfigurationError(
                f"project {project.name!r}: {field!r} cannot name an entity or an input; {reason}"
            )
    platform = json.loads(_text(name))
    return {
        **platform,
        "namespace": f"{platform['namespace']}.{project.name}",
        "doc": f"{platform['doc'].partition('. ')[0]}. Project {project.name}.",
        "fields": [*platform["fields"], *fields],
    }


@cache
def _text(name: str) -> str:
    return (schemas_folder() / f"{name}.avsc").read_text()


def _nullable(name: str, kind: str, doc: str) -> dict[str, Any]:
    return {"name": name, "type": ["null", kind], "default": None, "doc": doc}


def _requested(project: Project) -> list[dict[str, Any]]:
    """Return the fields for what the caller names and brings, the same in requests and predictions."""
    entities = [_nullable(name, "string", f"Key of the entity {name}.") for name in project.request_entities]
    inputs = [
        _nullable(field.name, field.type.value, field.description or f"Input {field.name} of the request.")
        for field in project.request_inputs
    ]
    return entities + inputs
