"""Nothing acknowledged is lost or doubled when workers come and go, servers are killed, or a process wakes too late (X5)."""

import itertools
import os
import random
import signal
import time

import pytest

from tests.e2e.checks import (
    assert_each_request_is_logged_once,
    assert_events_in_topic,
    assert_store_equals_replay,
    event_traffic,
    request_traffic,
)
from tests.e2e.outcomes import Orders, assert_outcomes
from tests.e2e.platform import Platform
from tests.e2e.traffic import sending

#: How often each test kills; fewer for a quick look.
KILLS = int(os.environ.get("E2E_KILLS", "20"))


def kill_server_at_random_moments(
    platform: Platform, part: str, seed: int, within: tuple[float, float], *, wipe: bool = False
) -> None:
    """Kill a server so many seconds after it is ready, and start it again."""
    source = random.Random(seed)
    for _ in range(KILLS):
        time.sleep(source.uniform(*within))
        platform.stack.kill(part)
        platform.stack.restart(part, wipe=wipe)


def test_workers_come_and_go_under_load(platform: Platform) -> None:
    """One, four, one: more workers than the events have partitions; two leave in order, one is killed."""
    traffic, requests = event_traffic(platform, 15), request_traffic(platform, 16)
    with sending(traffic, requests):
        workers = {
            service: [platform.start_another(service, number) for number in (7, 8, 9)]
            for service in ("feature_store", "predictor")
        }
        try:
            for service, started in workers.items():
                for number, worker in zip((7, 8, 9), started, strict=True):
                    platform.wait_another(service, number, worker)
            time.sleep(5)
            for first, second, third in workers.values():
                platform.stop_another(first)
                third.kill()
                third.wait()
                platform.stop_another(second)
            time.sleep(5)
        finally:
            for worker in itertools.chain(*workers.values()):
                worker.kill()
                worker.wait()
    assert_events_in_topic(platform, traffic.acknowledged)
    assert_store_equals_replay(platform)
    assert_each_request_is_logged_once(platform, requests.acknowledged)


@pytest.mark.parametrize("instance", ["feature_store-0", "predictor-0"])
def test_zombie_writes_nothing(platform: Platform, instance: str) -> None:
    """Stopped past its session, its work taken by a second process, then woken: it may write nothing."""
    service = instance.rsplit("-", 1)[0]
    traffic = event_traffic(platform, 8) if service == "feature_store" else request_traffic(platform, 8)
    with sending(traffic):
        time.sleep(1)
        platform.supervisor.kill(instance, signal.SIGSTOP)
        second = platform.start_another(service)
        try:
            time.sleep(25)  # past the session time-out: the group gives the partitions to the second process
            platform.supervisor.kill(instance, signal.SIGCONT)
            time.sleep(3)
            platform.supervisor.wait_ready(60)
        finally:  # or it would outlive a test that fails, and another one would be told of it
            platform.stop_another(second)
    if service == "feature_store":
        assert_store_equals_replay(platform)
    else:
        assert_each_request_is_logged_once(platform, traffic.acknowledged)


def test_broker_killed(platform: Platform) -> None:
    traffic = event_traffic(platform, 6)
    requests, labels = Orders(platform, 7).traffic(7)
    with sending(traffic, requests, labels):
        kill_server_at_random_moments(platform, "kafka", 6, (0.1, 1.5))
    assert_events_in_topic(platform, traffic.acknowledged)
    assert_store_equals_replay(platform)
    assert_each_request_is_logged_once(platform, requests.acknowledged)
    assert_outcomes(platform)


def test_store_killed_and_restarted_empty(platform: Platform) -> None:
    """The last one: of an emptied store the UUIDs are new, so a request that was sent twice may be logged twice."""
    traffic = event_traffic(platform, 5)
    requests, labels = Orders(platform, 10).traffic(10)
    with sending(traffic, requests, labels):
        kill_server_at_random_moments(platform, "valkey", 5, (0.05, 0.8), wipe=True)
    assert_store_equals_replay(platform)
    assert_outcomes(platform)
