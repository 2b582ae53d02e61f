"""When a service counts as failed, and when as recovered."""

from hypothesis import given
from hypothesis import strategies as st

from driftline.alerts.outages import Change, Observed, observe

PATIENCE = 10


def told(looks: list[tuple[int, bool]], *, state: Observed | None = None) -> list[tuple[int, Change]]:
    """Return the reports with their times; a look is (seconds since the last, ready)."""
    state = state or Observed()
    now, changes = 0, []
    for pause, ready in looks:
        now += pause
        state, change = observe(state, ready=ready, now_us=now, patience_us=PATIENCE)
        if change is not None:
            changes.append((now, change))
    return changes


def test_a_restart_is_no_outage() -> None:
    assert told([(0, True), (11, True), (1, False), (8, False), (1, True), (30, True)]) == [(11, "recovered")]


def test_an_outage_is_told_once_and_its_end_once() -> None:
    looks = [(0, False), (5, False), (5, False), (5, False), (1, True), (9, True), (1, True), (50, True)]
    assert told(looks) == [(10, "failed"), (26, "recovered")]


def test_up_for_a_moment_between_crashes_is_one_outage() -> None:
    assert told([(3, False), (3, True)] * 20) == [(15, "failed")]


def test_what_will_not_mend_itself_is_told_at_once() -> None:
    _, change = observe(Observed(), ready=False, now_us=0, patience_us=PATIENCE, final=True)
    assert change == "failed"


def test_a_new_run_tells_once_that_a_service_is_well_as_an_earlier_one_may_have_said_otherwise() -> None:
    assert told([(0, True), (10, True), (10, True)]) == [(10, "recovered")]


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=60))
def test_failed_and_recovered_take_turns(looks: list[tuple[int, bool]]) -> None:
    changes = [change for _, change in told(looks, state=Observed(told=False))]
    assert changes == (["failed", "recovered"] * 30)[: len(changes)]
