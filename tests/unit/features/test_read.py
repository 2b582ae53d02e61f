import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.features import Aggregate, Feature, FeatureView, OnStale, count, derived, mean
from driftline.features.derivations import Reference
from driftline.features.layout import ViewLayout
from driftline.features.read import FRESH, MISSING, STALE, read_state
from driftline.features.update import merge
from tests.unit.features.oracle import (
    DECAYED,
    DERIVED,
    EVERYTHING,
    HORIZON_S,
    ROUNDED,
    SECOND_US,
    SOURCE,
    START_US,
    Trip,
    feed,
    of_view,
    offsets_us,
    trip,
    trips,
    view_values,
    views,
)


def instants(*seconds: float) -> np.ndarray:
    return np.array([START_US + int(second * SECOND_US) for second in seconds], np.int64)


def one(second: int, fare: float = 5.0) -> Trip:
    time_us = START_US + second * SECOND_US
    return Trip(place=0, time_us=time_us, delay=None, fare=fare, late=None, known_us=time_us)


@given(views, trips, st.integers(0, 900 * SECOND_US))
def test_values_equal_the_events_in_the_window(view: FeatureView, events: list[Trip], later_us: int) -> None:
    layout = ViewLayout.of(view)
    state = layout.empty(3)
    feed(layout, state, events)
    as_of = max((event.time_us for event in events), default=START_US) + later_us

    read = read_state(layout, state, np.full(3, as_of))

    for place in range(3):
        own = [event for event in of_view(view, events) if event.place == place]
        expected = view_values(layout, own, as_of)
        for feature, got, want in zip(view.features, read.values[place], expected, strict=True):
            if isinstance(feature, Feature) and feature.aggregate in ROUNDED:
                close = pytest.approx(want, rel=1e-9, abs=ROUNDED[feature.aggregate], nan_ok=True)
                assert got == close, feature.name
            else:
                assert got == want or (math.isnan(got) and math.isnan(want)), feature.name
        newest = max((event.time_us for event in own), default=None)
        assert read.age_us[place] == (-1 if newest is None else max(as_of - newest, 0))
        assert read.status[place] == (MISSING if newest is None else FRESH)


@given(views, st.lists(trip(places=8), max_size=60), offsets_us)
def test_parts_are_read_as_if_merged(view: FeatureView, events: list[Trip], offset_us: int) -> None:
    layout = ViewLayout.of(view)
    state = layout.empty(8)  # two entities with four parts each
    feed(layout, state, events)
    parts = state.reshape(2, 4)
    merged = parts[:, 0]
    for part in range(1, 4):
        merged = merge(layout, merged, parts[:, part])
    as_of = np.full(2, START_US + offset_us)

    of_parts, of_merged = read_state(layout, parts, as_of), read_state(layout, merged, as_of)

    assert of_parts.values.tobytes() == of_merged.values.tobytes()
    assert of_parts.age_us.tolist() == of_merged.age_us.tolist()
    assert of_parts.status.tolist() == of_merged.status.tolist()


@given(views, trips, st.lists(offsets_us, min_size=1, max_size=5))
def test_a_row_reads_the_same_alone_and_among_others(
    view: FeatureView, events: list[Trip], offsets: list[int]
) -> None:
    layout = ViewLayout.of(view)
    state = layout.empty(3)
    feed(layout, state, events)
    rows = np.arange(len(offsets)) % 3
    as_of = START_US + np.array(offsets)

    together = read_state(layout, state[rows], as_of)

    for index, row in enumerate(rows):
        alone = read_state(layout, state[row : row + 1], as_of[index : index + 1])
        assert alone.values.tobytes() == together.values[index : index + 1].tobytes()


def test_no_event_is_a_count_and_sum_of_zero_and_null_for_the_rest() -> None:
    layout = ViewLayout.of(EVERYTHING)
    read = read_state(layout, layout.empty(1), instants(0))
    zero = {Aggregate.COUNT, Aggregate.SUM}
    for feature, value in zip(EVERYTHING.features, read.values[0], strict=True):
        if feature.aggregate in zero:
            assert value == 0.0
        elif feature.default is not None:
            assert value == feature.default
        else:
            assert math.isnan(value)
    assert (read.age_us.tolist(), read.status.tolist()) == ([-1], [MISSING])


