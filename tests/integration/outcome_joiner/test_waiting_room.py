"""The waiting room: every order, split and repetition of the same rows ends in the same outcomes."""

import itertools
import random
import struct
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.runtime.errors import UnavailableError
from services.outcome_joiner.waiting_room import (
    LABELS,
    PREDICTIONS,
    Claims,
    LostRoomError,
    Place,
    Rows,
    WaitingRoom,
)
from tests.integration.valkey_cluster import ValkeyCluster

HORIZON = 1_000
JOINED, CORRECTED, NEVER = 0, 1, 2
P0, L0, L1 = (
    Place(side=PREDICTIONS, partition=0),
    Place(side=LABELS, partition=0),
    Place(side=LABELS, partition=1),
)


def predictions(*rows: tuple[int, str, str, int]) -> Rows:
    """(offset, request id, join key, event time)"""
    return Rows(
        first=[row[1] for row in rows],
        second=[row[2] for row in rows],
        third=[struct.pack(">ddd", row[0], row[3], HORIZON) + row[1].encode() for row in rows],
        offsets=np.array([row[0] for row in rows], np.int64),
        event_times=np.array([row[3] for row in rows], np.int64),
    )


def labels(*rows: tuple[int, str, float, int], ids: list[str] | None = None) -> Rows:
    """(offset, join id, label, known at)"""
    return Rows(
        first=[row[1] for row in rows],
        second=ids or [str(uuid.uuid4()) for _ in rows],
        third=[struct.pack(">dddd", row[0], row[2], row[3], HORIZON) for row in rows],
        offsets=np.array([row[0] for row in rows], np.int64),
        event_times=np.array([row[3] for row in rows], np.int64),
    )


def shown(claims: Claims) -> list[tuple[str, float, int, float]]:
    """(request id, label, kind, previous) of each claim; -1 for null."""
    return [
        (
            record.decode(),
            *(float(v) for v in (np.nan_to_num(label, nan=-1), kind, np.nan_to_num(previous, nan=-1))),
        )
        for record, label, kind, previous in zip(
            claims.records, claims.label, claims.kind, claims.previous, strict=True
        )
    ]


def make_room(redis_url: str, places: int = 3) -> WaitingRoom:
    room = WaitingRoom(redis_url, prefix=uuid.uuid4().hex, places=places, ttl_seconds=600)
    assert room.begin_rebuild("test")
    room.end_rebuild(whole=True)
    for place in (P0, L0, L1):
        assert room.take(place, None)
    return room


@pytest.fixture
def room(redis_url: str) -> WaitingRoom:
    return make_room(redis_url)


def test_a_label_joins_its_prediction_by_request_and_by_key(room: WaitingRoom) -> None:
    assert (
        shown(room.apply(P0, predictions((0, "a", "", 0), (1, "b", "k:m:x", 0), (2, "c", "k:m:x", 5)), 3))
        == []
    )
    assert shown(room.apply(L0, labels((0, "r:a", 1.0, 10)), 1)) == [("a", 1, JOINED, -1)]
    assert shown(room.apply(L0, labels((1, "k:m:x", 0.0, 20)), 2)) == [
        ("b", 0, JOINED, -1),
        ("c", 0, JOINED, -1),
    ]
    assert room.counts() == {"predictions": 3, "labels": 2, "joined": 3}


def test_a_label_that_is_early_waits(room: WaitingRoom) -> None:
    assert shown(room.apply(L0, labels((0, "r:a", 1.0, 10), (1, "k:m:x", 0.0, 10)), 2)) == []
    assert shown(room.apply(P0, predictions((0, "a", "", 5), (1, "b", "k:m:x", 5)), 2)) == [
        ("a", 1, JOINED, -1),
        ("b", 0, JOINED, -1),
    ]
    assert room.counts()["early"] == 2


def test_corrections_duplicates_and_older_labels(room: WaitingRoom) -> None:
    room.apply(P0, predictions((0, "a", "", 0)), 1)
    first = labels((0, "r:a", 1.0, 10), ids=["same"])
    assert shown(room.apply(L0, first, 1)) == [("a", 1, JOINED, -1)]
    assert shown(room.apply(L1, labels((0, "r:a", 1.0, 10), ids=["same"]), 1)) == []
    assert shown(room.apply(L0, labels((1, "r:a", 1.0, 30)), 2)) == []
    assert shown(room.apply(L0, labels((2, "r:a", 0.0, 40)), 3)) == [("a", 0, CORRECTED, 1)]
    assert shown(room.apply(L0, labels((3, "r:a", 1.0, 20)), 4)) == []
    assert room.counts() == {
        **{"predictions": 1, "labels": 5, "joined": 1, "duplicate": 1},
        **{"confirmed": 1, "corrected": 1, "superseded": 1},
    }


