import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.features import (
    FeatureView,
    OnStale,
    count,
    decayed_mean,
    last,
    maximum,
    mean,
    std,
    time_since_last,
)
from driftline.features.layout import ViewLayout
from driftline.features.point_in_time import as_of_join
from driftline.features.read import ViewValues, read_state
from tests.unit.features.oracle import (
    CATEGORIES,
    DECAYED,
    EVERYTHING,
    SECOND_US,
    SOURCE,
    START_US,
    Trip,
    feed,
    offsets_us,
    table,
    trips,
    views,
)

questions = st.lists(st.tuples(st.integers(0, 3), offsets_us), max_size=12)


def from_the_store(
    view: FeatureView, events: list[Trip], asked: list[tuple[int, int]], *, known: bool
) -> list[tuple[bytes, int, int]]:
    """Feed a store in the order in which events became known, stopping at each instant to read."""
    layout = ViewLayout.of(view)
    answers = []
    for place, as_of in asked:
        state = layout.empty(4)
        in_order = sorted(events, key=lambda e: e.known_us if known else e.time_us)
        feed(layout, state, [e for e in in_order if (e.known_us if known else e.time_us) <= as_of])
        answers += as_tuples(read_state(layout, state[place : place + 1], np.array([as_of])))
    return answers


def as_tuples(read: ViewValues) -> list[tuple[bytes, int, int]]:
    return [
        (values.tobytes(), int(age), int(status))
        for values, age, status in zip(read.values, read.age_us, read.status, strict=True)
    ]


def join(
    view: FeatureView, events: list[Trip], asked: list[tuple[int, int]], known_at: str | None
) -> ViewValues:
    keys = [f"p{place}" for place, _ in asked]
    as_of = np.array([as_of for _, as_of in asked], np.int64)
    return as_of_join(view, table(events), keys, as_of, known_at=known_at)


@given(views, trips, questions, st.sampled_from(["known_at", None]))
def test_the_join_is_the_store_at_that_instant(
    view: FeatureView, events: list[Trip], questions: list[tuple[int, int]], known_at: str | None
) -> None:
    asked = [(place, START_US + offset) for place, offset in questions]
    # Boundaries are where mistakes live: ask at, before and after some of the events' instants too.
    for event in events[:5]:
        asked += [(event.place, event.known_us + shift) for shift in (-1, 0, 1)]
        asked += [(event.place, event.time_us)]

    joined = as_tuples(join(view, events, asked, known_at))

    assert joined == from_the_store(view, events, asked, known=known_at is not None)


@given(trips, questions, st.sampled_from(list(OnStale)))
def test_time_to_live_is_the_stores(
    events: list[Trip], questions: list[tuple[int, int]], on_stale: OnStale
) -> None:
    features = [count().over("5m"), mean("fare").over("1m").or_default(2.0), last("delay"), time_since_last()]
    view = FeatureView("aging", 1, SOURCE, features, ttl="2m", on_stale=on_stale)
    asked = [(place, START_US + offset) for place, offset in questions]
    assert as_tuples(join(view, events, asked, "known_at")) == from_the_store(view, events, asked, known=True)


@pytest.mark.parametrize("view", [EVERYTHING, DECAYED, CATEGORIES], ids=lambda view: view.name)
@pytest.mark.parametrize("lag_s", [0, 45, -45])
def test_a_long_history_agrees_too(lag_s: int, view: FeatureView) -> None:
    random = np.random.default_rng(lag_s + 100)
    events = [
        Trip(
            place=int(random.integers(3)),
            time_us=(time_us := START_US + int(random.integers(20_000 * SECOND_US))),
            delay=float(random.normal(0, 40)),
            fare=None if random.random() < 0.3 else float(random.normal(1e4, 1e3)),
            late=bool(random.random() < 0.2),
            kind=str(random.choice(["cab", "bus", "tram", "bike"])),
            rider=str(random.integers(500)),
            known_us=time_us + lag_s * SECOND_US,
        )
        for _ in range(3_000)
    ]
    asked = [
        (int(random.integers(3)), START_US + int(random.integers(21_000 * SECOND_US))) for _ in range(60)
    ]
    assert as_tuples(join(view, events, asked, "known_at")) == from_the_store(view, events, asked, known=True)


def test_events_without_entity_or_time_are_left_out_and_null_keys_are_missing() -> None:
    view = FeatureView("v", 1, SOURCE, [count().over("1h")])
    time = pa.scalar(START_US, pa.int64()).cast(pa.timestamp("us"))
    events = pa.table(
        {"place": ["a", None, "a"], "ended_at": pa.array([time, time, None], pa.timestamp("us"))}
    )
    read = as_of_join(view, events, ["a", None, "unknown"], np.full(3, START_US))
    assert read.values[:, 0].tolist() == [1.0, 0.0, 0.0]
    assert read.age_us.tolist() == [0, -1, -1]


def test_values_too_large_for_exact_sums_still_come_from_the_kernels() -> None:
    view = FeatureView(
        "v",
        1,
        SOURCE,
        [
            maximum("fare").over("1h"),
            mean("fare").over("1h"),
            std("fare").over("1h"),
            decayed_mean("fare", half_life="1h"),
        ],
    )
    events = [
        Trip(0, START_US + i, None, fare, None, START_US + i) for i, fare in enumerate([1e300, 1e25, 3.0])
    ]
    asked = [(0, START_US + 10)]
    joined = join(view, events, asked, None)
    assert as_tuples(joined) == from_the_store(view, events, asked, known=False)
    assert joined.values[0, 0] == 1e25


@pytest.mark.parametrize("zone", [None, "UTC"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_any_unit_are_understood(unit: str, zone: str | None) -> None:
    view = FeatureView("v", 1, SOURCE, [time_since_last()])
    times = pa.array([START_US], pa.timestamp("us", zone)).cast(pa.timestamp(unit, zone))
    events = pa.table({"place": pa.array(["a"]).dictionary_encode(), "ended_at": times})
    keys = pa.chunked_array([["a"], ["b"]])
    read = as_of_join(view, events.to_batches()[0], keys, np.full(2, START_US + 5 * SECOND_US))
    assert read.values[0, 0] == 5.0
    assert read.age_us.tolist() == [5 * SECOND_US, -1]
