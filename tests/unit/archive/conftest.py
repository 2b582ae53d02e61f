"""Rows as the archiver writes them, without a broker: the sink only knows tables and offsets."""

import pyarrow as pa
import pytest

from driftline.archive.columns import placed
from driftline.archive.sink import Span, TopicTable
from driftline.archive.tables import TOPICS, Archive
from driftline.streaming.partitions import Partition

TOPIC = "shop.payments"
DAY_US = 86_400_000_000


def rows(start: int, stop: int, *, partition: int = 0, **columns: pa.Array) -> pa.Table:
    """Return rows at the offsets ``[start, stop)``; ``n`` is the offset, a day passes every hundred."""
    import numpy as np

    offsets = list(range(start, stop))
    own = columns or {"n": pa.array(offsets, pa.int64())}
    return placed(
        pa.table(own),
        partition=partition,
        offsets=offsets,
        timestamps_ms=np.array([offset // 100 * 86_400_000 for offset in offsets], np.int64),
    )


def span(start: int | None, stop: int, partition: int = 0) -> Span:
    return Span(partition=Partition(TOPIC, partition), start=start, stop=stop)


@pytest.fixture
def archive(tmp_path: object) -> Archive:
    return Archive.at(str(tmp_path), "shop")


@pytest.fixture
def table(archive: Archive) -> TopicTable:
    return TopicTable(archive.table(TOPICS, "payments"), group=archive.group("archiver"))


def offsets_in(table: TopicTable, partition: int = 0) -> list[int]:
    from deltalake import DeltaTable

    found = DeltaTable(table.uri).to_pyarrow_dataset().to_table(columns=["_partition", "_offset"]).to_pylist()
    return sorted(row["_offset"] for row in found if row["_partition"] == partition)
