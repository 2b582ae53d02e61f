"""Categorical features: what they count, how far a sketch is off, and what is refused."""

import math

import numpy as np
import pyarrow as pa
import pytest

from driftline.features import (
    FeatureView,
    count,
    distinct_count,
    field,
    last,
    most_frequent,
    share,
)
from driftline.features.aggregations import Aggregate, Feature
from driftline.features.differences import computation, fields_read
from driftline.features.layout import ViewLayout
from driftline.features.matching import layout_inputs
from driftline.features.point_in_time import as_of_join
from driftline.features.read import read_state
from driftline.features.sketches import estimated_counts, largest_ranks
from driftline.features.text_codes import category_places, hash_codes
from tests.unit.features.oracle import CATEGORIES, SECOND_US, SOURCE, START_US, Trip, feed


def view(*features: Feature) -> FeatureView:
    return FeatureView("v", 1, SOURCE, list(features))


def read(declared: FeatureView, kinds: list[str | None]) -> list[float]:
    layout = ViewLayout.of(declared)
    state = layout.empty(1)
    trips = [
        Trip(0, START_US + second * SECOND_US, None, None, None, START_US, kind=kind)
        for second, kind in enumerate(kinds)
    ]
    feed(layout, state, trips)
    values: list[float] = read_state(layout, state, np.array([START_US + 30 * SECOND_US])).values[0].tolist()
    return values


def test_a_share_is_of_the_events_that_have_the_field() -> None:
    assert read(
        view(share("kind", "cab").over("1m")), ["cab", None, "bus", "bus", "cab", "cab", None, "tram"]
    ) == [0.5]


def test_the_most_frequent_of_equally_many_is_the_first_named_and_others_do_not_count() -> None:
    kinds = ["bus", "cab", "tram", "tram", "tram"]
    names = [("cab", "bus"), ("bus", "cab"), ("bus", "tram"), ("ship", "train")]
    declared = view(
        *(most_frequent("kind", among=one).over("1m").named(f"f{at}") for at, one in enumerate(names))
    )
    np.testing.assert_array_equal(read(declared, kinds), [0, 0, 1, math.nan])


def test_the_last_category_is_a_place_or_minus_one_for_another() -> None:
    declared = view(last("kind", among=("cab", "bus")))
    assert [
        read(declared, kinds)[0] for kinds in (["cab", "bus"], ["bus", "cab", None], ["cab", "tram"])
    ] == [1, 0, -1]
    assert math.isnan(read(declared, [None])[0])


def test_without_events_a_distinct_count_is_zero_and_all_else_null() -> None:
    layout = ViewLayout.of(CATEGORIES)
    values = read_state(layout, layout.empty(1), np.array([START_US])).values[0]
    nan = math.nan
    np.testing.assert_array_equal(values, [0, 0, 0, 0, nan, 0, nan, nan, nan, -2, nan, nan, 0])


@pytest.mark.parametrize("registers", [16, 256, 4096])
@pytest.mark.parametrize("values", [1, 10, 300, 4_000])
def test_a_sketch_is_off_by_no_more_than_its_standard_error(registers: int, values: int) -> None:
    runs = 60
    texts = pa.array([f"{run}/{value}" for run in range(runs) for value in range(values)])
    group = np.repeat(np.arange(runs), values)
    found = estimated_counts(largest_ranks(hash_codes(texts), group, runs, registers))
    error = found / values - 1
    allowed = 1.04 / math.sqrt(registers)
    # Of 60 runs, the root mean square and the mean: five standard errors of each are left.
    assert math.sqrt(np.mean(error**2)) < 1.5 * allowed
    assert abs(error.mean()) < 5 * allowed / math.sqrt(runs) + 0.5 / values


def test_few_values_are_counted_exactly_nearly_always() -> None:
    runs = 400
    texts = pa.array([f"{run}/{value}" for run in range(runs) for value in range(3)])
    group = np.repeat(np.arange(runs), 3)
    found = estimated_counts(largest_ranks(hash_codes(texts), group, runs, 256))
    assert np.mean(found == 3) > 0.97
    assert set(found.tolist()) <= {2.0, 3.0}


def test_repeated_and_merged_values_count_once() -> None:
    codes = hash_codes(pa.array([str(number) for number in range(1_000)]))
    once = largest_ranks(codes, np.zeros(1_000, np.int64), 1, 64)
    again = largest_ranks(np.concatenate([codes[::-1], codes]), np.repeat([0, 1], 1_000), 2, 64)
    assert again.tobytes() == once.tobytes() * 2


def test_a_text_has_the_same_code_everywhere() -> None:
    texts = pa.array(["UA", None, "", "é", "UA"])
    assert [None if math.isnan(code) else int(code) for code in hash_codes(texts)] == [
        161985,
        None,
        244994,
        24386,
        161985,
    ]
    assert hash_codes(texts.slice(3, 1)).tolist() == hash_codes(texts)[3:4].tolist()
    assert hash_codes(pa.array([], pa.string())).tolist() == []
    assert np.isnan(hash_codes(pa.array([None, None], pa.string()))).all()


