"""One record of ``model-events``: a fact or a command in a model's life, and the ids that they have."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from driftline.runtime.clock import instant_us

#: Made once, at random, for the ids of model events and retrain requests.
_NAMESPACE = uuid.UUID("8f1b2a0e-52a5-4d0c-8d0b-0d6e6c1f7a54")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Kind(StrEnum):
    """What a model event says: facts in their natural order, two reports, and at the end the commands.

    A report says what a predictor saw of a version (that it fails, that it recovered) and changes no state.
    """

    TRAINING_STARTED = "TRAINING_STARTED"
    TRAINING_FAILED = "TRAINING_FAILED"
    DATA_REFUSED = "DATA_REFUSED"
    REGISTERED = "REGISTERED"
    VALIDATED = "VALIDATED"
    CHALLENGER = "CHALLENGER"
    CANARY_STARTED = "CANARY_STARTED"
    AB_STARTED = "AB_STARTED"
    CANARY_STEPPED = "CANARY_STEPPED"
    CANARY_ENDED = "CANARY_ENDED"
    AB_ENDED = "AB_ENDED"
    APPROVAL_WANTED = "APPROVAL_WANTED"
    REJECTED = "REJECTED"
    PROMOTED = "PROMOTED"
    ROLLED_BACK = "ROLLED_BACK"
    PULLED = "PULLED"
    RETIRED = "RETIRED"
    FAILING = "FAILING"
    RECOVERED = "RECOVERED"
    APPROVE = "APPROVE"
    REJECT = "REJECT"
    PROMOTE = "PROMOTE"
    ROLL_BACK = "ROLL_BACK"
    PULL = "PULL"
    START_CANARY = "START_CANARY"
    STOP_CANARY = "STOP_CANARY"
    START_AB = "START_AB"
    STOP_AB = "STOP_AB"

    @property
    def is_command(self) -> bool:
        """Whether it asks for something, rather than saying what happened."""
        return self in COMMANDS

    @property
    def is_fact(self) -> bool:
        """Whether it changes where a version stands."""
        return self not in COMMANDS and self not in REPORTS


TRIAL_COMMANDS = frozenset({Kind.START_CANARY, Kind.STOP_CANARY, Kind.START_AB, Kind.STOP_AB})
COMMANDS = TRIAL_COMMANDS | {Kind.APPROVE, Kind.REJECT, Kind.PROMOTE, Kind.ROLL_BACK, Kind.PULL}
REPORTS = frozenset({Kind.FAILING, Kind.RECOVERED})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCause:
    """Why a version was trained: the retrain request that it answers.

    ``cause`` is a kind (``DRIFT``, ``SCHEDULE`` and so on), ``cause_id`` names the signal, slot or person's request.
    Bundles carry it in their manifest, model events in their evidence.
    """

    request_id: str
    cause: str
    cause_id: str
    reason: str
    requested_by: str

    def as_json(self) -> dict[str, str]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def of(cls, evidence: Mapping[str, Any]) -> Self | None:
        """Return the cause that an event's evidence holds; None where it holds none."""
        found = evidence.get("cause")
        if not isinstance(found, dict) or set(found) != set(cls.__slots__):
            return None
        return cls(**found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEvent:
    """One record of ``model-events``. Times are microseconds since the epoch, UTC; ``evidence`` is JSON."""

    event_id: str
    model: str
    kind: Kind
    effective_us: int
    reason: str
    by: str
    at_us: int
    version: str | None = None
    cause_id: str | None = None
    evidence: str = "{}"
    data_until_us: int | None = None

    def record(self) -> dict[str, Any]:
        """Return it as ``model_event.avsc`` has it."""
        return {
            "event_id": self.event_id,
            "model": self.model,
            "version": self.version,
            "kind": self.kind.value,
            "cause_id": self.cause_id,
            "reason": self.reason,
            "evidence": self.evidence,
            "data_until": self.data_until_us,
            "effective_at": self.effective_us,
            "by": self.by,
            "at": self.at_us,
        }

    @property
    def told(self) -> dict[str, Any]:
        """The evidence, read; ``{"text": ...}`` or ``{"value": ...}`` where it is no JSON object."""
        return evidence_of(self.evidence)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "ModelEvent":
        """Return the event of a decoded record."""
        until = record["data_until"]
        return cls(
            event_id=record["event_id"],
            model=record["model"],
            version=record["version"],
            kind=Kind(record["kind"]),
            cause_id=record["cause_id"],
            reason=record["reason"],
            evidence=record["evidence"],
            data_until_us=None if until is None else instant_us(until),
            effective_us=instant_us(record["effective_at"]),
            by=record["by"],
            at_us=instant_us(record["at"]),
        )


def evidence_of(text: str) -> dict[str, Any]:
    """Return evidence as the object that it should be.

    >>> evidence_of('{"alert": true}'), evidence_of("a word"), evidence_of("[1]")
    ({'alert': True}, {'text': 'a word'}, {'value': [1]})
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return {"text": text}
    return found if isinstance(found, dict) else {"value": found}


def life_id(*cause: str | int) -> str:
    """Return the UUID (version 5) that stands for a cause: the same cause has the same id, always.

    >>> life_id("PROMOTED", "v2") == life_id("PROMOTED", "v2") != life_id("PROMOTED", "v3")
    True
    """
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(map(str, cause))))
