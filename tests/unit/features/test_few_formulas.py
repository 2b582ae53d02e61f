"""Values of a few rows are worked out in another way than those of many: the same bits."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.features import FeatureView, OnStale, count, mean
from driftline.features import read as reading
from driftline.features.layout import NEVER, ViewLayout
from driftline.features.read import ViewValues, finalize, read_state, same_bits
from driftline.features.update import LARGEST
from tests.unit.features.oracle import (
    DERIVED,
    EVERYTHING,
    SECOND_US,
    SOURCE,
    START_US,
    Trip,
    feed,
    offsets_us,
    trips,
    views,
)

#: Instants before and after all that are in tests, and such as no tile has.
EXTREMES = [-(2**62), -SECOND_US, -1, 0, 2**31 * SECOND_US, 2**33 * SECOND_US, 2**62]
#: Some views serve defaults, once stale too.
served = st.builds(
    lambda view, stale: replace(view, ttl="10s", on_stale=stale),
    st.one_of(views, st.just(EVERYTHING), st.just(DERIVED)),
    st.sampled_from([OnStale.SERVE, OnStale.DEFAULT]),
)
numbers = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 3.0, LARGEST, -LARGEST]),
    st.floats(-LARGEST, LARGEST),
    st.sampled_from([np.inf, -np.inf]),  # of no event
)


def assert_same(left: ViewValues, right: ViewValues) -> None:
    assert left.values.shape == right.values.shape
    assert left.values.dtype == right.values.dtype
    assert same_bits(left.values, right.values).all()
    assert left.age_us.dtype == right.age_us.dtype
    assert left.age_us.tolist() == right.age_us.tolist()
    assert left.status.dtype == right.status.dtype
    assert left.status.tolist() == right.status.tolist()
    assert (left.defaulted is None) == (right.defaulted is None)
    if left.defaulted is not None and right.defaulted is not None:
        assert left.defaulted.tolist() == right.defaulted.tolist()


@given(served, trips, st.lists(st.one_of(offsets_us, st.sampled_from(EXTREMES)), min_size=1, max_size=5))
def test_few_rows_are_read_as_many(view: FeatureView, events: list[Trip], offsets: list[int]) -> None:
    layout = ViewLayout.of(view)
    state = layout.empty(3)
    feed(layout, state, events)
    rows = np.arange(len(offsets)) % 3
    as_of = np.array([one if one in EXTREMES else START_US + one for one in offsets])

    with patch.object(reading, "MOST_VALUES", 10_000):
        few = read_state(layout, state[rows], as_of)
        alone = [read_state(layout, state[[row]], as_of[[at]]) for at, row in enumerate(rows)]
    with patch.object(reading, "MOST_VALUES", 0):
        many = read_state(layout, state[rows], as_of)

    assert_same(few, many)
    for at, one in enumerate(alone):
        assert_same(one, many.take(np.array([at])))


@given(st.data(), st.integers(1, 3), st.sampled_from([EVERYTHING, DERIVED]))
def test_any_totals_give_the_same_values(data: st.DataObject, rows: int, view: FeatureView) -> None:
    layout = ViewLayout.of(view)
    width = sum(len(ring.windows_us) * ring.columns for ring in layout.rings)
    lasts = len(layout.lasts)
    times = st.one_of(st.just(NEVER), st.integers(-(2**62), 2**62))

    def drawn(of: st.SearchStrategy, columns: int) -> list:
        return data.draw(
            st.lists(st.lists(of, min_size=columns, max_size=columns), min_size=rows, max_size=rows)
        )

    given_ = {
        "totals": np.array(drawn(numbers, width), np.float64).reshape(rows, width),
        "last_value": np.array(drawn(numbers, lasts), np.float64).reshape(rows, lasts),
        "last_time": np.array(drawn(times, lasts), np.int64).reshape(rows, lasts),
        "newest": np.array(drawn(times, 1), np.int64)[:, 0],
        "as_of_us": np.array(drawn(st.integers(0, 2**62), 1), np.int64)[:, 0],
    }
    with np.errstate(all="ignore"):
        with patch.object(reading, "MOST_VALUES", 10_000):
            few = finalize(layout, **given_)
        with patch.object(reading, "MOST_VALUES", 0):
            many = finalize(layout, **given_)

    assert_same(few, many)


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_sums_beyond_exactness_are_rounded_alike(rows: int) -> None:
    layout = ViewLayout.of(FeatureView("sums", 1, SOURCE, [count().over("60s"), mean("fare").over("600s")]))
    rng = np.random.default_rng(1)
    state = layout.empty(rows)
    state["newest"] = START_US
    state["tiles_0"] = START_US // layout.rings[0].width_us - np.arange(layout.rings[0].slots)
    state["acc_0"] = rng.normal(0, 2.0**60, state["acc_0"].shape)
    as_of = np.full(rows, START_US)

    together = read_state(layout, state, as_of).values

    for row in range(rows):
        alone = read_state(layout, state[row : row + 1], as_of[row : row + 1]).values
        assert alone.tobytes() == together[row : row + 1].tobytes()
