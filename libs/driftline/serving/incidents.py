"""What predictors saw of versions that fail, as events for ``model-events``. Pure.

A report (FAILING, RECOVERED) is each process's own. The command to roll back has an id made from the version and its
reign, so however many processes send it however often, it is one command, and one fact follows from it.
"""

import json
from dataclasses import dataclass

from driftline.models.model_event import Kind, ModelEvent, life_id
from driftline.project import PromotionRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A version that began to fail in this process, or recovered.

    Attributes
    ----------
    reign
        Id of the event with which the champion's reign began; empty where a person activated it.
    champion
        Whether it is the version that should answer, rather than one to fall back on.
    answered_by
        Who answered instead; None: nobody.
    event_us
        Event time of the newest request that it failed on; 0 where it never served.
    at_us
        When it was seen.
    arm
        The arm of a trial that the version answers, as the log names it; empty where it answers none.
    """

    model: str
    version: str
    reign: str
    champion: bool
    failing: bool
    reason: str
    answered_by: str | None
    event_us: int
    at_us: int
    arm: str = ""


def events_of(incident: Incident, rule: PromotionRule, *, by: str) -> list[ModelEvent]:
    """Return the report of an incident, and the command to roll back where the rule asks for it.

    Only a champion for which another version answers is rolled back: what nobody can answer may be the requests' fault.
    """
    kind = Kind.FAILING if incident.failing else Kind.RECOVERED
    report = ModelEvent(
        event_id=life_id(kind, incident.model, incident.version, by, incident.at_us),
        model=incident.model,
        version=incident.version,
        kind=kind,
        reason=_told(incident),
        evidence=json.dumps(_evidence(incident)),
        effective_us=incident.event_us or incident.at_us,
        by=by,
        at_us=incident.at_us,
    )
    if not (incident.failing and incident.champion and incident.answered_by and rule.rollback_on_failure):
        return [report]
    command = ModelEvent(
        event_id=life_id(Kind.ROLL_BACK, incident.model, incident.version, "failing", incident.reign),
        model=incident.model,
        version=incident.version,
        kind=Kind.ROLL_BACK,
        cause_id=report.event_id,
        reason=f"it fails in service: {incident.reason}",
        effective_us=incident.event_us,
        by=by,
        at_us=incident.at_us,
    )
    return [report, command]


def _evidence(incident: Incident) -> dict[str, str | bool | None]:
    told: dict[str, str | bool | None] = {
        "answered_by": incident.answered_by,
        "champion": incident.champion,
    }
    return {**told, "arm": incident.arm} if incident.arm else told


def _told(incident: Incident) -> str:
    if not incident.failing:
        return incident.reason
    answered = f"{incident.answered_by} answers instead" if incident.answered_by else "no version answers"
    return f"{incident.reason}; {answered}"
