"""The same promises where the archive is a URL: credentials and endpoint come from the store's usual variables."""

import threading
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from driftline.archive.columns import placed
from driftline.archive.maintenance import compact
from driftline.archive.query import query
from driftline.archive.sink import Span, TopicTable
from driftline.archive.tables import TOPICS, Archive, open_table, summarize
from driftline.archive.training_sets import TrainingSets, models_with_sets
from driftline.runtime.errors import LostOwnershipError, UnavailableError
from driftline.streaming.partitions import Partition

from .object_store import ObjectStore, object_store

TOPIC = "shop.payments"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with object_store() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def archive(store: ObjectStore) -> Archive:
    return Archive.at("s3://lake/archive", "shop")


def rows(start: int, stop: int, partition: int = 0) -> pa.Table:
    offsets = list(range(start, stop))
    own = pa.table({"n": pa.array(offsets, pa.int64())})
    return placed(own, partition=partition, offsets=offsets, timestamps_ms=np.zeros(len(offsets), np.int64))


def span(start: int | None, stop: int, partition: int = 0) -> Span:
    return Span(partition=Partition(TOPIC, partition), start=start, stop=stop)


def test_rows_are_appended_once_and_asked_for(archive: Archive, store: ObjectStore) -> None:
    table = TopicTable(archive.table(TOPICS, "payments"), group=archive.group("archiver"))
    table.append(rows(0, 50), [span(None, 50)])
    table.append(rows(50, 80), [span(50, 80)])
    with pytest.raises(LostOwnershipError):
        table.append(rows(50, 90), [span(50, 90)])
    assert table.positions([Partition(TOPIC, 0)]) == {Partition(TOPIC, 0): 80}
    assert query(archive, "SELECT count(*) AS n, max(n) AS top FROM payments").to_pylist() == [
        {"n": 80, "top": 79}
    ]
    done = compact(table.uri)
    assert done is not None and (done.removed, done.added) == (2, 1)
    found = summarize(archive, TOPICS, "payments")
    assert found is not None and (found.rows, found.offsets) == (80, {0: 80})
    assert archive.names(TOPICS) == ["payments"]
    assert all(name.startswith("/lake/archive/shop/topics/payments/") for name in store.told()["names"])


def test_writers_at_the_same_time(archive: Archive, store: ObjectStore) -> None:
    """Three processes' partitions share a table; the store's conditional put decides who commits first."""
    failures: list[BaseException] = []

    def write(partition: int) -> None:
        own = TopicTable(archive.table(TOPICS, "payments"), group="g")
        position = None
        try:
            for number in range(6):
                stop = number * 3 + 3
                own.append(rows(stop - 3, stop, partition), [span(position, stop, partition)])
                position = stop
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.told()["refused"] > 0  # they did meet
    found = query(
        archive,
        "SELECT _partition AS p, count(*) AS n, count(DISTINCT _offset) AS d FROM payments GROUP BY 1",
    )
    assert sorted(found.to_pylist(), key=lambda row: row["p"]) == [
        {"p": p, "n": 18, "d": 18} for p in range(3)
    ]


def test_training_sets(archive: Archive) -> None:
    sets = TrainingSets(archive, "fraud")
    tables = {name: pa.table({"x": [float(number)]}) for number, name in enumerate(("one", "two"))}
    for name, table in tables.items():
        sets.build(name, table)
    assert [found.name for found in sets.list_sets()] == ["two", "one"]
    assert models_with_sets(archive) == ["fraud"]
    for name, table in tables.items():
        assert sets.pull(name).equals(table)


def test_a_store_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, archive: Archive) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9"):
        open_table(archive.table(TOPICS, "payments"))
