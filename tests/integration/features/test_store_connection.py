"""Reads over one connection, as redis-py reads; after trouble no reply is another's."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from driftline.features.store_connection import StoreConnection


@pytest.fixture
def store(redis_url: str, unique: str) -> Iterator[tuple[StoreConnection, redis.Redis, list[str]]]:
    client = redis.Redis.from_url(redis_url)
    keys = [f"{unique}:{number}" for number in range(30)]
    for number, key in enumerate(keys[:20]):
        client.set(key, bytes(range(256)) * number)
    connection = StoreConnection(redis_url, timeout_seconds=0.2)
    yield connection, client, keys
    connection.close()
    client.close()


def test_it_reads_what_redis_py_reads(store: tuple[StoreConnection, redis.Redis, list[str]]) -> None:
    connection, client, keys = store
    for start in range(0, 30, 7):
        assert connection.mget(keys[start:]) == client.mget(keys[start:])


def test_a_connection_that_was_cut_is_opened_again(
    store: tuple[StoreConnection, redis.Redis, list[str]],
) -> None:
    connection, client, keys = store
    expected = connection.mget(keys)
    client.client_kill_filter(_type="normal", skipme=True)
    assert connection.mget(keys) == expected
    connection.close()
    assert connection.mget(keys) == expected


def test_a_late_reply_is_nobodys(store: tuple[StoreConnection, redis.Redis, list[str]]) -> None:
    connection, client, keys = store
    assert connection.mget(keys[:2]) == client.mget(keys[:2])
    client.client_pause(600)
    with pytest.raises(redis.TimeoutError):
        connection.mget(keys[2:4])
    client.client_unpause()
    for key in keys:
        assert connection.mget([key]) == client.mget([key])


def test_nobody_there_is_told() -> None:
    with pytest.raises(redis.ConnectionError):
        StoreConnection("redis://127.0.0.1:1/0", timeout_seconds=0.2).mget(["x"])


def test_threads_get_their_own_replies(store: tuple[StoreConnection, redis.Redis, list[str]]) -> None:
    connection, client, keys = store
    expected = dict(zip(keys, client.mget(keys), strict=True))

    def read(number: int) -> bool:
        wanted = keys[number % 30 :] + keys[: number % 7]
        return connection.mget(wanted) == [expected[key] for key in wanted]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(400)))


def test_behind_a_slow_store_threads_do_not_wait_for_each_other(
    store: tuple[StoreConnection, redis.Redis, list[str]],
) -> None:
    connection, client, keys = store
    expected = connection.mget(keys)
    client.client_pause(3_000)

    def trouble(_number: int) -> str:
        with pytest.raises(redis.TimeoutError) as raised:
            connection.mget(keys)
        return str(raised.value)

    try:
        with ThreadPoolExecutor(12) as threads:
            told = list(threads.map(trouble, range(12)))
    finally:
        client.client_unpause()  # which waits itself
    assert sum("other commands have waited" in one for one in told) >= 6
    assert connection.mget(keys) == expected


def test_a_forked_process_reads_through_a_connection_of_its_own(
    store: tuple[StoreConnection, redis.Redis, list[str]],
) -> None:
    connection, client, keys = store
    expected = connection.mget(keys)
    asked = client.info("clients")["connected_clients"]
    told, tell = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: other threads of pytest's
        child = os.fork()
    if not child:
        try:
            same = connection.mget(keys) == expected
            os.write(tell, b"%d %d" % (same, client.info("clients")["connected_clients"]))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(tell)
    same, connected = map(int, os.read(told, 100).split())
    os.close(told)
    assert same
    assert connected == asked + 2  # the child's connection, and its client's
    assert connection.mget(keys) == expected
