"""The fields of event types' Avro schemas: which became which, and where they are written."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from driftline.project import EventType

#: How alike two names are, from 0 to 1 (difflib's ratio), that may be an old and a new name of the same.
ALIKE = 0.5


def fields_of(event_type: EventType) -> dict[str, Mapping[str, Any]]:
    """Return the fields of an event type's schema by their names."""
    return {str(one["name"]): one for one in event_type.schema["fields"]}


def likely_name(lost: Mapping[str, Any], added: Iterable[Mapping[str, Any]]) -> str:
    """Return the name that a lost field of an Avro record has now, probably; empty where none is likely.

    A field that has the old name as an alias, else the most alike name, of those of the same type first, else the
    only new field of the same type.

    >>> likely_name({"name": "arrival_delay", "type": "double"}, [{"name": "delay_at_arrival", "type": "double"}])
    'delay_at_arrival'
    """
    new = {str(one["name"]): one for one in added}
    for name, one in new.items():
        if lost["name"] in one.get("aliases", ()):
            return name
    same = [name for name, one in new.items() if one["type"] == lost["type"]]
    for names in (same, list(new)):
        near = get_close_matches(str(lost["name"]), names, n=1, cutoff=ALIKE)
        if near:
            return near[0]
    return same[0] if len(same) == 1 else ""


def field_named(reason: str) -> str:
    """Return the record's own field that a reason of incompatibility names; empty where it names none."""
    found = re.search(r"field '(\w+)", reason)
    return found[1] if found else ""


def way_to_field(event_type: EventType, name: str) -> tuple[str | int, ...]:
    """Return the way to a field in an Avro schema, to all of them where it is not there."""
    names = list(fields_of(event_type))
    return ("fields", names.index(name)) if name in names else ("fields",)
