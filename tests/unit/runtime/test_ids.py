"""A UUID has one canonical form, whichever way it was written."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.runtime.ids import id_time_ms, is_made, made_id, parse_id

_TEXTS = st.uuids().flatmap(
    lambda one: st.sampled_from(
        [str(one), str(one).upper(), one.hex, one.urn, f"{{{one}}}", f"{one}\n", str(one)[1:]]
    )
)


@given(_TEXTS | st.text(max_size=40))
def test_it_is_parsed_as_the_standard_library_does(text: str) -> None:
    try:
        canonical = str(uuid.UUID(text))
    except ValueError:
        with pytest.raises(ValueError, match="UUID"):
            parse_id(text)
    else:
        assert parse_id(text) == canonical


def test_what_is_made_is_canonical_sorts_by_time_and_is_known_again() -> None:
    made = [made_id() for _ in range(1_000)]
    assert made == sorted(made, key=id_time_ms)  # type: ignore[arg-type, return-value]
    assert len(set(made)) == len(made)
    for text in made:
        assert str(uuid.UUID(text)) == text
        assert uuid.UUID(text).version == 7
        assert is_made(text)
