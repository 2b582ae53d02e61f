"""What Prometheus is told: alerts that are open, what became of each attempt, how long a delivery took."""

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from driftline.alerts.alert import Severity
from driftline.alerts.book import advance
from driftline.alerts.inputs import Adopt, Delivered, Failed, Input
from driftline.alerts.state import GroupState
from driftline.runtime import metrics
from services.alerter.measuring import OpenAlerts, count_attempts
from tests.unit.alerts.scenes import GROUP, SECOND, Book, cause, over, refused, route, rules, started, taken

ROUTE = "measured"
RULES = rules(route(ROUTE, urls=["jsons://hook.example.org/S3CRET"]), retry={"attempts": 2, "first": "1s"})


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    for one in (metrics.ALERTS_OPEN, metrics.NOTIFICATIONS, metrics.NOTIFICATION_SECONDS):
        one.clear()
    yield
    for one in (metrics.ALERTS_OPEN, metrics.NOTIFICATIONS, metrics.NOTIFICATION_SECONDS):
        one.clear()


class Measured(Book):
    """A book whose inputs are counted as the alerter counts them."""

    def tell(self, *events: Input) -> "Measured":
        for event in events:
            before = self.state
            super().tell(event)
            if isinstance(event, Delivered | Failed | Adopt):
                count_attempts(before, self.state, event, now_us=self.now, rules=self.rules)
        return self


def attempts() -> dict[str, float]:
    """Outcomes of the attempts, all of one route and channel."""
    (found,) = metrics.NOTIFICATIONS.collect()
    samples = [one for one in found.samples if one.name == "driftline_notifications_total"]
    assert {(one.labels["route"], one.labels["channel"]) for one in samples} <= {(ROUTE, "jsons")}
    return {one.labels["outcome"]: one.value for one in samples}


def delivery(name: str) -> float | None:
    labels = {"route": ROUTE, "channel": "jsons"}
    return REGISTRY.get_sample_value(f"driftline_notification_seconds_{name}", labels)


def open_alerts() -> dict[str, float | None]:
    return {
        one.value: REGISTRY.get_sample_value("driftline_alerts_open", {"severity": one.value})
        for one in Severity
    }


def begun() -> tuple[Measured, str]:
    """A notification that was written down at 10 s and is started at 11 s."""
    book = Measured(rules=RULES, now=10 * SECOND)
    book.tell(cause("s1")).wait(1)
    (notice,) = book.due
    book.tell(started(notice.notice_id))
    return book, notice.notice_id


def test_a_delivery_counts_once_with_its_time_from_the_decision_on() -> None:
    book, notice = begun()
    book.now += 2 * SECOND
    book.tell(taken(notice), taken(notice))
    assert attempts() == {"delivered": 1}
    assert (delivery("count"), delivery("sum")) == (1, 3.0)


def test_a_failure_is_tried_again_and_then_given_up() -> None:
    book, notice = begun()
    book.tell(refused(notice), refused(notice))
    assert attempts() == {"retried": 1}
    book.wait(2)
    book.tell(started(notice, 1), refused(notice, 1))
    assert attempts() == {"retried": 1, "given_up": 1}
    assert delivery("count") is None


def test_the_last_notification_counts_though_its_alert_leaves_the_book() -> None:
    book, notice = begun()
    book.tell(taken(notice), over("end"))
    book.deliver()
    assert list(book.state.notices) == []
    assert attempts() == {"delivered": 2}


def test_what_a_killed_run_left_is_unknown_where_it_is_not_sent_again() -> None:
    book, _ = begun()
    book.rules = rules(route(ROUTE, urls=["jsons://hook.example.org/S3CRET"], after_crash="skip"))
    book.tell(Adopt(input_id="a", group=GROUP, boot="boot-2", by="alerter"))
    assert attempts() == {"unknown": 1}


def test_open_alerts_are_counted_over_all_partitions_that_are_still_ours() -> None:
    def group(name: str, severity: Severity) -> GroupState:
        found = advance(GroupState(group=name), cause("s", severity=severity), now_us=0, rules=RULES)
        return found.state

    seen = OpenAlerts()
    critical, warning = group("a", Severity.CRITICAL), group("b", Severity.WARNING)
    seen.see(0, [critical, warning, GroupState(group="quiet")], at_us=SECOND)
    seen.see(1, [group("c", Severity.CRITICAL)], at_us=SECOND)
    assert open_alerts() == {"INFO": 0, "WARNING": 1, "CRITICAL": 2}
    seen.see(0, [critical], at_us=2 * SECOND)
    assert open_alerts() == {"INFO": 0, "WARNING": 0, "CRITICAL": 2}
    seen.see(0, [critical], at_us=90 * SECOND)  # nobody ticks partition 1 here any more
    assert open_alerts() == {"INFO": 0, "WARNING": 0, "CRITICAL": 1}
