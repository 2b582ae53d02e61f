"""Which Avro schemas the columnar codec takes, and the Arrow types that they become."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

_PRIMITIVE = {
    "string": pa.string(),
    "long": pa.int64(),
    "int": pa.int32(),
    "double": pa.float64(),
    "float": pa.float32(),
    "boolean": pa.bool_(),
    "bytes": pa.binary(),
}
_LOGICAL = {
    "timestamp-micros": pa.timestamp("us"),
    "timestamp-millis": pa.timestamp("ms"),
    "date": pa.date32(),
}
_COLUMNAR_PRIMITIVE = frozenset(_PRIMITIVE) - {"bytes"}


def columnar(schema: Any) -> bool:
    """Tell whether pyruhvro decodes and encodes a schema (it panics on what it does not know)."""
    if isinstance(schema, list):
        branches = [branch for branch in schema if branch != "null"]
        return len(schema) == 2 and len(branches) == 1 and columnar(branches[0])
    if isinstance(schema, str):
        return schema in _COLUMNAR_PRIMITIVE
    kind, logical = schema["type"], schema.get("logicalType")
    if logical is not None:
        return logical in _LOGICAL
    if kind == "record":
        return bool(schema["fields"]) and all(columnar(field["type"]) for field in schema["fields"])
    if kind == "enum":
        return True
    if kind in {"array", "map"}:
        return columnar(schema["items" if kind == "array" else "values"])
    return isinstance(kind, str) and kind in _COLUMNAR_PRIMITIVE


def arrow_type(schema: Any) -> pa.DataType:
    """Return the Arrow type of an Avro type; times without a zone, in UTC."""
    if isinstance(schema, list):
        branches = [branch for branch in schema if branch != "null"]
        return arrow_type(branches[0]) if len(branches) == 1 else pa.string()
    if isinstance(schema, str):
        return _PRIMITIVE[schema]
    kind, logical = schema["type"], schema.get("logicalType")
    if logical in _LOGICAL:
        return _LOGICAL[logical]
    if kind == "record":
        # Nullable inside: a null record has null fields.
        return pa.struct([pa.field(field["name"], arrow_type(field["type"])) for field in schema["fields"]])
    if kind == "array":
        return pa.list_(pa.field("item", arrow_type(schema["items"])))
    if kind == "map":
        return pa.map_(pa.string(), arrow_type(schema["values"]))
    if kind == "enum":
        return pa.string()
    if kind == "fixed":
        return pa.binary(schema["size"])
    return arrow_type(kind)


def _arrow_field(field: Mapping[str, Any]) -> pa.Field:
    return pa.field(field["name"], arrow_type(field["type"]), nullable=isinstance(field["type"], list))


def arrow_schema(schema: Mapping[str, Any]) -> pa.Schema:
    """Return the Arrow schema of a record: one column per field, nullable where the field is."""
    return pa.schema([_arrow_field(field) for field in schema["fields"]])
