"""What every kill test asks: is each acknowledged event in the topic, the store what a replay gives, each request answered once?"""

import random
from collections import Counter
from typing import Any

from tests.e2e.platform import Platform
from tests.e2e.reading import differences, stored
from tests.e2e.traffic import Payments, TopicTraffic


def event_traffic(platform: Platform, seed: int) -> TopicTraffic:
    payments = Payments(random.Random(seed))

    def make() -> tuple[str, str, dict[str, Any]]:
        event = payments.make()
        return event["event_id"], event["customer"], event

    return platform.traffic(platform.events_topic, make, seed=seed, burst=5)


def request_traffic(platform: Platform, seed: int) -> TopicTraffic:
    source = random.Random(seed)

    def make() -> tuple[str, str, dict[str, Any]]:
        request = platform.request(source)
        return request["request_id"], request["request_id"], request

    return platform.traffic(platform.requests_topic, make, seed=seed, burst=5)


def assert_store_equals_replay(platform: Platform) -> None:
    platform.wait_applied()
    records = platform.journal(platform.events_topic).records()
    for view in platform.project.views.values():
        expected = platform.replay(view).blobs(records)
        found = stored(platform.redis, platform.prefix, view, expected)
        assert expected
        assert differences(expected, found) == []


def assert_events_in_topic(platform: Platform, acknowledged: set[str]) -> None:
    found = {event["event_id"] for event in platform.journal(platform.events_topic).values()}
    assert acknowledged
    assert acknowledged - found == set()


def assert_each_request_is_logged_once(platform: Platform, acknowledged: set[str]) -> None:
    platform.wait_consumed(platform.requests_topic, "predictor")
    logged, sent = predictions_of(platform), sent_requests(platform)
    assert acknowledged
    assert acknowledged - set(logged) == set()
    assert sent.total() > len(sent)  # some were sent twice
    assert {request for request in sent if logged[request] != 1} == set()


def predictions_of(platform: Platform) -> Counter[str]:
    return Counter(one["request_id"] for one in platform.journal(platform.predictions_topic).values())


def answers_of(platform: Platform) -> dict[str, list[float]]:
    """The scores of each request that the log has as answered; attempts that failed are there beside them."""
    found: dict[str, list[float]] = {}
    for record in platform.journal(platform.predictions_topic).values():
        if record["status"] == "ANSWERED":
            found.setdefault(record["request_id"], []).append(record["score"])
    return found


def sent_requests(platform: Platform) -> Counter[str]:
    return Counter(one["request_id"] for one in platform.journal(platform.requests_topic).values())
