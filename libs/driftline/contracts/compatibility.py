"""Say in words why records of an old schema could not be read with a new one (Avro schema resolution)."""

from collections.abc import Mapping
from typing import Any

from driftline.contracts.avro_types import normal_form

#: What to do about a schema that cannot follow the one before it.
BACKWARD_ADVICE = "Old records must stay readable (BACKWARD): give new fields a default, widen types only"
_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def explain_incompatibility(*, reader: Any, writer: Any) -> str | None:
    """Return the first reason, with the field's path, why ``reader`` cannot read what ``writer`` wrote.

    Follows "Schema Resolution" of the Avro specification 1.12. None where it can.

    >>> old = {"type": "record", "name": "A", "fields": [{"name": "x", "type": "long"}]}
    >>> new = {"type": "record", "name": "A", "fields": [{"name": "x", "type": "int"}]}
    >>> explain_incompatibility(reader=new, writer=old)
    "field 'x' was long and became int"
    """
    return _explain(normal_form(reader), normal_form(writer), "")


def _explain(reader: Any, writer: Any, path: str) -> str | None:
    if isinstance(writer, list):
        if "null" in writer and isinstance(reader, str | dict) and reader != "null":
            return f"{_place(path)} could be null and cannot any more"
        for branch in writer:
            reason = _explain(reader, branch, path)
            if reason is not None:
                return reason
        return None
    if isinstance(reader, list):
        reasons = {_kind(branch): _explain(branch, writer, path) for branch in reader}
        if None in reasons.values():
            return None
        became = f"{_place(path)} was {_kind(writer)} and became {' or '.join(reasons)}"
        return reasons.get(_kind(writer), became)  # the branch of its own kind knows the field inside
    new, old = _kind(reader), _kind(writer)
    if new != old:
        if new in _PROMOTIONS.get(old, ()) and not _logical(writer) and not _logical(reader):
            return None
        return f"{_place(path)} was {_logical(writer) or old} and became {_logical(reader) or new}"
    if isinstance(reader, Mapping) and "name" in reader:
        old_name, new_names = (
            _last(writer["name"]),
            [_last(reader["name"]), *map(_last, reader.get("aliases", ()))],
        )
        if old_name not in new_names:
            return f"{_place(path)} was the {new} {old_name} and became {new_names[0]}; give it the old name as an alias"
    if new == "record":
        return _explain_record(reader, writer, path)
    if new == "enum":
        return _explain_enum(reader, writer, path)
    if new == "array":
        return _explain(reader["items"], writer["items"], f"{path}[]")
    if new == "map":
        return _explain(reader["values"], writer["values"], f"{path}{{}}")
    if new == "fixed" and reader["size"] != writer["size"]:
        return f"{_place(path)} was fixed of {writer['size']} bytes and became {reader['size']}"
    return _explain_logical(reader, writer, path)


def _explain_record(reader: Mapping[str, Any], writer: Mapping[str, Any], path: str) -> str | None:
    written = {field["name"]: field for field in writer["fields"]}
    for field in reader["fields"]:
        name = f"{path}.{field['name']}" if path else field["name"]
        known = [written[alias] for alias in (field["name"], *field.get("aliases", ())) if alias in written]
        if known:
            reason = _explain(field["type"], known[0]["type"], name)
            if reason is not None:
                return reason
        elif "default" not in field:
            return f"field {name!r} is new and has no default"
    return None


def _explain_enum(reader: Mapping[str, Any], writer: Mapping[str, Any], path: str) -> str | None:
    lost = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
    if lost and "default" not in reader:
        return f"{_place(path)} lost the symbols {', '.join(lost)}"
    return None


def _explain_logical(reader: Any, writer: Any, path: str) -> str | None:
    old, new = _logical(writer), _logical(reader)
    if new != old:
        return f"{_place(path)} was {old or 'without a logical type'} and became {new or 'without one'}"
    return None


def _logical(schema: Any) -> str:
    if not isinstance(schema, Mapping) or "logicalType" not in schema:
        return ""
    if schema["logicalType"] == "decimal":
        return f"decimal({schema['precision']}, {schema.get('scale', 0)})"
    return str(schema["logicalType"])


def _kind(schema: Any) -> str:
    return str(schema["type"] if isinstance(schema, Mapping) else schema)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _place(path: str) -> str:
    return f"field {path!r}" if path else "the record"
