"""Reads over one connection, as redis-py reads; after trouble no reply is another's."""

import pytest
import redis

from driftline.features.store_connection import StoreConnection


@pytest.fixture
def store(redis_url: str, unique: str) -> tuple[StoreConnection, redis.Redis, list[str]]:
    client = redis.Redis.from_url(redis_url)
    keys = [f"{unique}:{number}" for number in range(30)]
    for number, key in enumerate(keys[:20]):
        client.set(key, bytes(range(256)) * number)
    return StoreConnection(redis_url, timeout_seconds=0.2), client, keys


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
