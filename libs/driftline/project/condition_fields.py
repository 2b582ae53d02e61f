"""Whether the fields that a condition looks at are in the events, and of the types that it takes them to be."""

from collections.abc import Callable, Iterator
from typing import Any

from driftline.features.conditions import Condition, FieldKind, FieldUse

_KINDS = {
    FieldKind.NUMBER: ("double", "float", "int", "long"),
    FieldKind.TEXT: ("enum", "string"),
    FieldKind.TRUTH: ("boolean",),
}


def condition_mistakes(
    condition: Condition | None, type_of: Callable[[str], Any]
) -> Iterator[tuple[str, str]]:
    """Yield for each field that does not fit its name and what is wrong, to follow the condition's own name.

    ``type_of`` gives a field's Avro type without ``null``, None where there is no such field.

    >>> from driftline.features import field
    >>> list(condition_mistakes(field("late") > 3, {"late": "boolean"}.get))
    [('late', "takes 'late' as a number (double, float, int, long), found boolean")]
    """
    for use in condition.uses() if condition is not None else ():
        if mistake := use_mistake(use, type_of(use.field)):
            yield use.field, mistake


def use_mistake(use: FieldUse, found: Any) -> str:
    """Return what keeps a field of this Avro type from being used so; empty where nothing does."""
    if found is None:
        return f"asks for a field {use.field!r}, and there is none"
    if use.kind is FieldKind.ANY:
        return ""
    plain = found
    if isinstance(found, dict):
        plain = found.get("logicalType", found["type"])
        plain = "string" if plain == "uuid" else plain
    wanted = _KINDS[use.kind]
    if plain not in wanted:
        return f"takes {use.field!r} as a {use.kind} ({', '.join(wanted)}), found {plain}"
    symbols = found["symbols"] if plain == "enum" else use.texts
    if unknown := [text for text in use.texts if text not in symbols]:
        return (
            f"compares {use.field!r} with {unknown[0]!r}, which is none of its symbols ({', '.join(symbols)})"
        )
    return ""
