"""Follow the log of predictions for the canaries that run: what became of their requests, in each step.

A request counts for a step where its instant (its event time, and not later than it was answered) is not before the
step's. The log is read while a canary runs, from where its step was decided on.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Message
from numpy.typing import NDArray

from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchDecoder
from driftline.features.event_columns import micros
from driftline.models.trial import Trial
from driftline.playback.topic_reading import TopicReader
from driftline.runtime.logging import get_logger
from services.model_registry.canaries import CanaryEvidence

_log = get_logger(__name__)
_VISIT_SECONDS = 2.0
#: Predictions are read from a little before a step was decided on: clocks differ by less than this.
_SLACK_MS = 60_000
_HTTP = fields.CHANNELS[0]
_ANSWERED = fields.STATUSES[0]

Bools = NDArray[np.bool_]


@dataclass(slots=True)
class StepTraffic:
    """The requests of one step of a model's canary."""

    model: str
    trial: Trial
    _sums: dict[str, int] = field(default_factory=dict)
    _first: int | None = None
    _last: int = 0

    def add(self, predictions: pa.RecordBatch) -> None:
        """Take logged predictions."""
        mine = pc.equal(predictions.column(fields.MODEL), self.model)
        labels = [self.trial.label(self.trial.arms[0].name), self.trial.label(self.trial.control)]
        tried = pc.is_in(predictions.column(fields.ARM), pa.array(labels))
        rows = predictions.filter(pc.and_(mine, tried))
        if not rows.num_rows:
            return
        at = np.minimum(micros(rows.column(fields.EVENT_TIME)), micros(rows.column(fields.PREDICTED_AT)))
        counted = at >= self.trial.since_us
        canary = _are(rows, fields.ARM, labels[0]) & counted
        champion = _are(rows, fields.ARM, labels[1]) & counted
        answered = _are(rows, fields.STATUS, _ANSWERED)
        timed = answered & _are(rows, fields.CHANNEL, _HTTP)
        latency_us = None if self.trial.steps is None else self.trial.steps.latency_us
        took = rows.column(fields.DURATION_US).to_numpy(zero_copy_only=False)
        late = timed & (took > (np.inf if latency_us is None else latency_us))
        own = _are(rows, fields.MODEL_VERSION, self.trial.version)
        for name, chosen in {
            "requests": canary,
            "fallbacks": canary & answered & ~own,
            "failed": canary & ~answered,
            "timed": canary & timed,
            "late": canary & late,
            "champion_timed": champion & timed,
            "champion_late": champion & late,
        }.items():
            self._sums[name] = self._sums.get(name, 0) + int(chosen.sum())
        if canary.any():
            first = int(at[canary].min())
            self._first = first if self._first is None else min(self._first, first)
            self._last = max(self._last, int(at[canary].max()))

    @property
    def evidence(self) -> CanaryEvidence:
        """What was seen so far."""
        return CanaryEvidence(
            trial=self.trial.name,
            step=self.trial.step,
            first_us=self._first or 0,
            last_us=self._last,
            **self._sums,
        )


class TrafficFollower:
    """Reads the predictions of all partitions while canaries run. Belongs to no group.

    ``open_reader`` opens the log from an instant on, in milliseconds since the epoch.
    """

    def __init__(self, open_reader: Callable[[int], TopicReader], decoder: BatchDecoder) -> None:
        self._open_reader = open_reader
        self._decoder = decoder
        self._reader: TopicReader | None = None
        self._steps: dict[str, StepTraffic] = {}
        self._heard = False

    def follow(self, canaries: Mapping[str, Trial]) -> dict[str, CanaryEvidence]:
        """Take in what has come for the canaries, by model; return what was seen of the step of each."""
        if {name: one.trial for name, one in self._steps.items()} != dict(canaries):
            self._begin(canaries)
        if self._reader is None:
            return {}
        until = time.monotonic() + _VISIT_SECONDS
        while time.monotonic() < until:
            messages = self._reader.poll(0.0 if self._heard else 0.2)
            if not messages:
                break
            self._heard = True
            self._add(messages)
        return {name: one.evidence for name, one in self._steps.items()}

    def close(self) -> None:
        """Close the reader."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _begin(self, canaries: Mapping[str, Trial]) -> None:
        self.close()
        self._heard = False
        self._steps = {name: StepTraffic(name, trial) for name, trial in canaries.items()}
        if canaries:
            since_ms = min(one.since_at_us for one in canaries.values()) // 1_000 - _SLACK_MS
            self._reader = self._open_reader(max(0, since_ms))
            _log.info("following", canaries=[f"{one.name}, step {one.step}" for one in canaries.values()])

    def _add(self, messages: list[Message]) -> None:
        decoded = self._decoder.decode([message.value() for message in messages])
        if decoded.bad:
            _log.warning("predictions passed over", count=len(decoded.bad))
        for one in self._steps.values():
            one.add(decoded.table)


def _are(rows: pa.RecordBatch, column: str, value: str) -> Bools:
    """Tell which rows have a text."""
    found: Bools = pc.fill_null(pc.equal(rows.column(column).cast(pa.string()), value), False).to_numpy(
        zero_copy_only=False
    )
    return found
