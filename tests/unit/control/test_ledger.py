"""The ledger lets each record through once, in order, and stops where one was passed over."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.control.ledger import Ledger, SkippedRecordsError
from driftline.streaming.partitions import Partition
from tests.unit.control.memory import MemoryBroker

P = Partition("t", 0)


def take(ledger: Ledger, offset: int, *, generation: int = 1) -> bool:
    """Handle a record if it is next."""
    is_next = asyncio.run(ledger.is_next(P, offset, generation=generation))
    if is_next:
        ledger.handled(P, offset)
    return is_next


def test_the_first_record_is_the_committed_one() -> None:
    assert take(Ledger(MemoryBroker(offsets={P: 5})), 5)
    with pytest.raises(SkippedRecordsError, match="offset 5 was passed over, 6 came"):
        take(Ledger(MemoryBroker(offsets={P: 5})), 6)


def test_without_a_committed_offset_it_is_the_first_there_is() -> None:
    assert take(Ledger(MemoryBroker(hidden={(P, 0)})), 1)
    with pytest.raises(SkippedRecordsError):
        take(Ledger(MemoryBroker()), 1)


def test_what_was_handled_is_let_through_no_more() -> None:
    ledger = Ledger(MemoryBroker(offsets={P: 0}))
    assert [take(ledger, offset) for offset in (0, 1, 0, 1, 2)] == [True, True, False, False, True]
    assert ledger.next_offset(P, generation=1) == 3


def test_another_generation_starts_from_what_is_committed() -> None:
    broker = MemoryBroker(offsets={P: 0})
    ledger = Ledger(broker)
    assert take(ledger, 0)
    broker.offsets[P] = 9  # another process had the partition
    assert take(ledger, 9, generation=2)
    assert ledger.next_offset(P, generation=1) is None
    assert not take(ledger, 8, generation=2)


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30), min_size=1))
def test_only_what_no_reader_sees_may_be_missing(hidden: set[int], dropped: set[int]) -> None:
    ledger = Ledger(MemoryBroker(offsets={P: 0}, hidden={(P, offset) for offset in hidden}))
    visible = [offset for offset in range(32) if offset not in hidden]
    lost = [offset for offset in visible if offset in dropped]
    for offset in visible:
        if offset in dropped:
            continue
        if lost and offset > lost[0]:
            with pytest.raises(SkippedRecordsError, match=f"offset {lost[0]} was passed over"):
                take(ledger, offset)
            return
        assert take(ledger, offset)
