"""When is a model trained anew? Pure rules: ``(state, what happened, rule) -> (state, request or None)``.

Time is event time, moved by signals and closed windows, so a replay of a year asks for the same retrains in seconds.
One cause makes one request: its id is made from the cause. After a request nothing but a person asks again until the
cooldown is over; a cause in that time is let go, for a problem that lasts is signalled again.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from driftline.models.model_event import TrainingCause, life_id
from driftline.project.life_rules import RetrainRule
from driftline.runtime.clock import instant_us
from driftline.runtime.durations import format_duration

#: Checks of a signal that are about accuracy itself, or about the value.
_ACCURACY = frozenset(
    {"log_loss", "brier", "auc", "calibration", "error_rate", "adwin", "page_hinkley", "ddm"}
)
_VALUE = frozenset({"value"})


class Cause(StrEnum):
    """Why a model is trained anew."""

    DRIFT = "DRIFT"
    ACCURACY = "ACCURACY"
    VALUE = "VALUE"
    SCHEDULE = "SCHEDULE"
    VOLUME = "VOLUME"
    PERSON = "PERSON"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainRequest:
    """One record of ``retrain-requests``. Times are microseconds since the epoch, UTC.

    ``data_from_us`` None: from where the trainer is set to begin.
    """

    request_id: str
    model: str
    cause: Cause
    cause_id: str
    reason: str
    data_until_us: int
    requested_by: str
    requested_us: int
    data_from_us: int | None = None

    def record(self) -> dict[str, Any]:
        """Return it as ``retrain_request.avsc`` has it."""
        return {
            "request_id": self.request_id,
            "model": self.model,
            "cause": self.cause.value,
            "cause_id": self.cause_id,
            "reason": self.reason,
            "data_until": self.data_until_us,
            "data_from": self.data_from_us,
            "requested_by": self.requested_by,
            "requested_at": self.requested_us,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "RetrainRequest":
        """Return the request of a decoded record."""
        begin = record["data_from"]
        return cls(
            request_id=record["request_id"],
            model=record["model"],
            cause=Cause(record["cause"]),
            cause_id=record["cause_id"],
            reason=record["reason"],
            data_until_us=instant_us(record["data_until"]),
            requested_by=record["requested_by"],
            requested_us=instant_us(record["requested_at"]),
            data_from_us=None if begin is None else instant_us(begin),
        )

    @property
    def training_cause(self) -> TrainingCause:
        """What the version that answers this request carries to the end of its life."""
        return TrainingCause(
            request_id=self.request_id,
            cause=self.cause.value,
            cause_id=self.cause_id,
            reason=self.reason,
            requested_by=self.requested_by,
        )

    @property
    def version(self) -> str:
        """The name of the version that this request makes, however often it is worked on.

        >>> request(Cause.DRIFT, "s1", "lateness", "", 0, by="x", at_us=0).version
        '19700101T000000Z-9a55d26c'
        """
        until = datetime.fromtimestamp(self.data_until_us / 1e6, tz=UTC)
        return f"{until:%Y%m%dT%H%M%SZ}-{self.request_id[:8]}"


def request(
    cause: Cause,
    cause_id: str,
    model: str,
    reason: str,
    data_until_us: int,
    *,
    by: str,
    at_us: int,
    data_from_us: int | None = None,
) -> RetrainRequest:
    """Return the request that a cause makes: the same cause, the same id."""
    return RetrainRequest(
        request_id=life_id("retrain", model, cause, cause_id),
        model=model,
        cause=cause,
        cause_id=cause_id,
        reason=reason,
        data_until_us=data_until_us,
        requested_by=by,
        requested_us=at_us,
        data_from_us=data_from_us,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerState:
    """What is remembered of a model, as JSON types.

    ``last_us`` is the newest request's ``data_until``, ``clock_us`` the end of the newest closed window, ``slot`` the
    schedule's last slot. ``recent`` are the newest windows of outcomes: end, rows, and the sums of log loss and value.
    """

    last_us: int | None = None
    clock_us: int | None = None
    labelled: int = 0
    slot: int | None = None
    recent: tuple[tuple[int, int, float, float], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as a table keeps it."""
        return asdict(self)

    @classmethod
    def of(cls, found: Mapping[str, Any] | None) -> "TriggerState":
        """Return the state that a table kept; a new one for None."""
        if found is None:
            return cls()
        # JSON has no NaN: what is not known comes back as null.
        recent = tuple(
            (end, rows, _number(loss), _number(value)) for end, rows, loss, value in found["recent"]
        )
        return cls(**{**found, "recent": recent})


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What the rules need of a drift signal."""

    signal_id: str
    model: str
    level: str
    check: str
    window_end_us: int
    explanation: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Signal":
        """Return the signal of a decoded ``drift_signal.avsc`` record."""
        return cls(
            signal_id=record["signal_id"],
            model=record["model"],
            level=record["level"],
            check=record["check"],
            window_end_us=instant_us(record["window_end"]),
            explanation=record["explanation"],
        )

    @property
    def cause(self) -> Cause:
        """What it is a sign of."""
        if self.check in _VALUE:
            return Cause.VALUE
        return Cause.ACCURACY if self.check in _ACCURACY else Cause.DRIFT


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A closed window of a model's outcomes: how many, and their mean log loss and value (NaN where not known)."""

    model: str
    end_us: int
    rows: int
    log_loss: float
    value: float

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Window | None":
        """Return the window of a decoded ``window_report.avsc`` record; None for one of predictions or of a segment."""
        if record["kind"] != "OUTCOMES" or record["segment"]:
            return None
        measured = json.loads(record["measurements"])
        return cls(
            model=record["model"],
            end_us=instant_us(record["window_end"]),
            rows=record["rows"],
            log_loss=_number(measured.get("log_loss")),
            value=_number(measured.get("value_per_prediction")),
        )


