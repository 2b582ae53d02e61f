"""Tables are compacted beside the archiver, each by the process that has partition 0."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from driftline.archive.columns import placed
from driftline.archive.sink import Span, TopicTable
from driftline.archive.tables import TOPICS, Archive, open_table
from driftline.streaming.partitions import Partition
from services.archiver.assembly import looked_after, make_feed
from services.archiver.decoding import RawDecoder
from services.archiver.pipeline import ArchiverPipeline, Limits
from services.archiver.upkeep import Upkeep

TOPICS_NAMED = ("shop.payments", "shop.refunds")


def test_tables_of_this_process_are_compacted_in_time(tmp_path: Path) -> None:
    archive = Archive.at(str(tmp_path), "shop")
    feeds = {topic: make_feed(archive, topic, decoder=RawDecoder()) for topic in TOPICS_NAMED}
    for topic, feed in feeds.items():
        for number in range(5):
            append(feed.table, Partition(topic, 0), number)
    pipeline = ArchiverPipeline(feeds, Limits(seconds=1, rows=1, size=1))
    pipeline.positions([Partition("shop.payments", 0), Partition("shop.refunds", 1)])
    upkeep = Upkeep(lambda: looked_after(pipeline, feeds), seconds=0.1, vacuum_hours=168)
    upkeep.start()
    try:
        until = time.monotonic() + 20
        while files(archive, "payments") > 1:
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        upkeep.stop()
    assert files(archive, "refunds") == 5  # another process has its partition 0
    assert feeds["shop.payments"].table.positions([Partition("shop.payments", 0)]) == {
        Partition("shop.payments", 0): 5
    }


def append(table: TopicTable, partition: Partition, offset: int) -> None:
    own = pa.table({"n": [offset]})
    rows = placed(own, partition=0, offsets=[offset], timestamps_ms=np.zeros(1, np.int64))
    table.append(rows, [Span(partition=partition, start=offset or None, stop=offset + 1)])


def files(archive: Archive, stream: str) -> int:
    table = open_table(archive.table(TOPICS, stream))
    assert table is not None
    return len(table.file_uris())
