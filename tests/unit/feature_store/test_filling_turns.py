"""Backfills take what the live stream leaves, and a share of what it does not."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import pytest

from driftline.features.filling import Fill
from driftline.runtime.errors import LostOwnershipError, UnavailableError
from driftline.streaming.partitions import Partition
from services.feature_store.filling_turns import FillingTurns

FIRST, SECOND = Partition("t", 0), Partition("t", 1)


@dataclass
class Work:
    """Stands in for a backfill: so many turns, each of so many seconds."""

    partition: Partition
    clock: list[float]
    turns: int = 3
    seconds: float = 0.1
    error: Exception | None = None
    in_doubt: bool = False
    live_offset: int = 100
    views: tuple[str, ...] = ("v@1",)
    fill: Fill = field(default_factory=lambda: Fill(views={"v@1": 1}, start=0, offset=25, rate=5.0))

    def turn(self) -> bool:
        self.clock[0] += self.seconds
        if self.error is not None:
            raise self.error
        self.turns -= 1
        return self.turns == 0


@pytest.fixture(name="clock")
def clock_fixture() -> list[float]:
    return [0.0]


def turns_of(clock: list[float], *works: Work, share: float = 0.25) -> FillingTurns:
    turns = FillingTurns(share, now=lambda: clock[0])
    for work in works:
        turns.begin(cast("Any", work))
    return turns


def test_an_idle_stream_leaves_all_the_time_and_one_comes_after_the_other(clock: list[float]) -> None:
    first, second = Work(FIRST, clock), Work(SECOND, clock)
    turns = turns_of(clock, first, second)
    done = [turns.turn(busy=False) for _ in range(6)]
    assert done == [None, None, first, None, None, second]
    assert not turns.pressing
    assert turns.turn(busy=False) is None


def test_beside_a_busy_stream_it_gets_its_share(clock: list[float]) -> None:
    work = Work(FIRST, clock, turns=10_000)
    turns = turns_of(clock, work, share=0.25)
    for _ in range(2_000):
        clock[0] += 0.05  # a batch of the live stream
        turns.turn(busy=True)
    worked = (10_000 - work.turns) * work.seconds
    assert worked / clock[0] == pytest.approx(0.25, abs=0.01)


def test_after_a_pause_it_does_not_hold_the_stream_up(clock: list[float]) -> None:
    work = Work(FIRST, clock, turns=10_000)
    turns = turns_of(clock, work, share=0.5)
    clock[0] += 1_000
    before = work.turns
    for _ in range(20):
        turns.turn(busy=True)
    assert (before - work.turns) * work.seconds <= 1.0


def test_where_the_past_does_not_answer_it_waits_longer_and_longer(clock: list[float]) -> None:
    work = Work(FIRST, clock, error=UnavailableError("the archive is away"), seconds=0.0)
    turns = turns_of(clock, work)
    asked = []
    for _ in range(400):
        clock[0] += 0.25
        if turns.pressing:
            turns.turn(busy=False)
            asked.append(clock[0])
    assert [round(b - a, 2) for a, b in pairwise(asked)][:6] == [1, 2, 4, 8, 16, 30]
    assert turns.as_json()[0]["waits_for"] == "the archive is away"
    assert turns.take_anew() == {}
    work.error = None
    clock[0] += 60
    turns.turn(busy=False)
    assert turns.as_json()[0]["waits_for"] == ""


def test_while_one_waits_another_has_its_turn(clock: list[float]) -> None:
    stuck, other = Work(FIRST, clock, error=UnavailableError("away")), Work(SECOND, clock, turns=1)
    turns = turns_of(clock, stuck, other)
    turns.turn(busy=False)
    assert cast("Any", turns.turn(busy=False)) is other


@pytest.mark.parametrize(
    ("error", "in_doubt", "seconds"),
    [(UnavailableError("no answer"), True, 1.0), (LostOwnershipError("another owner"), False, 2.0)],
)
def test_a_step_in_doubt_lets_the_partition_start_anew(
    clock: list[float], error: Exception, in_doubt: bool, seconds: float
) -> None:
    turns = turns_of(clock, Work(FIRST, clock, error=error, in_doubt=in_doubt))
    assert turns.turn(busy=False) is None
    assert not turns.pressing
    assert turns.take_anew() == {FIRST: seconds}
    assert turns.take_anew() == {}


def test_what_is_being_filled_is_told(clock: list[float]) -> None:
    turns = turns_of(clock, Work(SECOND, clock))
    assert turns.as_json() == [
        {
            "partition": "t/1",
            "views": ["v@1"],
            "share": 0.25,
            "records_left": 75,
            "seconds_left": 15.0,
            "waits_for": "",
        }
    ]
    turns.forget([SECOND])
    assert turns.as_json() == []
