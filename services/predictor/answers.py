"""What callers get: the log's record, told as JSON."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import compress
from operator import itemgetter
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


#: What every answer is made of, beside its views.
_HEAD = (
    fields.REQUEST_ID,
    fields.STATUS,
    fields.SCORE,
    fields.DECISION,
    fields.MODEL,
    fields.MODEL_VERSION,
    fields.EVENT_TIME,
    fields.DEGRADED,
)


@dataclass(frozen=True, slots=True)
class _AnswerView:
    """Where a view's age and then its values stand among those of all views, worked out once."""

    name: str
    version: int
    oldest_ms: float
    features: tuple[str, ...]
    age: int

    def told(self, served: Sequence[Any], degraded: str | None) -> dict[str, Any]:
        """Return what a prediction saw of the view."""
        age_ms, first = served[self.age], self.age + 1
        if degraded is not None:
            status = "degraded"
        else:
            status = "missing" if age_ms is None else "stale" if age_ms > self.oldest_ms else "fresh"
        return {
            "version": self.version,
            "age_ms": age_ms,
            "status": status,
            "values": dict(zip(self.features, served[first : first + len(self.features)], strict=True)),
        }


class Answers:
    """Tells a model's logged predictions as JSON."""

    def __init__(self, declaration: ModelDeclaration) -> None:
        views: list[_AnswerView] = []
        columns: list[str] = []
        for view in declaration.views:
            oldest_ms = math.inf if view.ttl_us is None else view.ttl_us / 1_000
            features = tuple(one.name for one in view.features)
            views.append(_AnswerView(view.name, view.version, oldest_ms, features, age=len(columns)))
            columns += [view.age_column, *view.columns]
        self._views = tuple(views)
        self._pick = itemgetter(*_HEAD, *columns)

    def of(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer for a logged prediction (times in microseconds)."""
        request_id, status, score, decision, model, version, event_time, degraded, *served = self._pick(
            record
        )
        return {
            "request_id": request_id,
            "status": status,
            "score": score,
            "decision": decision,
            "model": model,
            "version": version,
            "event_time": instant_text(event_time),
            "degraded": degraded,
            "features": {view.name: view.told(served, degraded) for view in self._views},
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
    """Return an instant as ISO 8601, in UTC.

    >>> instant_text(1_364_817_600_000_001), instant_text(-1_000_000)
    ('2013-04-01T12:00:00.000001Z', '1969-12-31T23:59:59Z')
    """
    second, rest_us = divmod(instant_us, 1_000_000)
    return f"{_second_text(second)}.{rest_us:06d}Z" if rest_us else f"{_second_text(second)}Z"


@lru_cache(1_024)
def _second_text(second: int) -> str:
    """Return a second without its zone. Most are about now, so they come again."""
    return (_EPOCH + timedelta(seconds=second)).isoformat()
