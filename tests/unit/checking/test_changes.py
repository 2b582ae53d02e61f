"""What a change of a project breaks is told with the views and models that it reaches."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from driftline.checking.changes import Change, ChangeKind, project_changes
from driftline.checking.project_check import check_project
from driftline.features import Entity
from tests.unit.checking.market import spoil

YAML = "driftline.yaml"
SALES = "schemas/sales.avsc"


@pytest.fixture
def before(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "before" / "market"))


def changes(before: Path, after: Path) -> list[Change]:
    return list(project_changes(check_project(before), check_project(after)))


def line(change: Change) -> str:
    """A change as its place's file, without folders, and line."""
    return f"{change.place.path.name}:{change.place.line}"


def the(kind: ChangeKind, found: list[Change]) -> Change:
    (one,) = [change for change in found if change.kind is kind]
    return one


def test_nothing_changed(before: Path, folder: Path) -> None:
    assert changes(before, folder) == []


def test_words_that_nothing_is_served_from_are_no_change(before: Path, folder: Path) -> None:
    spoil(folder, YAML, "owner: someone@", "owner: another@")
    spoil(folder, "features.py", "version=1,", 'version=1,\n    description="Prices.",')
    assert changes(before, folder) == []


def test_a_dropped_field_names_the_views_and_models_that_break(before: Path, folder: Path) -> None:
    spoil(folder, SALES, ',\n  {"name": "returned", "type": "boolean"}', "")
    found = changes(before, folder)
    dropped = the(ChangeKind.FIELD, found)
    assert dropped.breaks
    assert (dropped.views, dropped.models) == (("shop_sales@1",), ("returns",))
    assert line(dropped) == "sales.avsc:2"
    assert dropped.place.text == (
        "field 'returned' of event type 'sales' was dropped; it breaks the view shop_sales@1 and the model returns; "
        "read something else in their next versions, or put the field back"
    )
    assert found == [dropped]  # old records stay readable, so the registry would not have objected


def test_a_renamed_field_names_its_new_name_and_what_breaks(before: Path, folder: Path) -> None:
    spoil(folder, SALES, '"price"', '"sale_price"')
    renamed = the(ChangeKind.FIELD, changes(before, folder))
    assert renamed.breaks
    assert (renamed.views, renamed.models) == (("shop_sales@1",), ("returns",))
    assert line(renamed) == "sales.avsc:6"
    assert "was renamed to 'sale_price', it seems" in renamed.place.text


def test_a_field_renamed_with_an_alias_breaks_the_views_all_the_same(before: Path, folder: Path) -> None:
    spoil(folder, SALES, '"name": "returned"', '"name": "came_back", "aliases": ["returned"]')
    (renamed,) = changes(before, folder)
    assert renamed.kind is ChangeKind.FIELD
    assert renamed.breaks
    assert "was renamed to 'came_back'" in renamed.place.text


def test_a_field_that_nothing_reads_breaks_nothing(before: Path, folder: Path) -> None:
    extra = ',\n  {"name": "till", "type": "string"}\n]'
    spoil(before, SALES, "\n]", extra)
    (dropped,) = changes(before, folder)
    assert not dropped.breaks
    assert (dropped.views, dropped.models) == ((), ())
    assert "no view reads it" in dropped.place.text


def test_a_dropped_event_type_that_views_read(before: Path, folder: Path) -> None:
    visits = (
        YAML,
        "  visits:\n    schema: schemas/visits.avsc\n    key: shop\n    event_time: visited_at\n",
        "",
    )
    spoil(folder, *visits)
    (gone,) = changes(before, folder)
    assert gone.kind is ChangeKind.EVENT_TYPE
    assert gone.breaks
    assert (gone.views, gone.models) == (("shop_visits@1",), ("returns",))
    assert line(gone) == "driftline.yaml:4"
    assert "'visits' is gone; it breaks the view shop_visits@1 and the model returns" in gone.place.text


def test_a_dropped_event_type_that_nothing_reads_is_no_break(before: Path, folder: Path) -> None:
    spoil(
        before,
        YAML,
        "models:",
        "  refunds:\n    schema: schemas/sales.avsc\n    key: shop\n    event_time: sold_at\nmodels:",
    )
    (gone,) = changes(before, folder)
    assert (gone.kind, gone.breaks) == (ChangeKind.EVENT_TYPE, False)


