"""A project folder with a mistake in it is refused with the file, the place and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from driftline.contracts.project_schemas import outcome_schema, prediction_request_schema, prediction_schema
from driftline.project import (
    AskingLevel,
    ComparisonRule,
    Promotion,
    PromotionRule,
    RetrainRule,
    ScreeningRule,
    StoreRule,
    Unavailable,
    load_project,
)
from driftline.runtime.durations import DAY_US
from driftline.runtime.errors import ConfigurationError

Edit = Callable[[str], str]

FEATURES = """
from driftline.features import Entity, FeatureView, Source, count, derived, feature, field, mean, rate

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
            {
                "name": "size",
                "type": ["null", {"type": "enum", "name": "Size", "symbols": ["S", "L"]}],
                "default": None,
            },
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


def filtered(text: str, condition: str) -> str:
    """Return the features with a condition on the view."""
    return text.replace('over("1d")]', f'over("1d")], where={condition}')


def test_a_view_with_conditions_on_fields_of_every_kind_loads(folder: Path) -> None:
    condition = '(field("price") > 1) & field("returned").is_false() & (field("size") == "L") & (field("shop") != "x")'
    text = FEATURES.replace('"price")', '"price").where(field("price") < 9).named("p")')
    (folder / "features.py").write_text(filtered(text, condition + ' & field("sold_at").present()'))
    view = load_project(folder).views["shop_sales"]
    assert view.columns == ("shop_sales__p", "shop_sales__rate_returned_1d")


COMPOSITE = FEATURES.replace('Entity("shop")', 'Entity("shelf", keys=("shop", "size_of"))')


def write_composite(folder: Path, features: str = COMPOSITE, **changes: object) -> None:
    """The project with a shelf, made of a shop and a size that is a text."""
    returns = {**declared()["models"]["returns"], "entities": ["shelf"], **changes}  # type: ignore[index]
    write(folder, models={"returns": returns})
    with_size = schema()
    with_size["fields"].append({"name": "size_of", "type": "string"})  # type: ignore[attr-defined]
    (folder / "sales.avsc").write_text(json.dumps(with_size))
    (folder / "features.py").write_text(features)


def test_requests_name_the_keys_of_a_composite_entity(folder: Path) -> None:
    write_composite(folder, segments=["size_of"])

    project = load_project(folder)

    assert project.request_entities == ("shop", "size_of")
    assert project.models["returns"].categorical_columns == ("shop", "size_of")
    names = [each["name"] for each in prediction_request_schema(project)["fields"]]
    assert names[-3:] == ["shop", "size_of", "basket"]
    assert "shelf" not in names


@pytest.mark.parametrize(
    ("edit", "changes", "complaint"),
    [
        (lambda text: text, {"entities": ["shop"]}, "names entity 'shop', known are: shelf"),
        (
            lambda text: text,
            {"inputs": {"size_of": {"type": "string"}}},
            "'size_of' is declared as entity and as string input",
        ),
        (
            lambda text: text.replace('"size_of"', '"score"'),
            {},
            "'score', the entity of 'shop_sales', is no string",
        ),
        (
            lambda text: text.replace(
                'event_time="sold_at"', 'event_time="sold_at", entity_fields=("shop", "price")'
            ),
            {},
            "'price', the entity of 'shop_sales', is no string field of sales.avsc",
        ),
        (
            lambda text: text.replace('event_time="sold_at"', 'event_time="sold_at", entity_field="shop"'),
            {},
            r"features.py:5: source 'sales': the key of 'shelf' is shop, size_of: name its event fields with entity_fields",
        ),
        (lambda text: text.replace(', "size_of"', ", "), {}, "features.py:4: .*make no composite entity"),
        (
            lambda text: (
                text
                + text.replace("shop_sales", "again").replace('("shop", "size_of")', '("size_of", "shop")')
            ),
            {},
            "entity 'shelf' is made of shop, size_of in one view and of size_of, shop in 'again'",
        ),
    ],
)
def test_a_wrong_composite_entity_is_told(
    folder: Path, edit: Edit, changes: dict[str, object], complaint: str
) -> None:
    write_composite(folder, edit(COMPOSITE), **changes)
    with pytest.raises(ConfigurationError, match=complaint):
        load_project(folder)