Step = tuple[TriggerState, RetrainRequest | None]


def on_signal(state: TriggerState, signal: Signal, rule: RetrainRule, *, by: str, at_us: int) -> Step:
    """Answer a drift signal: one of the rule's level asks for a retrain on what was known when its window ended."""
    if not rule.drift.asks(signal.level):
        return state, None
    made = request(
        signal.cause,
        signal.signal_id,
        signal.model,
        signal.explanation,
        signal.window_end_us,
        by=by,
        at_us=at_us,
    )
    return _unless_cooling(state, made, rule)


def on_window(state: TriggerState, window: Window, rule: RetrainRule, *, by: str, at_us: int) -> Step:
    """Count a closed window's outcomes and move the clock; schedule, volume and targets may ask for a retrain.

    Windows of several versions may end together: they count as one.
    """
    clock = max(window.end_us, state.clock_us or window.end_us)
    state = replace(
        state, clock_us=clock, labelled=state.labelled + window.rows, recent=_with(state.recent, window, rule)
    )
    state, slot = _moved(state, clock, rule)
    for cause, cause_id, reason, until in _reasons(state, slot, rule):
        made = request(cause, cause_id, window.model, reason, until, by=by, at_us=at_us)
        state, asked = _unless_cooling(state, made, rule)
        if asked is not None:
            return state, asked
    return state, None


def on_request(state: TriggerState, made: RetrainRequest) -> TriggerState:
    """Remember a request that someone else made, so that the cooldown counts from it."""
    if state.last_us is not None and made.data_until_us <= state.last_us:
        return state
    return replace(state, last_us=made.data_until_us, labelled=0)


def _moved(state: TriggerState, clock: int, rule: RetrainRule) -> tuple[TriggerState, int | None]:
    """Return the state with the schedule's slot, and the slot where it is a new one (the first is none)."""
    if rule.every_us is None:
        return state, None
    slot = clock // rule.every_us
    if state.slot is not None and slot <= state.slot:
        return state, None
    return replace(state, slot=slot), (slot if state.slot is not None else None)


def _reasons(
    state: TriggerState, slot: int | None, rule: RetrainRule
) -> Iterator[tuple[Cause, str, str, int]]:
    """Yield what speaks for a retrain: cause, its id, why, and until when the data are to be learnt from."""
    clock = state.clock_us or 0
    if slot is not None and rule.every_us is not None:
        every = format_duration(rule.every_us)
        yield (
            Cause.SCHEDULE,
            f"every {every}, slot {slot}",
            f"the schedule, every {every}",
            slot * rule.every_us,
        )
    full = len(state.recent) >= rule.target_windows
    loss, value = _means(state.recent)
    if full and rule.target_log_loss is not None and loss > rule.target_log_loss:
        reason = (
            f"log loss {loss:.4f} over {rule.target_windows} windows, the target is {rule.target_log_loss:g}"
        )
        yield Cause.ACCURACY, f"log loss in windows to {clock}", reason, clock
    if full and rule.target_value is not None and value < rule.target_value:
        reason = f"value {value:.4f} over {rule.target_windows} windows, the target is {rule.target_value:g}"
        yield Cause.VALUE, f"value in windows to {clock}", reason, clock
    if rule.volume is not None and state.labelled >= rule.volume:
        reason = f"{state.labelled:,} new labelled rows since the last retrain"
        # Each full count is one cause: it begins with the request before it.
        begin = "the beginning" if state.last_us is None else str(state.last_us)
        yield Cause.VOLUME, f"volume since {begin}", reason, clock


def _with(
    recent: tuple[tuple[int, int, float, float], ...], window: Window, rule: RetrainRule
) -> tuple[tuple[int, int, float, float], ...]:
    sums = {end: (rows, loss, value) for end, rows, loss, value in recent}
    rows, loss, value = sums.get(window.end_us, (0, 0.0, 0.0))
    sums[window.end_us] = (
        rows + window.rows,
        loss + window.rows * window.log_loss,
        value + window.rows * window.value,
    )
    return tuple((end, *sums[end]) for end in sorted(sums)[-rule.target_windows :])


def _means(recent: tuple[tuple[int, int, float, float], ...]) -> tuple[float, float]:
    """Return mean log loss and value over windows; NaN, which passes no target, where a window lacks it."""
    rows = sum(one[1] for one in recent)
    if not rows:
        return math.nan, math.nan
    return sum(one[2] for one in recent) / rows, sum(one[3] for one in recent) / rows


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _unless_cooling(state: TriggerState, made: RetrainRequest, rule: RetrainRule) -> Step:
    if state.last_us is not None and made.data_until_us < state.last_us + rule.cooldown_us:
        return state, None
    return replace(state, last_us=made.data_until_us, labelled=0), made
