"""What the events in a model's life mean for people, and which problems they end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from driftline.alerts.alert import Severity
from driftline.alerts.kinds import ACTIVITY, CHAMPION, PROMOTION, TRAINING
from driftline.models.model_event import evidence_of

BASELINE_WON = "BASELINE_WON"
FAILING = "FAILING"


@dataclass(frozen=True, slots=True)
class Happening:
    """What an event in a model's life means for people."""

    kind: str
    severity: Severity
    title: str
    what_to_do: str
    lasting: bool = True


EVENTS = {
    "TRAINING_FAILED": Happening(
        TRAINING, Severity.CRITICAL, "training failed", "The champion stays. Look at the trainer's log."
    ),
    "DATA_REFUSED": Happening(
        TRAINING,
        Severity.CRITICAL,
        "training data refused",
        "The champion stays. Mend the data, then retrain.",
    ),
    "REJECTED": Happening(
        PROMOTION, Severity.WARNING, "candidate rejected", "The champion stays.", lasting=False
    ),
    BASELINE_WON: Happening(
        PROMOTION,
        Severity.CRITICAL,
        "a baseline won",
        "The champion stays, a retrain would not help. Look at the features and the labels.",
    ),
    "APPROVAL_WANTED": Happening(
        PROMOTION,
        Severity.WARNING,
        "a candidate waits for approval",
        "`driftline models approve` or `reject`.",
    ),
    "PULLED": Happening(
        CHAMPION, Severity.CRITICAL, "the active version was pulled", "See that another one serves."
    ),
    "ROLLED_BACK": Happening(
        CHAMPION, Severity.CRITICAL, "rolled back", "The version before serves. Find out why.", lasting=False
    ),
    FAILING: Happening(
        CHAMPION,
        Severity.CRITICAL,
        "fails in service",
        "Its breaker is open. See `driftline models history`, and the predictor's log.",
    ),
    "CANARY_ENDED": Happening(
        PROMOTION,
        Severity.WARNING,
        "canary ended",
        "The champion answers everything again. See `driftline models history`.",
        lasting=False,
    ),
    "PROMOTED": Happening(ACTIVITY, Severity.INFO, "promoted", "", lasting=False),
}
#: What ends which kinds of problems, whatever their version.
ENDS: dict[str, tuple[str, ...]] = {
    "REGISTERED": (TRAINING,),
    "PROMOTED": (TRAINING, PROMOTION, CHAMPION),
}
#: What ends the wait for an approval of its own version.
ANSWERS = frozenset({"REJECTED", "REJECT", "APPROVE"})
#: What ends the failing of its own version, whoever saw it.
LEAVES = frozenset({"ROLLED_BACK", "PULLED", "RETIRED", "REJECTED", "CANARY_ENDED"})
#: What ends the failing of its own version in the process that saw it.
RECOVERED = "RECOVERED"
#: What ends a baseline's win: a version that has passed the gates.
BEATS_BASELINES = "VALIDATED"


def happening_of(event: Mapping[str, Any]) -> str:
    """Return what an event is to people: a rejection of which a person must know at once is a baseline that won."""
    if event["kind"] == "REJECTED" and evidence_of(event["evidence"]).get("alert") is True:
        return BASELINE_WON
    kind: str = event["kind"]
    return kind
