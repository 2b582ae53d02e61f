"""What the monitor must have reported: every answered prediction in the window of its event time, once."""

import random
import time
from collections import Counter
from typing import Any

from driftline.contracts.topics import WINDOW_REPORTS
from tests.e2e.outcomes import HOUR_US, Orders
from tests.e2e.platform import Platform
from tests.e2e.traffic import kafka_producer


def assert_every_window_is_reported(platform: Platform, orders: Orders) -> None:
    """Move event time on by hours, so that every window of the orders closes; then compare rows with predictions."""
    source = random.Random(0)
    # So many that each partition of the log has some.
    ask(
        platform, [{**platform.request(source), "event_time": orders.end_us + 3 * HOUR_US} for _ in range(40)]
    )
    platform.wait_consumed(platform.requests_topic, "predictor")
    wait_every_window_before(platform, orders.end_us + HOUR_US)


def wait_every_window_before(platform: Platform, end_us: int) -> None:
    """Wait until the windows of orders before an instant are reported with as many rows as there are predictions."""
    expected = Counter(
        _window(prediction["event_time"])
        for prediction in platform.journal(platform.predictions_topic).values()
        if prediction["status"] == "ANSWERED"
        and prediction["order_id"] is not None
        and _window(prediction["event_time"]) < end_us
    )
    found: dict[int, int] = {}
    until = time.monotonic() + 120
    while time.monotonic() < until:
        reported = _reported(platform)
        if all(reported.get(window) == rows for window, rows in expected.items()):
            return
        if reported != found:  # a step on
            found, until = reported, time.monotonic() + 120
        time.sleep(0.5)
    wrong = {
        window: (rows, found.get(window)) for window, rows in expected.items() if found.get(window) != rows
    }
    raise AssertionError(f"windows whose (predictions, reported rows) differ: {wrong}")


def ask(platform: Platform, requests: list[dict[str, Any]]) -> None:
    """Send requests to the topic, and wait until the broker has them."""
    producer, topic = kafka_producer(platform.bootstrap), platform.requests_topic
    for request in requests:
        producer.produce(topic, platform.encoder(topic)(request), request["request_id"].encode())
    assert producer.flush(60) == 0


def _reported(platform: Platform) -> dict[int, int]:
    reports: dict[str, dict[str, Any]] = {}
    for report in platform.journal(platform.topics.stream(WINDOW_REPORTS)).values():
        if report["kind"] == "PREDICTIONS" and report["segment"] == "":
            before = reports.setdefault(report["report_id"], report)
            assert before["rows"] == report["rows"]  # handled twice, it says the same
    return {_window(report["window_start"]): report["rows"] for report in reports.values()}


def _window(moment: Any) -> int:
    return round(moment.timestamp() * 1e6) // HOUR_US * HOUR_US
