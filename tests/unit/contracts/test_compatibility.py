"""An incompatible schema is refused with the field's name."""

from typing import Any

import pytest

from driftline.contracts.compatibility import explain_incompatibility

OLD: dict[str, Any] = {
    "type": "record",
    "name": "R",
    "fields": [
        {"name": "a", "type": "int"},
        {"name": "b", "type": ["null", "string"], "default": None},
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["X", "Y"]}},
        {"name": "n", "type": {"type": "record", "name": "N", "fields": [{"name": "q", "type": "long"}]}},
    ],
}


def changed(**types: Any) -> dict[str, Any]:
    return {
        **OLD,
        "fields": [{**field, "type": types.get(field["name"], field["type"])} for field in OLD["fields"]],
    }


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (
            {**OLD, "fields": [*OLD["fields"], {"name": "z", "type": "string"}]},
            "field 'z' is new and has no default",
        ),
        (changed(a="string"), "field 'a' was int and became string"),
        (changed(b="string"), "field 'b' was null and became string"),
        (changed(e={"type": "enum", "name": "E", "symbols": ["X"]}), "field 'e' lost the symbols Y"),
        (
            changed(n={"type": "record", "name": "N", "fields": [{"name": "q", "type": "int"}]}),
            "field 'n.q' was long and became int",
        ),
    ],
)
def test_the_reason_names_the_field(new: dict[str, Any], reason: str) -> None:
    assert explain_incompatibility(reader=new, writer=OLD) == reason


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        changed(a="long"),
        changed(a=["null", "double"]),
        {**OLD, "fields": OLD["fields"][:1]},
        {**OLD, "fields": [*OLD["fields"], {"name": "z", "type": ["null", "string"], "default": None}]},
    ],
)
def test_compatible_changes_pass(new: dict[str, Any]) -> None:
    assert explain_incompatibility(reader=new, writer=OLD) is None
