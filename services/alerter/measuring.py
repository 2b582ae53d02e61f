"""What Prometheus is told of alerts and notifications, read off the book's changes: an input that comes again changes
nothing there, and so counts once."""

from collections import Counter
from collections.abc import Iterable

from driftline.alerts.alert import Severity
from driftline.alerts.inputs import Adopt, Delivered, Failed
from driftline.alerts.rules import AlertRules
from driftline.alerts.state import GroupState, Notice, Stage
from driftline.runtime import metrics

_FORGOTTEN_US = 60_000_000
_OUTCOMES = {Stage.DELIVERED: "delivered", Stage.GIVEN_UP: "given_up", Stage.UNKNOWN: "unknown"}
#: What became of a notification that left the book together with its alert.
_LAST = {Delivered: Stage.DELIVERED, Failed: Stage.GIVEN_UP, Adopt: Stage.UNKNOWN}


def count_attempts(
    before: GroupState,
    after: GroupState,
    event: Delivered | Failed | Adopt,
    *,
    now_us: int,
    rules: AlertRules,
) -> None:
    """Count what an input has made of the notifications that were open before it."""
    for _, old in before.notices:
        if old.open:
            outcome = _outcome(old, after, event)
            if outcome:
                channel = _channel(old, rules)
                metrics.NOTIFICATIONS.labels(old.route, channel, outcome).inc()
                if outcome == "delivered" and old.planned:
                    seconds = max(0.0, (now_us - old.planned) / 1e6)
                    metrics.NOTIFICATION_SECONDS.labels(old.route, channel).observe(seconds)


def _outcome(old: Notice, after: GroupState, event: Delivered | Failed | Adopt) -> str:
    found = after.find_notice(old.notice_id)
    if found is None:
        return _OUTCOMES[_LAST[type(event)]]
    _, new = found
    if new.stage is Stage.WAITING and new.attempt > old.attempt:
        return "retried"
    return _OUTCOMES.get(new.stage, "")


def _channel(notice: Notice, rules: AlertRules) -> str:
    """Return the scheme of a notification's URL, the one part of it that is no secret."""
    route = rules.route(notice.route)
    return "" if route is None or notice.target >= len(route.urls) else route.scheme(notice.target)


class OpenAlerts:
    """Counts the alerts that are not over, partition by partition of the book."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, Counter[Severity]]] = {}

    def see(self, partition: int, states: Iterable[GroupState], *, at_us: int) -> None:
        """Take all groups of a partition; partitions that another process owns by now are forgotten after a minute."""
        found = Counter(state.current.severity for state in states if state.current is not None)
        self._seen[partition] = at_us, found
        self._seen = {one: seen for one, seen in self._seen.items() if seen[0] > at_us - _FORGOTTEN_US}
        for severity in Severity:
            total = sum(counts[severity] for _, counts in self._seen.values())
            metrics.ALERTS_OPEN.labels(severity.value).set(total)
