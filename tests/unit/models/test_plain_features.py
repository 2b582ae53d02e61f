"""Plain Python and the kernels are two ways to the same bits."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.features import FeatureView, OnStale, count, derived, feature, last, mean, time_since_last
from driftline.features.derivations import Derived
from driftline.features.point_in_time import as_of_join
from driftline.features.read import same_bits
from driftline.models import plain_features
from driftline.models.plain_features import known_features, plain_values
from tests.unit.features.oracle import SOURCE, START_US, VIEWS, Trip, offsets_us, table, trips, views

AGING = [
    FeatureView(
        "aging",
        1,
        SOURCE,
        [
            count().over("5m"),
            mean("fare").over("1m").or_default(2.0),
            last("delay"),
            time_since_last(),
            derived("twice", feature("mean_fare_1m") * 2),
        ],
        ttl="2m",
        on_stale=on_stale,
    )
    for on_stale in OnStale
]


def plain(view: FeatureView, events: list[Trip], place: int, as_of_us: int) -> list[float]:
    known = [
        {**row, "time_us": event.time_us}
        for row, event in zip(table(events).to_pylist(), events, strict=True)
        if event.known_us <= as_of_us and event.place == place
    ]
    found = plain_values(view, known, as_of_us)
    assert not found.loose
    return [found.values[name] for name in defined(view)]


def defined(view: FeatureView) -> list[str]:
    """Return the features that are defined in plain Python, in the view's order."""
    known = known_features(view)
    return [one.name for one in view.features if one.name in known]


@settings(deadline=None, max_examples=60)
@given(
    st.one_of(views, st.sampled_from(AGING)),
    trips,
    st.lists(st.tuples(st.integers(0, 3), offsets_us), max_size=6),
)
def test_plain_values_are_the_kernels(
    view: FeatureView, events: list[Trip], questions: list[tuple[int, int]]
) -> None:
    asked = [(place, START_US + offset) for place, offset in questions]
    asked += [(event.place, event.known_us) for event in events[:4]]
    as_of = np.array([instant for _, instant in asked], np.int64)
    kernels = as_of_join(view, table(events), [f"p{place}" for place, _ in asked], as_of, known_at="known_at")
    names = [one.name for one in view.features]
    columns = [names.index(name) for name in defined(view)]
    for row, (place, instant) in enumerate(asked):
        again = np.array(plain(view, events, place, instant))
        assert same_bits(kernels.values[row][columns] + 0.0, again + 0.0).all()


def test_all_but_decay_and_categories_is_defined() -> None:
    for view in VIEWS:
        other = {one.name for one in view.aggregated if one.half_life_us is not None or one.reads_text}
        derived_from_them = {
            one.name
            for one in view.features
            if isinstance(one, Derived) and other.intersection(one.expression.references())
        }
        assert known_features(view) == {one.name for one in view.features} - other - derived_from_them
    assert any(known_features(view) for view in VIEWS)


def test_what_is_not_defined_is_left_out_with_what_is_derived_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plain_features, "_AGGREGATES", plain_features._AGGREGATES - {"mean"})
    (view,) = (one for one in AGING if one.on_stale is OnStale.SERVE)
    assert known_features(view) == {"count_5m", "last_delay", "time_since_last"}
    assert set(plain_values(view, [], START_US).values) == known_features(view)


def test_sums_that_are_no_longer_exact_are_told_apart() -> None:
    view = FeatureView("v", 1, SOURCE, [mean("fare").over("1h"), count().over("1h")])
    events = [{"fare": 2.0**37, "time_us": START_US}]
    found = plain_values(view, events, START_US)
    assert found.loose == {"mean_fare_1h"}
    assert math.isclose(found.values["mean_fare_1h"], 2.0**37)
