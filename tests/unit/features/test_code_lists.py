"""A renumbered code list changes no feature; what has no counterpart is nobody's code."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.features import Entity, FeatureView, Source, distinct_count, field, last, most_frequent, share
from driftline.features.code_lists import CodedField, CodeList, CodeVersion
from driftline.features.differences import view_differences
from driftline.features.layout import ViewLayout
from driftline.features.point_in_time import as_of_join
from driftline.features.read import read_state
from driftline.features.update import apply_events
from driftline.runtime import metrics
from services.feature_store.partition_state import _of_view, _read_by, _rows_of

NOW_US = 1_750_000_000_000_000
SINCE_US = NOW_US + 30_000_000


def version(number: int, since_us: int, forward: dict[str, str], **back: str) -> CodeVersion:
    backward = {**{new: old for old, new in forward.items()}, **back}
    return CodeVersion(
        version=number, since_us=since_us, forward=tuple(forward.items()), backward=tuple(backward.items())
    )


#: Every code of the second list is one of the first that means something else.
SWAP = {"A": "B", "B": "C", "C": "A"}
CODES = CodeList(name="classes", versions=(version(2, SINCE_US, SWAP),), reads=1)


def view(codes: CodeList | None, *classes: str) -> FeatureView:
    coded = () if codes is None else (CodedField(field="class", codes=codes),)
    first, second, third = classes
    return FeatureView(
        "buys",
        1,
        Source("purchases", Entity("customer"), "bought_at", codes=coded),
        [
            share("class", first).over("1h"),
            most_frequent("class", among=(second, first)).over("1h"),
            last("class", among=(third, first, second)),
            share("class", third).where(field("class") != second).over("1h").named("rest"),
        ],
        where=field("class").is_in(first, second, third),
    )


def table(codes: list[str | None]) -> pa.RecordBatch:
    time_us = NOW_US + np.arange(len(codes)) * 1_000_000
    return pa.record_batch(
        {
            "customer": ["ann"] * len(codes),
            "bought_at": pa.array(time_us).cast(pa.timestamp("us")),
            "class": pa.array(codes, pa.string()),
        }
    )


def served(declared: FeatureView, events: pa.RecordBatch) -> bytes:
    """What the store answers, which is what the join takes."""
    layout = ViewLayout.of(declared)
    time_us = NOW_US + np.arange(events.num_rows) * 1_000_000
    read = _read_by(declared, events)
    entities, own_us, inputs = _of_view(layout, read, time_us, {}, _rows_of(declared, read))
    state = layout.empty(1)
    apply_events(layout, state, np.zeros(len(entities), np.int64), own_us, inputs)
    as_of = np.array([NOW_US + 100_000_000])
    values = read_state(layout, state, as_of).values.tobytes()
    assert values == as_of_join(declared, events, ["ann"], as_of).values.tobytes()
    return values


streams = st.lists(st.sampled_from(["A", "B", "C", None]), min_size=1, max_size=60)


def renumbered(codes: list[str | None]) -> list[str | None]:
    """The same purchases, from a source that switches at SINCE_US."""
    return [SWAP[code] if code and at >= 30 else code for at, code in enumerate(codes)]


@settings(deadline=None)
@given(streams)
def test_a_view_that_reads_old_codes_is_the_same_after_a_renumbering(codes: list[str | None]) -> None:
    assert served(view(CODES, "A", "B", "C"), table(renumbered(codes))) == served(
        view(None, "A", "B", "C"), table(codes)
    )


@settings(deadline=None)
@given(streams)
def test_a_view_that_reads_new_codes_is_the_same_before_the_renumbering(codes: list[str | None]) -> None:
    later = replace(CODES, reads=2)
    always = [SWAP[code] if code else None for code in codes]
    assert served(view(later, "B", "C", "A"), table(renumbered(codes))) == served(
        view(None, "B", "C", "A"), table(always)
    )


def test_without_the_mapping_a_renumbering_is_another_world() -> None:
    codes: list[str | None] = ["A"] * 60
    assert served(view(None, "A", "B", "C"), table(renumbered(codes))) != served(
        view(None, "A", "B", "C"), table(codes)
    )


def test_what_has_no_counterpart_is_unseen_and_counted() -> None:
    partial = replace(CODES, versions=(version(2, NOW_US, {"A": "B"}),))
    declared = FeatureView(
        "buys",
        1,
        Source(
            "purchases", Entity("customer"), "bought_at", codes=(CodedField(field="class", codes=partial),)
        ),
        [share("class", "A").over("1h"), last("class", among=("A", "B")), distinct_count("class").over("1h")],
    )
    counter = metrics.UNMAPPED_CODES.labels("classes", "buys@1")
    before = counter._value.get()
    values = np.frombuffer(served(declared, table(["B", None, "A", "C"])))
    # "B" is the first list's "A"; "A" and "C" are in neither, though the first list has an "A".
    np.testing.assert_array_equal(values, [1 / 3, -1.0, 3.0])
    assert counter._value.get() - before == 2


@pytest.mark.parametrize(
    ("written", "read", "code", "found"),
    [
        (1, 3, "a", "100"),
        (3, 1, "100", "a"),
        (2, 3, "20", "200"),
        (3, 2, "200", "20"),
        (1, 3, "b", "b@1"),  # became 11, which was given up
        (3, 1, "200", "200@3"),  # there was no such thing
        (2, 2, "strange", "strange"),
    ],
)
def test_codes_go_through_the_versions_between(written: int, read: int, code: str, found: str) -> None:
    chain = CodeList(
        name="chain",
        versions=(version(2, 10, {"a": "10", "b": "11"}), version(3, 20, {"10": "100", "20": "200"})),
    )
    times = np.array([{1: 9, 2: 10, 3: 20}[written]])
    translated = chain.translate(pa.array([code]), times, read)
    assert translated.texts.to_pylist() == [found]
    assert translated.unmapped == ("@" in found)


def test_enums_are_translated_like_texts() -> None:
    """An enum comes as a dictionary of its symbols."""
    codes: list[str | None] = ["A", None, "C"] * 20
    texts = table(renumbered(codes))
    enums = texts.set_column(2, "class", texts.column("class").dictionary_encode())
    assert served(view(CODES, "A", "B", "C"), enums) == served(view(None, "A", "B", "C"), table(codes))


def test_merged_codes_are_read_back_as_declared() -> None:
    merged = CodeList(name="merged", versions=(version(2, 0, {"a": "x", "b": "x"}, x="b"),))
    assert merged.translate(pa.array(["x"]), np.array([5])).texts.to_pylist() == ["b"]


def test_only_what_is_read_otherwise_needs_another_version() -> None:
    plain, declared = view(None, "A", "B", "C"), view(CODES, "A", "B", "C")
    switched = view(replace(CODES, reads=2), "A", "B", "C")
    assert ViewLayout.of(plain).fingerprint == ViewLayout.of(declared).fingerprint
    assert view_differences(plain, declared) == ()
    assert ViewLayout.of(plain).fingerprint != ViewLayout.of(switched).fingerprint
    (difference,) = view_differences(plain, switched)
    assert str(difference) == "code lists: none became class in version 2 of classes"
