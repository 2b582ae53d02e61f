"""What callers get: the log's record, told as JSON."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import compress
from typing import Any

import orjson

from driftline.contracts import prediction_fields as fields
from driftline.features import FeatureView
from driftline.features.read import FRESH, MISSING, STALE, ViewValues
from driftline.project import ModelDeclaration
from driftline.serving.rack import ModelRack

#: On an answer that was given before; its value is "true".
REPEATED_HEADER = "Idempotent-Replay"
_EPOCH = datetime(1970, 1, 1)
_STATUS = {FRESH: "fresh", STALE: "stale", MISSING: "missing"}


@dataclass(frozen=True, slots=True)
class _AnswerView:
    """Where a view's values stand in the log's records, worked out once."""

    name: str
    version: int
    age_column: str
    oldest_ms: float
    values: tuple[tuple[str, str], ...]

    @staticmethod
    def of(view: FeatureView) -> "_AnswerView":
        return _AnswerView(
            name=view.name,
            version=view.version,
            age_column=view.age_column,
            oldest_ms=math.inf if view.ttl_us is None else view.ttl_us / 1_000,
            values=tuple(zip((one.name for one in view.features), view.columns, strict=True)),
        )

    def told(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a prediction saw of the view."""
        age_ms = record[self.age_column]
        if record[fields.DEGRADED] is not None:
            status = "degraded"
        else:
            status = "missing" if age_ms is None else "stale" if age_ms > self.oldest_ms else "fresh"
        return {
            "version": self.version,
            "age_ms": age_ms,
            "status": status,
            "values": {name: record[column] for name, column in self.values},
        }


class Answers:
    """Tells a model's logged predictions as JSON."""

    def __init__(self, declaration: ModelDeclaration) -> None:
        self._views = tuple(_AnswerView.of(view) for view in declaration.views)

    def of(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer for a logged prediction (times in microseconds)."""
        return {
            "request_id": record[fields.REQUEST_ID],
            "status": record[fields.STATUS],
            "score": record[fields.SCORE],
            "decision": record[fields.DECISION],
            "model": record[fields.MODEL],
            "version": record[fields.MODEL_VERSION],
            "event_time": instant_text(record[fields.EVENT_TIME]),
            "degraded": record[fields.DEGRADED],
            "features": {view.name: view.told(record) for view in self._views},
        }

    def json(self, record: Mapping[str, Any]) -> bytes:
        """Return the answer's body."""
        return orjson.dumps(self.of(record))


class FeatureAnswers:
    """Tells values of a view as JSON."""

    def __init__(self, view: FeatureView) -> None:
        self._view = view
        self._names = tuple(one.name for one in view.features)

    def json(self, entities: Sequence[str], instants_us: Sequence[int], read: ViewValues) -> list[bytes]:
        """Return the answer's body for each row that was read: NaN is null."""
        head = {"view": self._view.name, "version": self._view.version}
        told = zip(entities, instants_us, self.served(read), strict=True)
        return [
            orjson.dumps({**head, "entity": entity, "as_of": instant_text(instant_us), **served})
            for entity, instant_us, served in told
        ]

    def served(self, read: ViewValues) -> Iterator[dict[str, Any]]:
        """Yield for each row what is served: NaN is null in JSON; ``defaults`` names the values that are declared ones."""
        defaulted = read.defaulted
        rows = zip(read.age_us.tolist(), read.status.tolist(), read.values.tolist(), strict=True)
        for row, (age_us, status, values) in enumerate(rows):
            yield {
                "version": self._view.version,
                "age_ms": None if age_us < 0 else age_us // 1_000,
                "status": _STATUS[status],
                "values": dict(zip(self._names, values, strict=True)),
                "defaults": [] if defaulted is None else list(compress(self._names, defaulted[row])),
            }


def models_of(declarations: Mapping[str, ModelDeclaration], rack: ModelRack) -> dict[str, Any]:
    """Return the list of models with what each takes and the version that is active."""
    return {"models": [_model(one, rack) for one in declarations.values()]}


def _model(declaration: ModelDeclaration, rack: ModelRack) -> dict[str, Any]:
    loaded = rack.get(declaration.name)
    return {
        "name": declaration.name,
        "description": declaration.description,
        "owner": declaration.owner,
        "version": loaded.version if loaded else None,
        "problem": rack.missing.get(declaration.name),
        "entities": list(declaration.entity_keys),
        "inputs": {one.name: one.type.value for one in declaration.inputs},
        "views": [view.ref for view in declaration.views],
        "decision": {
            "threshold": declaration.decision.threshold,
            "above": declaration.decision.above,
            "below": declaration.decision.below,
        },
    }


def instant_text(instant_us: int) -> str:
    """Return an instant as ISO 8601, in UTC."""
    return (_EPOCH + timedelta(microseconds=instant_us)).isoformat() + "Z"
