"""Composite entities: several fields make one key, whatever the fields hold."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.features import Entity, FeatureView, Source, count, join_key, last, mean
from driftline.features.entity_keys import split_key
from driftline.features.event_columns import event_keys, request_keys
from driftline.features.layout import ViewLayout
from driftline.features.point_in_time import as_of_join
from driftline.runtime.errors import RefusedError
from tests.unit.features.oracle import SOURCE, START_US, Trip, offsets_us, table, trips

PAIR = Entity("pair", keys=("place", "kind"))
#: What separators and escapes are made of is common.
texts = st.text(st.sampled_from("~,01a\\é"), max_size=5)
pairs = st.tuples(texts, texts)


@given(pairs)
def test_a_key_gives_its_parts_back(parts: tuple[str, str]) -> None:
    assert split_key(PAIR, join_key(parts)) == parts


@given(pairs, pairs)
def test_different_parts_never_make_one_key(first: tuple[str, str], second: tuple[str, str]) -> None:
    assert (join_key(first) == join_key(second)) == (first == second)


@given(st.lists(st.tuples(st.none() | texts, st.none() | texts), max_size=6))
def test_columns_are_joined_as_each_row(rows: list[tuple[str | None, str | None]]) -> None:
    names = ("from_place", "sort")
    source = Source("trips", PAIR, "ended_at", entity_fields=names)
    columns = {name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(names)}
    expected = [None if None in row else join_key(row) for row in rows]  # type: ignore[arg-type]
    assert event_keys(source, pa.table(columns)).to_pylist() == expected
    asked = pa.RecordBatch.from_pydict(dict(zip(PAIR.keys, columns.values(), strict=True)))
    assert request_keys(PAIR, asked).to_pylist() == expected


@pytest.mark.parametrize("key", ["JFK", "a,b,c", "", "a~2,b", "a,b~"])
def test_a_text_that_is_no_key_is_refused_with_what_one_is(key: str) -> None:
    with pytest.raises(RefusedError, match="is no key of pair: join place, kind with commas"):
        split_key(PAIR, key)


def test_the_key_of_a_simple_entity_is_any_text() -> None:
    assert split_key(Entity("place"), "a,b~2") == ("a,b~2",)


@given(trips, st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["cab", "bus"]), offsets_us), max_size=8))
def test_a_composite_entity_is_joined_as_one_that_is_keyed_by_both(
    events: list[Trip], questions: list[tuple[int, str, int]]
) -> None:
    features = [count().over("5m"), mean("fare").over("20m"), last("delay")]
    composite = FeatureView("v", 1, Source("trips", PAIR, "ended_at"), features)
    plain = FeatureView("v", 1, SOURCE, features)
    as_of = np.array([START_US + offset for _, _, offset in questions], np.int64)
    keys = [join_key([f"p{place}", kind]) for place, kind, _ in questions]

    joined = as_of_join(composite, table(events), keys, as_of, known_at="known_at")

    # One table per kind: there the place alone is the key.
    for row, (place, kind, _) in enumerate(questions):
        own = table([event for event in events if event.kind == kind])
        alone = as_of_join(plain, own, [f"p{place}"], as_of[row : row + 1], known_at="known_at")
        assert joined.values[row].tobytes() == alone.values[0].tobytes()
        assert joined.age_us[row] == alone.age_us[0]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda: Entity("pair", keys=("place",)), "place make no composite entity"),
        (lambda: Entity("pair", keys=("place", "place")), "make no composite entity"),
        (lambda: Entity("pair", keys=("place", "pair")), "a name of its own"),
        (lambda: Entity("pair", keys=("place", "Kind")), "entity 'pair': key name 'Kind'"),
        (
            lambda: Source("trips", PAIR, "at", entity_field="place"),
            "name its event fields with entity_fields=",
        ),
        (lambda: Source("trips", PAIR, "at", entity_fields=("a",)), "the key of 'pair' is place, kind"),
        (lambda: Source("trips", Entity("place"), "at", entity_fields=("a", "b")), "with entity_field="),
        (lambda: Source("trips", Entity("place"), "at", "a", ("b",)), "with entity_field="),
    ],
)
def test_wrong_declarations_are_refused(wrong: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        wrong()  # type: ignore[operator]


def test_a_text_is_not_taken_apart_into_letters() -> None:
    with pytest.raises(TypeError, match="keys are several names"):
        Entity("pair", keys="ab")


def test_the_fields_and_their_order_are_part_of_what_is_stored() -> None:
    def fingerprint(*fields: str) -> int:
        source = Source("trips", PAIR, "ended_at", entity_fields=fields)
        return ViewLayout.of(FeatureView("v", 1, source, [count().over("1h")])).fingerprint

    assert fingerprint("place", "kind") == fingerprint()
    assert len({fingerprint(), fingerprint("kind", "place"), fingerprint("place", "sort")}) == 3
