"""What the OpenAPI shows of each model: its own entities and inputs, with an example that works."""

from collections.abc import Mapping
from typing import Any

import orjson

from driftline.project import InputField, InputType, ModelDeclaration
from driftline.serving.request_values import MAX_CALLER, MAX_KEY, MAX_TEXT
from services.predictor.answers import REPEATED_HEADER
from services.predictor.bulk import JSON_LINES, MAX_ROWS
from services.predictor.requests import MAX_TIMEOUT_MS, TIMEOUT_HEADER

DESCRIPTION = """
Models answer here. An answer is sent after its record is in the log, under the request's UUID; refusals and
failures are logged as well, and their problem carries the `request_id`.

**Retry with the same `request_id`** after `429`, `503` or a lost connection; wait the seconds in `Retry-After` first.
The same request gets the same answer, to the byte, with `Idempotent-Replay: true`; it is not scored or logged again. A
`request_id` that comes with other entities, inputs or another event time is refused with `422`. Answers are kept for an
hour unless the service is set otherwise.

A caller that cannot wait says so in `X-Request-Timeout-Ms` and is answered `503` by then.
"""
TAGS = [
    {"name": "predictions", "description": "Ask a model."},
    {"name": "features", "description": "Look at what models see."},
]

_EXAMPLE_ID = "0190a6c5-7b2e-7c11-8000-0123456789ab"
_EXAMPLE_TIME = "2013-04-01T12:00:00Z"
_TIME = {
    "description": "The instant that features are read as of: ISO 8601 with an offset, or whole microseconds since "
    "the epoch; now if absent. At most a day ahead.",
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer", "minimum": 0}, {"type": "null"}],
}

BULK_DESCRIPTION = f"""
Up to {MAX_ROWS:,} requests in one call, as a JSON array or as JSON lines. Each is predicted, logged and answered as if it
had come alone; a bad one is refused in its own line, its neighbours are answered. Lines are sent as they are logged. The
service's deadline holds for the whole call: what is not answered by then may be in the log, so give each request a
`request_id` and ask again with it.
"""
TIMEOUT_PARAMETER: dict[str, Any] = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "How long the caller waits for an answer, in milliseconds; the service's own deadline holds as well. "
    "Then it is told 503. A prediction that was not made by then is logged as FAILED; one that only the log's "
    "acknowledgement came too late for is in the log as it was made.",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS},
}


def request_schema(model: ModelDeclaration) -> dict[str, Any]:
    """Return the JSON Schema of a model's request bodies."""
    described = {one.name: one.description for one in model.entities}
    entities = {
        key: {
            "type": "string",
            "maxLength": MAX_KEY,
            "description": described.get(key) or f"Key of the {key}.",
        }
        for key in model.entity_keys
    }
    inputs = {one.name: _input_schema(one) for one in model.inputs}
    return {
        "type": "object",
        "required": ["entities"],
        "additionalProperties": False,
        "properties": {
            "entities": _closed(entities, "What the model reads features of.", required=list(entities)),
            "inputs": _closed(inputs, "What the caller knows; absent or null where it does not."),
            "request_id": {
                "type": ["string", "null"],
                "format": "uuid",
                "description": "UUID of the request; made where absent. The same one again gives the same answer.",
            },
            "event_time": _TIME,
            "caller": {
                "type": ["string", "null"],
                "maxLength": MAX_CALLER,
                "description": "Who asks; kept in the log.",
            },
        },
        "examples": [request_example(model)],
    }


def request_example(model: ModelDeclaration) -> dict[str, Any]:
    """Return a body that the model answers."""
    return {
        "entities": {key: f"{key}-1" for key in model.entity_keys},
        "inputs": {one.name: 1.0 if one.type is InputType.DOUBLE else "text" for one in model.inputs},
        "event_time": _EXAMPLE_TIME,
    }


def bulk_content(model: ModelDeclaration) -> dict[str, Any]:
    """Return the OpenAPI content of many requests to a model."""
    request = {name: value for name, value in request_schema(model).items() if name != "examples"}
    example = request_example(model)
    lines = b"\n".join([orjson.dumps(example)] * 2).decode()
    return {
        "application/json": {
            "schema": {"type": "array", "items": request, "maxItems": MAX_ROWS},
            "example": [example, example],
        },
        JSON_LINES: {"schema": {"type": "string", "description": "A request per line."}, "example": lines},
    }


def bulk_response() -> dict[str, Any]:
    """Return the OpenAPI response to many requests."""
    return {
        "description": "A line per request, in their order: its answer, or a problem with the row's own `status` and "
        "`request_id`.",
        "content": {JSON_LINES: {"schema": {"type": "string"}}},
    }


def answer_response(model: ModelDeclaration) -> dict[str, Any]:
    """Return the OpenAPI response of a model's answers."""
    views = {
        view.name: _closed(
            {
                "version": {"type": "integer"},
                "age_ms": {
                    "type": ["integer", "null"],
                    "description": "Age of the entity's newest event; null for an entity without events.",
                },
                "status": {"enum": ["fresh", "stale", "missing", "degraded"]},
                "values": _closed(
                    {one.name: {"type": ["number", "null"]} for one in view.features},
                    view.description or "The values.",
                ),
            },
            f"{view.ref} as it was served.",
        )
        for view in model.views
    }
    schema = {
        "type": "object",
        "properties": {
            "request_id": {"type": "string", "format": "uuid"},
            "status": {"enum": ["ANSWERED"]},
            "score": {"type": "number"},
            "decision": {"enum": [model.decision.above, model.decision.below]},
            "model": {"type": "string"},
            "version": {"type": "string"},
            "event_time": {"type": "string", "format": "date-time"},
            "degraded": {
                "type": ["string", "null"],
                "description": "Why the features were not read: the online store did not answer in time, so every one is as "
                "for an entity without events (`store: {unavailable: defaults}` of the model). Null where they were read.",
            },
            "features": _closed(views, "Every feature that the model saw."),
        },
    }
    example = {
        "request_id": _EXAMPLE_ID,
        "status": "ANSWERED",
        "score": 0.27,
        "decision": model.decision.below,
        "model": model.name,
        "version": "20130401T000000Z-1f2e3d4c",
        "event_time": _EXAMPLE_TIME,
        "degraded": None,
        "features": {
            view.name: {
                "version": view.version,
                "age_ms": 4200,
                "status": "fresh",
                "values": {one.name: 1.0 for one in view.features},
            }
            for view in model.views
        },
    }
    return {
        "description": "The prediction, as it stands in the log.",
        "headers": {
            REPEATED_HEADER: {
                "description": "`true` where the request was asked before: the answer is the one given then.",
                "schema": {"type": "string", "enum": ["true"]},
            }
        },
        "content": {"application/json": {"schema": schema, "example": example}},
    }


def _closed(
    properties: Mapping[str, Any], description: str, required: list[str] | None = None
) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "description": description,
        "properties": dict(properties),
        "additionalProperties": False,
    }
    return {**schema, "required": required} if required else schema


def _input_schema(field: InputField) -> dict[str, Any]:
    if field.type is InputType.DOUBLE:
        return {"type": ["number", "null"], "description": field.description}
    return {"type": ["string", "null"], "maxLength": MAX_TEXT, "description": field.description}
