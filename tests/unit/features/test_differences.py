"""What differs between two versions of a view, in what it serves."""

import pytest

from driftline.features import Entity, FeatureView, Source, count, derived, feature, field, last, mean
from driftline.features.differences import Aspect, fields_read, formula, view_differences

SHOP = Entity("shop")
SALES = Source("sales", entity=SHOP, event_time="sold_at")


def view(**changes: object) -> FeatureView:
    given = {
        "version": 1,
        "source": SALES,
        "features": [mean("price").over("1h"), count().over("1h")],
        "ttl": "1d",
    }
    return FeatureView("shop_sales", **{**given, **changes})  # type: ignore[arg-type]


def test_versions_and_words_do_not_count() -> None:
    assert view_differences(view(), view(version=2, description="Prices.")) == ()


@pytest.mark.parametrize(
    ("changes", "aspects"),
    [
        ({"ttl": None}, ["time to live"]),
        ({"on_stale": "default"}, ["on stale"]),
        ({"source": Source("refunds", entity=SHOP, event_time="sold_at")}, ["source"]),
        ({"source": Source("sales", entity=SHOP, event_time="paid_at")}, ["event time"]),
        (
            {"source": Source("sales", entity=SHOP, event_time="sold_at", entity_field="till")},
            ["entity field"],
        ),
        (
            {"source": Source("sales", entity=Entity("till"), event_time="sold_at")},
            ["entity", "entity field"],
        ),
        ({"features": [count().over("1h"), mean("price").over("1h")]}, ["order of columns"]),
        ({"features": [mean("price").over("1h").or_default(0), count().over("1h")]}, ["column"]),
        ({"features": [mean("price").over("1h")]}, ["aggregations", "column"]),
        ({"where": field("price") > 1}, ["condition"]),
        (
            {"source": Source("sales", entity=Entity("shelf", keys=("shop", "row")), event_time="sold_at")},
            ["entity", "entity field"],
        ),
        (
            {"features": [mean("price").over("1h"), count().over("1h"), derived("x", -feature("count_1h"))]},
            ["column"],
        ),
    ],
)
def test_each_aspect_is_told_alone(changes: dict[str, object], aspects: list[str]) -> None:
    assert [one.aspect.value for one in view_differences(view(), view(**changes))] == aspects


def test_a_difference_has_both_sides() -> None:
    (one,) = view_differences(view(), view(ttl=None))
    assert (one.aspect, one.before, one.after, one.column) == (Aspect.TTL, "1d", "none", "")
    assert str(one) == "time to live: 1d became none"


def test_numbers_differ_to_the_last_digit() -> None:
    factors = [
        view(features=[count().over("1h"), derived("d", feature("count_1h") * one)])
        for one in (0.12345671, 0.12345679)
    ]
    assert [one.aspect for one in view_differences(*factors)] == [Aspect.COLUMN]
    defaults = [view(features=[count().over("1h").or_default(one)]) for one in (1234567, 1234568)]
    assert [one.aspect for one in view_differences(*defaults)] == [Aspect.COLUMN]


def test_fields_that_a_view_reads() -> None:
    assert fields_read(view()) == {"shop", "sold_at", "price"}
    shelf = Source("sales", entity=Entity("shelf", keys=("shop", "row")), event_time="sold_at")
    large = count().where(field("size") == "L").over("1h").named("large")
    filtered = view(source=shelf, features=[large, derived("x", -feature("large"))], where=field("tax") > 0)
    assert fields_read(filtered) == {"shop", "row", "sold_at", "size", "tax"}


def test_a_formula_without_a_window() -> None:
    assert formula(last("price")) == "last(price)"
