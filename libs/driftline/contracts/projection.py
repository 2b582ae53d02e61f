"""Columns of a writer's schema as columns of the reader's: Avro's schema resolution, a column at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from driftline.contracts.arrow_types import arrow_type
from driftline.contracts.avro_types import branches

Take = Callable[[pa.RecordBatch], pa.Array]

_PROMOTIONS = {"int": {"long", "float", "double"}, "long": {"float", "double"}, "float": {"double"}}


def projection(*, reader: Mapping[str, Any], writer: Mapping[str, Any]) -> list[Take] | None:
    """Return for each of the reader's columns how to take it from the writer's, both in normal form.

    None where columns will not do (a default that is a list, changes inside nested types, symbols that were
    lost): such records are resolved one by one.
    """
    if reader["name"].rpartition(".")[2] != writer["name"].rpartition(".")[2]:
        return None
    written = {field["name"]: field["type"] for field in writer["fields"]}
    takes: list[Take] = []
    for field in reader["fields"]:
        name = next((one for one in (field["name"], *field.get("aliases", ())) if one in written), None)
        take = _default(field) if name is None else _resolved(name, written[name], field["type"])
        if take is None:
            return None
        takes.append(take)
    return takes


def _default(field: Mapping[str, Any]) -> Take | None:
    if "default" not in field or not isinstance(field["default"], str | int | float | bool | None):
        return None
    value, kind = field["default"], arrow_type(field["type"], field["name"])
    return lambda table: pa.repeat(pa.scalar(value, kind), table.num_rows)


def _resolved(name: str, written: Any, read: Any) -> Take | None:
    if isinstance(written, list) and not isinstance(read, list):
        return None  # its nulls must be refused, one by one
    old, new = branches(written)[0], branches(read)[0]
    if _same(old, new):
        return lambda table: table.column(name)
    if isinstance(old, str) and isinstance(new, str) and new in _PROMOTIONS.get(old, ()):
        kind = arrow_type(new, name)
        return lambda table: table.column(name).cast(kind, safe=False)
    return None


def _same(old: Any, new: Any) -> bool:
    """Tell whether two types have the same columns and the same values; order of null and texts aside."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new) == 2:
        left, right = branches(old), branches(new)
        return len(left) == len(right) == 1 and _same(left[0], right[0])
    if not isinstance(old, dict) or not isinstance(new, dict):
        return bool(old == new)
    if any(_plain(old, name) != _plain(new, name) for name in ("type", "logicalType", "name")):
        return False
    kind = old["type"]
    if kind == "record":
        return [field["name"] for field in old["fields"]] == [
            field["name"] for field in new["fields"]
        ] and all(
            _same(left["type"], right["type"])
            for left, right in zip(old["fields"], new["fields"], strict=True)
        )
    if kind == "enum":
        return set(old["symbols"]) <= set(new["symbols"])
    if kind in {"array", "map"}:
        inner = "items" if kind == "array" else "values"
        return _same(old[inner], new[inner])
    return "logicalType" in old or bool(old == new)


def _plain(schema: Mapping[str, Any], name: str) -> str:
    """Return a text of a schema; of full names the last part, which is what resolution compares."""
    return str(schema.get(name)).rpartition(".")[2]
