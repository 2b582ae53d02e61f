"""Claims and askers on one Valkey and on a cluster of three: whoever is first is told to all others."""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from driftline.runtime.clock import ManualClock
from driftline.runtime.errors import UnavailableError
from driftline.runtime.ids import new_id
from driftline.serving.claimed_reads import ClaimsFoundError, ReadsBesideClaims
from driftline.serving.claims import OVER_HTTP, Claim, Claims, place_of, raw_id
from tests.integration.valkey_cluster import ValkeyCluster

HOUR_US = 3_600_000_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    running = ValkeyCluster(tmp_path_factory.mktemp("cluster"))
    yield running
    running.close()


@pytest.fixture(params=["one", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "one":
        return str(request.getfixturevalue("redis_url"))
    return str(request.getfixturevalue("cluster").url)


class Some:
    """Claims of several processes in one project."""

    def __init__(self, url: str, prefix: str) -> None:
        self.clock = ManualClock(1_750_000_000_000_000)
        self._url, self._prefix = url, prefix
        self._made: list[Claims] = []

    def claims(self, seconds: int = 3_600) -> Claims:
        made = Claims(self._url, prefix=self._prefix, seconds=seconds, timeout_seconds=2, clock=self.clock)
        self._made.append(made)
        return made

    def close(self) -> None:
        for one in self._made:
            one.close()


@pytest.fixture
def some(url: str, unique: str) -> Iterator[Some]:
    made = Some(url, unique)
    yield made
    made.close()


def test_the_first_claim_is_everyones(some: Some) -> None:
    first, second = some.claims(), some.claims()
    ids = [new_id() for _ in range(70)]
    values = [b"first %d" % number for number in range(70)]
    assert first.look(ids) == {}
    assert first.claim(ids[:50], values[:50]) == {}
    assert first.claim(ids[:50], values[:50]) == {}, "one's own, asked twice after a lost reply"
    found = second.claim(ids, [b"second"] * 70)
    assert found == {one: Claim(value, False) for one, value in zip(ids[:50], values, strict=False)}
    assert second.look(ids) == {**found, **{one: Claim(b"second", False) for one in ids[50:]}}
    first.keep(ids[:50], values[:50])
    assert second.look(ids[:50]) == {one: Claim(value.value, True) for one, value in found.items()}
    second.drop(ids[:3])
    assert set(first.look(ids)) == set(ids[3:])


def test_of_many_at_once_one_is_first(some: Some) -> None:
    ids = [new_id() for _ in range(100)]

    def claim(number: int) -> dict[str, Claim]:
        claims = some.claims()
        found: dict[str, Claim] = {}
        order = random.Random(number).sample(ids, len(ids))
        for start in range(0, len(order), 7):
            few = order[start : start + 7]
            found.update(claims.claim(few, [b"%d" % number] * len(few)))
        return found

    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(claim, range(6)))
    for one in ids:
        winners = [number for number, found in enumerate(told) if one not in found]
        assert len(winners) == 1
        assert {found[one].value for found in told if one in found} == {b"%d" % winners[0]}


def test_an_old_claim_is_taken_over_by_one(some: Some) -> None:
    first, second = some.claims(), some.claims(seconds=7_200)
    one = new_id()
    assert not first.take_over(one, older_than_seconds=5)
    first.claim([one], [b"x"])
    assert not first.take_over(one, older_than_seconds=5)
    assert second.take_over(one, older_than_seconds=5), "for it, the claim is an hour old"
    assert not second.take_over(one, older_than_seconds=5)


def test_the_first_place_answers_and_finds_itself_again(some: Some) -> None:
    claims = some.claims()
    ids = [raw_id(new_id()) or b"" for _ in range(5_000)]
    places = [place_of(number % 3, number) for number in range(5_000)]
    assert first(claims, ids, places) == {}
    assert first(claims, ids, places) == {}
    later = [place_of(0, 9_000 + number) for number in range(5_000)]
    assert first(claims, ids, later) == dict(enumerate(places))
    twice = [raw_id(new_id()) or b""] * 2
    assert first(claims, twice, places[:2]) == {1: places[0]}, "within one batch"
    claims.release(ids[:1])
    assert first(claims, ids[:2], later[:2]) == {1: places[1]}
    claims.take(ids[1:2], later[1:2])
    assert first(claims, ids[:2], later[:2]) == {}


def first(claims: Claims, ids: Sequence[bytes], places: Sequence[bytes]) -> dict[int, bytes]:
    return claims.first(b"".join(ids), b"".join(places))


def test_http_and_topic_know_of_each_other(some: Some) -> None:
    http, topic = some.claims(), some.claims()
    ids = [new_id() for _ in range(4)]
    raw = [raw_id(one) or b"" for one in ids]
    places = [place_of(1, number) for number in range(4)]
    assert first(topic, raw[:2], places[:2]) == {}
    found = http.claim(ids, [b"a"] * 4)
    assert {one for one, claim in found.items() if claim.on_topic} == set(ids[:2]) == set(found)
    assert set(http.look(ids)) == set(ids[2:])
    assert first(topic, raw, places) == {2: OVER_HTTP, 3: OVER_HTTP}
    made = new_id()
    http.keep([made], [b"a"])
    http.note([made])
    assert topic.first(raw_id(made) or b"", place_of(1, 9)) == {0: OVER_HTTP}


def test_askers_are_known_for_one_to_two_spans(some: Some) -> None:
    claims = some.claims()
    one, place, other = raw_id(new_id()) or b"", place_of(0, 1), place_of(0, 2)
    claims.first(one, place)
    for _ in range(4):
        some.clock.advance(HOUR_US // 4)
        assert claims.first(one, other) == {0: place}
    some.clock.advance(HOUR_US)
    assert claims.first(one, other) == {}


def test_features_and_claims_are_read_together(some: Some, url: str, unique: str) -> None:
    claims = some.claims()
    reads = ReadsBesideClaims(claims)
    ids = [new_id() for _ in range(3)]
    blobs = [claims.key(f"blob-{number}") for number in range(5)]
    claims.claim([f"{number:08x}-0000-0000-0000-000000000000" for number in range(1)], [b"any"])
    reads.want(ids)
    assert reads.mget(blobs) == [None] * 5
    claims.claim(ids[1:2], [b"x"])
    reads.want(ids)
    with pytest.raises(ClaimsFoundError) as caught:
        reads.mget(blobs)
    assert caught.value.claims == {ids[1]: Claim(b"x", False)}
    assert reads.mget(blobs) == [None] * 5, "told once"


def test_a_server_that_is_gone_is_said(unique: str) -> None:
    for url in ("redis://127.0.0.1:1/0", "redis+cluster://127.0.0.1:1"):
        claims = Claims(url, prefix=unique, seconds=60, timeout_seconds=0.2)
        ids, raw = [new_id()], [b"0" * 16]
        asked: list[Any] = [
            lambda claims=claims, ids=ids: claims.look(ids),
            lambda claims=claims, ids=ids: claims.claim(ids, [b"x"]),
            lambda claims=claims, ids=ids: claims.keep(ids, [b"x"]),
            lambda claims=claims, raw=raw: first(claims, raw, [OVER_HTTP]),
        ]
        for ask in asked:
            with pytest.raises(UnavailableError, match="Redis"):
                ask()


def test_scripts_come_back_after_the_server_forgot_them(redis_url: str, unique: str) -> None:
    claims = Claims(redis_url, prefix=unique, seconds=60, timeout_seconds=2)
    claims.claim([new_id()], [b"x"])
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
    one = new_id()
    assert claims.claim([one], [b"x"]) == {}
    assert claims.look([one]) == {one: Claim(b"x", False)}
    claims.close()
