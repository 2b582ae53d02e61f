"""The store and the waiting room on three real nodes of a cluster: the same bytes as on one server, moved slots included."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.features.keys import owner_key
from driftline.features.online import OnlineStore
from driftline.features.read import same_bits
from driftline.runtime.health import Health
from driftline.runtime.redis_servers import RedisServers
from driftline.streaming.service import wait_for_redis
from tests.integration.valkey_cluster import ValkeyCluster

from .conftest import NOW_US, PARTITIONS, VIEWS


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ValkeyCluster]:
    nodes = ValkeyCluster(tmp_path)
    try:
        yield nodes
    finally:
        nodes.close()


class OverNodes:
    """What the tests' world asks of a client, over all nodes."""

    def __init__(self, url: str) -> None:
        self._servers = RedisServers(url, timeout=5.0)

    def get(self, key: str) -> Any:
        return self.mget([key])[0]

    def mget(self, keys: Sequence[Any]) -> list[Any]:
        try:
            return self._servers.mget(keys)
        except Exception:  # noqa: BLE001  a slot that is moving: asked again, as by any application
            self._servers.moved()
            time.sleep(0.1)
            return self._servers.mget(keys)

    def scan_iter(self, match: str, count: int) -> Iterator[bytes]:
        for client in self._servers.every():
            yield from client.scan_iter(match, count=count)

    def close(self) -> None:
        self._servers.close()


def test_a_cluster_holds_the_same_bytes(world: Any, payments: Any, cluster: ValkeyCluster) -> None:
    alone = world.client
    world.publish(payments(400))
    world.run()
    expected = world.stored()
    world.redis_url, world.client = cluster.url, OverNodes(cluster.url)
    assert wait_for_redis(world.redis_url, health=Health(), stop=threading.Event())
    world.run()
    assert world.stored() == expected
    assert world.blobs() == world.expected()
    here, there = (
        OnlineStore(
            store, prefix=world.topics.prefix, project=world.project, partitions={"payments": PARTITIONS}
        ).read([(VIEWS[3], ["c1", "c2", "nobody"])], np.full(3, NOW_US))
        for store in (alone, cluster.url)
    )
    assert same_bits(here[0].values, there[0].values).all()
    assert np.isfinite(here[0].values[:2]).any()
    world.client.close()
    world.client = alone


def test_slots_that_move_while_they_are_written(world: Any, payments: Any, cluster: ValkeyCluster) -> None:
    alone = world.client
    world.redis_url, world.client = cluster.url, OverNodes(cluster.url)
    world.publish(payments(200))
    moved: list[int] = []

    def until() -> bool:
        number = len(moved)
        if number < 2 * PARTITIONS and world.caught_up():
            world.publish(payments(100, start=200 + 100 * number))
            key = owner_key(world.topics.prefix, "payments", number % PARTITIONS)
            before = cluster.holds(key)
            cluster.move(key)
            assert cluster.holds(key) != before
            moved.append(number)
        return len(moved) == 2 * PARTITIONS and bool(world.caught_up())

    world.run(until=until, max_batch=20, seconds=120)
    assert world.blobs() == world.expected()
    world.client.close()
    world.client = alone
