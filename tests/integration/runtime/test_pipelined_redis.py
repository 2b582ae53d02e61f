"""Commands over one connection of an event loop: each gets its own reply, or is told in time that there is none."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import redis

from driftline.runtime.pipelined_redis import PipelinedRedis
from driftline.runtime.redis_script import RedisScript


class Server:
    """A Redis with some keys, and a connection to it."""

    def __init__(self, url: str, unique: str) -> None:
        self.url = url
        self.client = redis.Redis.from_url(url)
        self.keys = [f"{unique}:{number}" for number in range(30)]
        for number, key in enumerate(self.keys[:20]):
            self.client.set(key, bytes(range(256)) * number)
        self.values = self.client.mget(self.keys)

    @asynccontextmanager
    async def connected(self, timeout_seconds: float = 5.0) -> AsyncIterator[Callable[..., Any]]:
        connection = PipelinedRedis(self.url, timeout_seconds=timeout_seconds)
        try:
            yield partial(asked, connection)
        finally:
            connection.close()
            await asyncio.sleep(0.01)


async def asked(connection: PipelinedRedis, *parts: Any, **options: Any) -> Any:
    """Return a reply, or the error that was told."""
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    connection.ask(parts, told.set_result, **options)
    return await told


@pytest.fixture
def server(redis_url: str, unique: str) -> Iterator[Server]:
    found = Server(redis_url, unique)
    yield found
    found.client.close()


def test_each_command_gets_its_own_reply(server: Server) -> None:
    async def story() -> None:
        async with server.connected() as ask:
            replies = await asyncio.gather(*[ask("MGET", key, *server.keys) for key in server.keys * 10])
            assert replies == [[value, *server.values] for value in server.values * 10]
            error, fine = await asyncio.gather(ask("NO-SUCH-COMMAND"), ask("GET", server.keys[3]))
            assert isinstance(error, redis.ResponseError)
            assert fine == server.values[3]

    asyncio.run(story())


def test_a_connection_that_was_cut_is_opened_again_and_asked_once_more(server: Server) -> None:
    async def story() -> None:
        async with server.connected() as ask:
            assert await ask("MGET", *server.keys) == server.values
            server.client.client_kill_filter(_type="normal", skipme=True)  # idle
            assert await ask("MGET", *server.keys) == server.values
            server.client.client_pause(200)
            waiting = [asyncio.ensure_future(ask("GET", key)) for key in server.keys]
            await asyncio.sleep(0.05)
            server.client.client_kill_filter(_type="normal", skipme=True)  # while it is waited for
            assert await asyncio.gather(*waiting) == server.values

    asyncio.run(story())


def test_a_late_reply_is_nobodys(server: Server) -> None:
    async def story() -> None:
        async with server.connected() as ask:
            assert await ask("GET", server.keys[1]) == server.values[1]
            server.client.client_pause(300)
            begun = asyncio.get_running_loop().time()
            late = await ask("GET", server.keys[2], within_seconds=0.03)
            assert isinstance(late, redis.TimeoutError)
            assert asyncio.get_running_loop().time() - begun < 0.25
            # It went on, and whatever was asked meanwhile gets its own.
            assert await asyncio.gather(*[ask("GET", key) for key in server.keys]) == server.values

    asyncio.run(story())


def test_a_server_that_says_nothing_is_given_up_and_asked_anew(server: Server) -> None:
    async def story() -> None:
        async with server.connected(timeout_seconds=0.1) as ask:
            assert await ask("GET", server.keys[1]) == server.values[1]
            server.client.client_pause(400)
            told = await asyncio.gather(*[ask("GET", key) for key in server.keys[:3]])
            assert {type(one) for one in told} == {redis.TimeoutError}
            server.client.client_unpause()
            assert await asyncio.gather(*[ask("GET", key) for key in server.keys]) == server.values

    asyncio.run(story())


def test_an_idle_connection_is_not_taken_for_a_silent_one(server: Server) -> None:
    async def story() -> None:
        async with server.connected(timeout_seconds=0.2) as ask:
            assert await ask("GET", server.keys[1]) == server.values[1]
            await asyncio.sleep(0.15)
            server.client.client_pause(100)  # over after 250 ms of the connection's life
            assert await ask("GET", server.keys[2]) == server.values[2]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://127.0.0.1:1/0", "no connection"),
        ("unix:///no/such/socket", "no connection"),
        ("redis://{}/4711", "refuses us"),
        ("redis://nobody:wrong@{}/0", "refuses us"),
    ],
)
def test_who_cannot_be_reached_or_refuses_us_is_told(server: Server, url: str, why: str) -> None:
    where = server.url.removeprefix("redis://").split("/")[0]

    async def story() -> None:
        connection = PipelinedRedis(url.format(where), timeout_seconds=1.0)
        for _ in range(2):
            told = await asked(connection, "GET", "x")
            assert isinstance(told, redis.ConnectionError)
            assert why in str(told)

    asyncio.run(story())


def test_another_event_loop_has_a_connection_of_its_own(server: Server) -> None:
    connection = PipelinedRedis(server.url, timeout_seconds=5.0)

    async def story() -> None:
        assert await asked(connection, "GET", server.keys[1]) == server.values[1]
        connection.close()
        await asyncio.sleep(0.01)

    for _ in range(2):
        asyncio.run(story())


def test_a_script_that_the_server_does_not_know_is_told_to_it(server: Server) -> None:
    script = RedisScript("return {KEYS[1], ARGV[1]}")
    server.client.script_flush()

    async def story() -> None:
        connection = PipelinedRedis(server.url, timeout_seconds=5.0)
        for _ in range(2):
            told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            script.ask(connection, ["k"], ["a"], told.set_result)
            assert await told == [b"k", b"a"]
        connection.close()
        await asyncio.sleep(0.01)

    asyncio.run(story())


def test_it_takes_one_server_without_tls() -> None:
    urls = ["redis://a:1/0", "unix:///tmp/s", "rediss://a:1/0", "redis+cluster://a:1"]
    assert [PipelinedRedis.takes(url) for url in urls] == [True, True, False, False]
