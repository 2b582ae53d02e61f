"""The merge of any split in any order is the profile of the whole, bit by bit; and the whole is what numpy says."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.monitoring.arrow_columns import numeric_values, text_hashes
from driftline.monitoring.category_counts import UNSEEN_NAMES
from driftline.monitoring.profile import Profile, merge_profiles
from driftline.monitoring.reference import build_reference
from driftline.monitoring.statistics import psi
from driftline.runtime.errors import BadMessageError, ConfigurationError

ROWS = 400


@pytest.fixture(scope="module")
def window(drawn):
    """Rows with strangers: new categories, values far out, infinite and missing ones, an identifier twice."""
    rows = drawn(9, ROWS, shift=0.3)
    rows.numeric["income"][[3, 5]] = 5e3, np.inf
    rows.numeric["delay"][7] = np.nan
    rows.categorical["carrier"][11] = None
    for place in range(60, 90):
        rows.categorical["carrier"][place] = f"new {place % 27}"
    rows.ids[20:24] = [rows.ids[19]] * 4
    return rows


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), parts=st.integers(1, 8), limit=st.sampled_from([7, 50, 500]))
def test_any_split_in_any_order_is_the_whole(seed, parts, limit, reference, window):
    g = np.random.default_rng(seed)
    owner, order = g.choice(parts, ROWS, p=g.dirichlet(np.full(parts, 0.5))), g.permutation(ROWS)
    profiles = [
        window.part(order[owner[order] == part]).profile(reference, sample_rows=limit)
        for part in range(parts)
    ]
    assert merge_profiles(profiles).to_bytes() == window.profile(reference, sample_rows=limit).to_bytes()


@settings(max_examples=40)
@given(st.lists(st.floats(-1e15, 1e15), min_size=2, max_size=40), st.integers(1, 39))
def test_sums_of_wild_values_merge_to_nine_digits(values, cut):
    reference = build_reference({"x": np.arange(10.0)}, {}, np.full(10, 0.5), None)
    numbers = np.array(values)

    def profile(part):
        return Profile.of(
            reference, [str(number) for number in part], {"x": part}, {}, np.full(len(part), 0.5)
        )

    one = profile(numbers[:cut]).merge(profile(numbers[cut:]))
    other = profile(numbers[cut:]).merge(profile(numbers[:cut]))
    assert one.sums[0] == other.sums[0]
    scale = np.abs(numbers - 4.5).sum()
    assert abs(one.sums[0] - profile(numbers).sums[0]) <= 1e-9 * scale
    assert one.squares[0] == pytest.approx(profile(numbers).squares[0], rel=1e-9)


def test_counts_are_numpys(reference, window):
    profile = window.profile(reference)
    for place, (name, column) in enumerate(zip(reference.numeric_names, reference.numeric, strict=True)):
        values = window.numeric[name]
        cells = np.searchsorted(column.edges, values[~np.isnan(values)], side="left")
        counts = np.bincount(cells, minlength=len(column.edges) + 1)
        assert profile.bins[place, : len(counts)].tolist() == counts.tolist()
        assert profile.missing[place] == np.isnan(values).sum()
        outside = (values < column.minimum) | (values > column.maximum)
        assert profile.out_of_range[place] == outside.sum()


def test_moments_are_numpys(reference, window):
    moments = window.profile(reference).moments(reference)
    income = window.numeric["income"][np.isfinite(window.numeric["income"])]
    assert moments["income"].count == ROWS - 1
    assert moments["income"].mean == pytest.approx(income.mean(), rel=1e-9)
    assert moments["income"].std == pytest.approx(income.std(), rel=1e-9)
    assert moments["income"].maximum == 5e3
    assert moments["score"].mean == pytest.approx(window.score.mean(), rel=1e-9)


def test_moments_of_large_numbers_keep_their_spread():
    values = 1.7e15 + np.random.default_rng(0).normal(0, 1e6, 1000)
    reference = build_reference({"at": values}, {}, np.full(1000, 0.5), None)
    profile = Profile.of(
        reference, [str(number) for number in range(1000)], {"at": values}, {}, np.full(1000, 0.5)
    )
    assert profile.moments(reference)["at"].std == pytest.approx(values.std(), rel=1e-6)


def test_categories_are_kept_other_or_unseen():
    reference = build_reference({}, {"c": ["a", "a", "b", "x"]}, np.full(4, 0.5), None, categories_kept=1)
    column = pa.chunked_array([["a", "b", None], ["x", "y", "y"]])
    profile = Profile.of(reference, list("123456"), {}, {"c": column}, np.full(6, 0.5))
    assert profile.cells.tolist() == [[1, 2, 2]]
    assert profile.category_missing.tolist() == [1]
    assert profile.unseen == ({"y": 2},)
    dictionary = Profile.of(reference, list("123456"), {}, {"c": column.dictionary_encode()}, np.full(6, 0.5))
    assert dictionary.to_bytes() == profile.to_bytes()


def test_unseen_categories_are_bounded_and_counted_whole(reference, window):
    unseen = window.profile(reference).unseen[0]
    assert len(unseen) == UNSEEN_NAMES
    assert all(unseen[name] == window.categorical["carrier"].count(name) for name in unseen)
    assert window.profile(reference).cells[0, -1] == 30


def test_the_sample_is_the_rows_with_the_smallest_hashes(reference, window):
    sample = window.profile(reference, sample_rows=50).sample
    hashes = text_hashes(window.ids)
    assert sample.hashes.tolist() == sorted(hashes.tolist())[:50]
    place = int(np.argmin(hashes))
    assert sample.rows[0, -1] == window.score[place]
    assert sample.rows[0, 0] == window.numeric["delay"][place]


def test_the_sample_is_uniform():
    """Ids that count up, as UUIDv7 do, must not choose early rows or late ones."""
    reference = build_reference({}, {}, np.array([0.5]), None)
    means = []
    for day in range(40):
        ids = [f"0190a6c5-7b2e-7c11-8000-{day:04x}{number:08x}" for number in range(2000)]
        profile = Profile.of(reference, ids, {}, {}, np.arange(2000) / 2000, sample_rows=100)
        means.append(profile.sample.rows[:, 0].mean())
    # 40 means of 100 uniform values: one standard error is .0046.
    assert np.mean(means) == pytest.approx(0.5, abs=0.019)
    assert np.std(means) == pytest.approx(np.sqrt(1 / 12 / 100), rel=0.5)


@given(st.lists(st.text(max_size=70), min_size=1, max_size=20))
def test_a_hash_does_not_depend_on_its_batch(texts):
    assert [int(text_hashes([text])[0]) for text in texts] == text_hashes(texts).tolist()
    assert text_hashes(pa.array(["other", *texts])[1:]).tolist() == text_hashes(texts).tolist()


HASHES = [763785739628184597, 16294208416658607535, 12213114911819052007]


def test_hashes_stay_as_they_are():
    """Samples merge between releases only as long as the hash does not change."""
    assert text_hashes(["0190a6c5-7b2e-7c11-8000-0123456789ab", "", "é"]).tolist() == HASHES


def test_arrow_columns_become_floats():
    assert numeric_values(pa.chunked_array([[1, None], [3]])).tolist()[::2] == [1.0, 3.0]
    assert np.isnan(numeric_values(pa.array([None, True]))[0])
    assert numeric_values(pa.array([None, True]))[1] == 1.0


def test_bytes_round_trip(reference, window):
    profile = window.profile(reference)
    read = Profile.from_bytes(profile.to_bytes())
    assert read.to_bytes() == profile.to_bytes()
    assert read.unseen == profile.unseen
    np.testing.assert_array_equal(read.sample.rows, profile.sample.rows)


def test_an_empty_batch_changes_nothing(reference, window):
    empty = window.part(np.array([], dtype=int)).profile(reference)
    assert empty.rows == 0
    assert window.profile(reference).merge(empty).to_bytes() == window.profile(reference).to_bytes()
    assert Profile.from_bytes(empty.to_bytes()).to_bytes() == empty.to_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"XXXX" + data[4:],
        lambda data: data[:4] + b"\x63" + data[5:],
        lambda data: data[:5] + b"\xff\xff\xff\xff" + data[9:],
        lambda data: data[:5] + b"\x01\x00\x00\x00" + data[9:],
        lambda data: data[:40] + bytes([data[40] ^ 0xFF]) + data[41:],
    ],
)
def test_damaged_bytes_are_a_bad_message(damage, reference, window):
    with pytest.raises(BadMessageError):
        Profile.from_bytes(damage(window.profile(reference, sample_rows=5).to_bytes()))


def test_profiles_of_two_references_do_not_merge(reference, window, training, build):
    other = build(training, seed=3)
    with pytest.raises(ValueError, match="do not merge"):
        window.profile(reference).merge(window.profile(other))


def test_a_missing_column_is_named(reference, window):
    numeric = {name: column for name, column in window.numeric.items() if name != "wind"}
    with pytest.raises(ConfigurationError, match="wind"):
        Profile.of(reference, window.ids, numeric, window.categorical, window.score)


def test_columns_of_different_lengths_are_refused(reference, window):
    with pytest.raises(ValueError, match="length"):
        Profile.of(reference, window.ids[1:], window.numeric, window.categorical, window.score)


def test_statistics_of_merged_profiles_are_those_of_the_sample(plain, convention_pair):
    before, after = convention_pair
    reference, _ = plain(before, after)
    parts = [plain(before, part)[1] for part in np.array_split(after, 5)]
    merged = merge_profiles(parts)
    assert float(psi(reference.numeric[0].counts, merged.bins[0])) == pytest.approx(0.112501, abs=5e-7)
