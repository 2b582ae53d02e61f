"""Nothing acknowledged is lost or doubled, whichever process is killed at whichever moment (X5)."""

import itertools
import os
import random
import signal
import time
from collections import Counter
from typing import Any

import pytest

from driftline.features.keys import partition_of
from driftline.runtime.ids import new_id
from tests.e2e.monitoring import ask, assert_every_window_is_reported, wait_every_window_before
from tests.e2e.outcomes import HOUR_US, Orders, assert_outcomes
from tests.e2e.platform import Platform
from tests.e2e.reading import committed, differences, end_offsets, replayed, stored
from tests.e2e.traffic import IngestTraffic, Payments, PredictionTraffic, TopicTraffic

#: How often each test kills; fewer for a quick look.
KILLS = int(os.environ.get("E2E_KILLS", "20"))


def event_traffic(platform: Platform, seed: int) -> TopicTraffic:
    payments = Payments(random.Random(seed))

    def make() -> tuple[str, str, dict]:  # type: ignore[type-arg]
        event = payments.make()
        return event["event_id"], event["customer"], event

    return TopicTraffic(
        platform.bootstrap,
        platform.events_topic,
        platform.event_codec,
        platform.event_schema_id,
        make,
        seed=seed,
    )


def request_traffic(platform: Platform, seed: int) -> TopicTraffic:
    source = random.Random(seed)

    def make() -> tuple[str, str, dict]:  # type: ignore[type-arg]
        request = platform.request(source)
        return request["request_id"], request["request_id"], request

    return TopicTraffic(
        platform.bootstrap,
        platform.requests_topic,
        platform.request_codec,
        platform.request_schema_id,
        make,
        seed=seed,
    )


def assert_store_equals_replay(platform: Platform) -> None:
    platform.wait_applied()
    messages = committed(platform.bootstrap, platform.events_topic, platform.partitions)
    for view in platform.project.views.values():
        expected = replayed(view, messages, platform.event_codec)
        found = stored(platform.redis, platform.prefix, view, list(expected))
        assert expected
        assert differences(expected, found) == []


def assert_events_in_topic(platform: Platform, acknowledged: set[str]) -> None:
    messages = committed(platform.bootstrap, platform.events_topic, platform.partitions)
    found = {platform.event_codec.decode(m.value()[5:])["event_id"] for m in messages}  # type: ignore[index]
    assert acknowledged
    assert acknowledged - found == set()


def predictions_of(platform: Platform) -> Counter[str]:
    messages = committed(platform.bootstrap, platform.predictions_topic, platform.predictions_partitions)
    return Counter(platform.prediction_codec.decode(m.value()[5:])["request_id"] for m in messages)  # type: ignore[index]


def answers_of(platform: Platform) -> dict[str, list[float]]:
    """The scores of each request that the log has as answered; attempts that failed are there beside them."""
    found: dict[str, list[float]] = {}
    for message in committed(platform.bootstrap, platform.predictions_topic, platform.predictions_partitions):
        record = platform.prediction_codec.decode(message.value()[5:])  # type: ignore[index]
        if record["status"] == "ANSWERED":
            found.setdefault(record["request_id"], []).append(record["score"])
    return found


def sent_requests(platform: Platform) -> Counter[str]:
    messages = committed(platform.bootstrap, platform.requests_topic, platform.requests_partitions)
    return Counter(platform.request_codec.decode(m.value()[5:])["request_id"] for m in messages)  # type: ignore[index]


def kill_at_random_moments(platform: Platform, instance: str, seed: int, kills: int = KILLS) -> None:
    source = random.Random(seed)
    for _ in range(kills):
        time.sleep(source.uniform(0.05, 1.2))
        platform.supervisor.kill(instance, signal.SIGKILL)
        platform.supervisor.restart(instance)  # at once, without the pause that a crash in a row earns
        platform.supervisor.wait_ready(60)


