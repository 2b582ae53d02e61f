"""One alerter process: what happens on the topics reaches a mailbox, a webhook, a file and the terminal, once."""

import signal
import threading

from driftline.alerts.alert import AlertStatus, Severity
from driftline.alerts.inputs import Delivered, Failed, Started
from driftline.contracts.topics import DRIFT_SIGNALS
from tests.integration.alerter.harness import Alerter
from tests.integration.alerter.receivers import SmtpServer, Webhook, wait_for


def test_a_signal_reaches_everybody_once_and_so_does_its_end(
    alerter: Alerter, smtp: SmtpServer, webhook: Webhook
) -> None:
    alerter.settings["HOOK"] = f"json://{webhook.address}/hook"
    alerter.write_rules(
        {"name": "mail", "urls": [smtp.url]},
        {"name": "hook", "urls": ["${HOOK}"], "severities": ["CRITICAL"]},
        {"name": "file", "urls": ["file://alerts.jsonl"]},
        {"name": "terminal", "urls": ["terminal://"]},
    )
    alerter.start()
    alerter.signal("s1", level="WARNING", segment="merchant=m1")
    alerter.signal("s1", level="WARNING", segment="merchant=m1")
    alerter.publish_bytes(DRIFT_SIGNALS, "fraud", b"no avro")
    (alert,) = alerter.wait_newest(AlertStatus.FIRING, told=3)
    assert (alert.count, alert.severity, alert.team) == (1, Severity.WARNING, "shop@example.com")
    assert sorted(alert.notified) == ["file", "mail", "terminal"]
    alerter.signal("s2", level="ALERT")
    (alert,) = alerter.wait_newest(AlertStatus.FIRING, told=4)
    assert (alert.count, alert.severity) == (2, Severity.CRITICAL)
    alerter.signal("s3", level="RESOLVED", segment="merchant=m1", check="ks")
    alerter.signal("s4", level="RESOLVED")
    (over,) = alerter.wait_newest(AlertStatus.RESOLVED, told=4)
    assert over.alert_id == alert.alert_id

    lines = alerter.lines()
    told = [(line["status"], line["severity"]) for line in lines]
    assert told == [("FIRING", "WARNING"), ("FIRING", "CRITICAL"), ("RESOLVED", "CRITICAL")]
    posts = webhook.posts
    assert [(post.body["status"], post.body["alert_id"]) for post in posts] == [
        ("FIRING", alert.alert_id),
        ("RESOLVED", alert.alert_id),
    ]
    assert all(post.key == post.body["idempotency_key"] for post in posts)
    assert len(smtp.mails) == 3
    subjects = [" ".join(mail["Subject"].split()) for mail in smtp.mails]
    assert subjects[0].startswith("[FIRING WARNING] fraud: psi of")
    assert subjects[2].startswith("[RESOLVED CRITICAL]")
    assert len({mail["Idempotency-Key"] for mail in smtp.mails}) == 3
    assert {mail["References"] for mail in smtp.mails} == {f"<{alert.alert_id}@driftline>"}
    text = smtp.mails[0].as_string()
    assert "services/alerter/README.md#drift" in text
    assert alerter.log.read_text().count("! [FIRING") == 2
    assert alerter.dead_letters() == 1
    assert alerter.stop() == 0


