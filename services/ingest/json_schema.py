"""Avro schemas as JSON Schema, and an example of each: what the OpenAPI shows of an event type."""

from collections.abc import Mapping
from typing import Any

from driftline.project import EventType

_TIME = {
    "description": "ISO 8601 with an offset, or whole microseconds since the epoch.",
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer"}],
}
_PRIMITIVES: Mapping[str, dict[str, Any]] = {
    "null": {"type": "null"},
    "boolean": {"type": "boolean"},
    "int": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "long": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "float": {"type": "number"},
    "double": {"type": "number"},
    "string": {"type": "string"},
    "bytes": {"type": "string", "description": "Bytes as code points up to 255."},
}
_EXAMPLES: Mapping[str, Any] = {
    "null": None,
    "boolean": True,
    "int": 1,
    "long": 1,
    "float": 1.5,
    "double": 1.5,
    "string": "text",
    "bytes": "bytes",
}
_EXAMPLE_TIME = "2013-04-01T12:30:00Z"
_EXAMPLE_ID = "0190a6c5-7b2e-7c11-8000-0123456789ab"


def event_json_schema(event_type: EventType) -> dict[str, Any]:
    """Return the JSON Schema of an event as ingest takes it: its UUID may be left out, or null."""
    shown = json_schema(event_type.schema)
    shown["required"] = [name for name in shown["required"] if name != event_type.event_id]
    identity = dict(shown["properties"][event_type.event_id])
    identity["type"] = ["string", "null"]
    identity["format"] = "uuid"
    identity["description"] = f"{identity.get('description', '')} Made where absent or null.".strip()
    shown["properties"][event_type.event_id] = identity
    shown["properties"][event_type.key]["minLength"] = 1
    shown["examples"] = [event_example(event_type)]
    return shown


def json_schema(schema: Any) -> dict[str, Any]:
    """Return the JSON Schema of the JSON that ``RecordCodec.from_json`` takes for an Avro schema."""
    if isinstance(schema, str):
        return dict(_PRIMITIVES.get(schema, {}))
    if isinstance(schema, list):
        return {"anyOf": [json_schema(branch) for branch in schema]}
    if schema.get("logicalType") in {"timestamp-micros", "timestamp-millis"}:
        return dict(_TIME)
    if schema.get("logicalType") == "date":
        return {"type": "string", "format": "date"}
    match schema["type"]:
        case "record":
            return _record(schema)
        case "array":
            return {"type": "array", "items": json_schema(schema["items"])}
        case "map":
            return {"type": "object", "additionalProperties": json_schema(schema["values"])}
        case "enum":
            return {"type": "string", "enum": list(schema["symbols"])}
        case kind:
            return json_schema(kind)


def _record(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = {}
    for field in schema["fields"]:
        shown = json_schema(field["type"])
        texts = [field.get("doc", ""), shown.get("description", "")]
        if any(texts):
            shown["description"] = " ".join(text for text in texts if text)
        if "default" in field:
            shown["default"] = field["default"]
        properties[field["name"]] = shown
    return {
        "type": "object",
        "title": schema["name"],
        "description": schema.get("doc", ""),
        "properties": properties,
        "required": [field["name"] for field in schema["fields"] if "default" not in field],
        "additionalProperties": False,
    }


def event_example(event_type: EventType) -> dict[str, Any]:
    """Return a valid event: a field's own ``example`` where its schema gives one, else one of its type."""
    example: dict[str, Any] = {
        field["name"]: field["example"] if "example" in field else _example(field["type"])
        for field in event_type.schema["fields"]
    }
    example[event_type.event_id] = _EXAMPLE_ID
    return example


def _example(schema: Any) -> Any:
    if isinstance(schema, str):
        return _EXAMPLES.get(schema)
    if isinstance(schema, list):
        return _example(next(branch for branch in [*schema, "null"] if branch != "null" or len(schema) == 1))
    if schema.get("logicalType") in {"timestamp-micros", "timestamp-millis"}:
        return _EXAMPLE_TIME
    if schema.get("logicalType") == "date":
        return _EXAMPLE_TIME[:10]
    match schema["type"]:
        case "record":
            return {field["name"]: _example(field["type"]) for field in schema["fields"]}
        case "array":
            return [_example(schema["items"])]
        case "map":
            return {"name": _example(schema["values"])}
        case "enum":
            return schema["symbols"][0]
        case kind:
            return _example(kind)
