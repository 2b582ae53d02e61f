"""Nothing acknowledged is lost or doubled, whichever service is killed at whichever moment (X5)."""

import os
import random
import signal
import time
from typing import Any

from driftline.features.keys import partition_of
from driftline.runtime.ids import new_id
from tests.e2e.checks import (
    answers_of,
    assert_each_request_is_logged_once,
    assert_events_in_topic,
    assert_store_equals_replay,
    event_traffic,
    request_traffic,
)
from tests.e2e.monitoring import ask, assert_every_window_is_reported, wait_every_window_before
from tests.e2e.outcomes import HOUR_US, Orders, assert_outcomes
from tests.e2e.platform import Platform
from tests.e2e.traffic import IngestTraffic, PredictionTraffic, sending

#: How often each test kills; fewer for a quick look.
KILLS = int(os.environ.get("E2E_KILLS", "20"))


def kill_at_random_moments(platform: Platform, instance: str, seed: int, kills: int = KILLS) -> None:
    """Kill an instance while it works, and every other time while it may still be starting."""
    source = random.Random(seed)
    for number in range(kills):
        if number % 2:
            time.sleep(source.uniform(0.5, 6))
        else:
            platform.supervisor.wait_ready(60)
            time.sleep(source.uniform(0.05, 1.2))
        platform.supervisor.kill(instance, signal.SIGKILL)
        platform.supervisor.restart(instance)  # at once, without the pause that a crash in a row earns
    platform.supervisor.wait_ready(60)


def test_feature_store_killed(platform: Platform) -> None:
    traffic = event_traffic(platform, 1)
    with sending(traffic):
        kill_at_random_moments(platform, "feature_store-0", 1)
    assert_events_in_topic(platform, traffic.acknowledged)
    assert_store_equals_replay(platform)


def test_ingest_killed(platform: Platform) -> None:
    traffic = IngestTraffic(lambda: platform.url("ingest-0"), seed=2)
    with sending(traffic):
        kill_at_random_moments(platform, "ingest-0", 2)
    assert traffic.retries > 0  # the kills really met requests
    assert_events_in_topic(platform, traffic.acknowledged)
    assert_store_equals_replay(platform)


def test_predictor_killed(platform: Platform) -> None:
    requests = request_traffic(platform, 3)
    calls = PredictionTraffic(lambda: platform.url("predictor-0"), seed=4)
    with sending(requests, calls):
        kill_at_random_moments(platform, "predictor-0", 3)
    assert_each_request_is_logged_once(platform, requests.acknowledged)
    assert calls.acknowledged
    assert calls.retries > 0  # the kills really met requests
    assert calls.attempted == calls.acknowledged
    answers = answers_of(platform)
    assert {request: answers[request] for request in calls.attempted} == {
        request: [score] for request, score in calls.answers.items()
    }


def test_outcome_joiner_killed(platform: Platform) -> None:
    requests, labels = Orders(platform, 9).traffic(9)
    with sending(requests, labels):
        kill_at_random_moments(platform, "outcome_joiner-0", 9)
    assert_outcomes(platform)


def test_profiler_and_drift_monitor_killed(platform: Platform) -> None:
    orders = Orders(platform, 11)
    requests, labels = orders.traffic(11)
    with sending(requests, labels):
        kill_at_random_moments(platform, "profiler-0", 11, kills=KILLS // 2)
        kill_at_random_moments(platform, "drift_monitor-0", 12, kills=KILLS // 2)
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
    partitions = platform.partitions(platform.predictions_topic)
    while partition_of(request_id := new_id(), partitions) != 0:
        pass
    return {**request, "request_id": request_id, "event_time": event_time}


def test_a_partition_without_rows_holds_no_window_open(platform: Platform) -> None:
    """Requests that all come to lie in one partition of the log: the other one is called quiet."""
    orders = Orders(platform, 14)
    requests = [orders.request()[2] for _ in range(40)]
    ask(platform, requests)
    platform.wait_consumed(platform.requests_topic, "predictor")
    lies = {
        record.value["request_id"]: record.partition
        for record in platform.journal(platform.predictions_topic).records()
    }
    here = [one for one in requests if lies[one["request_id"]] == 0]
    assert 0 < len(here) < len(requests)
    for hours in (5, 10):
        ask(platform, [new_request_in(platform, one, orders.end_us + hours * HOUR_US) for one in here])
        platform.wait_consumed(platform.requests_topic, "predictor")
    wait_every_window_before(platform, orders.end_us + 9 * HOUR_US)