def test_derived_features_are_columns_of_the_model_and_of_the_log(folder: Path) -> None:
    formula = 'derived("spread", feature("mean_price_1h") / feature("rate_returned_1d"))'
    (folder / "features.py").write_text(FEATURES.replace('over("1d")]', f'over("1d"), {formula}]'))
    column = "shop_sales__spread"
    returns = {**declared()["models"]["returns"], "baseline": column, "monitor": {"ignore": [column]}}  # type: ignore[index]
    (folder / "driftline.yaml").write_text(yaml.safe_dump({**declared(), "models": {"returns": returns}}))

    project = load_project(folder)

    assert project.models["returns"].numeric_columns[-1] == column
    for made in (prediction_schema(project), outcome_schema(project)):
        (logged,) = (each for each in made["fields"] if each["name"] == column)
        assert logged["type"] == ["null", "double"]


def test_a_correct_project_loads(folder: Path) -> None:
    project = load_project(folder)

    model = project.models["returns"]
    assert model.numeric_columns == ("basket", "shop_sales__mean_price_1h", "shop_sales__rate_returned_1d")
    assert model.categorical_columns == ("shop",)
    assert [view.ref for view in project.views_of("sales")] == ["shop_sales@1"]
    assert project.future_skew_us == 300_000_000


def test_how_fresh_a_view_must_be_is_declared(folder: Path) -> None:
    assert load_project(folder).freshness == {}
    write(folder, freshness={"shop_sales": "2h"})
    assert load_project(folder).freshness == {"shop_sales": 2 * 3_600_000_000}


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
        ({"freshness": {"shop_sales": "soon"}}, "freshness.shop_sales: .*'soon' is not a duration"),
        ({"freshness": {"shop_sale": "1h"}}, "freshness names feature view 'shop_sale', known are: shop_sales"),
        ({"events": {"Sales": declared()["events"]}}, "driftline.yaml: events.Sales"),
        ({"events": {"predictions": {"schema": "sales.avsc", "key": "shop", "event_time": "sold_at"}}},
         "'predictions' has the name of a platform stream"),
        ({"events": {"sales": {"schema": "none.avsc", "key": "shop", "event_time": "sold_at"}}},
         "driftline.yaml: event type 'sales' has no schema: none.avsc does not exist"),
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
            lambda text: filtered(text, 'field("refunded").is_true()'),
            "features.py: the condition of 'shop_sales' asks for a field 'refunded', and there is none in sales.avsc",
        ),
        (
            lambda text: filtered(text, 'field("price").present() & (field("returned") > 3)'),
            "the condition of 'shop_sales' takes 'returned' as a number .*found boolean",
        ),
        (
            lambda text: filtered(text, 'field("sold_at") > 3'),
            "takes 'sold_at' as a number .*found timestamp-micros",
        ),
        (lambda text: filtered(text, 'field("shop").is_true()'), "takes 'shop' as a boolean .*found string"),
        (lambda text: filtered(text, 'field("price") == "1"'), "takes 'price' as a text .*found double"),
        (
            lambda text: filtered(text, 'field("size") == "XXL"'),
            r"compares 'size' with 'XXL', which is none of its symbols \(S, L\)",
        ),
        (
            lambda text: filtered(text, '1 < field("price") < 3'),
            "features.py:7: TypeError: .* combine conditions",
        ),
        (
            lambda text: text.replace(
                'mean("price")', 'mean("price").where(field("size") == 3).named("big")'
            ),
            "the condition of 'big' of 'shop_sales' takes 'size' as a number .*found enum",
        ),
        (
            lambda text: text.replace('mean("price")', 'mean("price").where(field("size") == "L")'),
            r"features.py:6: feature view 'shop_sales': mean_price_1h .*needs a name that says so: .named",
        ),
        (
            lambda text: text.replace(
                'over("1d")]', 'over("1d"), derived("x", feature("mean_price_2h") * 2)]'
            ),
            r"features.py:6: feature view 'shop_sales': x is derived from 'mean_price_2h', which is no feature",
        ),
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
    key, missing = str(caught.value).splitlines()
    assert "key 'price' of event type 'sales' must be a string field of sales.avsc" in key
    assert "event type 'visits' has no schema: none.avsc does not exist" in missing


