"""Views of several sources: what is stored apart is joined when it is read, online and offline alike."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.features import (
    Entity,
    FeatureView,
    OnStale,
    Source,
    count,
    derived,
    feature,
    field,
    last,
    mean,
    time_since_last,
)
from driftline.features.event_columns import event_keys, micros
from driftline.features.joining import joined_values
from driftline.features.layout import ViewLayout
from driftline.features.matching import layout_inputs
from driftline.features.point_in_time import as_of_join
from driftline.features.read import FRESH, MISSING, STALE, ViewValues, read_state, same_bits
from driftline.features.update import apply_events

HOUR_US = 3_600_000_000
NOW_US = 472_222 * HOUR_US
AIRPORT = Entity("airport")
OUT = Source("departures", AIRPORT, "left_at", entity_field="origin")
IN = Source("arrivals", AIRPORT, "landed_at", entity_field="destination")
BACK = Source("departures", AIRPORT, "left_at", entity_field="destination", name="inbound")
WEATHER = FeatureView("weather", 1, Source("weather", AIRPORT, "seen_at"), [last("wind").or_default(-1.0)])
TRAFFIC = FeatureView(
    "traffic",
    2,
    OUT,
    [
        derived("balance", feature("arrivals_count_1h") - feature("count_1h")),
        count().over("1h"),
        count().of(IN).over("1h"),
        mean("delay").of(IN).over("3h").or_default(0.0),
        time_since_last().of(BACK),
        last("delay").of(IN).where(field("delay") > 0).named("last_late"),
        derived(
            "delay_by_wind", feature("arrivals_mean_delay_3h") / feature("weather__last_wind")
        ).or_default(9.0),
        mean("delay").over("3h"),
    ],
    joins=[IN, BACK, WEATHER],
)

#: What is stored with it fixes the windows' resolution.
WIDE = mean("delay").over("3h")


def table(rows: Sequence[Mapping[str, object]], *names: str) -> pa.Table:
    """Return events: the last name is the time's, ``delay`` and ``wind`` are numbers, the others texts."""
    kinds = {names[-1]: pa.timestamp("us"), "delay": pa.float64(), "wind": pa.float64()}
    return pa.table(
        {name: pa.array([one[name] for one in rows], kinds.get(name, pa.string())) for name in names}
    )


places = st.sampled_from(["JFK", "EWR", "LGA", None])
delays = st.one_of(st.none(), st.integers(-30, 300).map(float))
instants = st.integers(NOW_US - 5 * HOUR_US, NOW_US)
flights = st.lists(
    st.fixed_dictionaries({"origin": places, "destination": places, "delay": delays, "at": instants}),
    max_size=25,
)
sightings = st.lists(st.fixed_dictionaries({"airport": places, "wind": delays, "at": instants}), max_size=8)


def events_of(
    out: list[dict[str, object]], back: list[dict[str, object]], wind: list[dict[str, object]]
) -> dict[str, pa.Table]:
    timed = [
        [{**one, name: one["at"]} for one in rows]
        for name, rows in (("left_at", out), ("landed_at", back), ("seen_at", wind))
    ]
    return {
        "departures": table(timed[0], "origin", "destination", "delay", "left_at"),
        "arrivals": table(timed[1], "origin", "destination", "delay", "landed_at"),
        "weather": table(timed[2], "airport", "wind", "seen_at"),
    }


def online(view: FeatureView, events: Mapping[str, pa.Table], key: str, as_of_us: int) -> ViewValues:
    """Read what the feature store would have stored of an entity, each part by its own layout."""

    def stored(part: FeatureView) -> ViewValues:
        layout = ViewLayout.of(part)
        own = events[part.source.event_type]
        mine = own.filter(pa.compute.equal(event_keys(part.source, own), key))
        state = layout.empty(1)
        inputs = {
            name: column for name, column in layout_inputs(layout, mine).items() if name in layout.inputs
        }
        apply_events(
            layout, state, np.zeros(len(mine), np.int64), micros(mine[part.source.event_time]), inputs
        )
        return read_state(layout, state, np.array([as_of_us]))

    return joined_values(view, stored)


@given(flights, flights, sightings, st.sampled_from(["JFK", "EWR", "nowhere"]))
def test_the_store_and_the_training_join_give_the_same_bits(
    out: list, back: list, wind: list, key: str
) -> None:  # type: ignore[type-arg]
    events = events_of(out, back, wind)
    served = online(TRAFFIC, events, key, NOW_US)
    again = as_of_join(TRAFFIC, events, [key], np.array([NOW_US]))
    assert same_bits(served.values, again.values).all()
    assert (served.age_us.tolist(), served.status.tolist()) == (again.age_us.tolist(), again.status.tolist())
    # By the book: the parts are views like any other.
    alone = {
        "count_1h": FeatureView("a", 1, OUT, [count().over("1h"), WIDE]),
        "arrivals_count_1h": FeatureView("b", 1, IN, [count().over("1h"), WIDE]),
        "weather__last_wind": WEATHER,
    }
    found = {
        name: as_of_join(view, events[view.source.event_type], [key], np.array([NOW_US])).values[0, 0]
        for name, view in alone.items()
    }
    values = dict(zip([one.name for one in TRAFFIC.features], served.values[0].tolist(), strict=True))
    assert values["balance"] == found["arrivals_count_1h"] - found["count_1h"]
    ratio = (
        values["arrivals_mean_delay_3h"] / found["weather__last_wind"] if found["weather__last_wind"] else 9.0
    )
    assert values["delay_by_wind"] == ratio
    assert values["count_1h"] == found["count_1h"]


