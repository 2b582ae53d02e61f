"""What a small read does by itself: entities told apart without Arrow, rows of another layout refused."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.features import Entity, FeatureView, Source, count, mean
from driftline.features.layout import ViewLayout
from driftline.features.online import _distinct, rows_from_blobs
from driftline.runtime.errors import ConfigurationError

ARRIVALS = Source("arrivals", entity=Entity("origin"), event_time="arrived_at")
HOURLY = ViewLayout.of(FeatureView("delays", 1, ARRIVALS, [count().over("1h")]))
OTHER = ViewLayout.of(FeatureView("delays", 1, ARRIVALS, [mean("delay").over("1h")]))


@given(st.lists(st.none() | st.sampled_from(["JFK", "EWR", "", "ß", "\x00"])))
def test_a_list_of_entities_is_told_apart_as_an_arrow_array_is(entities: list[str | None]) -> None:
    named, place = _distinct(entities)
    as_array, place_of_array = _distinct(pa.array(entities, pa.string()))
    assert (named, place.tolist()) == (as_array, place_of_array.tolist())
    assert [*named, None] == list(dict.fromkeys([*(one for one in entities if one is not None), None]))
    assert [[*named, None][number] for number in place] == entities


@given(st.lists(st.booleans(), max_size=40))
def test_absent_blobs_are_empty_rows(there: list[bool]) -> None:
    row = HOURLY.empty(1)
    row["events"] = 3
    rows = rows_from_blobs(HOURLY, [row.tobytes() if held else None for held in there])
    assert rows["events"].tolist() == [3 if held else 0 for held in there]
    assert (rows["fingerprint"] == HOURLY.fingerprint).all()


@pytest.mark.parametrize(
    "blob", [b"", b"x", OTHER.blank.tobytes(), bytes(HOURLY.blob_bytes), HOURLY.blank.tobytes() * 2]
)
@pytest.mark.parametrize("before", [0, 1, 15, 16, 40])
def test_rows_of_another_layout_are_refused(blob: bytes, before: int) -> None:
    with pytest.raises(ConfigurationError, match="Raise its version"):
        rows_from_blobs(HOURLY, [HOURLY.blank.tobytes()] * before + [blob])
