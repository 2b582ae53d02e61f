"""What callers send and get, and how it maps to the log's records."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from driftline.contracts import prediction_fields as fields
from driftline.features import FeatureView
from driftline.project import InputType, ModelDeclaration, Project
from driftline.runtime.errors import RefusedError
from driftline.runtime.ids import new_id, parse_id

_EPOCH = datetime(1970, 1, 1)


class PredictionBody(BaseModel):
    """A request for a prediction."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "entities": {"origin": "JFK", "carrier": "UA", "dest": "LAX"},
                "inputs": {"distance": 2475},
                "event_time": "2013-04-01T12:00:00Z",
            }
        },
    )

    entities: dict[str, str] = Field(description="The key of each entity that the model reads features of.")
    inputs: dict[str, float | str | None] = Field(default={}, description="Values that the caller brings.")
    request_id: str | None = Field(default=None, description="UUID of the request; made if absent.")
    event_time: datetime | int | None = Field(
        default=None,
        description="The instant that features are read as of (ISO 8601 or microseconds); now if absent.",
    )
    caller: str | None = Field(default=None, max_length=200, description="Who asks; kept in the log.")


class ServedView(BaseModel):
    """The values of one feature view as they were served."""

    version: int
    age_ms: int | None = Field(
        description="Age of the entity's newest event; null for an entity without events."
    )
    status: str = Field(description="fresh, stale or missing")
    values: dict[str, float | None]


class PredictionAnswer(BaseModel):
    """A prediction, as it stands in the log."""

    request_id: str
    status: str
    score: float
    decision: str
    model: str
    version: str
    event_time: datetime
    features: dict[str, ServedView]


def request_record(project: Project, model: str, body: PredictionBody, now_us: int) -> dict[str, Any]:
    """Return a request as the columns hold it: times without a zone, in UTC.

    Raises RefusedError (422) for a request_id that is no UUID and an event_time without an offset.
    """
    try:
        request_id = parse_id(body.request_id) if body.request_id else new_id()
    except ValueError as error:
        raise RefusedError(f"request_id: {body.request_id!r} is no UUID") from error
    record: dict[str, Any] = {
        fields.REQUEST_ID: request_id,
        fields.MODEL: model,
        fields.REQUESTED_AT: now_us,
        fields.EVENT_TIME: _instant_us(body.event_time, now_us),
        fields.CALLER: body.caller,
    }
    record.update({name: body.entities.get(name) for name in project.request_entities})
    record.update({one.name: None for one in project.request_inputs})
    return record


def add_inputs(record: dict[str, Any], declaration: ModelDeclaration, body: PredictionBody) -> str | None:
    """Put the caller's inputs into a request; return what is wrong with them, if anything."""
    known = {one.name: one.type for one in declaration.inputs}
    for name, value in body.inputs.items():
        if name not in known:
            return (
                f"inputs.{name}: {declaration.name} has no such input; it takes {', '.join(known) or 'none'}"
            )
        if value is not None and isinstance(value, str) != (known[name] is InputType.STRING):
            return f"inputs.{name}: a {'text' if known[name] is InputType.STRING else 'number'} is wanted, got {value!r}"
        record[name] = value
    entities = {entity.name for entity in declaration.entities}
    for name in body.entities:
        if name not in entities:
            return f"entities.{name}: {declaration.name} has no such entity; it takes {', '.join(sorted(entities))}"
    return None


def _instant_us(given: datetime | int | None, now_us: int) -> int:
    if given is None:
        return now_us
    if isinstance(given, int):
        if not -(2**63) <= given < 2**63:
            raise RefusedError("event_time: microseconds since the epoch must fit 64 bits")
        return given
    if given.tzinfo is None:
        raise RefusedError("event_time: give the offset too (end it with Z for UTC)")
    return (given.astimezone(UTC).replace(tzinfo=None) - _EPOCH) // timedelta(microseconds=1)


def answer_of(declaration: ModelDeclaration, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer for a logged prediction."""
    return {
        "request_id": record[fields.REQUEST_ID],
        "status": record[fields.STATUS],
        "score": record[fields.SCORE],
        "decision": record[fields.DECISION],
        "model": record[fields.MODEL],
        "version": record[fields.MODEL_VERSION],
        "event_time": record[fields.EVENT_TIME].isoformat() + "Z",
        "features": {view.name: _served(view, record) for view in declaration.views},
    }


def _served(view: FeatureView, record: Mapping[str, Any]) -> dict[str, Any]:
    age_ms = record[view.age_column]
    stale = age_ms is not None and view.ttl_us is not None and age_ms * 1_000 > view.ttl_us
    return {
        "version": view.version,
        "age_ms": age_ms,
        "status": "missing" if age_ms is None else "stale" if stale else "fresh",
        "values": {one.name: record[column] for one, column in zip(view.features, view.columns, strict=True)},
    }