def test_a_channel_that_fails_is_tried_again_with_the_same_key_and_holds_up_no_other(
    alerter: Alerter, smtp: SmtpServer, webhook: Webhook
) -> None:
    failures = {"/hook": 2, "/never": 1_000}

    def answer(path: str) -> int:
        failures[path] -= 1
        return 503 if failures[path] >= 0 else 200

    webhook.answer = answer
    smtp.refuse = 1
    secret = "S3CRETS3CRET"
    alerter.write_rules(
        {"name": "hook", "urls": [f"json://{webhook.address}/hook?+X-Token={secret}"]},
        {
            "name": "never",
            "urls": [f"json://{webhook.address}/never?+X-Token={secret}"],
            "groups": ["*/drift"],
        },
        {"name": "mail", "urls": [smtp.url]},
        retry={"attempts": 4, "first": "400ms", "longest": "1s"},
    )
    alerter.start()
    alerter.signal("s1")
    groups = {alert.group: alert for alert in alerter.wait_newest(AlertStatus.FIRING, count=2, told=2)}
    prefix = alerter.topics.prefix
    assert set(groups) == {f"{prefix}/fraud/drift", f"{prefix}/routes/never"}
    assert sorted(groups[f"{prefix}/fraud/drift"].notified) == ["hook", "mail"]
    assert "error=503" in groups[f"{prefix}/routes/never"].text
    tries = [
        post for post in webhook.posts if post.path == "/hook" and post.body["source"] == "drift-signals"
    ]
    assert [post.answered for post in tries] == [503, 503, 200]
    assert len({post.key for post in tries}) == 1
    gave_up = [post for post in webhook.posts if post.path == "/never"]
    assert len(gave_up) == 4
    failed = [one for one in alerter.inputs() if isinstance(one, Failed)]
    assert len(failed) == 2 + 1 + 4
    assert secret not in alerter.log.read_text()
    assert secret not in repr(alerter.alerts()) + repr(alerter.inputs())

    def counted() -> bool:
        return alerter.metrics().get(("driftline_alerts_open", ("CRITICAL",))) == 2

    wait_for(counted, explain=alerter.explain)
    found = alerter.metrics()
    attempts = {
        (route, outcome): int(value)
        for (name, labels), value in found.items()
        if name == "driftline_notifications_total"
        for _, outcome, route in [labels]
    }
    assert attempts == {
        ("hook", "retried"): 2,
        ("hook", "delivered"): 2,
        ("mail", "retried"): 1,
        ("mail", "delivered"): 2,
        ("never", "retried"): 3,
        ("never", "given_up"): 1,
    }
    assert found["driftline_notification_seconds_count", ("json", "hook")] == 2
    assert found["driftline_notification_seconds_sum", ("json", "hook")] >= 0.3  # two pauses of .2 s at least
    assert secret not in repr(found)
    failures["/never"] = 0
    alerter.signal("s2", model="other")
    ended = alerter.wait_newest(AlertStatus.RESOLVED)
    assert [alert.group for alert in ended] == [f"{prefix}/routes/never"]


def test_killed_while_a_webhook_has_it(alerter: Alerter, webhook: Webhook) -> None:
    """Nobody can know whether it arrived: it comes again with its key, or not, as the route says."""
    entered, release = threading.Semaphore(0), threading.Event()

    def hold(_path: str) -> int:
        entered.release()
        release.wait(30)
        return 200

    webhook.answer = hold
    alerter.write_rules(
        {"name": "again", "urls": [f"json://{webhook.address}/again"]},
        {"name": "once", "urls": [f"json://{webhook.address}/once"], "after_crash": "skip"},
    )
    alerter.start()
    alerter.signal("s1")
    assert entered.acquire(timeout=20)
    assert entered.acquire(timeout=20)
    alerter.kill()
    release.set()
    alerter.start()
    wait_for(lambda: len(webhook.taken("/again")) == 2, explain=alerter.explain)
    (alert,) = alerter.wait_newest(AlertStatus.FIRING, told=1)
    assert alert.notified == ("again",)
    assert list(webhook.keys("/again").values()) == [2]
    assert list(webhook.keys("/once").values()) == [1]
    inputs = alerter.inputs()
    begun = {one.notice_id for one in inputs if isinstance(one, Started)}
    ended = {one.notice_id for one in inputs if isinstance(one, Delivered)}
    assert begun - ended == {next(iter(webhook.keys("/once")))}
    alerter.signal("s2", level="RESOLVED")
    alerter.wait_newest(AlertStatus.RESOLVED, told=2)
    assert [post.body["status"] for post in webhook.taken("/once")] == ["FIRING", "RESOLVED"]


def test_a_stop_loses_and_doubles_nothing(alerter: Alerter, webhook: Webhook) -> None:
    """SIGTERM while a webhook takes its time: the answer is awaited and written down."""
    entered = threading.Event()

    def slow(_path: str) -> int:
        entered.set()
        threading.Event().wait(1.5)
        return 200

    webhook.answer = slow
    alerter.write_rules({"name": "hook", "urls": [f"json://{webhook.address}/hook"]})
    alerter.start()
    for number in range(3):
        alerter.signal(f"s{number}", model=f"model{number}")
    assert entered.wait(20)
    assert alerter.process is not None
    alerter.process.send_signal(signal.SIGTERM)
    assert alerter.process.wait(30) == 0
    alerter.start()
    alerter.wait_newest(AlertStatus.FIRING, count=3, told=1)
    assert sorted(webhook.keys().values()) == [1, 1, 1]
