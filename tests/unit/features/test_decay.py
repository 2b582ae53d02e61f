"""Exponential decay: how far it is from the book, that it is the same to the bit, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.features import FeatureView, count, decayed_count, decayed_mean, decayed_sum, mean
from driftline.features.aggregations import DECAY_HALF_LIVES, Aggregate, Feature
from driftline.features.decay import tile_weights
from driftline.features.differences import view_differences
from driftline.features.layout import ViewLayout
from driftline.features.read import read_state
from driftline.runtime.durations import format_duration, parse_duration_us
from driftline.runtime.errors import ConfigurationError
from tests.unit.features.oracle import DECAYED, SECOND_US, SOURCE, START_US, Trip, feed

HALF_LIFE_S = 60


def view(*features: Feature, tile: str = "") -> FeatureView:
    return FeatureView("v", 1, SOURCE, list(features), tile=tile)


def trip(time_us: int, delay: float) -> Trip:
    return Trip(place=0, time_us=time_us, delay=delay, fare=None, late=None, known_us=time_us)


def read(layout: ViewLayout, events: list[Trip], as_of_us: int) -> np.ndarray:
    state = layout.empty(1)
    feed(layout, state, events)
    return read_state(layout, state, np.array([as_of_us])).values[0]


seconds = st.floats(0, (DECAY_HALF_LIVES - 1) * HALF_LIFE_S, allow_nan=False)


@given(st.lists(st.tuples(seconds, st.floats(0, 1e4)), min_size=1, max_size=30))
def test_a_weight_is_off_by_a_twelfth_of_a_half_life_at_most(aged: list[tuple[float, float]]) -> None:
    layout = ViewLayout.of(view(decayed_count(half_life="1m"), decayed_sum("delay", half_life="1m")))
    now = START_US + 10_000 * SECOND_US + 3_210_000
    events = [trip(now - int(age * SECOND_US), value) for age, value in aged]
    number, total = read(layout, events, now)
    exact = [2 ** (-age / HALF_LIFE_S) for age, _ in aged]
    weighed = sum(w * value for w, (_, value) in zip(exact, aged, strict=True))
    most = 2 ** (1 / 12) + 1e-9
    assert sum(exact) / most <= number <= sum(exact) * most
    assert weighed / most - 1e-3 <= total <= weighed * most + 1e-3


def test_steady_traffic_is_weighed_without_bias_but_for_what_is_cut_off() -> None:
    layout = ViewLayout.of(view(decayed_count(half_life="1m")))
    reads = []
    for phase_us in range(250_000, 5 * SECOND_US, 500_000):
        now = START_US + 600 * SECOND_US + phase_us
        events = [trip(now - tenth * 100_000 - 50_000, 1.0) for tenth in range(6_000)]
        reads.append(read(layout, events, now)[0] / 10)
    endless = HALF_LIFE_S / math.log(2)
    assert np.mean(reads) == pytest.approx(endless * (1 - 2**-8), rel=0.002)


def test_an_event_counts_fully_now_half_after_a_half_life_and_not_after_eight() -> None:
    layout = ViewLayout.of(view(decayed_count(half_life="1m"), decayed_mean("delay", half_life="1m")))
    start = START_US // (5 * SECOND_US) * 5 * SECOND_US
    for half_lives, weight in ((0, 1.0), (1, 0.5), (7, 2.0**-7), (8, 0.0)):
        number, average = read(layout, [trip(start, 4.0)], start + half_lives * HALF_LIFE_S * SECOND_US)
        assert number == weight
        assert average == 4.0 or (math.isnan(average) and weight == 0)


def test_events_to_come_do_not_count() -> None:
    layout = ViewLayout.of(view(decayed_count(half_life="1m"), decayed_sum("delay", half_life="1m")))
    values = read(layout, [trip(START_US + 60 * SECOND_US, -4.0)], START_US)
    assert values.tobytes() == np.zeros(2).tobytes()


def test_weights_are_the_same_bits_on_every_machine() -> None:
    weights = tile_weights(12, 1, 25)
    assert [weight.hex() for weight in weights[[0, 1, 7, 12, 24, 25]].tolist()] == [
        "0x1.0000000000000p+0",
        "0x1.e3437e7101344p-1",
        "0x1.55b8108f0ec5ep-1",
        "0x1.0000000000000p-1",
        "0x1.0000000000000p-2",
        "0x0.0p+0",
    ]


@pytest.mark.parametrize(
    ("half_life", "tile", "width", "tiles"),
    [
        ("1m", "", "5s", 96),
        ("6h", "", "30m", 96),
        ("7d", "", "14h", 96),
        ("1000s", "", "50s", 160),
        ("1h", "1m", "1m", 480),
    ],
)
def test_tiles_of_a_half_life(half_life: str, tile: str, width: str, tiles: int) -> None:
    (ring,) = ViewLayout.of(view(decayed_count(half_life=half_life), tile=tile)).rings
    assert (format_duration(ring.width_us), ring.slots) == (width, tiles + 2)
    assert ring.half_life_us == parse_duration_us(half_life)


def test_each_half_life_has_a_ring_beside_those_of_windows() -> None:
    text = ViewLayout.of(
        view(mean("x").over("8m"), decayed_mean("x", half_life="1m"), decayed_count(half_life="1m"))
    )
    assert text.describe().splitlines() == [
        "v@1: 3,288 bytes per entity",
        "  windows 8m: 24 tiles of 20s (their resolution), 26 slots of count(x), sum(x)",
        "  half-life 1m: 96 tiles of 5s (their resolution), 98 slots of count(), count(x), sum(x)",
    ]


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            view(decayed_count(half_life="1013s")),
            "the half-life 1013s into 12 to 24 tiles; take a rounder half-life",
        ),
        (view(decayed_count(half_life="1500ms")), "take a rounder half-life"),
        (view(decayed_count(half_life="5s")), "take a rounder half-life"),
        (view(decayed_count(half_life="1h"), tile="7m"), "tile '7m' does not divide the half-life 1h"),
        (view(decayed_count(half_life="1h"), tile="30m"), "into 6 to 250 tiles"),
        (view(decayed_count(half_life="1h"), tile="1s"), "into 6 to 250 tiles"),
    ],
)
def test_half_lives_that_do_not_fit_are_explained(declared: FeatureView, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ViewLayout.of(declared)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda: decayed_mean("x", half_life="1h").over("3h"),
            "weighs events by its half-life and takes no window",
        ),
        (lambda: decayed_mean("x", half_life="soon"), "soon"),
        (
            lambda: view(Feature(Aggregate.DECAYED_MEAN, "x", window_us=SECOND_US)),
            "only they, have a half-life",
        ),
        (lambda: view(Feature(Aggregate.MEAN, "x", half_life_us=SECOND_US)), "only they, have a half-life"),
        (
            lambda: view(decayed_count(half_life="1h").where(SOURCE)),
            "where takes a condition",
        ),
    ],
)
def test_what_is_no_decayed_feature_is_refused(wrong: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        wrong()  # type: ignore[operator]


def test_another_half_life_is_told() -> None:
    before = view(decayed_mean("x", half_life="6h"), count().over("1h"))
    after = view(decayed_mean("x", half_life="1d"), count().over("1h"))
    assert [str(one) for one in view_differences(before, after)] == [
        "half-lives: 6h became 1d",
        "tiles: 2m, 30m became 2m, 2h",
        "column v__decayed_mean_x_6h removed: decayed_mean(x) with a half-life of 6h",
        "column v__decayed_mean_x_1d added: decayed_mean(x) with a half-life of 1d",
    ]
    assert ViewLayout.of(before).fingerprint != ViewLayout.of(after).fingerprint


def test_a_window_as_long_as_a_half_lifes_span_is_another_ring() -> None:
    names = [feature.name for feature in DECAYED.features]
    layout = ViewLayout.of(DECAYED)
    assert layout.rings[0].windows_us == layout.rings[1].windows_us
    values = read(layout, [trip(START_US, 1.0)], START_US + 4 * HALF_LIFE_S * SECOND_US)
    assert values[names.index("count_8m")] == 1.0
    assert values[names.index("decayed_count_1m")] < 0.1
