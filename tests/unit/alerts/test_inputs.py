"""Inputs on the wire and back."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.alerts.inputs import (
    ALERT_INPUT,
    Acknowledge,
    Adopt,
    Cause,
    Clearance,
    Delivered,
    Failed,
    Input,
    Silence,
    Started,
    Unsilence,
    input_of,
    input_record,
)
from driftline.contracts.record_codec import RecordCodec
from driftline.runtime.errors import BadMessageError
from tests.unit.alerts.scenes import cause

CODEC = RecordCodec(ALERT_INPUT)
TIMES = st.integers(0, 4_102_444_800_000_000)
SPECIAL: Mapping[str, Any] = {
    "since": TIMES,
    "happened_at": TIMES,
    "until": TIMES,
    "attempt": st.integers(0, 100),
}


def made(kind: type[Input]) -> st.SearchStrategy[Input]:
    return st.builds(kind, **{name: one for name, one in SPECIAL.items() if name in kind.__slots__})


@given(
    st.one_of(
        *map(made, (Cause, Clearance, Acknowledge, Silence, Unsilence, Started, Delivered, Failed, Adopt))
    ),
    TIMES,
)
def test_every_input_comes_back(event: Input, at: int) -> None:
    assert input_of(CODEC.decode(CODEC.encode(input_record(event, at_us=at)))) == event


def test_an_input_without_what_it_needs_is_a_bad_message() -> None:
    record = input_record(Acknowledge(input_id="a", group="g", alert_id="x", by="anna"), at_us=0)
    with pytest.raises(BadMessageError, match="ACKNOWLEDGE without alert_id"):
        input_of({**record, "alert_id": None})
    with pytest.raises(BadMessageError, match="CAUSE without"):
        input_of({**input_record(cause("s1"), at_us=0), "cause": None})
