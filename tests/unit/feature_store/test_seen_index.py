"""The seen index against a dictionary."""

import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from services.feature_store.seen_index import KEPT_HOURS, SeenIndex, hash_ids


def test_hashes_are_xxhash64_of_the_text() -> None:
    ids = pa.array(["a", "", "ünï", "b" * 100]).slice(1)
    assert hash_ids(ids).tolist() == [xxhash.xxh64_intdigest(text.encode()) for text in ids.to_pylist()]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 0, 0, 1, 5, 30])), max_size=200),
    st.lists(st.integers(1, 30), min_size=1, max_size=30),
)
def test_decides_like_a_dictionary_whatever_the_batches(log: list[tuple[int, int]], sizes: list[int]) -> None:
    hashes = np.array([xxhash.xxh64_intdigest(b"%d" % number) for number, _ in log], np.uint64)
    hours = np.cumsum([step for _, step in log]).astype(np.int64)
    seen: dict[int, int] = {}
    expected = []
    for one, hour in zip(hashes.tolist(), hours.tolist(), strict=True):
        expected.append(one not in seen or seen[one] < hour - KEPT_HOURS)
        if expected[-1]:
            seen[one] = hour
    index, found, start, turn = SeenIndex(), [], 0, 0
    while start < len(log):
        end = start + sizes[turn % len(sizes)]
        found += index.add_new(hashes[start:end], hours[start:end]).tolist()
        start, turn = end, turn + 1
    assert found == expected


def test_many_ids_are_found_again_after_growth_and_reload() -> None:
    random = np.random.default_rng(1)
    index, reloaded = SeenIndex(), SeenIndex()
    batches = [random.integers(0, 2**64, 10_000, np.uint64) for _ in range(30)]
    for number, batch in enumerate(batches):
        hours = np.full(len(batch), 100 + number // 10, np.int64)
        assert index.add_new(batch, hours).all()
        reloaded.load(100 + number // 10, batch)
    later = np.full(10_000, 103, np.int64)
    for batch in batches:
        assert not index.add_new(batch, later).any()
        assert not reloaded.add_new(batch, later).any()
    assert len(index) == 300_000
    assert index.forget_before(101 + KEPT_HOURS) == [100]
    assert index.add_new(batches[0], np.full(10_000, 101 + KEPT_HOURS)).all()
