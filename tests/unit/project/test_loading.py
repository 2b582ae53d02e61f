"""A project folder with a mistake in it is refused with the file, the place and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from driftline.project import load_project
from driftline.runtime.errors import ConfigurationError

Edit = Callable[[str], str]

FEATURES = """
from driftline.features import Entity, FeatureView, Source, count, mean, rate

shop = Entity("shop")
sales = Source("sales", entity=shop, event_time="sold_at")
shop_sales = FeatureView(
    "shop_sales", version=1, source=sales, features=[mean("price").over("1h"), rate("returned").over("1d")]
)
"""


def declared() -> dict[str, object]:
    return {
        "name": "market",
        "owner": "someone@example.org",
        "events": {"sales": {"schema": "sales.avsc", "key": "shop", "event_time": "sold_at"}},
        "models": {
            "returns": {
                "entities": ["shop"],
                "views": ["shop_sales"],
                "inputs": {"basket": {"type": "double"}},
                "decision": {"threshold": 0.5, "above": "returned", "below": "kept"},
            }
        },
    }


def schema() -> dict[str, object]:
    time = {"type": "long", "logicalType": "timestamp-micros"}
    return {
        "type": "record",
        "name": "Sale",
        "fields": [
            {"name": "event_id", "type": "string"},
            {"name": "sold_at", "type": time},
            {"name": "shop", "type": "string"},
            {"name": "price", "type": ["null", "double"], "default": None},
            {"name": "returned", "type": "boolean"},
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


def write(folder: Path, **changes: object) -> None:
    (folder / "driftline.yaml").write_text(yaml.safe_dump({**declared(), **changes}))
    (folder / "sales.avsc").write_text(json.dumps(schema()))
    (folder / "features.py").write_text(FEATURES)


def test_a_correct_project_loads(folder: Path) -> None:
    project = load_project(folder)

    model = project.models["returns"]
    assert model.numeric_columns == ("basket", "shop_sales__mean_price_1h", "shop_sales__rate_returned_1d")
    assert model.categorical_columns == ("shop",)
    assert [view.ref for view in project.views_of("sales")] == ["shop_sales@1"]
    assert project.future_skew_us == 300_000_000


def test_a_folder_without_a_declaration_is_not_a_project(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"not a driftline project.*--project"):
        load_project(tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "Market"}, "driftline.yaml: name: "),
        ({"colour": "red"}, "driftline.yaml: colour: "),
        ({"future_skew": "soon"}, "future_skew: .*'soon' is not a duration"),
        ({"max_jump": "2"}, "max_jump: .*'2' is not a duration"),
        ({"events": {"Sales": declared()["events"]}}, "driftline.yaml: events.Sales"),
        ({"events": {"predictions": {"schema": "sales.avsc", "key": "shop", "event_time": "sold_at"}}},
         "'predictions' has the name of a platform stream"),
        ({"events": {"sales": {"schema": "none.avsc", "key": "shop", "event_time": "sold_at"}}},
         "none.avsc: event type 'sales' has no readable schema"),
        ({"events": {"sales": {"schema": "sales.avsc", "key": "price", "event_time": "sold_at"}}},
         "key 'price' of event type 'sales' must be a string field"),
        ({"events": {"sales": {"schema": "sales.avsc", "key": "nothing", "event_time": "sold_at"}}},
         "key 'nothing' of event type 'sales' must be a string field"),
        ({"events": {"sales": {"schema": "sales.avsc", "key": "shop", "event_time": "price"}}},
         "event time 'price' of event type 'sales' must be a timestamp-micros field"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_told(folder: Path, changes: dict[str, object], complaint: str) -> None:
    write(folder, **changes)
    with pytest.raises(ConfigurationError, match=complaint):
        load_project(folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"entities": ["till"]}, "model 'returns' names entity 'till', known are: shop"),
        ({"views": ["till_sales"]}, "model 'returns' names feature view 'till_sales', known are: shop_sales"),
        ({"entities": []}, "model 'returns' reads 'shop_sales', so its entities must include 'shop'"),
        ({"inputs": {"score": {"type": "double"}}}, "'score' of model 'returns' has the name of a field"),
        ({"inputs": {"shop": {"type": "string"}}}, "'shop' is declared as entity and as string input"),
        ({"inputs": {"basket": {"type": "integer"}}}, "models.returns.inputs.basket.type"),
    ],
)
def test_a_wrong_model_is_told(folder: Path, change: dict[str, object], complaint: str) -> None:
    returns = declared()["models"]["returns"]  # type: ignore[index]
    write(folder, models={"returns": {**returns, **change}})
    with pytest.raises(ConfigurationError, match=complaint):
        load_project(folder)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (
            lambda text: text.replace('mean("price")', 'mean("prize")'),
            "needs a field 'prize' .*no such field",
        ),
        (lambda text: text.replace('mean("price")', 'mean("shop")'), "'mean_shop_1h' .*found string"),
        (lambda text: text.replace('rate("returned")', 'rate("price")'), "of type boolean"),
        (lambda text: text.replace('"sales"', '"sails"'), "event type 'sails', which .*declares sales"),
        (lambda text: text.replace('"sold_at"', '"bought_at"'), "'bought_at' as event time.*has 'sold_at'"),
        (lambda text: text.replace('Entity("shop")', 'Entity("till")'), "'till', the entity of 'shop_sales'"),
        (lambda text: text.replace('.over("1h")', ""), r"features.py:6: .*needs a window"),
        (lambda text: text.replace("version=1", "version=0"), r"features.py:6: .*versions start at 1"),
        (lambda text: text + "\nnothing.at_all\n", r"features.py:10: NameError: name 'nothing'"),
        (lambda text: text + "\nshop_sales = (\n", r"features.py:10: '\(' was never closed"),
        (
            lambda text: text + text.replace("shop_sales = ", "again = ").replace("1h", "2h"),
            "two feature views",
        ),
    ],
)
def test_wrong_features_are_told_with_their_line(folder: Path, edit: Edit, complaint: str) -> None:
    (folder / "features.py").write_text(edit(FEATURES))
    with pytest.raises(ConfigurationError, match=complaint):
        load_project(folder)


def test_every_wrong_schema_is_told_at_once(folder: Path) -> None:
    event = {"schema": "sales.avsc", "key": "shop", "event_time": "sold_at"}
    write(folder, events={"sales": {**event, "key": "price"}, "visits": {**event, "schema": "none.avsc"}})
    with pytest.raises(ConfigurationError) as caught:
        load_project(folder)
    assert [line.partition(": ")[0].rpartition("/")[2] for line in str(caught.value).splitlines()] == [
        "sales.avsc",
        "none.avsc",
    ]


@pytest.mark.parametrize("content", ['"string"', "[]", '{"type": "record", "name": "Sale"}'])
def test_a_schema_that_is_no_record_is_told(folder: Path, content: str) -> None:
    (folder / "sales.avsc").write_text(content)
    with pytest.raises(ConfigurationError, match="must be a record with fields"):
        load_project(folder)


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "name: [", "a: b: c"])
def test_a_declaration_that_is_no_mapping_is_told(folder: Path, content: str) -> None:
    (folder / "driftline.yaml").write_text(content)
    with pytest.raises(ConfigurationError, match=r"driftline\.yaml: "):
        load_project(folder)
