"""The platform's schemas: documented, with a valid example each, and the base of every project's own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from driftline.contracts.prediction_fields import CHANNELS, PREDICTION_HEADER, REQUEST_HEADER, STATUSES
from driftline.contracts.project_schemas import prediction_request_schema, prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.project import InputField, InputType, Project, load_project
from driftline.runtime.errors import ConfigurationError

ROOT = Path(__file__).parents[3]
SCHEMAS = sorted((ROOT / "schemas").glob("*.avsc"), key=lambda path: path.name)
EVENT_SCHEMAS = sorted((ROOT / "examples").glob("*/schemas/*.avsc"))


def read(path: Path) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(path.read_text())
    return schema


def undocumented(schema: Any, path: str = "") -> list[str]:
    """The fields and records, at any depth, that say nothing about themselves."""
    if isinstance(schema, list):
        return [found for branch in schema for found in undocumented(branch, path)]
    if not isinstance(schema, dict):
        return []
    found = [] if schema.get("doc") or schema["type"] not in {"record"} else [path or schema["name"]]
    for field in schema.get("fields", []):
        place = f"{path}.{field['name']}".lstrip(".")
        found += ([] if field.get("doc") else [place]) + undocumented(field["type"], place)
    return found + [name for inner in ("items", "values") for name in undocumented(schema.get(inner), path)]


@pytest.mark.parametrize("path", [*SCHEMAS, *EVENT_SCHEMAS], ids=lambda path: path.stem)
def test_every_field_says_what_it_is(path: Path) -> None:
    assert undocumented(read(path)) == []


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_every_schema_has_a_valid_example(path: Path) -> None:
    codec = RecordCodec(read(path))
    example = json.loads((path.parent / "examples" / f"{path.stem}.json").read_text())
    record = codec.from_json(example)
    assert codec.decode(codec.encode(record)) == record
    assert set(example) == {field["name"] for field in read(path)["fields"]}


def test_no_example_is_left_behind() -> None:
    assert {path.stem for path in (ROOT / "schemas" / "examples").iterdir()} == {
        path.stem for path in SCHEMAS
    }


def test_the_names_in_the_code_are_those_of_the_schemas() -> None:
    request, prediction = (
        read(ROOT / "schemas/prediction_request.avsc"),
        read(ROOT / "schemas/prediction.avsc"),
    )
    assert tuple(field["name"] for field in request["fields"]) == REQUEST_HEADER
    assert tuple(field["name"] for field in prediction["fields"]) == PREDICTION_HEADER
    types = {field["name"]: field["type"] for field in prediction["fields"]}
    assert tuple(types["channel"]["symbols"]) == CHANNELS
    assert tuple(types["status"]["symbols"]) == STATUSES


def test_a_projects_schemas_go_on_with_its_entities_inputs_and_features(flights: Project) -> None:
    request, prediction = prediction_request_schema(flights), prediction_schema(flights)
    own = [*flights.request_entities, *(field.name for field in flights.request_inputs)]
    served = [name for view in flights.request_views for name in (*view.columns, view.age_column)]
    assert [field["name"] for field in request["fields"]] == [*REQUEST_HEADER, *own]
    assert [field["name"] for field in prediction["fields"]] == [*PREDICTION_HEADER, *own, *served]
    assert request["namespace"] == prediction["namespace"] == "driftline.flights"
    assert undocumented(request) == undocumented(prediction) == []
    added = {field["name"]: field for field in prediction["fields"] if field["name"] in {*own, *served}}
    assert all(field["type"][0] == "null" and field["default"] is None for field in added.values())


@pytest.mark.parametrize("name", ["score", "origin", "sched hour"])
def test_an_input_that_cannot_be_a_field_is_refused(flights: Project, name: str) -> None:
    model = flights.models["lateness"]
    bad = replace(model, inputs=(*model.inputs, InputField(name=name, type=InputType.DOUBLE)))
    with pytest.raises(ConfigurationError, match=f"'{name}' cannot name"):
        prediction_schema(replace(flights, models={"lateness": bad}))


@pytest.fixture(scope="module")
def flights() -> Project:
    return load_project(ROOT / "examples" / "flights")
