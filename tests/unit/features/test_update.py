import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftline.features import FeatureView
from driftline.features.layout import TILE_LIMIT, ViewLayout
from driftline.features.read import read_state
from driftline.features.update import LARGEST, apply_events, merge
from tests.unit.features.oracle import (
    EVERYTHING,
    NEWEST_ONLY,
    ONE_RING,
    SECOND_US,
    START_US,
    Trip,
    columns,
    feed,
    trips,
    views,
)


def one(second: int, *, delay: float | None = 1.0, fare: float | None = 2.0) -> Trip:
    time_us = START_US + second * SECOND_US
    return Trip(place=0, time_us=time_us, delay=delay, fare=fare, late=True, known_us=time_us)


@given(views, trips, st.data())
def test_any_order_and_any_batches_give_the_same_bytes(
    view: FeatureView, events: list[Trip], data: st.DataObject
) -> None:
    layout = ViewLayout.of(view)
    at_once = layout.empty(3)
    feed(layout, at_once, events)

    shuffled = data.draw(st.permutations(events))
    in_batches = layout.empty(3)
    while shuffled:
        size = data.draw(st.integers(1, len(shuffled)))
        feed(layout, in_batches, shuffled[:size])
        shuffled = shuffled[size:]

    assert in_batches.tobytes() == at_once.tobytes()


@given(views, trips, st.data())
def test_any_split_over_partitions_merges_to_the_same_bytes(
    view: FeatureView, events: list[Trip], data: st.DataObject
) -> None:
    layout = ViewLayout.of(view)
    together = layout.empty(3)
    feed(layout, together, events)

    partitions = data.draw(st.lists(st.integers(0, 3), min_size=len(events), max_size=len(events)))
    parts = [layout.empty(3) for _ in range(4)]
    for partition, part in enumerate(parts):
        feed(layout, part, [e for e, p in zip(events, partitions, strict=True) if p == partition])
    merged, *others = data.draw(st.permutations(parts))
    for part in others:
        merged = merge(layout, merged, part)

    assert merged.tobytes() == together.tobytes()


@given(views, trips, trips, trips)
def test_merge_is_commutative_and_associative_and_empty_rows_change_nothing(
    view: FeatureView, first: list[Trip], second: list[Trip], third: list[Trip]
) -> None:
    layout = ViewLayout.of(view)
    a, b, c = (layout.empty(3) for _ in range(3))
    for state, events in ((a, first), (b, second), (c, third)):
        feed(layout, state, events)

    assert merge(layout, a, b).tobytes() == merge(layout, b, a).tobytes()
    left = merge(layout, merge(layout, a, b), c)
    right = merge(layout, a, merge(layout, b, c))
    assert left.tobytes() == right.tobytes()
    assert merge(layout, a, layout.empty(3)).tobytes() == a.tobytes()


def test_only_named_rows_change() -> None:
    layout = ViewLayout.of(EVERYTHING)
    state = layout.empty(3)
    feed(layout, state, [one(0)])
    assert state[1:].tobytes() == layout.empty(2).tobytes()
    assert state[0].tobytes() != layout.empty(1).tobytes()
    assert state["events"].tolist() == [1, 0, 0]


def test_an_event_older_than_its_slot_is_counted_as_too_late_and_leaves_the_windows_alone() -> None:
    layout = ViewLayout.of(ONE_RING)  # 12 tiles of 10 s, 14 slots
    state = layout.empty(1)
    assert feed(layout, state, [one(1_400)]) == 0
    before = state.copy()

    assert feed(layout, state, [one(0), one(1_390)]) == 1

    before["events"] += 2
    before_tiles = before["tiles_0"][0].tolist()
    after_tiles = state["tiles_0"][0].tolist()
    assert sum(b != a for b, a in zip(before_tiles, after_tiles, strict=True)) == 1  # the tile of 1,390 s
    assert state["events"].tolist() == [3]


def test_an_event_is_too_late_only_if_no_window_can_hold_it() -> None:
    layout = ViewLayout.of(EVERYTHING)
    short, long = layout.rings[0], layout.rings[-1]
    assert short.slots * short.width_us < long.slots * long.width_us
    state = layout.empty(1)
    feed(layout, state, [one(2_000)])
    lag = short.slots * short.width_us // SECOND_US
    assert feed(layout, state, [one(2_000 - lag)]) == 0
    assert feed(layout, state, [one(2_000 - lag * long.slots * long.width_us // short.width_us)]) <= 1


def test_times_beyond_the_tiles_count_as_events_but_reach_no_window() -> None:
    layout = ViewLayout.of(ONE_RING)
    far = TILE_LIMIT * layout.base_us
    for time_us in (-1, -(2**62), far, 2**62):
        state = layout.empty(1)
        trip = Trip(place=0, time_us=time_us, delay=1.0, fare=1.0, late=True, known_us=0)
        assert feed(layout, state, [trip, one(0)]) == 1
        assert state["events"].tolist() == [2]
        assert state["newest"].tolist() == [max(time_us, START_US)]
        expected = layout.empty(1)
        feed(layout, expected, [one(0)])
        assert state["tiles_0"].tobytes() == expected["tiles_0"].tobytes()
        assert state["acc_0"].tobytes() == expected["acc_0"].tobytes()


def test_values_beyond_all_measure_are_nulls() -> None:
    layout = ViewLayout.of(EVERYTHING)
    strange, null = layout.empty(1), layout.empty(1)
    for value in (math.inf, -math.inf, LARGEST * 2):
        feed(layout, strange, [one(0, delay=value, fare=value)])
        feed(layout, null, [one(0, delay=None, fare=None)])
    assert strange.tobytes() == null.tobytes()


def test_an_empty_batch_changes_nothing() -> None:
    for view in (EVERYTHING, NEWEST_ONLY):
        layout = ViewLayout.of(view)
        state = layout.empty(2)
        nothing = np.empty(0, np.int64)
        assert apply_events(layout, state, nothing, nothing, columns([])) == 0
        assert state.tobytes() == layout.empty(2).tobytes()


def test_sums_are_exact_where_floats_alone_would_not_be() -> None:
    layout = ViewLayout.of(EVERYTHING)
    values = [0.1, 1e9, -1e9, 0.2, 7e8, -7e8] * 50
    forward, backward = layout.empty(1), layout.empty(1)
    feed(layout, forward, [one(0, delay=v, fare=v) for v in values])
    for value in sorted(values):
        feed(layout, backward, [one(0, delay=value, fare=value)])
    assert forward.tobytes() == backward.tobytes()


def test_squares_of_large_amounts_are_summed_exactly_too() -> None:
    # Their sum, 2e15, is far beyond the 2**37 below which single floats would add 2**-16 exactly.
    layout = ViewLayout.of(EVERYTHING)
    values = np.random.default_rng(3).normal(1e6, 1e4, 2_000)
    at_once, in_batches = layout.empty(1), layout.empty(1)
    feed(layout, at_once, [one(0, fare=v) for v in values])
    for batch in np.split(np.sort(values), 200):
        feed(layout, in_batches, [one(0, fare=v) for v in batch])
    assert at_once.tobytes() == in_batches.tobytes()

    read = read_state(layout, at_once, np.array([START_US]))
    deviation = read.values[0, [f.name for f in EVERYTHING.features].index("std_fare_5m")]
    assert math.isclose(deviation, values.std(), rel_tol=1e-6)