def test_each_source_is_stored_as_a_view_of_its_own() -> None:
    assert [part.ref for part in TRAFFIC.stored] == [
        "traffic.departures@2", "traffic.arrivals@2", "traffic.inbound@2", "weather@1",
    ]  # fmt: skip
    assert [part.part_of for part in TRAFFIC.parts] == ["traffic"] * 3
    assert TRAFFIC.columns[2] == "traffic__arrivals_count_1h"
    assert WEATHER.stored == WEATHER.parts == (WEATHER,)
    assert replace(TRAFFIC, joins=list(TRAFFIC.joins)) == TRAFFIC


def test_a_view_is_as_old_as_the_stream_that_is_furthest_behind() -> None:
    view = replace(TRAFFIC, ttl="2h", on_stale=OnStale.DEFAULT)
    flight = {"origin": "JFK", "destination": "JFK", "delay": 4.0}
    hour_ago, day_ago = NOW_US - HOUR_US, NOW_US - 24 * HOUR_US
    quiet = events_of([{**flight, "at": hour_ago}], [{**flight, "at": day_ago}], [])
    found = online(view, quiet, "JFK", NOW_US)
    values = dict(zip([one.name for one in view.features], found.values[0].tolist(), strict=True))
    assert found.age_us.tolist() == [24 * HOUR_US]
    assert found.status.tolist() == [STALE]
    assert (values["arrivals_mean_delay_3h"], values["mean_delay_3h"]) == (0.0, 4.0)
    fresh = online(view, events_of([{**flight, "at": hour_ago}], [], []), "JFK", NOW_US)
    assert (fresh.status.tolist(), fresh.age_us.tolist()) == ([FRESH], [HOUR_US])
    nothing = online(view, events_of([], [], []), "JFK", NOW_US)
    assert (nothing.status.tolist(), nothing.age_us.tolist()) == ([MISSING], [-1])
    refusing = replace(WEATHER, ttl="2h", on_stale="refuse")
    old = events_of([{**flight, "at": hour_ago}], [], [{"airport": "JFK", "wind": 1.0, "at": day_ago}])
    refused = online(replace(view, joins=[IN, BACK, refusing], on_stale="refuse"), old, "JFK", NOW_US)
    assert (refused.status.tolist(), refused.age_us.tolist()) == ([STALE], [HOUR_US])
    tables = [replace(IN, table=True), BACK, WEATHER]
    lookup = online(replace(view, joins=tables), quiet, "JFK", NOW_US)
    assert (lookup.status.tolist(), lookup.age_us.tolist()) == (
        [FRESH],
        [HOUR_US],
    )  # rows of a table do not grow old


def test_a_view_may_be_nothing_but_formulas_over_others() -> None:
    view = FeatureView("both", 1, OUT, [derived("sum", feature("weather__last_wind") + 1)], joins=[WEATHER])
    assert view.stored == (WEATHER,)
    found = as_of_join(
        view,
        events_of([], [], [{"airport": "JFK", "wind": 3.0, "at": NOW_US}]),
        ["JFK", "EWR"],
        np.array([NOW_US] * 2),
    )
    assert found.values.tolist() == [[4.0], [0.0]]
    outer = FeatureView("outer", 1, OUT, [derived("twice", 2 * feature("both__sum"))], joins=[view])
    found = as_of_join(outer, events_of([], [], []), ["JFK"], np.array([NOW_US]))
    assert (found.values.tolist(), outer.stored) == ([[0.0]], (WEATHER,))
    assert not math.isnan(found.values[0, 0])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"joins": [Source("gates", Entity("gate"), "at")]}, "is of 'airport' and joins 'gates', which is of 'gate'"),
        ({"joins": [IN, WEATHER]}, "is of source 'inbound', which the view does not join"),
        ({"joins": [IN, BACK, WEATHER, Source("sales", AIRPORT, "at")]}, "joins 'sales', and no feature reads it"),
        ({"joins": [IN, BACK, replace(BACK, name="arrivals"), WEATHER]}, "two sources or views named 'arrivals'"),
        ({"joins": [IN, BACK]}, "derived from 'weather__last_wind', which is no feature"),
        ({"where": field("delay") > 1}, "several sources, so its condition is said of features"),
        ({"joins": [IN, BACK, replace(WEATHER, ttl="1h", on_stale="refuse")]}, "so must this one"),
    ],
)  # fmt: skip
def test_mistakes_are_told_when_the_view_is_declared(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(TRAFFIC, **changes)  # type: ignore[arg-type]


def test_defaults_of_parts_and_of_formulas_are_told() -> None:
    found = online(TRAFFIC, events_of([], [], []), "JFK", NOW_US)
    assert found.defaulted is not None
    named = [
        one.name
        for one, default in zip(TRAFFIC.features, found.defaulted[0].tolist(), strict=True)
        if default
    ]
    assert named == ["arrivals_mean_delay_3h"]  # 0 by -1 is a number
    still = events_of([], [], [{"airport": "JFK", "wind": 0.0, "at": NOW_US}])
    calm = online(TRAFFIC, still, "JFK", NOW_US)
    assert calm.defaulted is not None
    assert calm.defaulted[0].tolist()[6], "a division by zero"
    assert calm.values[0].tolist()[6] == 9.0
