"""Given these causes, commands and ticks, these alerts and notifications come out."""

from dataclasses import replace

import pytest

from driftline.alerts.alert import AlertStatus, Severity, stable_id
from driftline.alerts.book import advance, is_idle
from driftline.alerts.inputs import Adopt
from driftline.alerts.notices import backoff_us
from driftline.alerts.state import GroupState, Stage
from tests.unit.alerts.scenes import (
    GROUP,
    SECOND,
    Book,
    ack,
    cause,
    over,
    refused,
    route,
    rules,
    silence,
    started,
    unsilence,
)

TOLD = [("chat", "FIRING", "CRITICAL")]


def test_a_cause_fires_is_told_once_and_ends() -> None:
    book = Book(rules=rules()).tell(cause("s1", since=7))
    assert book.last.status is AlertStatus.FIRING
    assert book.last.alert_id == stable_id(GROUP, "s1")
    assert (book.last.count, book.last.started_at, book.last.notified) == (1, 7, ())
    assert book.due == ()  # causes gather first
    assert book.wait(1).deliver() == TOLD
    assert book.last.notified == ("chat",)
    book.tell(over("s2"))
    assert book.last.status is AlertStatus.RESOLVED
    assert "Over: quiet again." in book.last.text
    assert book.last.notified == ()
    assert book.deliver() == [("chat", "RESOLVED", "CRITICAL")]
    assert (book.last.status, book.last.notified) == (AlertStatus.RESOLVED, ("chat",))
    assert book.state.episodes == ()


def test_causes_of_a_group_gather_into_one_notification() -> None:
    book = Book(rules=rules()).tell(cause("s1", problem="v1|a|"), cause("s2", problem="v1|b|"))
    book.tell(cause("s3", problem="v1|a|"))
    assert book.wait(1).deliver() == TOLD
    assert book.last.count == 3
    assert book.last.title == "v1|a| moved (and 1 more)"
    assert {one.alert_id for one in book.alerts} == {stable_id(GROUP, "s1")}
    book.tell(over("e1", problem="v1|a|"))
    assert book.last.status is AlertStatus.FIRING
    assert book.last.title == "v1|b| moved"
    book.tell(over("e2", problem="v1|b|"))
    assert book.last.status is AlertStatus.RESOLVED


def test_a_clearance_spares_what_it_keeps() -> None:
    book = Book(rules=rules()).tell(cause("s1", problem="v1||"), cause("s2", problem="v2||"))
    book.tell(over("e", problem="", keep="v2|"))
    assert [one.key for one in book.state.episodes[0].problems] == ["v2||"]


def test_the_same_cause_again_changes_nothing() -> None:
    book = Book(rules=rules()).tell(cause("s1"), over("e1"))
    before, alerts = book.state, len(book.alerts)
    book.tell(cause("s1"), over("e1"))
    assert book.state == before
    assert len(book.alerts) == alerts


def test_an_alert_that_nobody_was_told_of_ends_without_a_word() -> None:
    book = Book(rules=rules()).tell(cause("s1"), over("e1"))
    assert book.last.status is AlertStatus.RESOLVED
    assert book.wait(60).deliver() == []


def test_the_next_cause_after_the_end_is_a_new_alert() -> None:
    book = Book(rules=rules()).tell(cause("s1"), over("e1"), cause("s2"))
    assert book.last.alert_id == stable_id(GROUP, "s2")
    assert book.last.count == 1


def test_a_rise_of_severity_tells_again_and_ends_the_acknowledgement() -> None:
    pager = route("pager", severities=["CRITICAL"])
    book = Book(rules=rules(route("chat"), pager)).tell(cause("s1", severity=Severity.WARNING)).wait(1)
    assert book.deliver() == [("chat", "FIRING", "WARNING")]
    book.tell(ack(book.last.alert_id))
    assert (book.last.status, book.last.by) == (AlertStatus.ACKNOWLEDGED, "anna")
    book.tell(cause("s2", severity=Severity.WARNING)).wait(1)
    assert book.deliver() == []
    book.tell(cause("s3")).wait(1)
    assert book.last.status is AlertStatus.FIRING
    assert sorted(book.deliver()) == [("chat", "FIRING", "CRITICAL"), ("pager", "FIRING", "CRITICAL")]
    book.tell(cause("s4", severity=Severity.WARNING), cause("s5")).wait(1)
    assert book.deliver() == []


def test_a_rise_while_gathering_replaces_what_was_not_told() -> None:
    book = Book(rules=rules()).tell(cause("s1", severity=Severity.WARNING), cause("s2")).wait(1)
    assert book.deliver() == TOLD


