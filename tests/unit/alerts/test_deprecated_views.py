"""The owners of models that read deprecated views are warned, once; it is over when they are read no more."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, cast

import pytest

from driftline.alerts.alert import AlertStatus, Severity, stable_id
from driftline.alerts.causes import Causes
from driftline.alerts.inputs import ALERT_INPUT
from driftline.alerts.rules import AlertRules
from driftline.alerts.state import GroupState
from driftline.contracts.record_codec import RecordCodec
from driftline.control import Context
from driftline.control.context import Incoming
from driftline.control.tables import PartitionState, TableView
from driftline.project.deprecations import DeprecatedUse
from services.alerter.agents import AlertAgents
from services.alerter.courier import Courier

GROUP = "flights/lateness/deprecated"
USE = DeprecatedUse(
    model="lateness", owner="model-team", view="origin@1", until=date(2026, 12, 31), successor="airport@1"
)
OTHER = DeprecatedUse(
    model="lateness", owner="model-team", view="dest@3", until=date(2027, 6, 30), successor=""
)


def at(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()) * 1_000_000


NOW = at(date(2026, 11, 1))


class NoCourier:
    """Nothing is delivered here."""

    def offer(self, claim: object) -> None:
        """Take nothing."""


class Alerter:
    """One run of the alerter over a book that stays: ticks, and what they put into the log is folded at once."""

    def __init__(self, table: TableView, *uses: DeprecatedUse) -> None:
        self.agents = AlertAgents(
            inputs="inputs",
            alerts="alerts",
            rules=AlertRules(),
            causes=Causes(prefix="flights", team="flights-team"),
            courier=cast(Courier, NoCourier()),
            open_channel=lambda _route, _number: pytest.fail("nothing is delivered here"),
            boot="boot",
            deprecated=uses,
        )
        self.table = table
        self.inputs: list[Mapping[str, Any]] = []
        self.alerts: list[Mapping[str, Any]] = []

    def tick(self, now_us: int = NOW) -> None:
        asyncio.run(self.agents.pass_time({"at_us": now_us}, self._context(now_us)))
        codec = RecordCodec(ALERT_INPUT)
        for record in self.inputs:
            decoded = codec.decode(codec.encode(record), ALERT_INPUT)
            asyncio.run(self.agents.fold_input(decoded, self._context(now_us)))

    def _context(self, now_us: int) -> Context:
        async def send(topic: str, _key: object, record: Mapping[str, Any]) -> None:
            (self.inputs if topic == "inputs" else self.alerts).append(record)

        incoming = Incoming(
            topic="t", partition=0, offset=0, key=None, value=None, headers=(), timestamp_ms=now_us // 1000
        )
        return Context(incoming, send=send, table=self.table)


@pytest.fixture
def table() -> TableView:
    return TableView(PartitionState())


def state(table: TableView) -> GroupState:
    return GroupState.from_json(table.get(GROUP))


def test_the_owner_is_told_the_date_and_the_successor(table: TableView) -> None:
    alerter = Alerter(table, USE)
    alerter.tick()
    (alert,) = alerter.alerts
    assert (alert["severity"], alert["team"], alert["model"]) == ("WARNING", "model-team", "lateness")
    assert "origin@1" in alert["title"]
    assert "2026-12-31" in alert["text"]
    assert "airport@1" in alert["text"]
    assert alert["runbook"] == "services/alerter/README.md#deprecated"


def test_ticks_and_starts_tell_it_once(table: TableView) -> None:
    first = Alerter(table, USE)
    for _ in range(3):
        first.tick()
    assert len(first.inputs) == 1
    again = Alerter(table, USE)
    again.tick(NOW + 1_000_000)
    assert again.alerts == []
    current = state(table).current
    assert current is not None
    assert current.count == 1


def test_the_day_after_the_last_one_it_is_critical(table: TableView) -> None:
    alerter = Alerter(table, USE)
    alerter.tick(at(USE.until))
    alerter.tick(at(date(2027, 1, 1)))
    assert [alert["severity"] for alert in alerter.alerts] == ["WARNING", "CRITICAL"]
    current = state(table).current
    assert current is not None
    assert len(current.problems) == 1


def test_over_when_no_model_reads_it(table: TableView) -> None:
    Alerter(table, USE, OTHER).tick()
    one_left = Alerter(table, OTHER)
    one_left.tick(NOW + 1_000_000)
    current = state(table).current
    assert current is not None
    assert [one.key for one in current.problems] == ["dest@3|2027-06-30|"]
    none_left = Alerter(table)
    none_left.tick(NOW + 2_000_000)
    assert none_left.alerts[-1]["status"] == AlertStatus.RESOLVED


def test_another_last_day_is_another_problem_of_the_same_alert(table: TableView) -> None:
    Alerter(table, USE).tick()
    before = state(table).current
    later = DeprecatedUse(
        model=USE.model, owner=USE.owner, view=USE.view, until=date(2027, 3, 31), successor=""
    )
    Alerter(table, later).tick(NOW + 1_000_000)
    after = state(table).current
    assert before is not None
    assert after is not None
    assert after.alert_id == before.alert_id
    assert [one.key for one in after.problems] == ["origin@1|2027-03-31|"]


def test_other_alerts_are_left_alone() -> None:
    causes = Causes(prefix="flights", team="flights-team")
    assert causes.of_ended_use(GroupState(group="flights/lateness/drift"), []) == []
    cause = causes.of_deprecated_use(USE, at=NOW)
    assert cause.input_id == stable_id("deprecated", GROUP, "origin@1|2026-12-31|", False)
    assert cause.severity is Severity.WARNING
