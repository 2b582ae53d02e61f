"""The words of a notification: a title of one line and a body, from the route's templates."""

from dataclasses import dataclass

from driftline.alerts.alert import Alert, AlertStatus, Severity
from driftline.alerts.rules import Route
from driftline.alerts.state import Notice

TITLE = "[{status} {severity}] {title} (#{short_id})"
BODY = "{text}\n\nRunbook: {runbook}\nGroup: {group}, team: {team}, causes: {count}, since {started_at}\nAlert {alert_id}, notification {key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """What is delivered: ``key`` is the idempotency key, the same at every attempt."""

    key: str
    alert: Alert
    status: AlertStatus
    severity: Severity
    title: str
    body: str


def compose(alert: Alert, notice: Notice, route: Route) -> Notification:
    """Return the notification of an alert on a route; it tells the status for which it was written down."""
    values = {
        **alert.as_json(),
        "status": notice.status.value,
        "severity": notice.severity.value,
        "short_id": alert.alert_id[:8],
        "model": alert.model or "-",
        "runbook": alert.runbook or "-",
        "key": notice.notice_id,
    }
    title = (route.title or TITLE).format_map(values)
    return Notification(
        key=notice.notice_id,
        alert=alert,
        status=notice.status,
        severity=notice.severity,
        title=" ".join(title.split()),
        body=(route.body or BODY).format_map(values),
    )
