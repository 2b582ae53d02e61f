"""Every kind of mistake is told with its file and line, and no mistake hides another or is blamed for one."""

import re
import sys
from pathlib import Path

import pytest

from driftline.checking.project_check import check_project
from driftline.runtime.errors import ConfigurationError
from tests.unit.checking.market import spoil, told

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"
YAML = "driftline.yaml"
SALES = "schemas/sales.avsc"


def test_a_correct_project_has_no_mistakes_and_no_new_files(folder: Path) -> None:
    files = set(folder.rglob("*"))
    found = check_project(folder)
    assert set(folder.rglob("*")) == files
    assert found.mistakes == ()
    assert found.project is not None
    assert list(found.project.models) == ["returns"]


def test_the_example_has_no_mistakes() -> None:
    assert told(FLIGHTS) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        (YAML, "owner:", "ownr:", r"driftline\.yaml:2: ownr: there is no such key"),
        (YAML, "    key: shop\n    event_time: sold_at", "    key: till\n    event_time: sold_at",
         r"driftline\.yaml:7: key 'till' of event type 'sales' must be a string field of sales\.avsc"),
        (YAML, "event_time: sold_at", "event_time: sold",
         r"driftline\.yaml:8: event time 'sold' .*; did you mean sold_at\?"),
        (YAML, "schemas/visits.avsc", "schemas/visit.avsc", r"driftline\.yaml:10: .*visit\.avsc does not exist"),
        (YAML, "  visits:\n", "  alerts:\n", r"driftline\.yaml:9: event type 'alerts' has the name of a platform stream"),
        (YAML, "entities: [shop]", "entities: [shop, till]",
         r"driftline\.yaml:15: model 'returns' names entity 'till', known are: shop"),
        (YAML, "- shop_visits", "- shop_vists",
         r"driftline\.yaml:18: model 'returns' names feature view 'shop_vists'.*; did you mean shop_visits\?"),
        (YAML, "basket: {type: double}", "basket: {type: number}", r"driftline\.yaml:20: models\.returns\.inputs\.basket"),
        (YAML, "threshold: 0.5, ", "", r"driftline\.yaml:22: models\.returns\.decision\.threshold: is missing; add it"),
        (YAML, "key: ticket", "key: basket", r"driftline\.yaml:23: model 'returns': labels name 'basket'"),
        (YAML, "rate_returned_1d", "rate_returned_2d",
         r"driftline\.yaml:24: model 'returns': baseline .*; did you mean shop_sales__rate_returned_1d\?"),
        (YAML, "cooldown: 7d", "cooldown: soon", r"driftline\.yaml:26: models\.returns\.retrain\.cooldown: 'soon' is not"),
        (YAML, "    baseline:", "    entities: [shop]\n    baseline:",
         r"driftline\.yaml:24: models\.returns\.entities: is written twice; remove one of them"),
        (YAML, "    baseline:", "    module: modell.py\n    baseline:",
         r"driftline\.yaml:24: model 'returns': its module modell\.py does not exist"),
        (YAML, "history.py", "past.py", r"driftline\.yaml:3: history: past\.py does not exist"),
        (YAML, "history: history.py", "history: history.py\nfeatures: views.py",
         r"driftline\.yaml:4: features: views\.py does not exist"),
        (YAML, "entities: [shop]", "entities: [shop", r"driftline\.yaml:16: this is no YAML: while parsing a flow"),
        ("features.py", 'mean("price").over("1d")', 'mean("prize").over("1d")',
         r"features\.py:12: feature 'mean_prize_1d'.*found no such field; did you mean price\?"),
        ("features.py", 'rate("returned")', 'rate("price")',
         r"features\.py:13: feature 'rate_price_1d' .*of type boolean in sales\.avsc, found double"),
        ("features.py", 'mean("price").over("1d")', 'decayed_mean("prize", half_life="6h")',
         r"features\.py:12: feature 'decayed_mean_prize_6h'.*found no such field; did you mean price\?"),
        ("features.py", 'mean("price").over("1d")', 'decayed_mean("price", half_life="1013s")',
         r"features\.py:6: feature view 'shop_sales': no tile width of whole seconds divides the half-life"),
        ("features.py", 'mean("price").over("1d")', 'distinct_count("price").over("1d")',
         r"features\.py:12: feature 'distinct_count_price_1d' of 'shop_sales' takes 'price' as a text .*found double in sales"),
        ("features.py", 'mean("price").over("1d")', 'share("shopp", "x").over("1d")',
         r"features\.py:12: feature 'share_shopp_x_1d' of .*of type string or enum .*found no such field; did you mean shop\?"),
        ("features.py", 'mean("price").over("1d")', 'most_frequent("kind", among=("S", "XL")).over("1d")',
         r"features\.py:12: .*compares 'kind' with 'XL', which is none of its symbols \(S, M, L\) in sales"),
        ("features.py", 'mean("price").over("1d")', 'last("kind")', r"features\.py:12: feature 'last_kind' .*found .*enum"),
        ("features.py", 'mean("price").over("1d")', 'mean("price", half_life="1d")',
         r"features\.py:12: TypeError: .*unexpected keyword argument 'half_life'"),
        ("features.py", "    source=sales,", '    source=sales,\n    where=field("cancelled").is_true(),',
         r"features\.py:10: the condition of 'shop_sales' asks for a field 'cancelled', and there is none in sales\.avsc"),
        ("features.py", 'mean("price").over("1d")', 'mean("price").where(field("shop") > 3).over("1d").named("x")',
         r"features\.py:12: the condition of 'x' of 'shop_sales' takes 'shop' as a number .*found string"),
        ("features.py", '        rate("returned").over("1d"),', '        derived("x", feature("mean_price_1w") / 2),',
         r"features\.py:6: feature view 'shop_sales': x is derived from 'mean_price_1w', which is no feature"),
        ("features.py", 'Entity("shop")', 'Entity("shelf", keys=("shop", "row"))',
         r"features\.py:3: 'row', the entity of 'shop_sales', is no string field of sales\.avsc"),
        ("features.py", 'Source("visits", entity=shop', 'Source("visits", entity=Entity("shop", keys=("shop", "event_id"))',
         r"features\.py:\d+: entity 'shop': keys shop, event_id make no composite entity"),
        ("features.py", 'Source("sales"', 'Source("sails"', r"features\.py:4: .*reads event type 'sails'.*did you mean sales\?"),
        ("features.py", 'event_time="sold_at"', 'event_time="event_id"', r"features\.py:4: .*takes 'event_id' as event time"),
        ("features.py", 'Entity("shop")', 'Entity("till")', r"features\.py:3: 'till', the entity of 'shop_visits'"),
        ("features.py", 'count().over("1h")', "count()", r"features\.py:17: .*needs a window"),
        ("features.py", "    version=1,", '    version=1,\n    on_stale="null",',
         r"features\.py:6: feature view 'shop_sales': on_stale is serve, default, refuse, got 'null'"),
        ("features.py", ", rate", "", r"features\.py:13: NameError: name 'rate' is not defined"),
        ("features.py", "count, mean", "coumt, mean", r"features\.py:1: ImportError: .*coumt"),
        ("features.py", "import Entity", "imports Entity", r"features\.py:1: invalid syntax"),
        ("features.py", '"shop_visits"', '"shop_sales"', r"features\.py:17: two feature views are named 'shop_sales'"),
        (SALES, '"boolean"}', '"boolean"', r"schemas/sales\.avsc:8: .*has no readable schema: Expecting"),
        (SALES, '"record"', '"enum"', r"schemas/sales\.avsc:1: the schema of event type 'sales' must be a record"),
        (SALES, '["null", "double"]', '["null", "double", "string"]', r"features\.py:11: .*found \['double', 'string'\]"),
        ("model.py", "def candidates(numeric, categorical):", "def candidates(numeric, categorical)",
         r"model\.py:4: expected ':'"),
        ("model.py", "def candidates", "def candidate", r"model\.py: has no function candidates\(numeric, categorical\)"),
        ("model.py", "DummyClassifier()", "object()", r"model\.py: candidate 'first', builtins's object, has no fit and predict_proba"),
        ("model.py", "DummyClassifier()", "1 / 0", r"model\.py:5: model 'returns': ZeroDivisionError"),
        ("model.py", '"basket"', '"baskets"', r"model\.py: BOUNDS names baskets, which are no numeric columns"),
        ("model.py", "BOUNDS =", "import nowhere_to_be_found\nBOUNDS =", r"model\.py:1: ModuleNotFoundError: .*nowhere"),
        ("history.py", "def history(", "def history((", r"history\.py:1: "),
        ("history.py", "def history(", "def past(", r"history\.py: has no function history\(start, end\)"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(folder: Path, file: str, old: str, new: str, complaint: str) -> None:
    spoil(folder, file, old, new)
    mistakes = told(folder)
    assert [line for line in mistakes if re.match(complaint, line)], mistakes


def test_several_mistakes_are_told_at_once_and_nothing_else_is(folder: Path) -> None:
    spoil(folder, YAML, "owner: someone@example.org", "owner: someone@example.org\ncolour: red")
    spoil(folder, YAML, "rate_returned_1d", "rate_returned_2d")
    spoil(folder, YAML, "cooldown: 7d", "cooldown: soon")
    spoil(folder, "features.py", 'count().over("1h")', 'coumt().over("1h")')
    spoil(folder, "features.py", 'rate("returned")', 'rate("retrned")')
    spoil(folder, "model.py", "categorical):", "categorical)")
    spoil(folder, "history.py", "start, end", "start end")
    places = [line.partition(": ")[0] for line in told(folder)]
    assert places == [
        "driftline.yaml:3",
        "driftline.yaml:25",
        "driftline.yaml:27",
        "features.py:13",
        "features.py:21",
        "history.py:1",
        "model.py:4",
    ]


def test_every_feature_of_a_missing_field_is_told_on_its_own_line(folder: Path) -> None:
    spoil(folder, SALES, '"price"', '"cost"')
    assert [line.partition(": ")[0] for line in told(folder)] == ["features.py:11", "features.py:12"]


def test_a_view_that_cannot_be_made_takes_no_blame_for_its_entity_and_its_models(folder: Path) -> None:
    spoil(
        folder, "features.py", "version=1", "version=0"
    )  # both views: the entity is in no view that is left
    assert [line.partition(": ")[0] for line in told(folder)] == ["features.py:6", "features.py:17"]


def test_what_a_broken_event_type_takes_away_is_not_told(folder: Path) -> None:
    spoil(folder, YAML, "key: shop\n    event_time: sold_at", "key: price\n    event_time: sold_at")
    assert [line.partition(": ")[0] for line in told(folder)] == ["driftline.yaml:7"]


def test_the_same_file_is_read_anew(folder: Path) -> None:
    assert told(folder) == []
    spoil(folder, "features.py", 'mean("minutes")', 'mean("minute")')
    assert [line.partition(": ")[0] for line in told(folder)] == ["features.py:21"]


def test_a_module_beside_the_features_is_found_and_forgotten(folder: Path) -> None:
    (folder / "shopping_words.py").write_text('PRICE = "price"\n')
    spoil(folder, "features.py", 'mean("price")', "mean(PRICE)")
    spoil(folder, "features.py", "from driftline", "from shopping_words import PRICE\nfrom driftline")
    assert told(folder) == []
    assert "shopping_words" not in sys.modules


def test_a_folder_that_is_no_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a driftline project"):
        check_project(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "- a\n", "models: 3\n", "models: {1: {}}\n", "events: 3\n", "models: {returns: {retrain: 3}}\n"],
)
def test_a_declaration_of_another_shape_is_told(folder: Path, content: str) -> None:
    (folder / YAML).write_text(content)
    files = {line.partition(":")[0] for line in told(folder)}
    assert files == {YAML}