def test_acknowledged_means_no_reminder_and_no_escalation() -> None:
    boss = route("boss", severities=[])
    chat = route("chat", escalate={"after": "10s", "to": "boss"})
    for acknowledged in (False, True):
        book = Book(rules=rules(chat, boss, repeat="60s")).tell(cause("s1")).wait(1)
        assert book.deliver() == TOLD
        if acknowledged:
            book.tell(ack(book.last.alert_id))
        book.wait(10)
        assert book.deliver() == ([] if acknowledged else [("boss", "FIRING", "CRITICAL")])
        book.wait(61)
        expected = [] if acknowledged else [("boss", "FIRING", "CRITICAL"), ("chat", "FIRING", "CRITICAL")]
        assert sorted(book.deliver()) == expected
        book.tell(over("e"))
        ends = [("chat", "RESOLVED", "CRITICAL")]
        assert sorted(book.deliver()) == (ends if acknowledged else [("boss", "RESOLVED", "CRITICAL"), *ends])


def test_reminders_are_notifications_of_their_own() -> None:
    book = Book(rules=rules(repeat="60s")).tell(cause("s1")).wait(1)
    keys = []
    for _ in range(4):
        keys += [notice.notice_id for notice in book.due]
        assert book.deliver() == TOLD
        assert book.wait(30).deliver() == []
        book.wait(31)
    assert len(set(keys)) == 4


def test_an_acknowledgement_of_another_alert_is_none() -> None:
    book = Book(rules=rules()).tell(cause("s1"), ack("0000"))
    assert book.last.status is AlertStatus.FIRING


def test_an_acknowledgement_may_be_told() -> None:
    chat = route("chat", tell=["FIRING", "ACKNOWLEDGED", "RESOLVED"])
    book = Book(rules=rules(chat)).tell(cause("s1")).wait(1)
    book.deliver()
    book.tell(ack(book.last.alert_id))
    assert book.deliver() == [("chat", "ACKNOWLEDGED", "CRITICAL")]


def test_silenced_means_that_nobody_is_told_until_it_ends() -> None:
    book = Book(rules=rules()).tell(silence(100 * SECOND), cause("s1"))
    assert (book.last.status, book.wait(50).deliver()) == (AlertStatus.SILENCED, [])
    assert book.wait(50).deliver() == TOLD
    assert book.last.status is AlertStatus.FIRING


def test_silenced_and_over_is_never_told() -> None:
    book = Book(rules=rules()).tell(cause("s1"), silence(100 * SECOND), over("e1"))
    assert book.last.status is AlertStatus.RESOLVED
    assert book.wait(200).deliver() == []


def test_unsilenced_fires_at_once() -> None:
    book = Book(rules=rules()).tell(silence(100 * SECOND), cause("s1"), unsilence())
    assert book.deliver() == TOLD


def test_what_was_told_before_a_silence_is_not_told_again_after_it() -> None:
    book = Book(rules=rules()).tell(cause("s1")).wait(1)
    book.deliver()
    book.tell(silence(10 * SECOND)).wait(20)
    assert book.last.status is AlertStatus.FIRING
    assert book.deliver() == []


def test_a_planned_silence_holds_for_its_groups_and_time() -> None:
    window = {"groups": ["flights/*"], "from": "1970-01-01T00:00:00Z", "until": "1970-01-01T00:01:00Z"}
    book = Book(rules=rules(silences=[window])).tell(cause("s1"))
    assert book.last.status is AlertStatus.SILENCED
    assert book.wait(59).deliver() == []
    assert book.wait(1).deliver() == TOLD


def test_quiet_hours_hold_back_what_is_not_excepted() -> None:
    quiet = {"from": "00:00", "until": "07:00", "zone": "UTC", "but": ["CRITICAL"]}
    book = Book(rules=rules(route("chat", quiet=quiet))).tell(cause("s1", severity=Severity.WARNING)).wait(1)
    assert book.due == ()
    assert book.wait(7 * 3600).deliver() == [("chat", "FIRING", "WARNING")]
    book = Book(rules=rules(route("chat", quiet=quiet))).tell(cause("s1")).wait(1)
    assert book.deliver() == TOLD


def test_what_has_no_end_is_forgotten_without_a_word() -> None:
    book = Book(rules=rules(forget="1h")).tell(cause("s1", lasting=False)).wait(1)
    book.deliver()
    assert book.wait(3598).last.status is AlertStatus.FIRING
    assert book.wait(1).last.status is AlertStatus.RESOLVED
    assert book.deliver() == []


