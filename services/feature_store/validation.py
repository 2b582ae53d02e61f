"""Which decoded events may change features, and why the others may not.

A far-future event would take its entity's tiles with it and freeze them, so two clocks bound event times:
the record's own timestamp (which the broker keeps from running ahead), and the partition's newest event.
Both are in the log, so a rebuild decides alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.features.keys import partitions_of
from driftline.features.update import LARGEST
from driftline.project import EventType
from driftline.runtime.durations import format_duration
from driftline.runtime.errors import BadMessageError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_KNOWN_KEYS = 1 << 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogClock:
    """What a partition's log said about time so far, in microseconds; None before the first event.

    ``record`` is the largest record timestamp, ``newest`` the newest event time accepted, ``accepted`` the
    log's time when an event was last accepted.
    """

    record: int = 0
    newest: int | None = None
    accepted: int = 0

    def format(self) -> bytes:
        """Return the form that is stored."""
        newest = "" if self.newest is None else self.newest
        return f"{self.record}|{newest}|{self.accepted}".encode()

    @staticmethod
    def parse(text: bytes | None) -> LogClock:
        """Read the stored form.

        >>> LogClock.parse(LogClock(record=5, newest=3, accepted=5).format())
        LogClock(record=5, newest=3, accepted=5)
        >>> LogClock.parse(None)
        LogClock(record=0, newest=None, accepted=0)
        """
        if text is None:
            return LogClock()
        record, newest, accepted = text.decode().split("|")
        return LogClock(record=int(record), newest=int(newest) if newest else None, accepted=int(accepted))


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidEvents:
    """The events of a batch that passed: their rows in the table, their times, the features' inputs."""

    rows: Ints
    time_us: Ints
    log_us: Ints
    inputs: Mapping[str, Floats]
    refused: Sequence[tuple[int, BadMessageError]]
    clock: LogClock


class EventValidation:
    """Checks the events of one partition of an event type."""

    def __init__(
        self,
        event_type: EventType,
        inputs: Sequence[str],
        *,
        partition: int,
        partitions: int,
        future_skew_us: int,
        max_jump_us: int | None,
    ) -> None:
        self._event_type = event_type
        self._inputs = tuple(inputs)
        self._partition = partition
        self._partitions = partitions
        self._skew = future_skew_us
        self._max_jump = max_jump_us
        self._known_keys: set[str] = set()

    def check(self, table: pa.RecordBatch, record_us: Ints, clock: LogClock) -> ValidEvents:
        """Check decoded events; ``record_us`` are the timestamps of their records, in the log's order."""
        refusals = _Refusals(table.num_rows)
        kind = self._event_type
        for name in (kind.key, kind.event_id, kind.event_time):
            missing = table.column(name).is_null()
            if missing.true_count:
                refusals.add(_numpy(missing), partial(_is_null, name))
        time_us = _numpy(table.column(kind.event_time).cast(pa.int64()).fill_null(0))
        refusals.add(time_us < 0, lambda row: f"{kind.event_time} {_instant(time_us[row])} is before 1970")
        inputs = {name: self._input(table, name, refusals) for name in self._inputs}
        self._check_partition(table.column(kind.key), refusals)
        refusals.stage("future").add(
            time_us > record_us + self._skew,
            lambda row: (
                f"{kind.event_time} {_instant(time_us[row])} is later than its record ({_instant(record_us[row])}) "
                f"by more than {format_duration(self._skew)}"
            ),
        )
        log_us = np.maximum.accumulate(np.maximum(record_us, clock.record)) if len(record_us) else record_us
        clock = self._check_jumps(time_us, log_us, clock, refusals)
        rows = refusals.passed()
        return ValidEvents(
            rows=rows,
            time_us=time_us[rows],
            log_us=log_us[rows],
            inputs={name: column[rows] for name, column in inputs.items()},
            refused=refusals.errors(),
            clock=clock,
        )

    def _input(self, table: pa.RecordBatch, name: str, refusals: _Refusals) -> Floats:
        """Return a feature's input with NaN for null; refuse the events where it is no finite number."""
        column = table.column(name)
        values: Floats = _numpy(column.cast(pa.float64(), safe=False))
        if pa.types.is_floating(column.type):
            # Not <=, so that NaN is among the refused; nulls are not.
            wild = ~(np.abs(values) <= LARGEST)
            if wild.any():
                if column.null_count:
                    wild &= _numpy(column.is_valid())
                refusals.add(wild, lambda row: f"{name} is {values[row]}, not a finite number to aggregate")
        return values

    def _check_partition(self, keys: pa.Array, refusals: _Refusals) -> None:
        encoded = keys.dictionary_encode()
        new = [
            (code, key)
            for code, key in enumerate(encoded.dictionary.to_pylist())
            if key not in self._known_keys
        ]
        if not new:
            return
        own = partitions_of([key for _, key in new], self._partitions)
        strangers = [code for (code, _), number in zip(new, own, strict=True) if number != self._partition]
        if len(self._known_keys) > _KNOWN_KEYS:
            self._known_keys.clear()
        self._known_keys.update(
            key for (_, key), number in zip(new, own, strict=True) if number == self._partition
        )
        if strangers:
            wrong = np.isin(_numpy(encoded.indices.fill_null(-1)), strangers)
            refusals.add(
                wrong,
                lambda row: (
                    f"key {keys[row].as_py()!r} belongs to another partition than {self._partition} "
                    f"of {self._partitions}: produce with partitioner murmur2_random"
                ),
            )

    def _check_jumps(self, time_us: Ints, log_us: Ints, clock: LogClock, refusals: _Refusals) -> LogClock:
        """Refuse events whose time runs ahead of the newest one faster than the log and ``max_jump`` allow."""
        record = int(log_us[-1]) if len(log_us) else clock.record
        rows = refusals.passed()
        if self._max_jump is not None and len(rows):
            jumps = _jumps(time_us[rows], log_us[rows], clock, self._max_jump)
            if len(jumps):
                newest = int(time_us[np.setdiff1d(rows, rows[jumps])].max(initial=clock.newest or 0))
                mask = np.zeros(len(time_us), np.bool_)
                mask[rows[jumps]] = True
                refusals.stage("future").add(
                    mask,
                    lambda row: (
                        f"{self._event_type.event_time} {_instant(time_us[row])} jumps ahead of the partition's "
                        f"newest event ({_instant(newest)})"
                    ),
                )
                rows = refusals.passed()
        if not len(rows):
            return LogClock(record=record, newest=clock.newest, accepted=clock.accepted)
        times = int(time_us[rows].max())
        return LogClock(
            record=record,
            newest=times if clock.newest is None else max(clock.newest, times),
            accepted=int(log_us[rows[-1]]),
        )