def test_an_event_type_with_a_mistake_is_not_called_gone(before: Path, folder: Path) -> None:
    spoil(folder, YAML, "visited_at", "visted_at")
    assert changes(before, folder) == []


def test_a_renamed_event_type_is_guessed(before: Path, folder: Path) -> None:
    spoil(folder, YAML, "  visits:", "  shop_visits:")
    assert "(now 'shop_visits'?)" in the(ChangeKind.EVENT_TYPE, changes(before, folder)).place.text


def test_a_changed_key_breaks_whatever_reads_it(before: Path, folder: Path) -> None:
    spoil(
        folder, YAML, "    key: shop\n    event_time: sold_at", "    key: event_id\n    event_time: sold_at"
    )
    (key,) = changes(before, folder)
    assert (key.kind, key.breaks, line(key)) == (ChangeKind.EVENT_TYPE, True, "driftline.yaml:7")
    assert (key.views, key.models) == (("shop_sales@1",), ("returns",))
    assert "was keyed by 'shop' and is by 'event_id'" in key.place.text


@pytest.mark.parametrize(
    ("old", "new", "place", "reason"),
    [
        ('\n]', ',\n  {"name": "till", "type": "string"}\n]', "sales.avsc:9", "field 'till' is new and has no default"),
        ('"name": "returned", "type": "boolean"', '"name": "returned", "type": ["null", "boolean"], "default": null',
         None, None),
        ('"type": ["null", "double"]', '"type": ["null", "float"]', "sales.avsc:6", "field 'price' was double"),
        ('"name": "Sale"', '"name": "Sold"', "sales.avsc:2", "was the record Sale and became Sold"),
    ],
)  # fmt: skip
def test_a_schema_that_cannot_read_old_records(
    before: Path, folder: Path, old: str, new: str, place: str | None, reason: str | None
) -> None:
    spoil(folder, SALES, old, new)
    found = changes(before, folder)
    if reason is None:
        assert found == []
        return
    (schema,) = found
    assert (schema.kind, schema.breaks, line(schema)) == (ChangeKind.SCHEMA, True, place)
    assert reason in schema.place.text
    assert "give new fields a default" in schema.place.text


def test_an_input_of_another_type_breaks_the_schemas_made_from_the_models(before: Path, folder: Path) -> None:
    spoil(folder, YAML, "basket: {type: double}", "basket: {type: string}")
    spoil(folder, "model.py", '{"basket": (0, None)}', "{}")
    streams = [
        change.place.text.partition(",")[0]
        for change in changes(before, folder)
        if change.kind is ChangeKind.SCHEMA
    ]
    assert streams == [
        "the schema of prediction-requests",
        "the schema of predictions",
        "the schema of outcomes",
    ]


def test_another_entity_under_the_same_version(before: Path, folder: Path) -> None:
    old, new = check_project(before), check_project(folder)
    assert old.project is not None and new.project is not None
    was = old.project.views["shop_sales"]
    now = replace(
        was, source=replace(was.source, entity=Entity("till"), entity_field="shop", entity_fields=())
    )
    views = {**new.project.views, now.name: now}
    found = project_changes(old, replace(new, project=replace(new.project, views=views)))
    assert [change.views for change in found if change.breaks] == [("shop_sales@1",)]


def test_a_view_that_changed_under_the_same_version(before: Path, folder: Path) -> None:
    spoil(folder, "features.py", 'mean("price").over("1d")', 'mean("price").over("2d")')
    found = changes(before, folder)
    view = the(ChangeKind.VIEW, found)
    assert view.breaks
    assert (view.views, view.models, line(view)) == (("shop_sales@1",), ("returns",), "features.py:6")
    assert view.place.text == (
        "feature view shop_sales@1 changed under the same version (windows: 1h, 1d became 1h, 1d, 2d; "
        "tiles: 2m, 1h became 2m, 2h; column shop_sales__mean_price_1d removed: mean(price) over 1d; and 1 more); "
        "set version=2"
    )
    assert found[0] is view  # what breaks comes first


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("    source=sales,", '    source=sales,\n    where=field("returned").is_false(),', "condition: none became returned is false"),
        (
            'mean("price").over("1d")',
            'mean("price").where(field("price") > 1).over("1d").named("mean_price_1d")',
            "mean(price) over 1d became mean(price) over 1d where price > 1.0",
        ),
        (
            'mean("price").over("1d")',
            'derived("mean_price_1d", feature("mean_price_1h") * 1)',
            "mean(price) over 1d became (mean_price_1h * 1)",
        ),
    ],
)  # fmt: skip
def test_a_condition_or_a_formula_that_changed_needs_a_version(
    before: Path, folder: Path, old: str, new: str, told: str
) -> None:
    spoil(folder, "features.py", old, new)
    view = the(ChangeKind.VIEW, changes(before, folder))
    assert view.breaks
    assert told in view.place.text
    assert view.place.text.endswith("set version=2")