def test_a_failed_notification_is_tried_again_later_and_given_up_at_last() -> None:
    few = rules(retry={"attempts": 3, "first": "10s", "longest": "15s"})
    book = Book(rules=few).tell(cause("s1")).wait(1)
    (notice,) = book.due
    for attempt in range(3):
        assert [one.attempt for one in book.due] == [attempt]
        book.tell(started(notice.notice_id, attempt), refused(notice.notice_id, attempt))
        assert book.due == ()
        book.wait(4)
        assert book.due == ()  # the pause is at least half of 10 s
        book.wait(16)
    ((_, gave_up),) = book.state.notices
    assert (gave_up.stage, gave_up.detail, book.due) == (Stage.GIVEN_UP, "busy", ())
    assert book.last.notified == ()


@pytest.mark.parametrize(("attempt", "least", "most"), [(1, 1, 2), (2, 2, 4), (3, 4, 8), (30, 150, 300)])
def test_pauses_double_up_to_the_longest_with_jitter(attempt: int, least: float, most: float) -> None:
    found = {backoff_us(str(key), attempt, rules()) for key in range(100)}
    assert all(least * SECOND <= pause <= most * SECOND for pause in found)
    assert len(found) > 90


def test_of_two_runs_the_first_in_the_log_delivers() -> None:
    book = Book(rules=rules()).tell(cause("s1")).wait(1)
    (notice,) = book.due
    book.tell(started(notice.notice_id, boot="old"), started(notice.notice_id, boot="new"))
    ((_, found),) = book.state.notices
    assert (found.stage, found.boot) == (Stage.STARTED, "old")
    assert book.due == ()


@pytest.mark.parametrize(("after_crash", "stage"), [("again", Stage.WAITING), ("skip", Stage.UNKNOWN)])
def test_what_another_run_left_is_sent_again_or_not_as_the_route_says(after_crash: str, stage: Stage) -> None:
    book = Book(rules=rules(route("chat", after_crash=after_crash))).tell(cause("s1")).wait(1)
    (notice,) = book.due
    book.tell(started(notice.notice_id, boot="old"))
    book.tell(Adopt(input_id="a", group=GROUP, boot="old", by="alerter"))
    assert book.due == ()
    book.tell(Adopt(input_id="a", group=GROUP, boot="new", by="alerter"))
    ((_, found),) = book.state.notices
    assert found.stage is stage
    assert [one.notice_id for one in book.due] == ([notice.notice_id] if stage is Stage.WAITING else [])


def test_what_was_acknowledged_while_its_start_was_written_is_not_started() -> None:
    book = Book(rules=rules()).tell(cause("s1")).wait(1)
    (notice,) = book.due
    book.tell(started(notice.notice_id), refused(notice.notice_id), ack(book.last.alert_id)).wait(60)
    assert book.due == ()
    book.tell(started(notice.notice_id, 1))
    ((_, found),) = book.state.notices
    assert found.stage is Stage.WAITING


def test_the_end_waits_until_the_begin_is_delivered() -> None:
    book = Book(rules=rules()).tell(cause("s1")).wait(1)
    (notice,) = book.due
    book.tell(started(notice.notice_id), over("e1"))
    assert book.due == ()
    book.tell(refused(notice.notice_id)).wait(60)
    assert [(one.status.value, one.attempt) for one in book.due] == [("FIRING", 1)]
    assert book.deliver() == [("chat", "FIRING", "CRITICAL"), ("chat", "RESOLVED", "CRITICAL")]


def test_a_route_counts_as_told_when_all_its_urls_are() -> None:
    book = Book(rules=rules(route("chat", urls=["terminal://", "file://a"]))).tell(cause("s1")).wait(1)
    first, second = book.due
    book.tell(started(first.notice_id), replace(refused(first.notice_id), attempt=1))
    assert book.last.notified == ()
    book.deliver()
    assert book.last.notified == ()  # the first is still on its way
    book.tell(refused(first.notice_id)).wait(60)
    assert second.notice_id not in {one.notice_id for one in book.due}
    book.deliver()
    assert book.last.notified == ("chat",)


def test_open_notifications_of_a_removed_route_go() -> None:
    book = Book(rules=rules()).tell(cause("s1")).wait(1)
    book.rules = rules(route("mail"))
    book.wait(1)
    assert book.due == ()
    assert list(book.state.notices) == []


def test_a_group_without_news_is_forgotten_after_a_week() -> None:
    book = Book(rules=rules()).tell(cause("s1"), over("e1"))
    assert not is_idle(book.state, 6 * 86_400 * SECOND)
    assert is_idle(book.state, 8 * 86_400 * SECOND)
    book.tell(silence(9 * 86_400 * SECOND))
    assert not is_idle(book.state, 8 * 86_400 * SECOND)


def test_the_book_is_a_function() -> None:
    state = GroupState(group=GROUP)
    once = advance(state, cause("s1"), now_us=5, rules=rules())
    again = advance(state, cause("s1"), now_us=5, rules=rules())
    assert once == again
    assert state == GroupState(group=GROUP)
