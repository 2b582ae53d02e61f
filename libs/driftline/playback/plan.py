"""The plan of a play: which events are sent before which requests, minute by minute of event time.

A step is one minute (or longer, if asked) that has requests. An event belongs to the first step whose minute is not before the
moment when it became known, so minutes without requests are merged into the next step, and no request ever
meets an event from its own future. The first step warms the store up, the last sends what is left.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.playback.faults import Damage, FaultRates, draw_faults
from driftline.project.history import History

_MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEvents:
    """The events of one type, and when each is sent.

    ``published_at_us`` is the event time of the step that sends an event first: the moment from which it
    counts, as the store sees it.
    """

    table: pa.Table
    published_at_us: NDArray[np.int64]


@dataclass(slots=True, kw_only=True)
class Step:
    """What is sent at one minute: rows of each event type, damaged copies, labels, then rows of the requests."""

    at_us: int
    events: dict[str, list[int]] = field(default_factory=dict)
    damaged: list[tuple[str, int, Damage]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    requests: range = range(0)

    @property
    def at(self) -> datetime:
        """The step's moment in event time."""
        return datetime.fromtimestamp(self.at_us / 1e6, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All steps in order, and the tables that their row numbers point into."""

    steps: list[Step]
    events: Mapping[str, PlannedEvents]
    requests: pa.Table
    labels: pa.Table | None = None

    @property
    def sendings(self) -> int:
        """How many event messages will be sent: firsts, repeats and damaged copies."""
        return sum(len(step.damaged) + sum(len(rows) for rows in step.events.values()) for step in self.steps)


def make_plan(
    history: History,
    *,
    start: datetime,
    end: datetime,
    rates: FaultRates | None = None,
    seed: int = 0,
    step_us: int = _MINUTE_US,
) -> Plan:
    """Plan the play of a history's requests from ``start`` (inclusive) to ``end`` (exclusive).

    Events known before ``start`` warm the store up; events known after ``end`` are left out. An event
    whose delay passes the end is sent in the last step, so that every planned event is sent. With steps longer than
    a minute, a request meets the events that were known at its step's begin: up to ``step_us`` older features.
    """
    start_us, end_us = _to_us(start), _to_us(end)
    requests = _between(history.requests, "event_time", start_us, end_us)
    minutes = _micros(requests, "event_time") // step_us * step_us
    order = np.argsort(minutes, kind="stable")
    requests, minutes = requests.take(pa.array(order)), minutes[order]
    times, first_rows = np.unique(minutes, return_index=True)
    last_rows = np.append(first_rows[1:], len(minutes)) if len(minutes) else first_rows
    steps = [Step(at_us=start_us)]
    steps += [
        Step(at_us=int(at), requests=range(int(low), int(high)))
        for at, low, high in zip(times, first_rows, last_rows, strict=True)
    ]
    steps.append(Step(at_us=end_us))
    rng = np.random.default_rng(seed)
    events = {
        name: _schedule(
            name,
            table.filter(pc.less_equal(_column(table, "known_at"), end_us)),
            steps,
            rates=rates or FaultRates(),
            rng=rng,
        )
        for name, table in sorted(history.events.items())
    }
    labels = history.labels
    if labels is not None:
        labels = labels.filter(pc.less_equal(_column(labels, "known_at"), end_us))
        for row, step in _by_step(_micros(labels, "known_at"), np.array([step.at_us for step in steps])):
            steps[step].labels.append(row)
    return Plan(steps=steps, events=events, requests=requests, labels=labels)


def _schedule(
    name: str,
    table: pa.Table,
    steps: list[Step],
    *,
    rates: FaultRates,
    rng: np.random.Generator,
) -> PlannedEvents:
    step_times = np.array([step.at_us for step in steps], np.int64)
    faults = draw_faults(len(table), rates, rng)
    sent_us = np.minimum(_micros(table, "known_at") + faults.delay_us, step_times[-1])
    published_at_us = step_times[np.searchsorted(step_times, sent_us, side="left")]
    for row, step in _by_step(sent_us, step_times):
        steps[step].events.setdefault(name, []).append(row)
    repeated = np.flatnonzero(faults.repeat_us >= 0)
    again_us = np.minimum(sent_us + faults.repeat_us, step_times[-1])[repeated]
    for position, step in _by_step(again_us, step_times):
        steps[step].events.setdefault(name, []).append(int(repeated[position]))
    spoilt = np.flatnonzero(faults.damage >= 0)
    for position, step in _by_step(sent_us[spoilt], step_times):
        row = int(spoilt[position])
        steps[step].damaged.append((name, row, Damage(int(faults.damage[row]))))
    return PlannedEvents(table=table, published_at_us=published_at_us)


def _by_step(sent_us: NDArray[np.int64], step_times: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield (row, number of its step) in the order of sending."""
    order = np.argsort(sent_us, kind="stable")
    steps = np.searchsorted(step_times, sent_us[order], side="left")
    return zip(order.tolist(), steps.tolist(), strict=True)


def _to_us(moment: datetime) -> int:
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * 1_000_000


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    return table[name].cast(pa.timestamp("us")).cast(pa.int64())


def _micros(table: pa.Table, name: str) -> NDArray[np.int64]:
    values: NDArray[np.int64] = _column(table, name).to_numpy()
    return values


def _between(table: pa.Table, name: str, low_us: int, high_us: int) -> pa.Table:
    column = _column(table, name)
    return table.filter(pc.and_(pc.greater_equal(column, low_us), pc.less(column, high_us)))