def _jumps(time_us: Ints, log_us: Ints, clock: LogClock, max_jump: int) -> NDArray[np.intp]:
    """Return the positions of the events that run ahead of those accepted before them.

    The log's own clock counts too: after a pause of a day, events may be a day later.
    """
    first = int(time_us[0]) if clock.newest is None else clock.newest
    accepted = int(log_us[0]) if clock.newest is None else clock.accepted
    before = np.maximum.accumulate(np.concatenate([[first], time_us]))[:-1]
    passed = np.diff(log_us, prepend=accepted)
    if not (time_us > before + max_jump + passed).any():
        return np.empty(0, np.intp)
    # One was refused: then it does not count for the next ones, which takes a step per event.
    jumps = []
    newest = first
    for position, (time, log) in enumerate(zip(time_us.tolist(), log_us.tolist(), strict=True)):
        if time > newest + max_jump + (log - accepted):
            jumps.append(position)
        else:
            newest, accepted = max(newest, time), log
    return np.array(jumps, np.intp)


class _Refusals:
    """Rows that were refused, each with the first reason found."""

    def __init__(self, rows: int) -> None:
        self._refused = np.zeros(rows, np.bool_)
        self._errors: list[tuple[int, BadMessageError]] = []
        self._stage = "validate"

    def stage(self, name: str) -> _Refusals:
        self._stage = name
        return self

    def add(self, mask: NDArray[np.bool_], reason: Callable[[int], str]) -> None:
        for row in np.flatnonzero(mask & ~self._refused).tolist():
            self._errors.append((row, BadMessageError(reason(row), stage=self._stage)))
        self._refused |= mask

    def passed(self) -> Ints:
        return np.flatnonzero(~self._refused).astype(np.int64)

    def errors(self) -> list[tuple[int, BadMessageError]]:
        return sorted(self._errors, key=lambda pair: pair[0])


def _is_null(name: str, _row: int) -> str:
    return f"{name} is null"


def _numpy(array: pa.Array) -> Any:
    return array.to_numpy(zero_copy_only=False)


def _instant(time_us: int) -> str:
    try:
        return (_EPOCH + timedelta(microseconds=int(time_us))).isoformat()
    except OverflowError:
        return f"{time_us} us"
