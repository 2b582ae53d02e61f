"""Which events may change features."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from driftline.features.keys import partition_of
from driftline.project import EventType
from services.feature_store.validation import EventValidation, LogClock, ValidEvents, _jumps

HOUR = 3_600_000_000
NOW = 1_700_000_000_000_000
PAYMENT = EventType(name="payments", schema={}, schema_path=Path(), key="customer", event_time="paid_at")
KEYS = [key for key in (f"c{number}" for number in range(100)) if partition_of(key, 4) == 2]
STRANGER = next(key for key in (f"c{number}" for number in range(100)) if partition_of(key, 4) != 2)


def check(
    *events: tuple[str | None, int | None, float | None],
    record: int = NOW,
    clock: LogClock | None = None,
    max_jump: int | None = None,
) -> ValidEvents:
    table = pa.RecordBatch.from_pydict(
        {
            "event_id": pa.array([str(row) for row in range(len(events))]),
            "customer": pa.array([key for key, _, _ in events], pa.string()),
            "paid_at": pa.array([time for _, time, _ in events], pa.timestamp("us")),
            "amount": pa.array([amount for _, _, amount in events], pa.float64()),
        }
    )
    validation = EventValidation(
        PAYMENT, ["amount"], partition=2, partitions=4, future_skew_us=300_000_000, max_jump_us=max_jump
    )
    return validation.check(table, np.full(len(events), record, np.int64), clock or LogClock())


def test_good_events_pass_with_their_inputs_and_null_is_nan() -> None:
    events = check((KEYS[0], NOW, 1.5), (KEYS[1], NOW - HOUR, None))
    assert events.rows.tolist() == [0, 1]
    assert events.time_us.tolist() == [NOW, NOW - HOUR]
    assert events.inputs["amount"][0] == 1.5
    assert math.isnan(events.inputs["amount"][1])
    assert not events.refused
    assert events.clock == LogClock(record=NOW, newest=NOW, accepted=NOW)


def test_each_fault_is_refused_with_its_reason_and_neighbours_pass() -> None:
    events = check(
        (KEYS[0], NOW, 1.0),
        (None, NOW, 1.0),
        (KEYS[0], None, 1.0),
        (KEYS[0], -1, 1.0),
        (KEYS[0], NOW, math.nan),
        (KEYS[0], NOW, -math.inf),
        (STRANGER, NOW, 1.0),
        (KEYS[0], NOW + HOUR, 1.0),
        (KEYS[0], NOW, 2.0),
    )
    assert events.rows.tolist() == [0, 8]
    reasons = {row: (error.stage, error.reason) for row, error in events.refused}
    assert reasons[1] == ("validate", "customer is null")
    assert reasons[2] == ("validate", "paid_at is null")
    assert reasons[3][1].endswith("is before 1970")
    assert reasons[4][1] == "amount is nan, not a finite number to aggregate"
    assert reasons[5][1] == "amount is -inf, not a finite number to aggregate"
    assert "belongs to another partition than 2 of 4" in reasons[6][1]
    assert reasons[7][0] == "future"
    assert "is later than its record" in reasons[7][1]
    assert events.clock.newest == NOW


def test_a_jump_ahead_is_refused_and_does_not_move_the_clock() -> None:
    old = NOW - 8_000 * HOUR  # the past is played: records are from now, events are not
    clock = LogClock(record=NOW, newest=old, accepted=NOW)
    events = check(
        (KEYS[0], old + HOUR, 1.0),
        (KEYS[0], old + 100 * HOUR, 1.0),
        (KEYS[0], old + 2 * HOUR, 1.0),
        clock=clock,
        max_jump=24 * HOUR,
    )
    assert events.rows.tolist() == [0, 2]
    assert "jumps ahead" in events.refused[0][1].reason
    assert events.clock.newest == old + 2 * HOUR


def test_a_quiet_topic_may_jump_as_far_as_the_log_did() -> None:
    clock = LogClock(record=NOW - 100 * HOUR, newest=NOW - 100 * HOUR, accepted=NOW - 100 * HOUR)
    assert not check((KEYS[0], NOW, 1.0), clock=clock, max_jump=24 * HOUR).refused


@given(st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 20)), min_size=1), st.integers(1, 40))
def test_jumps_do_not_depend_on_batches(log: list[tuple[int, int]], cut: int) -> None:
    times = np.array([time for time, _ in log], np.int64)
    records = np.cumsum([step for _, step in log]).astype(np.int64)
    whole = _jumps(times, records, LogClock(), 100).tolist()
    parts, clock = [], LogClock()
    for start in range(0, len(log), cut):
        part, record = times[start : start + cut], records[start : start + cut]
        jumps = _jumps(part, record, clock, 100)
        parts += (jumps + start).tolist()
        passed = np.setdiff1d(np.arange(len(part)), jumps)
        if len(passed):
            newest = int(part[passed].max())
            clock = LogClock(
                newest=newest if clock.newest is None else max(newest, clock.newest),
                accepted=int(record[passed[-1]]),
            )
    assert parts == whole


def test_the_log_clock_survives_its_stored_form() -> None:
    for clock in (LogClock(), LogClock(record=3, newest=-5, accepted=2)):
        assert LogClock.parse(clock.format()) == clock
