import pickle
from dataclasses import replace

import numpy as np
import pytest

from driftline.features import (
    Feature,
    FeatureView,
    Source,
    count,
    field,
    last,
    mean,
    minimum,
    std,
    time_since_last,
)
from driftline.features.layout import NEVER, ViewLayout
from driftline.features.rings import FEWEST_TILES, MOST_TILES
from driftline.runtime.durations import format_duration, parse_duration_us
from driftline.runtime.errors import ConfigurationError
from tests.unit.features.oracle import DERIVED, FILTERED_VIEW, SOURCE, VIEWS


def view(*features: Feature, tile: str = "", source: Source = SOURCE, name: str = "v") -> FeatureView:
    return FeatureView(name, 1, source, list(features), tile=tile)


@pytest.mark.parametrize(
    ("windows", "rings"),
    [
        (["1h"], [("2m", 30)]),
        (["1m"], [("2s", 30)]),
        (["1h", "3h"], [("5m", 36)]),
        (["1h", "3h", "24h"], [("5m", 36), ("1h", 24)]),
        (["1h", "7d"], [("2m", 30), ("6h", 28)]),
        (["24h", "7d"], [("4h", 42)]),
        (["1m", "1h", "1d", "4w"], [("2s", 30), ("2m", 30), ("1h", 24), ("1d", 28)]),
    ],
)
def test_windows_are_grouped_into_rings(windows: list[str], rings: list[tuple[str, int]]) -> None:
    layout = ViewLayout.of(view(*(count().over(window) for window in windows)))
    found = [(format_duration(r.width_us), r.windows_us[-1] // r.width_us) for r in layout.rings]
    assert [(parse_duration_us(a), b) for a, b in found] == [(parse_duration_us(a), b) for a, b in rings]


def test_every_ring_divides_its_windows_and_has_slack() -> None:
    windows = ["10s", "1m", "90s", "7m", "1h", "100m", "5h", "1d", "3d", "1w", "4w", "8w"]
    layout = ViewLayout.of(view(*(count().over(window) for window in windows)))
    for ring in layout.rings:
        for window in ring.windows_us:
            assert window % ring.width_us == 0
            assert FEWEST_TILES <= window // ring.width_us <= MOST_TILES
        assert ring.slots > ring.windows_us[-1] // ring.width_us
    assert sorted(w for r in layout.rings for w in r.windows_us) == [parse_duration_us(w) for w in windows]


def test_a_declared_tile_makes_one_ring() -> None:
    layout = ViewLayout.of(view(count().over("1h"), count().over("1d"), tile="15m"))
    assert [(r.width_us, r.slots) for r in layout.rings] == [(parse_duration_us("15m"), 98)]


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (view(count().over("1h"), tile="7m"), "does not divide the window 1h"),
        (view(count().over("1h"), tile="1500ms"), "whole number of seconds"),
        (view(count().over("4w"), tile="1m"), "at most 2,000"),
        (view(count().over("1500ms")), "rounder window"),
        (view(count().over("5s")), "rounder window"),
        (view(count().over("3607s")), "rounder window"),
    ],
)
def test_windows_that_do_not_fit_are_explained(declared: FeatureView, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ViewLayout.of(declared)


def test_features_share_accumulators() -> None:
    layout = ViewLayout.of(
        view(mean("x").over("1h"), std("x").over("1h"), count("x").over("1h"), mean("x").over("2h"))
    )
    assert [str(item) for item in layout.rings[0].accumulators] == [
        "count(x)",
        "sum(x)",
        "square_high(x)",
        "square_low(x)",
    ]


@pytest.mark.parametrize("each", VIEWS, ids=lambda each: each.name)
def test_rows_are_aligned_and_without_gaps(each: FeatureView) -> None:
    layout = ViewLayout.of(each)
    fields = layout.dtype.fields
    assert fields is not None
    assert sum(kind.itemsize for kind, _ in fields.values()) == layout.blob_bytes
    assert layout.blob_bytes % 8 == 0
    for name, (kind, offset) in fields.items():
        assert offset % kind.base.itemsize == 0, name
    blank = layout.empty(2)
    assert blank["newest"].tolist() == [NEVER, NEVER]
    assert np.frombuffer(blank.tobytes(), layout.dtype).tobytes() == blank.tobytes()


def test_the_fingerprint_tells_what_the_bytes_depend_on() -> None:
    base = view(mean("x").over("1h"), last("y"))
    same = [
        view(last("y").named("z"), mean("x").over("1h").or_default(3.0), name="other"),
        view(mean("x").over("1h"), count("x").over("1h"), last("y"), time_since_last()),
    ]
    other = [
        view(mean("x").over("2h"), last("y")),
        view(mean("x").over("1h"), last("x")),
        view(mean("x").over("1h"), minimum("x").over("1h"), last("y")),
        view(mean("x").over("1h"), last("y"), tile="10m"),
        view(
            mean("x").over("1h"), last("y"), source=Source("trips", SOURCE.entity, "ended_at", "from_place")
        ),
        view(mean("x").over("1h"), last("y"), source=Source("trips", SOURCE.entity, "began_at")),
        view(mean("x").where(field("z") > 1).over("1h").named("m"), last("y")),
        view(mean("x").where(field("z") > 2).over("1h").named("m"), last("y")),
        view(mean("x").over("1h"), last("y").where(field("z") > 1).named("l")),
        replace(base, where=field("z") > 1),
        replace(base, where=field("z") >= 1),
    ]
    fingerprint = ViewLayout.of(base).fingerprint
    assert all(ViewLayout.of(each).fingerprint == fingerprint for each in same)
    assert all(ViewLayout.of(each).fingerprint != fingerprint for each in other)
    assert len({ViewLayout.of(each).fingerprint for each in other}) == len(other)


def test_features_under_one_condition_share_accumulators_but_not_with_others() -> None:
    late = field("late").is_true()
    layout = ViewLayout.of(
        view(
            mean("x").over("1h"),
            mean("x").where(late).over("1h").named("late_x"),
            count("x").where(late).over("1h").named("late_xs"),
            count().where(late).over("1h").named("lates"),
        )
    )
    assert [str(item) for item in layout.rings[0].accumulators] == [
        "count(where late is true)",
        "count(x)",
        "count(x where late is true)",
        "sum(x)",
        "sum(x where late is true)",
    ]
    assert layout.fields == ("x",)


def test_equal_views_share_a_layout() -> None:
    declared = replace(DERIVED, where=FILTERED_VIEW.where)
    assert ViewLayout.of(declared) is ViewLayout.of(pickle.loads(pickle.dumps(declared)))


def test_describe_says_what_an_entity_costs() -> None:
    text = ViewLayout.of(view(count().over("1h"), count().over("1d"), last("x"))).describe()
    assert text.splitlines() == [
        "v@1: 736 bytes per entity",
        "  windows 1h: 30 tiles of 2m (their resolution), 32 slots of count()",
        "  windows 1d: 24 tiles of 1h (their resolution), 26 slots of count()",
        "  newest value of x",
    ]
