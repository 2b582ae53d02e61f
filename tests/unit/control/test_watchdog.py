"""Rail 7: a process in which messages wait and nothing moves ends itself; nothing else makes it end."""

import pytest

from driftline.control.watchdog import Watchdog
from driftline.runtime.health import Health
from driftline.streaming.partitions import Partition
from tests.unit.control.memory import MemoryBroker

P = Partition("t", 0)


class Rig:
    """A watchdog over an app, a broker and a clock that the test holds."""

    def __init__(self) -> None:
        self.time = 100.0
        self.is_settled = True
        self.partitions = [P]
        self.next: int | None = 0
        self.broker = MemoryBroker(ends={P: 0}, offsets={P: 0})
        self.health = Health()
        self.ended: list[str] = []
        self.watchdog = Watchdog(
            self,
            self.broker,
            health=self.health,
            stall_seconds=20,
            start_seconds=90,
            end=self.ended.append,
            now=lambda: self.time,
        )

    def settled(self) -> bool:
        return self.is_settled

    def assigned(self) -> list[Partition]:
        return self.partitions

    def next_offset(self, partition: Partition) -> int | None:
        return self.next

    def look(self, seconds: int) -> None:
        """Look once a second."""
        for _ in range(seconds):
            self.time += 1
            self.watchdog.look()


def test_a_message_that_waits_too_long_ends_the_process() -> None:
    rig = Rig()
    rig.look(60)
    rig.broker.ends[P] = 1
    rig.look(20)
    assert rig.ended == []
    rig.look(5)
    assert "offset 0 waits" in rig.ended[0]


def test_a_partition_in_which_nothing_was_handled_yet_waits_from_the_committed_offset() -> None:
    rig = Rig()
    rig.next, rig.broker.offsets[P], rig.broker.ends[P] = None, 7, 7
    rig.look(60)
    assert rig.ended == []
    rig.broker.ends[P] = 8
    rig.look(30)
    assert rig.ended


def test_progress_is_life_however_long_the_queue() -> None:
    rig = Rig()
    rig.broker.ends[P] = 1_000
    for _ in range(10):
        rig.look(15)
        rig.next = (rig.next or 0) + 1
    assert rig.ended == []


def test_markers_of_transactions_are_no_lag() -> None:
    rig = Rig()
    rig.broker.ends[P], rig.broker.hidden = 2, {(P, 0), (P, 1)}
    rig.look(120)
    assert rig.ended == []


def test_one_stuck_partition_is_enough() -> None:
    rig = Rig()
    other = Partition("t", 1)
    rig.partitions = [P, other]
    rig.broker.ends = {P: 0, other: 5}
    rig.look(30)
    assert "t/1" in rig.ended[0]


def test_a_start_that_never_ends_is_ended() -> None:
    rig = Rig()
    rig.is_settled = False
    rig.look(90)
    assert rig.ended == []
    assert not rig.health.ready
    rig.look(5)
    assert "no partitions" in rig.ended[0]


def test_without_a_broker_it_waits() -> None:
    rig = Rig()
    rig.broker.ends[P] = 1
    rig.look(15)
    rig.broker.down = True
    rig.look(300)
    assert rig.ended == []
    assert not rig.health.ready
    rig.broker.down = False
    rig.look(19)
    assert rig.ended == []


def test_a_process_that_was_stopped_past_its_session_does_not_go_on() -> None:
    rig = Rig()
    rig.look(3)
    rig.time += 12
    rig.watchdog.look()
    assert "did not run for 12 s" in rig.ended[0]


def test_standing_by_is_ready() -> None:
    rig = Rig()
    rig.partitions = []
    rig.look(120)
    assert rig.ended == []
    assert rig.health.ready


def test_offsets_that_are_not_committed_raise_the_alarm() -> None:
    rig = Rig()
    rig.next = 5
    rig.broker.ends[P] = 5
    rig.look(30)
    assert rig.health.ready
    rig.look(15)
    assert not rig.health.ready
    assert "t/0" in rig.health.last_error
    rig.broker.offsets[P] = 5
    rig.look(10)
    assert rig.health.ready


@pytest.mark.parametrize("moving", [True, False])
def test_commits_that_move_are_in_time(moving: bool) -> None:
    rig = Rig()
    rig.broker.ends[P] = 1_000
    for step in range(12):
        rig.next = step + 2
        rig.broker.offsets[P] = step if moving else 0
        rig.look(10)
    assert rig.health.ready is moving
