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
        (changed(b="string"), "field 'b' could be null and cannot any more"),
        (changed(e={"type": "enum", "name": "E", "symbols": ["X"]}), "field 'e' lost the symbols Y"),
        (
            changed(n={"type": "record", "name": "N", "fields": [{"name": "q", "type": "int"}]}),
            "field 'n.q' was long and became int",
        ),
        (
            changed(n=["null", {"type": "record", "name": "N", "fields": [{"name": "q", "type": "int"}]}]),
            "field 'n.q' was long and became int",
        ),
        (
            changed(n={"type": "record", "name": "M", "fields": [{"name": "q", "type": "long"}]}),
            "field 'n' was the record N and became M; give it the old name as an alias",
        ),
        (
            changed(a={"type": "int", "logicalType": "date"}),
            "field 'a' was without a logical type and became date",
        ),
        (changed(b=["null", "long"]), "field 'b' was string and became null or long"),
        ({**OLD, "name": "Q"}, "the record was the record R and became Q; give it the old name as an alias"),
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
        {**OLD, "name": "Q", "aliases": ["R"]},
        changed(e={"type": "enum", "name": "E", "symbols": ["X"], "default": "X"}),
        {**OLD, "fields": [*OLD["fields"][1:], {"name": "c", "type": "int", "aliases": ["a"]}]},
        {**OLD, "fields": OLD["fields"][:1]},
        {**OLD, "fields": [*OLD["fields"], {"name": "z", "type": ["null", "string"], "default": None}]},
    ],
)
def test_compatible_changes_pass(new: dict[str, Any]) -> None:
    assert explain_incompatibility(reader=new, writer=OLD) is None
