"""Services that fail are alerts; people acknowledge and silence them from the command line."""

import json

import pytest
from typer.testing import CliRunner

from driftline.alerts.alert import AlertStatus, Severity
from driftline.cli.alerts import app
from driftline.runtime.supervisor import InstanceStatus, write_supervisor_file
from tests.integration.alerter.harness import SHOP, Alerter
from tests.integration.alerter.receivers import Webhook, wait_for


class CommandLine:
    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def run(self, *arguments: str) -> str:
        result = CliRunner().invoke(
            app, [*arguments, "--project", str(SHOP)], env=self._environment, catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return result.output

    def json(self, *arguments: str) -> object:
        return json.loads(self.run(*arguments, "--json"))


@pytest.fixture
def line(alerter: Alerter) -> CommandLine:
    return CommandLine(alerter.environment)


def test_a_service_that_is_not_ready_is_an_alert_until_it_is(alerter: Alerter, webhook: Webhook) -> None:
    alerter.settings |= {
        "DRIFTLINE_ALERTER_WATCH": f"predictor=http://{webhook.address}",
        "DRIFTLINE_ALERTER_PATIENCE_SECONDS": "1",
        "DRIFTLINE_ALERTER_POLL_SECONDS": "0.2",
    }
    alerter.write_rules({"name": "file", "urls": ["file://alerts.jsonl"]})
    failed = InstanceStatus(
        instance="ingest-0",
        service="ingest",
        state="failed",
        reason="a setting or file is wrong (exit code 78)",
    )
    write_supervisor_file(alerter.state, [failed])
    webhook.ready = False
    alerter.start()
    found = {alert.group: alert for alert in alerter.wait_newest(AlertStatus.FIRING, count=2, told=1)}
    prefix = alerter.topics.prefix
    assert set(found) == {f"{prefix}/services/predictor", f"{prefix}/services/ingest"}
    predictor = found[f"{prefix}/services/predictor"]
    assert (predictor.title, predictor.severity) == ("predictor is not ready", Severity.CRITICAL)
    assert "broker: silent" in predictor.text
    assert "exit code 78" in found[f"{prefix}/services/ingest"].text
    webhook.ready = True
    (over,) = alerter.wait_newest(AlertStatus.RESOLVED, told=1)
    assert over.alert_id == predictor.alert_id
    assert {line["status"] for line in alerter.lines()} == {"FIRING", "RESOLVED"}


def test_an_outage_is_over_for_an_alerter_that_was_down_meanwhile(alerter: Alerter, webhook: Webhook) -> None:
    alerter.settings |= {
        "DRIFTLINE_ALERTER_WATCH": f"predictor=http://{webhook.address}",
        "DRIFTLINE_ALERTER_PATIENCE_SECONDS": "0.5",
        "DRIFTLINE_ALERTER_POLL_SECONDS": "0.2",
    }
    alerter.write_rules({"name": "file", "urls": ["file://alerts.jsonl"]})
    webhook.ready = False
    alerter.start()
    alerter.wait_newest(AlertStatus.FIRING, told=1)
    alerter.kill()
    webhook.ready = True
    alerter.start()
    alerter.wait_newest(AlertStatus.RESOLVED, told=1)


def test_people_list_show_acknowledge_and_silence(alerter: Alerter, line: CommandLine) -> None:
    alerter.write_rules(
        {"name": "file", "urls": ["file://alerts.jsonl"], "severities": ["WARNING", "CRITICAL"]}
    )
    assert "no alerts" in line.run("list")
    alerter.start()
    alerter.signal("s1")
    alerter.model_event("e1", "DATA_REFUSED", reason="-1 in the total column")
    alerts = alerter.wait_newest(AlertStatus.FIRING, count=2, told=1)
    drift = next(one for one in alerts if one.group.endswith("/drift"))
    training = next(one for one in alerts if one.group.endswith("/training"))

    listed = line.json("list")
    assert isinstance(listed, list)
    assert {one["alert_id"] for one in listed} == {drift.alert_id, training.alert_id}
    assert drift.alert_id[:8] in line.run("list", "--severity", "critical")
    assert "-1 in the total column" in line.run("show", training.alert_id[:8])
    shown = line.json("show", drift.alert_id)
    assert isinstance(shown, dict)
    assert shown["runbook"] == "services/alerter/README.md#drift"
    assert [one["notified"] for one in shown["history"]] == [[], ["file"]]
    assert [one["what"] for one in shown["group_deliveries"]] == ["started", "delivered"]

    assert line.json("ack", drift.alert_id[:8], "--by", "anna") == {
        "alert_id": drift.alert_id,
        "asked": "ack",
        "done": True,
    }
    assert alerter.newest()[drift.alert_id].by == "anna"
    line.run("silence", training.group, "--for", "1h", "--by", "ben", "--reason", "known")
    assert alerter.newest()[training.alert_id].status is AlertStatus.SILENCED
    alerter.model_event("e2", "TRAINING_FAILED")
    wait_for(lambda: alerter.newest()[training.alert_id].count == 2)
    line.run("unsilence", training.alert_id)
    assert alerter.newest()[training.alert_id].status is AlertStatus.FIRING
    assert len(alerter.lines()) == 2  # both were told of before, and of nothing since
    alerter.signal("s2", level="RESOLVED")
    alerter.wait_newest(AlertStatus.RESOLVED, told=1)
    assert line.json("list", "--status", "resolved", "--model", "fraud")
    for arguments in (
        ["ack", drift.alert_id],
        ["show", "nothing"],
        ["silence", drift.group, "--for", "soon"],
    ):
        with pytest.raises(Exception, match=r"over already|no alert whose id|not a duration"):
            line.run(*arguments)


def test_a_wrong_route_is_an_exit_that_names_it_and_hides_the_url(alerter: Alerter) -> None:
    alerter.write_rules({"name": "chat", "urls": ["nonsense://S3CRETS3CRET"]})
    alerter.launch()
    assert alerter.process is not None
    assert alerter.process.wait(30) == 78
    text = alerter.log.read_text()
    assert "route chat, URL 1" in text
    assert "S3CRET" not in text