@pytest.mark.parametrize("content", ['"string"', "[]", '{"type": "record", "name": "Sale"}'])
def test_a_schema_that_is_no_record_is_told(folder: Path, content: str) -> None:
    (folder / "sales.avsc").write_text(content)
    with pytest.raises(ConfigurationError, match="must be a record with fields"):
        load_project(folder)


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "name: [", "a: b: c"])
def test_a_declaration_that_is_no_mapping_is_told(folder: Path, content: str) -> None:
    (folder / "driftline.yaml").write_text(content)
    with pytest.raises(ConfigurationError, match=r"driftline\.yaml(:\d+)?: "):
        load_project(folder)


def write_returns(folder: Path, *, history: bool = True, **change: object) -> None:
    """The project with a past and labels, and a change of its model."""
    returns = {**declared()["models"]["returns"], "label": {"horizon": "1d"}, **change}  # type: ignore[index]
    past = {"history": "history.py"} if history else {}
    write(folder, models={"returns": returns}, **past)


def test_a_model_without_sections_has_the_rules_defaults(folder: Path) -> None:
    model = load_project(folder).models["returns"]
    assert model.promotion == PromotionRule()
    assert model.retrain == RetrainRule()


def test_promotion_and_retrain_are_declared_per_model(folder: Path) -> None:
    write_returns(
        folder,
        value={"returned": {"positive": 1, "negative": 0}, "kept": {"positive": 0, "negative": 1}},
        promotion={
            "by": "approval",
            "looks": [5, 10],
            "confidence": 0.9,
            "margin": 0.01,
            "least_outcomes": 50,
            "limit": "3w",
            "least_held_back": 40,
            "baseline_margin": 0.02,
            "watch": False,
        },
        retrain={
            "drift": "ALERT",
            "cooldown": "7d",
            "every": "30d",
            "volume": 900,
            "target_log_loss": 0.4,
            "target_value": -1,
            "target_windows": 3,
            "span": "90d",
            "screening": {"psi_refused": 0.5},
        },
    )
    model = load_project(folder).models["returns"]
    comparison = ComparisonRule(looks=(5, 10), alpha=0.1, margin=0.01, least_outcomes=50, limit_days=21)
    assert model.promotion == PromotionRule(
        by=Promotion.APPROVAL, comparison=comparison, least_held_back=40, baseline_margin=0.02, watch=False
    )
    assert model.retrain == RetrainRule(
        drift=AskingLevel.ALERT,
        cooldown_us=7 * DAY_US,
        every_us=30 * DAY_US,
        volume=900,
        target_log_loss=0.4,
        target_value=-1,
        target_windows=3,
        span_days=90,
        screening=ScreeningRule(psi_refused=0.5),
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"breaker": {"pause": "soon"}}, r"breaker\.pause: .*not a duration"),
        ({"breaker": {"failure_share": 2}}, r"breaker\.failure_share: .*less than or equal to 1"),
        ({"breaker": {"least_calls": 21}}, r"breaker.*more than the window of 20 calls"),
        ({"promotion": {"by": "vote"}}, r"returns\.promotion\.by: .*'automatic' or 'approval'"),
        ({"promotion": {"looks": [14, 7]}}, r"promotion\.looks: .*write ascending numbers of days"),
        ({"promotion": {"looks": [1]}}, r"promotion\.looks: .*from 2 on"),
        ({"promotion": {"looks": []}}, r"promotion\.looks: .*from 2 on"),
        ({"promotion": {"confidence": 95}}, r"promotion\.confidence: .*less than 1"),
        ({"promotion": {"margin": -0.1}}, r"promotion\.margin: .*greater than or equal to 0"),
        ({"promotion": {"limit": "36h"}}, r"promotion\.limit: .*whole days; write one like 28d"),
        (
            {"promotion": {"limit": "20d"}},
            r"promotion: .*limit: 20d ends before the last look, after 28 days",
        ),
        ({"promotion": {"alpha": 0.1}}, r"promotion\.alpha: there is no such key"),
        ({"promotion": {"canary": {"shares": [0.5, 0.1]}}}, r"promotion\.canary\.shares: .*growing shares"),
        ({"promotion": {"canary": {"shares": [0.5, 1.1]}}}, r"promotion\.canary\.shares: .*up to 1"),
        ({"promotion": {"canary": {"shares": []}}}, r"promotion\.canary\.shares: .*growing shares"),
        ({"promotion": {"canary": {"hold": "soon"}}}, r"promotion\.canary\.hold: .*not a duration"),
        (
            {"promotion": {"canary": {"sticky": "shpo"}}},
            r"'shpo' is no entity of the model.*did you mean shop",
        ),
        ({"retrain": {"drift": "alert"}}, r"retrain\.drift: .*'WARNING', 'ALERT', 'RETRAIN' or 'NEVER'"),
        ({"retrain": {"cooldown": "soon"}}, r"retrain\.cooldown: .*'soon' is not a duration; write"),
        ({"retrain": {"every": "7d"}}, r"retrain: .*every: 7d is shorter than the cooldown of 14d"),
        ({"retrain": {"span": "1d"}}, r"retrain\.span: .*too short to learn from.*2d or more"),
        ({"retrain": {"volume": 0}}, r"retrain\.volume: .*greater than or equal to 1"),
        ({"retrain": {"screening": {"missing": 1}}}, r"retrain\.screening\.missing: there is no such key"),
        ({"store": {"wait": "3s"}}, r"store\.wait: .*no time from 1ms to 2s"),
        ({"store": {"wait": "soon"}}, r"store\.wait: .*not a duration"),
        ({"store": {"unavailable": "guess"}}, r"store\.unavailable: .*'refuse' or 'defaults'"),
        ({"retrain": {"target_value": 1}}, r"retrain\.target_value: .*declare its `value:`"),
        ({"retrain": {"volume": 9}, "label": None}, r"models\.returns\.retrain\.volume: .*`label:`"),
    ],
)
def test_a_wrong_section_is_told_with_its_key(
    folder: Path, change: dict[str, object], complaint: str
) -> None:
    write_returns(folder, **change)
    with pytest.raises(ConfigurationError, match=complaint):
        load_project(folder)


