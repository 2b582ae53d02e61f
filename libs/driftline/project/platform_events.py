"""Streams of the platform that views may read like event types: the predictions of the project's models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftline.project.declaration import EventType, ModelDeclaration

PREDICTIONS = "predictions"


def platform_events(
    project: str, models: Mapping[str, ModelDeclaration], folder: Path
) -> dict[str, EventType]:
    """Return the platform's streams as event types, by name.

    Of a prediction there is what the model said and what it was asked about; not the features that it was served, which
    would make a view's schema depend on itself.
    """
    keys = sorted({key for model in models.values() for key in model.entity_keys})
    inputs = {one.name: one.type.value for model in models.values() for one in model.inputs}
    schema = {
        "type": "record",
        "name": "Prediction",
        "namespace": f"driftline.{project}",
        "fields": [
            {"name": "request_id", "type": "string"},
            {"name": "model", "type": "string"},
            _nullable("model_version", "string"),
            {"name": "status", "type": _STATUS},
            _nullable("score", "double"),
            _nullable("decision", "string"),
            {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            *(_nullable(key, "string") for key in keys),
            *(_nullable(name, kind) for name, kind in sorted(inputs.items())),
        ],
    }
    predictions = EventType(
        name=PREDICTIONS,
        schema=schema,
        schema_path=folder / "the predictions of the models",
        key="request_id",
        event_id="request_id",
        event_time="event_time",
    )
    return {PREDICTIONS: predictions}


_STATUS = {"type": "enum", "name": "Status", "symbols": ["ANSWERED", "REFUSED", "FAILED"]}


def _nullable(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "type": ["null", kind], "default": None}
