"""Rows of files as requests: what is read, what is wrong, and which UUID each row has."""

import math
import uuid
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.batch.event_files import Row
from driftline.batch.requests import FileRequests
from driftline.batch.seen_ids import SeenIds
from driftline.project import Project
from driftline.runtime.errors import ConfigurationError
from tests.unit.batch.conftest import NAMESPACE, NOW_US, as_rows, payments, reader_of

GIVEN = "0190A6C5-7B2E-7C11-8000-0123456789AB"


def read(project: Project, *events: dict[str, Any], **changes: Any) -> FileRequests:
    return reader_of(project, **changes).read(as_rows(events))


def test_a_row_is_a_request(project: Project) -> None:
    found = read(
        project,
        {
            "request_id": GIVEN,
            "customer": 17,
            "merchant": "m1",
            "amount": 3,
            "event_time": "2025-06-15T12:00:00+02:00",
            "caller": "night",
            "late": True,
        },
        {"customer": "c", "merchant": "m", "amount": math.nan, "order_id": 5},
        caller="file x",
    )
    first, second = found.requests.to_pylist()
    assert found.mistakes == {}
    assert (first["request_id"], first["customer"], first["amount"]) == (GIVEN.lower(), "17", 3.0)
    assert (first["event_time"].isoformat(), first["caller"]) == ("2025-06-15T10:00:00", "night")
    assert second["request_id"] == str(uuid.uuid5(NAMESPACE, "2"))
    assert (second["amount"], second["order_id"], second["caller"]) == (None, "5", "file x")
    assert second["event_time"].replace(tzinfo=UTC).timestamp() == NOW_US / 1e6


def test_keys_that_pandas_made_floats_of(project: Project) -> None:
    found = read(
        project,
        {"customer": 17.0, "merchant": "m", "order_id": math.nan},
        {"customer": math.nan, "merchant": -3},
    )
    assert found.mistakes == {1: "entity 'customer' is missing"}
    keys = [(one["customer"], one["merchant"], one["order_id"]) for one in found.requests.to_pylist()]
    assert keys == [("17", "m", None), (None, "-3", None)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"customer": None}, "entity 'customer' is missing"),
        ({"customer": 1.5}, "customer: a text is wanted"),
        ({"customer": "c" * 501}, "customer: up to 500 characters"),
        ({"amount": "7"}, "amount: a finite number"),
        ({"amount": math.inf}, "amount: a finite number"),
        ({"amount": 10**400}, "amount: a finite number"),
        ({"request_id": "7"}, "request_id: '7' is no UUID"),
        ({"event_time": "2025-06-15"}, "give the offset too"),
        ({"event_time": NOW_US + 86_400_000_001}, "more than a day ahead"),
        ({"event_time": -1}, "before 1970"),
    ],
)
def test_a_mistake_is_told_and_its_value_left_out(
    project: Project, changes: dict[str, Any], told: str
) -> None:
    good, wrong = payments(2)
    found = read(project, good, {**wrong, **changes})
    assert list(found.mistakes) == [1]
    assert told in found.mistakes[1]
    assert found.requests.num_rows == 2
    assert not found.repeated


def test_cells_of_csv_are_texts(project: Project) -> None:
    row = {"customer": "17", "merchant": "m", "amount": "2.5", "event_time": str(NOW_US)}
    wrong = {**row, "amount": "much"}
    found = read(project, row, {**row, "amount": "nan"}, wrong, texts=True)
    assert [one["amount"] for one in found.requests.to_pylist()] == [2.5, None, None]
    assert found.mistakes == {2: "amount: a number is wanted, got 'much'"}


def test_a_row_that_cannot_be_read_is_a_request_too(project: Project) -> None:
    found = reader_of(project).read([Row(number=4, mistake="is no JSON: x")])
    assert found.mistakes[0].startswith("is no JSON: x")
    assert found.requests.to_pylist()[0]["request_id"] == str(uuid.uuid5(NAMESPACE, "4"))


def test_a_uuid_counts_once_over_the_whole_file(project: Project) -> None:
    reader = reader_of(project)
    first, second, third = payments(3, request_id=GIVEN)
    assert reader.read(as_rows([first, second])).repeated == {1}
    later = reader.read([Row(number=3, event={**third, "request_id": GIVEN.lower()})])
    assert later.repeated == {0} and "earlier row" in later.mistakes[0]


def test_a_file_without_an_entity_is_refused_before_anything_is_logged(project: Project) -> None:
    with pytest.raises(ConfigurationError, match=r"no column merchant.*its columns are amount, customer"):
        reader_of(project).check_columns(Path("x.csv"), ["customer", "amount"])


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 40), max_size=12), max_size=12))
def test_seen_ids_are_those_of_a_set(batches: list[list[int]]) -> None:
    seen, oracle = SeenIds(), set[int]()
    for batch in batches:
        # Zero bytes at the end must count too.
        found = seen.add([str(uuid.UUID(int=number << 64)) for number in batch]).tolist()
        expected = []
        for number in batch:
            expected.append(number in oracle)
            oracle.add(number)
        assert found == expected
