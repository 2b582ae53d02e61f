"""One batch ahead: a batch is prepared while the one before it is committed.

1. ``prepare`` reads and computes, on the loop's thread; nothing of it can be seen from outside. What it returns commits.
2. The commit of the batch before is waited for. Where it failed, what was prepared is thrown away: the partitions of both
   batches start anew from the sink, so none is ever committed behind a hole.
3. The commit goes to the one thread that commits. It belongs to the group's generation in which its batch was polled: one
   that a rebalance has overtaken is fenced by the broker, as a slow process is.

Killed anywhere: a commit is a transaction, so the batch under way is there or not, and the prepared one is not.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from driftline.runtime.errors import UnavailableError
from driftline.streaming.partitions import Partition, PartitionBatch


class TwoStep(Protocol):
    """A pipeline (``driftline.streaming.loop.Pipeline``) whose batches are prepared, then committed."""

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """Take partitions on, as a pipeline does."""
        ...

    def prepare(self, batches: Sequence[PartitionBatch]) -> Callable[[], None]:
        """Do all but the commit of batches; return what commits them, on another thread, wholly or not at all."""
        ...

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop what is cached of partitions."""
        ...

    def idle(self) -> Mapping[Partition, float]:
        """Run once a second, as a pipeline does."""
        ...


class Overlapped:
    """Makes a pipeline of a two-step one (a ``driftline.streaming.loop.Pipeline``)."""

    def __init__(self, inner: TwoStep) -> None:
        self._inner = inner
        self._committer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        self._under_way: Future[None] | None = None
        self._partitions: tuple[Partition, ...] = ()

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """Return where partitions start, once what was under way is settled."""
        self.settle()
        return self._inner.positions(partitions)

    def process(self, batches: Sequence[PartitionBatch]) -> None:
        """Prepare batches, settle those before, begin to commit these."""
        commit = self._inner.prepare(batches)  # 1.
        self.settle()  # 2.
        self._partitions = tuple(batch.partition for batch in batches)
        self._under_way = self._committer.submit(commit)  # 3.

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop what is cached of partitions; what is under way goes on, and settles or fails by itself."""
        self._inner.forget(partitions)

    def idle(self) -> Mapping[Partition, float]:
        """Notice without traffic that a commit has failed."""
        if self._under_way is not None and self._under_way.done():
            self.settle()
        return self._inner.idle()

    def settle(self) -> None:
        """Wait for the commit that is under way.

        Raises
        ------
        UnavailableError
            It failed, and its partitions, which the error names, must start anew.
        """
        if self._under_way is None:
            return
        under_way, self._under_way = self._under_way, None
        try:
            under_way.result()
        except UnavailableError as error:
            raise UnavailableError(str(error), partitions=self._partitions) from error

    def close(self) -> None:
        """Finish what is under way; after that nothing can be processed."""
        try:
            self.settle()
        finally:
            self._committer.shutdown()
