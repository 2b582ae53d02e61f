"""A project's request and prediction schemas, generated from what it declares: named, typed, nullable fields."""

from typing import Any

from driftline.contracts.prediction_fields import CHANNELS, RESERVED, STATUSES
from driftline.project import Project
from driftline.runtime.errors import ConfigurationError

_TIME = {"type": "long", "logicalType": "timestamp-micros"}


def _field(name: str, kind: Any, doc: str) -> dict[str, Any]:
    return {"name": name, "type": kind, "doc": doc}


def _nullable(name: str, kind: Any, doc: str) -> dict[str, Any]:
    return {"name": name, "type": ["null", kind], "default": None, "doc": doc}


def _requested(project: Project) -> list[dict[str, Any]]:
    """Return the fields for what the caller names and brings, the same in requests and predictions."""
    taken = RESERVED & (set(project.request_entities) | {field.name for field in project.request_inputs})
    if taken:
        names = ", ".join(sorted(taken))
        raise ConfigurationError(
            f"project {project.name!r}: {names} cannot name an entity or an input; it is a field of every prediction"
        )
    entities = [_nullable(name, "string", f"Key of the entity {name}.") for name in project.request_entities]
    inputs = [
        _nullable(field.name, field.type.value, field.description or f"Input {field.name} of the request.")
        for field in project.request_inputs
    ]
    return entities + inputs


def prediction_request_schema(project: Project) -> dict[str, Any]:
    """Return the Avro schema of the project's prediction requests."""
    return {
        "type": "record",
        "name": "PredictionRequest",
        "namespace": f"driftline.{project.name}",
        "doc": f"A request for a prediction in the project {project.name}.",
        "fields": [
            _field("request_id", "string", "UUID of the request; version 7 where driftline makes it."),
            _field("model", "string", "Name of the model that is asked."),
            _field("requested_at", _TIME, "When the request was made."),
            _field("event_time", _TIME, "The instant that features are read as of."),
            _nullable("caller", "string", "Who asks."),
            *_requested(project),
        ],
    }


def prediction_schema(project: Project) -> dict[str, Any]:
    """Return the Avro schema of the project's prediction log."""
    features = []
    for view in project.request_views:
        features += [
            _nullable(column, "double", f"Feature {feature.name} of {view.ref} as it was served.")
            for column, feature in zip(view.columns, view.features, strict=True)
        ]
        features.append(
            _nullable(view.age_column, "long", f"Age of {view.ref} when served, in milliseconds.")
        )
    return {
        "type": "record",
        "name": "Prediction",
        "namespace": f"driftline.{project.name}",
        "doc": f"A request to a model of the project {project.name}, and what became of it.",
        "fields": [
            _field("request_id", "string", "UUID of the request."),
            _field("model", "string", "Name of the model that was asked."),
            _nullable("model_version", "string", "Version of the model that scored."),
            _field(
                "channel",
                {"type": "enum", "name": "Channel", "symbols": list(CHANNELS)},
                "How the request came.",
            ),
            _field(
                "status", {"type": "enum", "name": "Status", "symbols": list(STATUSES)}, "What became of it."
            ),
            _nullable("score", "double", "The model's score; null unless answered."),
            _nullable("decision", "string", "What the project's rule makes of the score."),
            _nullable("error", "string", "Why it was refused or failed."),
            _field("requested_at", _TIME, "When the request was made."),
            _field("event_time", _TIME, "The instant that features were read as of."),
            _field("predicted_at", _TIME, "When the score was made."),
            _field("duration_us", "long", "Time from reading features to the decision, in microseconds."),
            _nullable("caller", "string", "Who asked."),
            _field(
                "feature_views",
                {"type": "array", "items": "string"},
                "Views that were read, as name@version.",
            ),
            *_requested(project),
            *features,
        ],
    }