def test_a_field_of_a_condition_that_is_dropped_breaks_its_view(before: Path, folder: Path) -> None:
    for project in (before, folder):
        spoil(project, "features.py", 'rate("returned")', 'count().where(field("returned").is_true())')
        spoil(
            project, "features.py", '.over("1d"),\n    ],', '.over("1d").named("rate_returned_1d"),\n    ],'
        )
    spoil(folder, SALES, ',\n  {"name": "returned", "type": "boolean"}', "")
    dropped = the(ChangeKind.FIELD, changes(before, folder))
    assert (dropped.breaks, dropped.views) == (True, ("shop_sales@1",))


def test_a_new_version_breaks_nothing_and_its_model_needs_training(before: Path, folder: Path) -> None:
    text = (folder / "features.py").read_text()
    text = text.replace("version=1", "version=2", 1).replace(
        'mean("price").over("1d")', 'mean("price").over("2d")'
    )
    (folder / "features.py").write_text(text)
    view, model = changes(before, folder)
    assert (view.kind, view.breaks) == (ChangeKind.VIEW, False)
    assert "shop_sales@1 became shop_sales@2" in view.place.text
    assert (model.kind, model.breaks, line(model)) == (ChangeKind.MODEL, False, "driftline.yaml:14")
    assert (model.views, model.models) == (("shop_sales@2",), ("returns",))
    assert "needs a new training (columns added: shop_sales__mean_price_2d" in model.place.text
    assert "it reads shop_sales@2 instead of shop_sales@1" in model.place.text


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            'decayed_mean("price", half_life="6h").named("x")',
            'decayed_mean("price", half_life="12h").named("x")',
            "with a half-life of 6h became decayed_mean(price) with a half-life of 12h",
        ),
        (
            'distinct_count("kind").over("1d").named("x")',
            'distinct_count("kind", registers=64).over("1d").named("x")',
            "distinct_count(kind in 256 registers) over 1d became distinct_count(kind in 64 registers) over 1d",
        ),
        (
            'most_frequent("kind", among=("S", "M")).over("1d").named("x")',
            'most_frequent("kind", among=("M", "S")).over("1d").named("x")',
            'most_frequent(kind among ["S", "M"]) over 1d became most_frequent(kind among ["M", "S"]) over 1d',
        ),
    ],
)
def test_another_half_life_sketch_or_order_of_categories_needs_another_version(
    before: Path, folder: Path, old: str, new: str, told: str
) -> None:
    for state, feature in ((before, old), (folder, new)):
        spoil(state, "features.py", 'mean("price").over("1d")', feature)
    view = changes(before, folder)[0]
    assert (view.kind, view.breaks, line(view)) == (ChangeKind.VIEW, True, "features.py:6")
    assert told in view.place.text
    assert "set version=2" in view.place.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('sales,\n', 'sales,\n    ttl="2d",\n'),
        ('sales,\n', 'sales,\n    on_stale="default",\n'),
        ('mean("price").over("1d")', 'mean("price").over("1d").or_default(0)'),
    ],
)  # fmt: skip
def test_a_view_that_its_stored_rows_still_fit_may_keep_its_version(
    before: Path, folder: Path, old: str, new: str
) -> None:
    spoil(folder, "features.py", old, new)
    view = changes(before, folder)[0]
    assert (view.kind, view.breaks, line(view)) == (ChangeKind.VIEW, False, "features.py:6")
    assert "answers otherwise from the same rows" in view.place.text


