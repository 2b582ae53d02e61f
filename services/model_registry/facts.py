"""The facts that the registry adds to a model's history; each has an id made from what causes it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from driftline.models.commands import change_instant
from driftline.models.lifecycle import ModelHistory
from driftline.models.model_event import Kind, ModelEvent, life_id

BY = "model_registry"


@dataclass(frozen=True, slots=True)
class Facts:
    """Makes the facts of one model. One that is in its log already is not made again."""

    history: ModelHistory
    at_us: int
    made: list[ModelEvent] = field(default_factory=list)

    def add(
        self,
        kind: Kind,
        version: str,
        effective_us: int,
        reason: str,
        *,
        because: tuple[str, ...],
        evidence: Mapping[str, Any] | None = None,
        cause_id: str | None = None,
        until_us: int | None = None,
    ) -> None:
        """Make a fact; ``because`` tells it from others of its kind about the version."""
        event_id = life_id(self.history.model, kind, version, *because)
        if any(event.event_id == event_id for event in self.history.events):
            return
        life = self.history.versions.get(version)
        known = life.data_until_us if life is not None else until_us
        cause = self.history.cause_of(version)
        told = {**(evidence or {}), **({} if cause is None else {"cause": cause.as_json()})}
        self.made.append(
            ModelEvent(
                event_id=event_id,
                model=self.history.model,
                version=version,
                kind=kind,
                cause_id=cause_id or _cause(self.history, version),
                reason=reason,
                evidence=json.dumps(told),
                data_until_us=known,
                effective_us=change_instant(self.history, version, effective_us),
                by=BY,
                at_us=self.at_us,
            )
        )


def _cause(history: ModelHistory, version: str) -> str | None:
    """Return the cause that brought a version about, to the end of its life."""
    for event in history.events:
        if event.version == version and event.kind is Kind.REGISTERED:
            return event.cause_id
    return None