def test_a_decayed_count_and_sum_of_no_event_are_zero_and_a_decayed_mean_is_null() -> None:
    layout = ViewLayout.of(DECAYED)
    values = read_state(layout, layout.empty(1), instants(0)).values[0]
    np.testing.assert_array_equal(values, [0, math.nan, 0, 0.5, 0, math.nan, math.nan, 0, math.nan])


@pytest.mark.parametrize(
    ("on_stale", "expected"),
    [(OnStale.SERVE, [1.0, 5.0]), (OnStale.DEFAULT, [math.nan, 9.0]), (OnStale.REFUSE, [1.0, 5.0])],
)
def test_time_to_live(on_stale: OnStale, expected: list[float]) -> None:
    features = [count().over("10m"), mean("fare").over("10m").or_default(9.0)]
    view = FeatureView("aging", 1, SOURCE, features, ttl="1m", on_stale=on_stale)
    layout = ViewLayout.of(view)
    state = layout.empty(1)
    feed(layout, state, [one(0)])

    read = read_state(layout, np.repeat(state, 3), instants(0, 60, 60.000001))

    assert read.status.tolist() == [FRESH, FRESH, STALE]
    assert read.values[1].tolist() == [1.0, 5.0]
    np.testing.assert_array_equal(read.values[2], expected)


@given(trips, st.sampled_from(list(OnStale)), st.integers(0, 400 * SECOND_US))
def test_a_derived_feature_is_its_formula_over_what_is_served(
    events: list[Trip], on_stale: OnStale, later_us: int
) -> None:
    layout = ViewLayout.of(replace(DERIVED, ttl="2m", on_stale=on_stale))
    state = layout.empty(3)
    feed(layout, state, events)
    as_of = max((event.time_us for event in events), default=START_US) + later_us

    read = read_state(layout, state, np.full(3, as_of))

    for values in read.values:
        served = dict(zip((each.name for each in DERIVED.features), values.tolist(), strict=True))
        np.testing.assert_array_equal(values, view_values(layout, [], as_of, served))


def test_an_as_of_before_the_newest_event_has_age_zero() -> None:
    layout = ViewLayout.of(EVERYTHING)
    state = layout.empty(1)
    feed(layout, state, [one(100)])
    read = read_state(layout, state, instants(0))
    assert read.age_us.tolist() == [0]
    assert read.values[0][0] == 0.0  # count().over("1m")


def test_absurd_instants_read_empty_windows() -> None:
    layout = ViewLayout.of(EVERYTHING)
    state = layout.empty(1)
    feed(layout, state, [one(HORIZON_S)])
    for as_of in (-(2**61), -1, 0, 2**61):
        assert read_state(layout, state, np.array([as_of])).values[0][0] == 0.0


def test_declared_defaults_are_told_from_values_whatever_they_are_served_for() -> None:
    view = FeatureView(
        "defaults",
        1,
        SOURCE,
        [
            count().over("1m"),
            mean("fare").over("1m").or_default(5.0),
            mean("delay").over("1m"),
            derived("ratio", Reference("mean_fare_1m") / Reference("mean_delay_1m")).or_default(0.0),
        ],
        ttl="5m",
        on_stale=OnStale.DEFAULT,
    )
    layout = ViewLayout.of(view)
    state = layout.empty(3)
    feed(layout, state, [one(0), replace(one(0), place=1)])
    read = read_state(layout, state, instants(30, 400, 30))
    assert read.values[:, 1].tolist() == [5.0, 5.0, 5.0]  # computed, stale, without events
    assert read.defaulted is not None
    assert read.defaulted.tolist() == [
        [False, False, False, True],
        [False, True, False, True],
        [False, True, False, True],
    ]
    assert read.take(np.array([1])).defaulted.tolist() == [[False, True, False, True]]  # type: ignore[union-attr]
    plain = read_state(ViewLayout.of(EVERYTHING), ViewLayout.of(EVERYTHING).empty(1), instants(0))
    assert plain.defaulted is not None
    assert plain.defaulted.tolist() == [[one.default is not None for one in EVERYTHING.features]]  # type: ignore[union-attr]
    none = ViewLayout.of(replace(view, features=[count().over("1m")]))
    assert read_state(none, none.empty(1), instants(0)).defaulted is None