def test_feature_store_killed(platform: Platform) -> None:
    traffic = event_traffic(platform, 1)
    traffic.start()
    kill_at_random_moments(platform, "feature_store-0", 1)
    traffic.end()
    assert_events_in_topic(platform, traffic.acknowledged)
    assert_store_equals_replay(platform)


def test_ingest_killed(platform: Platform) -> None:
    traffic = IngestTraffic(lambda: platform.url("ingest-0"), seed=2)
    traffic.start()
    kill_at_random_moments(platform, "ingest-0", 2)
    traffic.end()
    assert traffic.retries > 0  # the kills really met requests
    assert_events_in_topic(platform, traffic.acknowledged)
    assert_store_equals_replay(platform)


def test_predictor_killed(platform: Platform) -> None:
    requests = request_traffic(platform, 3)
    calls = PredictionTraffic(lambda: platform.url("predictor-0"), seed=4)
    requests.start()
    calls.start()
    kill_at_random_moments(platform, "predictor-0", 3)
    requests.end()
    calls.end()
    platform.wait_consumed(platform.requests_topic, "predictor")
    logged = predictions_of(platform)
    sent = sent_requests(platform)
    assert requests.acknowledged
    assert calls.acknowledged
    assert requests.acknowledged - set(logged) == set()
    assert sent.total() > len(sent)  # some were sent twice
    assert {request for request in sent if logged[request] != 1} == set()
    assert calls.retries > 0  # the kills really met requests
    assert calls.attempted == calls.acknowledged
    answers = answers_of(platform)
    assert {request: answers[request] for request in calls.attempted} == {
        request: [score] for request, score in calls.answers.items()
    }


def test_outcome_joiner_killed(platform: Platform) -> None:
    requests, labels = Orders(platform, 9).traffic(9)
    requests.start()
    labels.start()
    kill_at_random_moments(platform, "outcome_joiner-0", 9)
    requests.end()
    labels.end()
    assert_outcomes(platform)


