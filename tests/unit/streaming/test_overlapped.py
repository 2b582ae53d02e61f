"""A batch is prepared while the one before it is committed, and never gets ahead of one that has failed."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pytest

from driftline.runtime.errors import UnavailableError
from driftline.streaming.overlapped import Overlapped
from driftline.streaming.partitions import Partition, PartitionBatch

FIRST, SECOND = Partition("t", 0), Partition("t", 1)


class Pipeline:
    """Writes down what happens; the batch at offset 13 cannot be committed, the one at 31 not be prepared."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.may_commit = threading.Event()
        self.may_commit.set()

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        self.done.append("positions")
        return dict.fromkeys(partitions, 0)

    def prepare(self, batches: Sequence[PartitionBatch]) -> Callable[[], None]:
        number = batches[0].next_offset
        self.done.append(f"prepare {number}")
        if number == 31:
            raise UnavailableError("no features")

        def commit() -> None:
            assert self.may_commit.wait(10)
            if number == 13:
                raise UnavailableError("aborted")
            self.done.append(f"commit {number}")

        return commit

    def forget(self, partitions: Collection[Partition]) -> None:
        self.done.append(f"forget {len(partitions)}")

    def idle(self) -> Mapping[Partition, float]:
        return {}


def batch(number: int, partition: Partition = FIRST) -> list[PartitionBatch]:
    messages: list[Any] = []
    return [PartitionBatch(partition=partition, messages=messages, next_offset=number)]


def test_the_next_batch_is_prepared_before_the_last_is_committed() -> None:
    inner = Pipeline()
    overlapped = Overlapped(inner)
    inner.may_commit.clear()
    overlapped.process(batch(1))
    threading.Timer(0.05, inner.may_commit.set).start()
    overlapped.process(batch(2))
    overlapped.close()
    assert inner.done == ["prepare 1", "prepare 2", "commit 1", "commit 2"]


def test_a_failed_commit_takes_the_prepared_batch_with_it_and_names_its_partitions() -> None:
    inner = Pipeline()
    overlapped = Overlapped(inner)
    overlapped.process(batch(13, SECOND))
    with pytest.raises(UnavailableError, match="aborted") as caught:
        overlapped.process(batch(2))
    assert caught.value.partitions == (SECOND,)
    overlapped.close()
    assert inner.done == ["prepare 13", "prepare 2"]


def test_a_batch_that_cannot_be_prepared_leaves_the_commit_before_it_alone() -> None:
    inner = Pipeline()
    overlapped = Overlapped(inner)
    inner.may_commit.clear()
    overlapped.process(batch(1))
    with pytest.raises(UnavailableError, match="no features") as caught:
        overlapped.process(batch(31, SECOND))
    assert caught.value.partitions == ()
    overlapped.forget([SECOND])
    threading.Timer(0.05, inner.may_commit.set).start()
    assert overlapped.positions([SECOND]) == {SECOND: 0}
    assert inner.done == ["prepare 1", "prepare 31", "forget 1", "commit 1", "positions"]


@pytest.mark.parametrize("noticed_by", ["idle", "positions", "close"])
def test_a_failure_is_noticed_without_traffic(noticed_by: str) -> None:
    overlapped = Overlapped(Pipeline())
    overlapped.process(batch(13))
    assert overlapped._under_way is not None
    overlapped._under_way.exception(10)
    steps: dict[str, Callable[[], Any]] = {
        "idle": overlapped.idle,
        "positions": lambda: overlapped.positions([SECOND]),
        "close": overlapped.close,
    }
    with pytest.raises(UnavailableError) as caught:
        steps[noticed_by]()
    assert caught.value.partitions == (FIRST,)
    assert overlapped.idle() == {}  # it is told once
