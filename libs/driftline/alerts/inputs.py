"""What the book of alerts is told, as the ``alert-inputs`` topic carries it: one log per group, in order.

Everything that can change an alert is a record of this topic, keyed by the alert's group: causes and their ends,
what people ask for, what became of notifications. So the book is a fold of one log, and the log is the ledger of
what was started and delivered.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from driftline.alerts.alert import Severity
from driftline.contracts.project_schemas import platform_schema
from driftline.runtime.clock import instant_us
from driftline.runtime.errors import BadMessageError

#: The schema of ``alert-inputs``.
ALERT_INPUT: dict[str, Any] = platform_schema("alert_input")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A problem of a group. ``problem`` tells the problems of a group apart; times in microseconds of event time."""

    input_id: str
    group: str
    problem: str
    severity: Severity
    source: str
    model: str | None
    team: str
    title: str
    text: str
    runbook: str | None
    lasting: bool
    since: int
    happened_at: int
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Clearance:
    """The problems whose keys begin with ``problem``, but not with ``keep``, are over."""

    input_id: str
    group: str
    problem: str
    reason: str
    by: str
    keep: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge:
    """Somebody takes care of an alert."""

    input_id: str
    group: str
    alert_id: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Nobody is to be told of a group until a time."""

    input_id: str
    group: str
    until: int
    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsilence:
    """A silence ends now."""

    input_id: str
    group: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A run of the alerter is about to deliver. Of several, the first in the log does it."""

    input_id: str
    group: str
    notice_id: str
    attempt: int
    boot: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The channel took a notification."""

    input_id: str
    group: str
    notice_id: str
    attempt: int
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The channel did not take a notification."""

    input_id: str
    group: str
    notice_id: str
    attempt: int
    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """A new run of the alerter takes over what an earlier one had started and not reported."""

    input_id: str
    group: str
    boot: str
    by: str


Input = Cause | Clearance | Acknowledge | Silence | Unsilence | Started | Delivered | Failed | Adopt

_TYPES: dict[str, type[Input]] = {
    "CAUSE": Cause,
    "CLEAR": Clearance,
    "ACKNOWLEDGE": Acknowledge,
    "SILENCE": Silence,
    "UNSILENCE": Unsilence,
    "STARTED": Started,
    "DELIVERED": Delivered,
    "FAILED": Failed,
    "ADOPT": Adopt,
}
_KIND_OF = {kind: name for name, kind in _TYPES.items()}
_FIELDS = tuple(field["name"] for field in ALERT_INPUT["fields"])
_CAUSE_FIELDS = tuple(
    field["name"] for field in ALERT_INPUT["fields"][_FIELDS.index("cause")]["type"][1]["fields"]
)
_CAUSE_TIMES = ("since", "happened_at")


def input_record(event: Input, *, at_us: int) -> dict[str, Any]:
    """Return the record of ``ALERT_INPUT`` that carries an input."""
    values = {name: getattr(event, name) for name in event.__slots__}
    record: dict[str, Any] = dict.fromkeys(_FIELDS)
    record |= {name: value for name, value in values.items() if name in record}
    record |= {"kind": _KIND_OF[type(event)], "reason": values.get("reason", ""), "at": at_us}
    if isinstance(event, Cause):
        record["cause"] = {name: values[name] for name in _CAUSE_FIELDS}
    return record


def input_of(record: Mapping[str, Any]) -> Input:
    """Return the input that a record carries; raise BadMessageError where a field that its kind needs is missing."""
    kind = _TYPES[record["kind"]]
    values = {**record, **(record["cause"] or {})}
    wanted: dict[str, Any] = {name: values.get(name) for name in kind.__slots__}
    optional = {"model", "runbook", "keep"}
    missing = sorted(name for name, value in wanted.items() if value is None and name not in optional)
    if missing:
        raise BadMessageError(
            f"an alert input of kind {record['kind']} without {', '.join(missing)}", stage="validate"
        )
    if kind is Cause:
        wanted["severity"] = Severity(wanted["severity"])
        wanted |= {name: instant_us(wanted[name]) for name in _CAUSE_TIMES}
    if kind is Silence:
        wanted["until"] = instant_us(wanted["until"])
    return kind(**wanted)
