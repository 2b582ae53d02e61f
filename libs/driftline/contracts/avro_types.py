"""Avro schemas in one normal form, so that nothing else has to know the ways to write the same type."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from driftline.runtime.errors import ConfigurationError

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
#: Logical types, by the primitive that carries them. Others are ignored, as the specification asks.
LOGICAL = {
    "timestamp-micros": {"long"},
    "timestamp-millis": {"long"},
    "local-timestamp-micros": {"long"},
    "local-timestamp-millis": {"long"},
    "time-micros": {"long"},
    "time-millis": {"int"},
    "date": {"int"},
    "uuid": {"string"},
    "decimal": {"bytes", "fixed"},
}
_MAX_DEPTH = 32


def normal_form(schema: Any) -> Any:
    """Return a schema with named references resolved, full names, and plain primitives as texts.

    In the result a type is a primitive's name, a list (a union), or a dict whose ``type`` is record, enum, fixed,
    array or map, or a primitive that has a known ``logicalType``.

    Raises
    ------
    ConfigurationError
        For what is no schema, and for schemas that one small message could make endless: recursive ones,
        and arrays whose items take no bytes. The message names the field.

    >>> normal_form({"type": {"type": "long", "logicalType": "timestamp-micros"}})
    {'type': 'long', 'logicalType': 'timestamp-micros'}
    >>> normal_form({"type": "string", "avro.java.string": "String"})
    'string'
    """
    return _Reading().type_of(schema, "", "", 0)


def branches(schema: Any) -> list[Any]:
    """Return the branches of a type in normal form without null: one, unless it is a union of several."""
    return [branch for branch in schema if branch != "null"] if isinstance(schema, list) else [schema]


def leaves(schema: Any) -> Iterator[Any]:
    """Yield every type in normal form that holds no other."""
    if isinstance(schema, list):
        for branch in schema:
            yield from leaves(branch)
    elif isinstance(schema, str) or schema["type"] not in {"record", "array", "map"}:
        yield schema
    elif schema["type"] == "record":
        for member in schema["fields"]:
            yield from leaves(member["type"])
    else:
        yield from leaves(schema["items" if schema["type"] == "array" else "values"])


def takes_no_bytes(schema: Any) -> bool:
    """Tell whether values of a type in normal form are written as nothing at all."""
    if isinstance(schema, str | list):
        return schema == "null"
    if schema["type"] == "record":
        return all(takes_no_bytes(member["type"]) for member in schema["fields"])
    return bool(schema["type"] == "fixed" and schema["size"] == 0)


@dataclass(slots=True)
class _Reading:
    """One pass over a schema: the named types so far, and those that are still open."""

    named: dict[str, Any] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)

    def type_of(self, schema: Any, path: str, namespace: str, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ConfigurationError(f"{_place(path)}: types are nested more than {_MAX_DEPTH} deep")
        if isinstance(schema, str):
            return schema if schema in PRIMITIVES else self._reference(schema, path, namespace)
        if isinstance(schema, list):
            return [self.type_of(branch, path, namespace, depth + 1) for branch in schema]
        if not isinstance(schema, Mapping) or "type" not in schema:
            raise ConfigurationError(f"{_place(path)}: {str(schema)[:60]!r} is no Avro type")
        try:
            return self._complex(schema, path, namespace, depth)
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{_place(path)}: the Avro type is incomplete: {error}") from error

    def _complex(self, schema: Mapping[str, Any], path: str, namespace: str, depth: int) -> Any:
        kind = schema["type"]
        if not isinstance(kind, str):
            return self.type_of(kind, path, namespace, depth + 1)
        if kind in {"record", "error", "enum", "fixed"}:
            return self._named(schema, path, namespace, depth)
        if kind == "array":
            items = self.type_of(schema["items"], f"{path}[]", namespace, depth + 1)
            if takes_no_bytes(items):
                raise ConfigurationError(
                    f"{path}: an array of items without bytes has no bound; driftline takes none"
                )
            return {"type": "array", "items": items}
        if kind == "map":
            return {
                "type": "map",
                "values": self.type_of(schema["values"], f"{path}{{}}", namespace, depth + 1),
            }
        if kind in PRIMITIVES:
            return _with_logical(schema, {"type": kind}) or kind
        return self._reference(kind, path, namespace)

    def _named(self, schema: Mapping[str, Any], path: str, namespace: str, depth: int) -> Any:
        name = _full_name(schema["name"], schema.get("namespace", namespace))
        inner = name.rpartition(".")[0]
        if schema["type"] == "enum":
            found: dict[str, Any] = {"type": "enum", "name": name, "symbols": list(schema["symbols"])}
            found |= {"default": schema["default"]} if "default" in schema else {}
        elif schema["type"] == "fixed":
            plain = {"type": "fixed", "name": name, "size": int(schema["size"])}
            found = _with_logical(schema, plain) or plain
        else:
            self.open.add(name)
            members = []
            for member in schema["fields"]:
                place = f"{path}.{member['name']}" if path else member["name"]
                members.append({**member, "type": self.type_of(member["type"], place, inner, depth + 1)})
            self.open.discard(name)
            found = {"type": "record", "name": name, "fields": members}
        if "aliases" in schema:
            found["aliases"] = list(schema["aliases"])
        self.named[name] = found
        return found

    def _reference(self, name: str, path: str, namespace: str) -> Any:
        for full in (_full_name(name, namespace), name):
            if full in self.open:
                raise ConfigurationError(f"{_place(path)} is recursive; driftline takes no recursive schemas")
            if full in self.named:
                return self.named[full]
        raise ConfigurationError(f"{_place(path)}: {name!r} is no Avro type")


def _with_logical(schema: Mapping[str, Any], plain: dict[str, Any]) -> dict[str, Any] | None:
    logical = schema.get("logicalType")
    if not isinstance(logical, str) or plain["type"] not in LOGICAL.get(logical, ()):
        return None
    if logical == "decimal" and not isinstance(schema.get("precision"), int):
        return None
    scale = {name: schema[name] for name in ("precision", "scale") if name in schema}
    return {**plain, "logicalType": logical, **scale}


def _full_name(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _place(path: str) -> str:
    return path or "the record"
