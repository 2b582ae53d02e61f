"""SQL over the archive."""

import pyarrow as pa
import pytest

from driftline.archive.query import query
from driftline.archive.sink import TopicTable
from driftline.archive.tables import BAD, TOPICS, Archive, summarize
from driftline.runtime.errors import ConfigurationError

from .conftest import rows, span


@pytest.fixture
def filled(archive: Archive, table: TopicTable) -> Archive:
    table.append(rows(0, 250), [span(None, 250)])
    dashed = TopicTable(archive.table(TOPICS, "prediction-requests"), group="g")
    dashed.append(rows(0, 3), [span(None, 3)])
    TopicTable(archive.table(BAD, "payments"), group="g").append_missing("shop.payments", rows(0, 1))
    return archive


def test_topics_are_views_by_their_streams(filled: Archive) -> None:
    joined = query(
        filled,
        "SELECT count(*) AS n, sum(p.n) AS s FROM payments p JOIN Prediction_Requests r USING (_offset)",
    )
    assert joined.to_pylist() == [{"n": 3, "s": 3}]
    assert query(filled, "SELECT count(*) AS n FROM bad.payments").to_pylist() == [{"n": 1}]
    assert set(query(filled, "SHOW ALL TABLES")["name"].to_pylist()) >= {"payments", "prediction_requests"}


def test_days_prune_and_times_are_utc(filled: Archive) -> None:
    found = query(
        filled,
        "SELECT min(_offset) AS a, max(_offset) AS b, min(_timestamp) AS t FROM payments "
        "WHERE _event_date = DATE '1970-01-02'",
    )
    (row,) = found.to_pylist()
    assert (row["a"], row["b"]) == (100, 199)
    assert row["t"].isoformat() == "1970-01-02T00:00:00+00:00"


def test_a_limit_holds(filled: Archive) -> None:
    assert len(query(filled, "SELECT * FROM payments", limit=7)) == 7
    assert len(query(filled, "SELECT * FROM payments", limit=250)) == 250
    assert len(query(filled, "SELECT * FROM payments")) == 250


def test_mistakes_are_explained(filled: Archive, tmp_path: object) -> None:
    with pytest.raises(ConfigurationError, match=r"bad\.payments, payments, prediction_requests"):
        query(filled, "SELECT * FROM outcomes")
    with pytest.raises(ConfigurationError, match="syntax error"):
        query(filled, "SELEC 1")
    with pytest.raises(ConfigurationError, match="start the archiver"):
        query(Archive.at(f"{tmp_path}/nowhere", "shop"), "SELECT * FROM payments")


def test_a_table_tells_what_it_holds(filled: Archive) -> None:
    found = summarize(filled, TOPICS, "payments")
    assert found is not None
    assert (found.rows, found.offsets, str(found.first_day), str(found.last_day)) == (
        250,
        {0: 250},
        "1970-01-01",
        "1970-01-03",
    )
    assert found.files == 3 and found.size > 0
    assert summarize(filled, TOPICS, "outcomes") is None
    assert filled.names(TOPICS) == ["payments", "prediction-requests"]


def test_nested_columns_can_be_asked_for(archive: Archive, table: TopicTable) -> None:
    deep = pa.array([[{"k": "a", "v": 1.5}]], pa.list_(pa.struct([("k", pa.string()), ("v", pa.float64())])))
    table.append(rows(0, 1, deep=deep), [span(None, 1)])
    assert query(archive, "SELECT deep[1].v AS v FROM payments").to_pylist() == [{"v": 1.5}]