def test_a_column_that_stored_rows_answer_already_may_be_added(before: Path, folder: Path) -> None:
    spoil(folder, "features.py", "count, mean, rate", "count, mean, rate, sum_of")
    spoil(
        folder,
        "features.py",
        '        rate("returned")',
        '        sum_of("price").over("1d"),\n        rate("returned")',
    )
    view, model = changes(before, folder)
    assert (view.kind, view.breaks) == (ChangeKind.VIEW, False)
    assert "columns added: shop_sales__sum_price_1d" in model.place.text


def test_columns_that_exchange_their_names_break_though_the_rows_are_the_same(
    before: Path, folder: Path
) -> None:
    windows = {"first": "1h", "second": "1d"}
    for state, names in ((before, ("first", "second")), (folder, ("second", "first"))):
        for name, window in zip(names, windows.values(), strict=True):
            call = f'mean("price").over("{window}")'
            spoil(state, "features.py", call, f'{call}.named("{name}")')
    assert changes(before, folder)[0].breaks


def test_a_version_that_fell_breaks(before: Path, folder: Path) -> None:
    spoil(before, "features.py", "version=1", "version=3")
    view = changes(before, folder)[0]
    assert view.breaks
    assert "feature view shop_sales@1 was shop_sales@3: versions only grow; take 4" in view.place.text


def test_a_new_input_asks_for_training(before: Path, folder: Path) -> None:
    spoil(folder, YAML, "basket: {type: double}", "basket: {type: double}\n      weight: {type: double}")
    model = the(ChangeKind.MODEL, changes(before, folder))
    assert not model.breaks
    assert re.search(r"'returns' needs a new training \(columns added: weight\)", model.place.text)


def test_columns_in_another_order_ask_for_training(before: Path, folder: Path) -> None:
    spoil(
        folder, YAML, "      - shop_sales\n      - shop_visits\n", "      - shop_visits\n      - shop_sales\n"
    )
    assert "another order or type" in the(ChangeKind.MODEL, changes(before, folder)).place.text


def test_many_columns_are_counted(before: Path, folder: Path) -> None:
    inputs = "".join(f"      extra_{index}: {{type: double}}\n" for index in range(5))
    spoil(folder, YAML, "      basket:", f"{inputs}      basket:")
    text = the(ChangeKind.MODEL, changes(before, folder)).place.text
    assert "columns added: extra_0, extra_1, extra_2, and 2 more" in text


def test_a_view_and_a_model_that_are_gone(before: Path, folder: Path) -> None:
    text = (folder / YAML).read_text()
    (folder / YAML).write_text(text[: text.index("models:")])
    features = (folder / "features.py").read_text()
    (folder / "features.py").write_text(features[: features.index("shop_visits =")])
    found = [(change.kind, change.breaks, change.views, change.models) for change in changes(before, folder)]
    assert found == [
        (ChangeKind.VIEW, False, ("shop_visits@1",), ()),
        (ChangeKind.MODEL, False, (), ("returns",)),
    ]


def test_what_cannot_be_read_is_not_called_gone(before: Path, folder: Path) -> None:
    spoil(folder, "features.py", 'count().over("1h")', "count()")
    assert changes(before, folder) == []


def test_a_project_of_another_name_is_told(before: Path, folder: Path) -> None:
    spoil(folder, YAML, "name: market", "name: bazaar")
    (change,) = changes(before, folder)
    assert (change.kind, change.breaks, line(change)) == (ChangeKind.PROJECT, False, "driftline.yaml:1")


def test_nothing_can_be_said_where_a_declaration_cannot_be_read(before: Path, folder: Path) -> None:
    (folder / YAML).write_text("name: [")
    assert changes(before, folder) == []


def test_each_state_runs_its_own_modules(before: Path, folder: Path) -> None:
    for state in (before, folder):
        (state / "market_words.py").write_text('FIELD, WINDOW = "price", "1d"\n')
        spoil(
            state, "features.py", "from driftline", "from market_words import FIELD, WINDOW\nfrom driftline"
        )
        spoil(state, "features.py", 'mean("price").over("1d")', "mean(FIELD).over(WINDOW)")
    assert changes(before, folder) == []
    (folder / "market_words.py").write_text('FIELD, WINDOW = "price", "3d"\n')
    assert the(ChangeKind.VIEW, changes(before, folder)).breaks