def test_without_a_past_a_retrain_is_told_to_be_impossible(folder: Path) -> None:
    write_returns(folder, history=False, retrain={"cooldown": "7d"})
    with pytest.raises(ConfigurationError, match=r"models\.returns\.retrain: the project has no `history:`"):
        load_project(folder)


def test_what_happens_without_the_store_is_declared_per_model(folder: Path) -> None:
    assert load_project(folder).models["returns"].store == StoreRule()
    write_returns(folder, store={"wait": "50ms", "unavailable": "defaults"})
    rule = load_project(folder).models["returns"].store
    assert (rule, rule.degrades) == (StoreRule(wait_us=50_000, unavailable=Unavailable.DEFAULTS), True)


def test_a_view_that_refuses_to_be_stale_is_not_served_without_the_store(folder: Path) -> None:
    refusing = FEATURES.replace('over("1d")]', 'over("1d")], ttl="1h", on_stale="refuse"')
    write_returns(folder, store={"wait": "50ms"})
    (folder / "features.py").write_text(refusing)
    load_project(folder)
    write_returns(folder, store={"unavailable": "defaults"})
    (folder / "features.py").write_text(refusing)
    complaint = r'store\.unavailable: defaults would serve shop_sales.*on_stale="refuse"'
    with pytest.raises(ConfigurationError, match=complaint):
        load_project(folder)