def test_never_and_then_after_all(room: WaitingRoom) -> None:
    room.apply(P0, predictions((0, "a", "", 0)), 1)
    assert shown(room.apply(L0, labels((0, "r:a", float("nan"), 10)), 1)) == [("a", -1, NEVER, -1)]
    assert shown(room.apply(L0, labels((1, "r:a", 1.0, 20)), 2)) == [("a", 1, CORRECTED, -1)]


def test_a_label_past_the_horizon_is_late(room: WaitingRoom) -> None:
    room.apply(P0, predictions((0, "a", "", 0)), 1)
    assert shown(room.apply(L0, labels((0, "r:a", 1.0, HORIZON + 1)), 1)) == []
    assert room.counts()["late"] == 1


def test_what_is_past_its_time_leaves_and_is_counted(room: WaitingRoom) -> None:
    room.apply(P0, predictions((0, "alone", "k:m:z", 0), (1, "joined", "", 0)), 2)
    room.apply(L0, labels((0, "r:nobody", 1.0, 0), (1, "r:joined", 1.0, 10)), 2)
    far = 5 * HORIZON
    room.apply(L0, labels((2, "r:other", 1.0, far)), 3)
    room.apply(L1, labels((0, "r:other2", 1.0, far)), 1)
    assert "orphan" not in room.counts()  # the predictions' partition may still bring them
    room.apply(P0, predictions((2, "new", "", far)), 3)
    counts = room.counts()
    assert (counts["orphan"], counts["unlabelled"]) == (1, 1)
    assert shown(room.apply(L0, labels((3, "k:m:z", 1.0, far)), 4)) == []


def test_a_row_that_comes_again_claims_the_same_and_counts_once(room: WaitingRoom) -> None:
    rows = predictions((0, "a", "", 0), (1, "b", "", 0))
    room.apply(P0, rows, 2)
    both = labels((0, "r:a", 1.0, 10), (1, "r:b", 0.0, 10), (2, "r:a", 0.0, 20))
    first = shown(room.apply(L0, both, 3))
    counts = room.counts()
    assert room.take(L0, 0)
    assert shown(room.apply(L0, both, 3)) == first == [("a", 1, 0, -1), ("b", 0, 0, -1), ("a", 0, 1, 1)]
    assert room.take(L0, 1)
    assert shown(room.apply(L0, labels((1, "r:b", 0.0, 10), (2, "r:a", 0.0, 20)), 3)) == first[1:]
    assert room.counts() == counts


def test_an_emptied_redis_is_noticed(room: WaitingRoom, redis_url: str) -> None:
    room.apply(P0, predictions((0, "a", "", 0)), 1)
    client = redis.Redis.from_url(redis_url)
    client.delete(*client.scan_iter(f"{room._prefix}*"))
    with pytest.raises(LostRoomError):
        room.apply(P0, predictions((1, "b", "", 0)), 2)
    assert not room.take(P0, 1)


def test_during_a_rebuild_nobody_else_applies_rows(redis_url: str) -> None:
    room = make_room(redis_url)
    other = WaitingRoom(redis_url, prefix="", places=3, ttl_seconds=600)
    other._prefix = room._prefix
    other.take(P0, None)
    assert room.begin_rebuild("one")
    assert not other.begin_rebuild("two")
    room.extend_rebuild([P0])
    room.apply(P0, predictions((0, "a", "", 0)), 1)
    with pytest.raises(LostRoomError):
        other.apply(P0, predictions((0, "a", "", 0)), 1)
    assert not other.take(P0, 0)
    room.end_rebuild(whole=True)
    assert other.take(P0, 1)
    room.close()
    other.close()


def test_a_rebuild_that_was_killed_is_begun_anew_at_once(redis_url: str) -> None:
    killed = make_room(redis_url)
    assert killed.begin_rebuild("joiner-0")
    killed.extend_rebuild([P0])
    again = WaitingRoom(redis_url, prefix="", places=3, ttl_seconds=600)
    again._prefix = killed._prefix
    assert not again.take(P0, 1)
    assert again.begin_rebuild("joiner-0")
    with pytest.raises(LostRoomError):  # what the killed one had still under way comes too late
        killed.apply(P0, predictions((0, "a", "", 0)), 1)
    again.extend_rebuild([P0])
    again.apply(P0, predictions((0, "a", "", 0)), 1)
    again.end_rebuild(whole=True)
    assert again.take(P0, 1)
    assert again.counts() == {"predictions": 1}
    killed.close()
    again.close()


