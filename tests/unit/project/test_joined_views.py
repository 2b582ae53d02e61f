"""A project whose views join sources, tables and predictions: what is loaded, and the lines of its mistakes."""

import json
from pathlib import Path

import pytest

from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.topics import Topics
from driftline.features.layout import ViewLayout
from driftline.project import load_project
from tests.unit.checking.market import schema, spoil, told, write

SHOPS = """\
  shops:
    schema: schemas/shops.avsc
    key: shop
    event_time: opened_at
    table: true
"""
JOINED = """
visits = Source("visits", entity=shop, event_time="visited_at")
shops = Source("shops", entity=shop, event_time="opened_at")
scores = Source("predictions", entity=shop, event_time="event_time")
shop_now = FeatureView(
    "shop_now", version=1, source=sales,
    features=[
        count().over("1h"),
        count().of(visits).over("1h"),
        last("size").of(shops),
        mean("score").of(scores).over("1d"),
        derived("sales_by_visit", feature("count_1h") / feature("visits_count_1h")),
        derived("price_by_size", feature("shop_sales__mean_price_1h") / feature("shops_last_size")),
    ],
    joins=[visits, shops, scores, shop_sales],
    ttl="2d",
)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write(tmp_path / "market")
    time = {"type": "long", "logicalType": "timestamp-micros"}
    (folder / "schemas/shops.avsc").write_text(schema("Shop", opened_at=time, size=["null", "double"]))
    spoil(folder, "driftline.yaml", "models:\n", SHOPS + "models:\n")
    spoil(folder, "driftline.yaml", "      - shop_visits\n", "      - shop_visits\n      - shop_now\n")
    (folder / "features.py").write_text((folder / "features.py").read_text() + JOINED)
    return folder


def test_its_sources_are_stored_apart_and_read_together(folder: Path) -> None:
    project = load_project(folder)
    assert told(folder) == []
    view = project.views["shop_now"]
    assert [part.ref for part in view.stored] == [
        "shop_now.sales@1", "shop_now.visits@1", "shop_now.shops@1", "shop_now.predictions@1", "shop_sales@1",
    ]  # fmt: skip
    assert [part.ref for part in project.views_of("sales")] == ["shop_sales@1", "shop_now.sales@1"]
    assert [one.ref for one in project.readers_of("sales")] == ["shop_sales@1", "shop_now@1"]
    assert list(project.fed_by) == ["sales", "visits", "shops", "predictions"]
    sales, visits, shops, scores = view.parts
    assert (shops.source.table, sales.source.table) == (True, False)
    assert (shops.ttl_us, scores.ttl_us) == (None, 2 * 86_400_000_000)
    assert ViewLayout.of(visits).view.name == "shop_now.visits"
    names = [one["name"] for one in prediction_schema(project)["fields"]]
    assert {"shop_now__sales_by_visit", "shop_now__predictions_mean_score_1d", "shop_now__age_ms"} <= set(
        names
    )


def test_a_table_has_a_compacted_topic(folder: Path) -> None:
    topics = Topics("market").all_of(load_project(folder))
    assert topics["market.shops"].cleanup == "compact"
    assert topics["market.sales"].cleanup == "delete"


def test_predictions_are_events_with_the_types_that_the_log_has(folder: Path) -> None:
    project = load_project(folder)
    logged = {one["name"]: one for one in prediction_schema(project)["fields"]}
    predictions = project.event_type("predictions")
    assert f"{predictions.schema['namespace']}.{predictions.schema['name']}" == "driftline.market.Prediction"
    names = []
    for one in predictions.schema["fields"]:
        names.append(one["name"])
        kind = (
            {key: value for key, value in one["type"].items() if key != "doc"}
            if isinstance(one["type"], dict)
            else one["type"]
        )
        other = logged[one["name"]]["type"]
        assert kind == (
            {key: value for key, value in other.items() if key != "doc"} if isinstance(other, dict) else other
        )
    assert names[-3:] == ["shop", "basket", "ticket"]
    assert json.dumps(predictions.schema)


def test_a_project_that_reads_no_predictions_is_fed_by_its_own_events(tmp_path: Path) -> None:
    assert list(load_project(write(tmp_path / "market")).fed_by) == ["sales", "visits"]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('last("size").of(shops)', 'mean("size").of(shops).over("1h").named("shops_last_size")',
         "features.py:32: feature 'shops_last_size' of 'shop_now.shops' aggregates events of 'shops', which is a table"),
        ('mean("score").of(scores)', 'mean("scores").of(scores)',
         "needs a field 'scores' of type int, long, float, double or boolean in the predictions of the models"),
        ('count().of(visits).over("1h")', 'mean("minute").of(visits).over("1h").named("visits_count_1h")',
         "feature 'visits_count_1h' of 'shop_now.visits' needs a field 'minute'"),
        ('event_time="event_time"', 'event_time="requested_at"', "takes 'requested_at' as event time, but event type 'predictions'"),
        ('"shops", entity=shop, event_time', '"shops", entity=shop, entity_field="event_id", event_time',
         "looks 'shops' up by event_id, and a table is looked up by its key, 'shop'"),
        ("joins=[visits, shops, scores, shop_sales]", "joins=[visits, shops, scores]",
         "features.py:27: feature view 'shop_now': price_by_size is derived from 'shop_sales__mean_price_1h', which is no feature"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_what_is_wrong(folder: Path, old: str, new: str, complaint: str) -> None:
    spoil(folder, "features.py", old, new)
    found = told(folder)
    assert any(complaint in one for one in found), found


def test_a_joined_view_is_the_one_that_the_file_declares(folder: Path) -> None:
    spoil(folder, "features.py", "joins=[visits, shops, scores, shop_sales]",
          "joins=[visits, shops, scores, FeatureView('shop_sales', 2, sales, [mean('price').over('1h')])]")  # fmt: skip
    (found,) = told(folder)
    assert (
        "feature view 'shop_now' joins shop_sales@2, which is not the shop_sales@1 that this file declares"
        in found
    )