def test_a_hash_of_zeros_has_the_largest_rank() -> None:
    assert hash_codes(pa.array(["x"]), digest=lambda _: 0).tolist() == [40.0]
    assert hash_codes(pa.array(["x"]), digest=lambda _: 2**64 - 1).tolist() == [4095 * 64 + 1]


def test_places_of_categories() -> None:
    np.testing.assert_array_equal(
        category_places(pa.array(["b", None, "z", "a"]), ["a", "b"]), [1, math.nan, -1, 0]
    )


def test_tables_of_other_types_give_the_same_inputs() -> None:
    """An archive has dictionaries, and identifiers may be integers."""
    layout = ViewLayout.of(view(distinct_count("kind").over("1h"), last("kind", among=("a", "b"))))
    plain = layout_inputs(layout, pa.table({"kind": ["a", "b", None]}))
    coded = layout_inputs(layout, pa.table({"kind": pa.array(["a", "b", None]).dictionary_encode()}))
    assert {name: column.tobytes() for name, column in plain.items()} == {
        name: column.tobytes() for name, column in coded.items()
    }
    numbered = ViewLayout.of(view(distinct_count("n").over("1h")))
    assert (
        layout_inputs(numbered, pa.table({"n": [7, 70]}))["n hashed"].tolist()
        == hash_codes(pa.array(["7", "70"])).tolist()
    )


def test_the_join_needs_only_the_fields_that_are_read() -> None:
    at = pa.array([START_US, START_US], pa.int64()).cast(pa.timestamp("us"))
    events = pa.table({"place": ["a", "a"], "ended_at": at, "kind": ["cab", "bus"]})
    declared = view(
        share("kind", "cab").over("1h"), distinct_count("kind").over("1h"), last("kind", among=("cab", "bus"))
    )
    assert as_of_join(declared, events, ["a"], np.array([START_US])).values.tolist() == [[0.5, 2.0, 1.0]]


def test_features_share_registers_and_counts_where_they_can() -> None:
    layout = ViewLayout.of(
        view(
            distinct_count("kind").over("1h"),
            distinct_count("kind").over("2h"),
            distinct_count("kind", registers=16).over("2h").named("rough"),
            share("kind", "cab").over("1h"),
            share("kind", "bus").over("1h"),
            most_frequent("kind", among=("cab", "bus")).over("1h"),
        )
    )
    assert layout.rings[0].totals == (
        'count(where kind = "bus")',
        'count(where kind = "cab")',
        "count(where kind is present)",
        "16 registers(kind hashed)",
        "256 registers(kind hashed)",
    )
    assert layout.fields == ()
    assert layout.dtype["registers_0"].shape == (26, 272)


def test_what_a_feature_computes_is_told() -> None:
    assert [computation(feature) for feature in CATEGORIES.features[:9:2]] == [
        "distinct_count(rider in 16 registers) over 5m",
        "distinct_count(kind in 256 registers) over 20m",
        'share(kind among ["cab"]) over 5m',
        'most_frequent(kind among ["tram", "cab"]) over 20m',
        'last(kind among ["bus", "cab"])',
    ]
    assert {"kind", "rider", "late", "fare"} <= fields_read(CATEGORIES)


def test_another_size_or_category_is_another_row() -> None:
    features = [
        distinct_count("kind").over("1h"),
        distinct_count("kind", registers=64).over("1h"),
        distinct_count("kind").where(field("late").is_true()).over("1h").named("late"),
        share("kind", "cab").over("1h"),
        share("kind", "bus").over("1h"),
        most_frequent("kind", among=("cab", "bus")).over("1h"),
        last("kind", among=("cab", "bus")),
        last("kind", among=("bus", "cab")),
        last("kind"),
        count().over("1h"),
    ]
    assert len({ViewLayout.of(view(feature)).fingerprint for feature in features}) == len(features)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda: distinct_count("kind", registers=100), "power of two from 16 to 4096, got 100"),
        (lambda: view(Feature(Aggregate.DISTINCT_COUNT, "kind", window_us=SECOND_US)), "have registers"),
        (lambda: view(Feature(Aggregate.COUNT, "kind", window_us=SECOND_US, registers=16)), "have registers"),
        (lambda: view(Feature(Aggregate.SHARE, "kind", window_us=SECOND_US)), "names no category"),
        (lambda: share("kind", ""), "name a category"),
        (lambda: most_frequent("kind", among="cab"), "2 to 64 different categories"),
        (lambda: most_frequent("kind", among=["cab"]), "2 to 64 different categories"),
        (lambda: most_frequent("kind", among=["cab", "cab"]), "2 to 64 different categories"),
        (lambda: last("kind", among=["cab", 3]), "2 to 64 different categories"),
        (lambda: view(distinct_count("kind")), "distinct_count_kind needs a window"),
        (
            lambda: view(share("kind", "Café").over("1h")),
            r"the share of 'Café' needs a name that says so: .named",
        ),
        (
            lambda: view(share("kind", "A").over("1h"), share("kind", "a").over("1h")),
            "two features are named",
        ),
        (lambda: last("kind", among=["a", "b"]).over("1h"), "takes no window"),
    ],
)
def test_what_is_no_categorical_feature_is_refused(wrong: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        wrong()  # type: ignore[operator]
