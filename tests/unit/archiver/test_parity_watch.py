"""A mismatch becomes an alert, and the alert ends when a later look finds none."""

from pathlib import Path

import pyarrow as pa
import pytest

from driftline.alerts.alert import Severity
from driftline.alerts.causes import Causes
from driftline.alerts.inputs import Cause, Clearance, input_of, input_record
from driftline.archive.tables import Archive
from driftline.project import Project
from driftline.replay.records import ArchiveRecords
from driftline.runtime.clock import ManualClock
from driftline.runtime.errors import UnavailableError
from services.archiver.parity_watch import ParityWatch, Rhythm
from tests.unit.replay.conftest import NOW_US, archive, log, project, store, trained
from tests.unit.replay.test_parity import COUNT, changed, served
from tests.unit.replay.test_recomputing import payments

__all__ = ["archive", "log", "project", "trained"]  # fixtures

HOUR_US = 3_600_000_000
RHYTHM = Rhythm(seconds=2 * 3_600, settle_seconds=60, grace_seconds=5, share=1.0)


class Scene:
    """A watch over an archive; ``told`` is what it wrote to the alerts' log."""

    def __init__(self, project: Project, archive: Archive) -> None:
        self.told: list[Cause | Clearance] = []
        self.mine, self.silent = True, False
        self.clock = ManualClock(NOW_US + 60_000_000 + 2 * HOUR_US)
        self.watch = ParityWatch(
            project,
            ArchiveRecords(archive, lambda _: None),
            Causes(prefix="shop", team=project.owner),
            self.put,
            mine=lambda: self.mine,
            rhythm=RHYTHM,
            clock=self.clock,
        )

    def put(self, event: Cause | Clearance) -> None:
        if self.silent:
            raise UnavailableError("the broker does not answer")
        self.told.append(event)


@pytest.fixture
def wrong(log: pa.Table, archive: Archive, project: Project) -> Scene:
    """Of the first two hours one count is wrong; what was answered later is right."""
    store(archive, "payments", payments())
    right = served(log, payments(), project)
    store(archive, "predictions", changed(right, COUNT, r1=right[COUNT][1].as_py() + 3))
    return Scene(project, archive)


def test_a_mismatch_is_a_cause_with_what_differs(wrong: Scene, log: pa.Table, project: Project) -> None:
    look = wrong.watch.look()
    assert look is not None
    (cause,) = [one for one in wrong.told if isinstance(one, Cause)]
    assert (cause.group, cause.problem, cause.severity) == (
        "shop/features/parity", "customer_payments@1|", Severity.CRITICAL,
    )  # fmt: skip
    assert f"{COUNT}: 1 of " in cause.text
    assert "by up to 3" in cause.text
    assert log["request_id"][1].as_py() in cause.text
    assert cause.runbook == "services/alerter/README.md#parity"
    assert cause.lasting
    assert input_of(input_record(cause, at_us=1)) == cause
    assert [one.problem for one in wrong.told if isinstance(one, Clearance)] == ["merchant_payments@1|"]


def test_the_next_look_goes_on_where_the_last_one_ended_and_ends_the_alert(wrong: Scene) -> None:
    first = wrong.watch.look()
    wrong.told.clear()
    wrong.clock.advance(2 * HOUR_US)
    second = wrong.watch.look()
    assert first is not None and second is not None
    assert second.since_us == first.until_us
    assert second.requests > 0
    assert {one.problem for one in wrong.told} == {"customer_payments@1|", "merchant_payments@1|"}
    assert all(isinstance(one, Clearance) for one in wrong.told)


def test_what_could_not_be_told_is_looked_at_again(wrong: Scene) -> None:
    wrong.silent = True
    assert wrong.watch.look() is None
    wrong.silent = False
    wrong.clock.advance(60_000_000)
    look = wrong.watch.look()
    assert look is not None
    assert any(isinstance(one, Cause) for one in wrong.told)


def test_only_the_owner_looks(wrong: Scene) -> None:
    wrong.mine = False
    assert wrong.watch.look() is None
    assert wrong.told == []


def test_nothing_archived_yet_is_no_error(project: Project, tmp_path: Path) -> None:
    scene = Scene(project, Archive.at(str(tmp_path), "shop"))
    assert scene.watch.look() is None
    assert scene.told == []
