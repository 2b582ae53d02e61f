"""Which Avro schemas the columnar codec takes, and the Arrow types that they become."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from driftline.contracts.avro_types import branches, leaves, normal_form
from driftline.runtime.errors import ConfigurationError

_PRIMITIVE = {
    "null": pa.null(),
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
    "local-timestamp-micros": pa.timestamp("us"),
    "local-timestamp-millis": pa.timestamp("ms"),
    "date": pa.date32(),
    "time-micros": pa.time64("us"),
    "time-millis": pa.time32("ms"),
    "uuid": pa.string(),
}
_DECIMAL128_DIGITS = 38
#: What pyruhvro decodes and encodes like fastavro. It panics on some others.
_COLUMNAR_PRIMITIVES = frozenset(_PRIMITIVE) - {"bytes", "null"}
_COLUMNAR_LOGICAL = frozenset({"timestamp-micros", "timestamp-millis", "date"})


def columnar(schema: Any) -> bool:
    """Tell whether pyruhvro takes a schema; for others a batch goes record by record."""
    return _columnar(normal_form(schema)) and not _repeats_a_name(schema)


def _columnar(schema: Any) -> bool:
    if isinstance(schema, list):
        return len(schema) == 2 and len(branches(schema)) == 1 and _columnar(branches(schema)[0])
    if isinstance(schema, str):
        return schema in _COLUMNAR_PRIMITIVES
    if "logicalType" in schema:
        return schema["logicalType"] in _COLUMNAR_LOGICAL
    kind = schema["type"]
    if kind == "record":
        return bool(schema["fields"]) and all(_columnar(field["type"]) for field in schema["fields"])
    if kind in {"array", "map"}:
        return _columnar(schema["items" if kind == "array" else "values"])
    return bool(kind == "enum")


def has_times(schema: Any) -> bool:
    """Tell whether a type in normal form holds timestamps or dates anywhere."""
    return any(
        isinstance(leaf, dict) and leaf.get("logicalType") in _COLUMNAR_LOGICAL for leaf in leaves(schema)
    )


def _repeats_a_name(schema: Any) -> bool:
    """Tell whether a named type is referred to by its name; pyruhvro does not look such names up."""
    if isinstance(schema, str):
        return schema not in _PRIMITIVE
    if isinstance(schema, list):
        return any(_repeats_a_name(branch) for branch in schema)
    kind = schema["type"]
    if kind == "record":
        return any(_repeats_a_name(field["type"]) for field in schema["fields"])
    if kind in {"array", "map"}:
        return _repeats_a_name(schema["items" if kind == "array" else "values"])
    return kind not in {"enum", "fixed"} and _repeats_a_name(kind)


def arrow_type(schema: Any, path: str = "") -> pa.DataType:
    """Return the Arrow type of an Avro type in normal form; times without a zone, in UTC."""
    if isinstance(schema, list):
        found = branches(schema)
        if len(found) > 1:
            raise ConfigurationError(f"{path}: a union of several types is no column; make it several fields")
        return arrow_type(found[0], path) if found else pa.null()
    if isinstance(schema, str):
        return _PRIMITIVE[schema]
    kind, logical = schema["type"], schema.get("logicalType")
    if logical == "decimal":
        sized = pa.decimal128 if schema["precision"] <= _DECIMAL128_DIGITS else pa.decimal256
        return sized(schema["precision"], schema.get("scale", 0))
    if logical is not None:
        return _LOGICAL[logical]
    if kind == "record":
        # Nullable inside: a null record has null fields.
        return pa.struct(
            [
                pa.field(each["name"], arrow_type(each["type"], f"{path}.{each['name']}"))
                for each in schema["fields"]
            ]
        )
    if kind == "array":
        return pa.list_(pa.field("item", arrow_type(schema["items"], f"{path}[]")))
    if kind == "map":
        return pa.map_(pa.string(), arrow_type(schema["values"], f"{path}{{}}"))
    return pa.binary(schema["size"]) if kind == "fixed" else pa.string()


def arrow_schema(schema: Mapping[str, Any]) -> pa.Schema:
    """Return the Arrow schema of a record: one column per field, nullable where the field is.

    Raises
    ------
    ConfigurationError
        For unions of several types: they have no column.
    """
    return pa.schema(
        [
            pa.field(
                field["name"], arrow_type(field["type"], field["name"]), nullable=_nullable(field["type"])
            )
            for field in normal_form(schema)["fields"]
        ]
    )


def _nullable(schema: Any) -> bool:
    return schema == "null" or (isinstance(schema, list) and "null" in schema)
