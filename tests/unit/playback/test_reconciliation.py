"""The books: any single message that is missing, double or strange is named."""

from dataclasses import replace

import pyarrow as pa
import pytest

from driftline.playback.journal import EventJournal, Journal, first_occurrences
from driftline.playback.reconciliation import ServiceCounts, reconcile
from driftline.playback.sending import Sent

DEAD = {("flights.arrivals", 0, 3): "the value is null"}


def journal(predictions: list[str]) -> Journal:
    events = EventJournal(
        messages=5, applied=pa.table({"event_id": ["a", "b", "c"]}), duplicates=1, dead=frozenset(DEAD)
    )
    return Journal(
        events={"arrivals": events},
        dead_letters=DEAD,
        predictions=pa.table({"request_id": pa.array(predictions, pa.string())}),
        undecodable_predictions=0,
    )


SENT = Sent(acknowledged=5, damaged=set(DEAD))
COUNTED = ServiceCounts(accepted=4, applied=3, duplicates=1, dead_letters=1, predictions=2)


def test_balanced_books_have_no_differences() -> None:
    counts = reconcile(journal(["x", "y"]), SENT, ["x", "y"], COUNTED)
    assert counts.differences == ()
    assert counts.acknowledged == counts.applied + counts.duplicates + counts.dead_letters == 5
    assert counts.requests == counts.predictions == 2


@pytest.mark.parametrize(
    ("sent", "logged", "counted", "said"),
    [
        (replace(SENT, acknowledged=6), ["x", "y"], COUNTED, "6 against 5"),
        (replace(SENT, acknowledged=4), ["x", "y"], COUNTED, "4 against 5"),
        (SENT, ["x"], replace(COUNTED, predictions=1), "1 requests have no prediction, first y"),
        (SENT, ["x", "y", "y"], replace(COUNTED, predictions=3), "more than one prediction, first y"),
        (SENT, ["x", "y", "z"], replace(COUNTED, predictions=3), "answer no request, first z"),
        (SENT, ["x", "y"], replace(COUNTED, applied=2), "applied by the topics"),
        (SENT, ["x", "y"], replace(COUNTED, duplicates=0), "duplicates by the topics"),
        (SENT, ["x", "y"], replace(COUNTED, dead_letters=2), "dead letters on their topic"),
        (SENT, ["x", "y"], replace(COUNTED, predictions=3), "predictions in the log"),
        (replace(SENT, damaged=set()), ["x", "y"], COUNTED, "first flights.arrivals/0/3: the value is null"),
        (
            replace(SENT, damaged={*DEAD, ("flights.arrivals", 1, 2)}),
            ["x", "y"],
            COUNTED,
            "1 damaged messages are no dead letters, first flights.arrivals/1/2",
        ),
    ],
)
def test_each_difference_is_named(sent: Sent, logged: list[str], counted: ServiceCounts, said: str) -> None:
    counts = reconcile(journal(logged), sent, ["x", "y"], counted)
    assert said in " ".join(counts.differences)


def test_a_list_that_was_sent_again_may_lie_on_the_topic_twice() -> None:
    counts = reconcile(
        journal(["x"]), replace(SENT, acknowledged=4, resent=1), ["x"], replace(COUNTED, predictions=1)
    )
    assert counts.differences == ()


def test_first_occurrences_keep_the_order() -> None:
    assert first_occurrences(["b", "a", "b", "c", "a"]).tolist() == [0, 1, 3]