def test_profiler_and_drift_monitor_killed(platform: Platform) -> None:
    orders = Orders(platform, 11)
    requests, labels = orders.traffic(11)
    requests.start()
    labels.start()
    kill_at_random_moments(platform, "profiler-0", 11, kills=KILLS // 2)
    kill_at_random_moments(platform, "drift_monitor-0", 12, kills=KILLS // 2)
    requests.end()
    labels.end()
    assert_outcomes(platform)
    assert_every_window_is_reported(platform, orders)


def test_a_profiler_that_was_away_leaves_no_row_behind(platform: Platform) -> None:
    """Called quiet, it falls asleep while hours pass; awake, it brings one partition's hours before the other's."""
    orders = Orders(platform, 13)
    ask(platform, [orders.request()[2] for _ in range(200)])
    platform.wait_consumed(platform.requests_topic, "predictor")
    time.sleep(10)  # longer than DRIFTLINE_PROFILER_QUIET_SECONDS and a flush
    platform.supervisor.kill("profiler-0", signal.SIGSTOP)
    try:
        ask(platform, [orders.request()[2] for _ in range(6_000)])
        platform.wait_consumed(platform.requests_topic, "predictor")
    finally:
        platform.supervisor.kill("profiler-0", signal.SIGCONT)
    assert_every_window_is_reported(platform, orders)


def new_request_in(platform: Platform, request: dict[str, Any], event_time: int) -> dict[str, Any]:
    """A request like another one under a new UUID, whose record comes to lie in partition 0."""
    while partition_of(request_id := new_id(), platform.predictions_partitions) != 0:
        pass
    return {**request, "request_id": request_id, "event_time": event_time}


def test_a_partition_without_rows_holds_no_window_open(platform: Platform) -> None:
    """Requests that all come to lie in one partition of the log: the other one is called quiet."""
    orders = Orders(platform, 14)
    requests = [orders.request()[2] for _ in range(40)]
    ask(platform, requests)
    platform.wait_consumed(platform.requests_topic, "predictor")
    messages = committed(platform.bootstrap, platform.predictions_topic, platform.predictions_partitions)
    lies = {
        platform.prediction_codec.decode(message.value()[5:])["request_id"]: message.partition()  # type: ignore[index]
        for message in messages
    }
    here = [one for one in requests if lies[one["request_id"]] == 0]
    assert 0 < len(here) < len(requests)
    for hours in (5, 10):
        ask(platform, [new_request_in(platform, one, orders.end_us + hours * HOUR_US) for one in here])
        platform.wait_consumed(platform.requests_topic, "predictor")
    wait_every_window_before(platform, orders.end_us + 9 * HOUR_US)


def test_workers_come_and_go_under_load(platform: Platform) -> None:
    """One, four, one: more workers than the events have partitions; two leave in order, one is killed."""
    traffic, requests = event_traffic(platform, 15), request_traffic(platform, 16)
    traffic.start()
    requests.start()
    workers = {
        service: [platform.start_another(service, number) for number in (7, 8, 9)]
        for service in ("feature_store", "predictor")
    }
    try:
        time.sleep(15)
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
        traffic.end()
        requests.end()
    assert_events_in_topic(platform, traffic.acknowledged)
    assert_store_equals_replay(platform)
    platform.wait_consumed(platform.requests_topic, "predictor")
    logged = predictions_of(platform)
    sent = sent_requests(platform)
    assert requests.acknowledged - set(logged) == set()
    assert sent.total() > len(sent)  # some were sent twice
    assert {request for request in sent if logged[request] != 1} == set()


def test_store_killed_and_restarted_empty(platform: Platform) -> None:
    traffic = event_traffic(platform, 5)
    requests, labels = Orders(platform, 10).traffic(10)
    for one in (traffic, requests, labels):
        one.start()
    source = random.Random(5)
    for _ in range(KILLS):
        time.sleep(source.uniform(0.05, 0.8))
        platform.stack.kill("valkey")
        platform.stack.restart("valkey", wipe=True)
    for one in (traffic, requests, labels):
        one.end()
    assert_store_equals_replay(platform)
    assert_outcomes(platform)


def test_broker_killed(platform: Platform) -> None:
    traffic = event_traffic(platform, 6)
    requests, labels = Orders(platform, 7).traffic(7)
    for one in (traffic, requests, labels):
        one.start()
    source = random.Random(6)
    for _ in range(KILLS):
        time.sleep(source.uniform(0.1, 1.5))
        platform.stack.kill("kafka")
        platform.stack.restart("kafka")
    for one in (traffic, requests, labels):
        one.end()
    assert_events_in_topic(platform, traffic.acknowledged)
    assert_store_equals_replay(platform)
    platform.wait_consumed(platform.requests_topic, "predictor")
    logged = predictions_of(platform)
    assert requests.acknowledged
    assert requests.acknowledged - set(logged) == set()
    assert_outcomes(platform)


@pytest.mark.parametrize("instance", ["feature_store-0", "predictor-0"])
def test_zombie_writes_nothing(platform: Platform, instance: str) -> None:
    """Stopped past its session, its work taken by a second process, then woken: it may write nothing."""
    service = instance.rsplit("-", 1)[0]
    traffic = event_traffic(platform, 8) if service == "feature_store" else request_traffic(platform, 8)
    traffic.start()
    time.sleep(1)
    platform.supervisor.kill(instance, signal.SIGSTOP)
    second = platform.start_another(service)
    try:
        time.sleep(25)  # past the session time-out: the group gives the partitions to the second process
        platform.supervisor.kill(instance, signal.SIGCONT)
        time.sleep(3)
    finally:
        traffic.end()
        try:
            platform.supervisor.wait_ready(60)
        finally:  # or it would outlive a test that fails, and another one would be told of it
            platform.stop_another(second)
    if service == "feature_store":
        assert_store_equals_replay(platform)
    else:
        platform.wait_consumed(platform.requests_topic, "predictor")
        logged = predictions_of(platform)
        assert traffic.acknowledged - set(logged) == set()
    ends = end_offsets(platform.bootstrap, platform.events_topic, platform.partitions)
    assert sum(ends.values()) > 0
