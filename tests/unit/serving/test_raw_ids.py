"""A column's UUIDs are read as one by one."""

import uuid

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from driftline.runtime.ids import are_made, is_made, made_id, new_id
from driftline.serving.claims import raw_id
from driftline.serving.raw_ids import raw_ids

_UUIDS = st.uuids().map(str) | st.builds(made_id)
_NEARLY = st.tuples(_UUIDS, st.integers(0, 35), st.sampled_from("g-0fFü\x00")).map(
    lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
)
_TEXTS = st.none() | _UUIDS | _UUIDS.map(str.upper) | _NEARLY | st.text(max_size=40)


@given(st.lists(_TEXTS, max_size=12), st.integers(0, 3))
def test_of_a_column_and_one_by_one(texts: list[str | None], start: int) -> None:
    rows, raw = raw_ids(pa.array(texts, pa.string())[start:])
    expected = {
        row: found
        for row, text in enumerate(texts[start:])
        if text is not None and (found := raw_id(text)) is not None
    }
    assert dict(zip(rows.tolist(), (one.tobytes() for one in raw), strict=True)) == expected


@given(st.lists(_UUIDS, max_size=20))
def test_made_ones_are_known_together_and_alone(texts: list[str]) -> None:
    together = are_made(b"".join(uuid.UUID(text).bytes for text in texts))
    assert together.tolist() == [is_made(text) for text in texts]


def test_made_ones_are_new_and_in_order() -> None:
    made = [made_id() for _ in range(2_000)]
    assert made == sorted(set(made))
    assert all(map(is_made, made))
    assert {uuid.UUID(one).version for one in made} == {7}
    assert np.mean([is_made(new_id()) for _ in range(2_000)]) < 0.01
