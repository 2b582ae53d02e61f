"""The moving average equals its definition, row by row."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftline.models.quality import moving_average, quality

times = st.integers(0, 200)


@given(
    known=st.lists(st.tuples(times, st.booleans()), max_size=40),
    as_of=st.lists(times, min_size=1, max_size=20),
    window=st.integers(1, 100),
)
def test_the_moving_average_is_the_share_of_what_was_known(
    known: list[tuple[int, bool]], as_of: list[int], window: int
) -> None:
    found = moving_average(
        np.array([time for time, _ in known], dtype=np.int64),
        np.array([label for _, label in known], dtype=bool),
        np.array(as_of, dtype=np.int64),
        window_us=window,
        fallback=0.25,
    )
    for instant, share in zip(as_of, found, strict=True):
        labels = [label for time, label in known if instant - window < time <= instant]
        assert share == (sum(labels) / len(labels) if labels else 0.25)


def test_one_class_has_no_area_under_the_curve() -> None:
    found = quality(np.array([True, True]), np.array([0.5, 0.5]))
    assert np.isnan(found.auc)
    assert found.brier == 0.25