@dataclass
class Model:
    """What must come out in the end: for each request the label known last (of equals the larger)."""

    labels: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def final(self, request: str) -> float | None:
        inside = [(known, label) for known, label in self.labels.get(request, []) if known <= HORIZON]
        return max(inside)[1] if inside else None


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from([-1.0, 0.0, 1.0]), st.integers(1, 1_200)),
        max_size=12,
    ),
    st.integers(0, 2**32),
)
def test_any_order_and_any_repetition(
    redis_url: str, given_labels: list[tuple[str, float, int]], seed: int
) -> None:
    source = random.Random(seed)
    room = make_room(redis_url)
    expected = Model()
    streams: dict[Place, list[tuple]] = {P0: [], L0: [], L1: []}
    for offset, request in enumerate(sorted("abcd", key=lambda _: source.random())):
        streams[P0].append((offset, request, "", 0))
    for request, label, known in given_labels:
        place = source.choice([L0, L1])
        value = float("nan") if label < 0 else label
        streams[place].append((len(streams[place]), f"r:{request}", value, known))
        expected.labels.setdefault(request, []).append((known, label))
    ids = {place: [str(uuid.uuid4()) for _ in rows] for place, rows in streams.items()}
    at = dict.fromkeys(streams, 0)
    outcomes: list[tuple[str, float, int, float]] = []
    while any(at[place] < len(rows) for place, rows in streams.items()):
        place = source.choice([one for one in streams if at[one] < len(streams[one])])
        size = source.randint(1, 4)
        rows = streams[place][at[place] : at[place] + size]
        made = (
            predictions(*rows) if place is P0 else labels(*rows, ids=ids[place][at[place] : at[place] + size])
        )
        claims = shown(room.apply(place, made, at[place] + len(rows)))
        if source.random() < 0.5:  # killed before the commit: the rows come again, perhaps in other batches
            assert room.take(place, at[place])
            parts = []
            for row in range(len(rows)):
                one = streams[place][at[place] + row : at[place] + row + 1]
                again = (
                    predictions(*one) if place is P0 else labels(*one, ids=ids[place][at[place] + row :][:1])
                )
                parts += shown(room.apply(place, again, at[place] + row + 1))
            assert parts == claims
        outcomes += claims
        at[place] += len(rows)
    for request in "abcd":
        mine = [one for one in outcomes if one[0] == request]
        final = expected.final(request)
        assert (mine[-1][1] if mine else None) == final
        assert [one[2] for one in mine[1:]] == [CORRECTED] * len(mine[1:])
        assert all(one[2] != CORRECTED for one in mine[:1])
        assert all(later[3] == earlier[1] for earlier, later in itertools.pairwise(mine))


def test_a_full_redis_is_told_and_nothing_is_half_applied(redis_url: str) -> None:
    room = make_room(redis_url)
    for place in (P0, L0):
        assert room.take(place, None)
    rows = predictions((0, "a", "k:m:1", 10), (1, "b", "k:m:2", 20))
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(UnavailableError, match="full"):
                room.apply(P0, rows, 2)
        finally:
            client.config_set("maxmemory", 0)
    assert shown(room.apply(P0, rows, 2)) == []
    assert shown(room.apply(L0, labels((0, "k:m:1", 1.0, 30)), 1)) == [("a", 1.0, JOINED, -1)]
    assert room.counts()["predictions"] == 2
    room.close()


def test_a_room_in_a_cluster(tmp_path: Path) -> None:
    cluster = ValkeyCluster(tmp_path)
    try:
        room = make_room(cluster.url)
        for place in (P0, L0):
            assert room.take(place, None)
        assert shown(room.apply(P0, predictions((0, "a", "k:m:1", 10)), 1)) == []
        assert shown(room.apply(L0, labels((0, "k:m:1", 1.0, 30)), 1)) == [("a", 1.0, JOINED, -1)]
        cluster.move(room._prefix)
        with pytest.raises(UnavailableError):  # it has moved: the loop begins anew
            room.apply(L0, labels((1, "k:m:1", 0.0, 40)), 2)
        again = labels((1, "k:m:1", 0.0, 40))
        assert shown(room.apply(L0, again, 2)) == [("a", 0.0, CORRECTED, 1.0)]
        room.close()
    finally:
        cluster.close()
