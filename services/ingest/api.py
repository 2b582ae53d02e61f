"""Ingest's routes: publish events, list event types."""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from driftline.contracts.project_schemas import published_types
from driftline.contracts.topics import Topics
from driftline.project import Project
from driftline.runtime.acknowledged_producer import AcknowledgedProducer
from driftline.runtime.errors import RefusedError, UnavailableError
from driftline.runtime.http import read_json
from driftline.runtime.problem import problem, problem_of, problem_responses
from services.ingest.event_channel import EventChannel
from services.ingest.json_schema import event_example, event_json_schema
from services.ingest.publishing import publish

DESCRIPTION = """
Events come in here. `POST` one event or a list to `/v1/events/{type}`; the answer is `202` only after the broker
has acknowledged every accepted event, so an accepted event is never lost.

**Retry with the same `event_id`.** A second event with the same id changes nothing, so after `429`, `503` or a lost
connection send the same events again. Wait the seconds in `Retry-After` first.

**A wrong event does not keep its neighbours.** Each event has its own result, in the order of the list. `422` means
that none was accepted.
"""
TAGS = [{"name": "events", "description": "Publish events; see what can be published."}]


class IngestState:
    """What the routes need; the channels appear once the registry has answered."""

    def __init__(self, project: Project, topics: Topics, *, max_events: int) -> None:
        self.project = project
        self.types = published_types(project)
        self.topics = topics
        self.max_events = max_events
        self.channels: dict[str, EventChannel] | None = None
        self.producer: AcknowledgedProducer | None = None

    def check_known(self, event_type: str) -> None:
        """Raise RefusedError, 404, that lists the known types."""
        if event_type not in self.types:
            known = ", ".join(sorted(self.types))
            msg = f"project {self.project.name} has no event type {event_type[:100]!r}; it has {known}"
            raise RefusedError(msg, status=404, title="Unknown event type")

    def sending(self, event_type: str) -> tuple[AcknowledgedProducer, EventChannel]:
        """Return what publishes a type; raise UnavailableError while the registry has not answered."""
        self.check_known(event_type)
        if self.channels is None or self.producer is None:
            raise UnavailableError("the schema registry has not answered yet")
        return self.producer, self.channels[event_type]


def ingest_routes(state: IngestState) -> APIRouter:
    """Return the routes. Each event type is documented with its own schema."""
    router = APIRouter(tags=["events"])

    async def publish_events(event_type: str, request: Request) -> Response:
        state.check_known(event_type)
        events = _events(await read_json(request), state.max_events)
        producer, channel = state.sending(event_type)
        outcome = await publish(producer, channel, events)
        results = [result.shown() for result in outcome.results]
        if outcome.failure is not None:
            return problem_of(outcome.failure, {"results": results})
        if outcome.count("rejected") == len(events):
            detail = f"none of {len(events)} events was accepted; first: {results[0].get('error')}"
            return problem(422, detail, title="Events rejected", extensions={"results": results})
        counts = {"accepted": outcome.count("accepted"), "rejected": outcome.count("rejected")}
        return Response(orjson.dumps({**counts, "results": results}), 202, media_type="application/json")

    for name in state.types:
        _document(router, state, name, publish_events)
    router.add_api_route(
        "/v1/events/{event_type}",
        publish_events,
        methods=["POST"],
        include_in_schema=False,  # the types are listed one by one; this one answers 404 with their names
    )

    types = {name: _described(state, name) for name in state.types}

    @router.get(
        "/v1/events",
        summary="List the event types",
        description="Every event type of the project, with its topic, its schema and an example.",
        responses={200: _json_response("The event types.", {"event_types": list(types.values())})},
        response_class=Response,
    )
    async def list_event_types() -> Response:
        return _json({"project": state.project.name, "event_types": list(types.values())})

    @router.get(
        "/v1/events/{event_type}",
        summary="Describe an event type",
        description="One event type, with its topic, its schema and an example.",
        responses={
            200: _json_response("The event type.", next(iter(types.values()), {})),
            **problem_responses(404),
        },
        response_class=Response,
    )
    async def describe_event_type(event_type: str) -> Response:
        state.check_known(event_type)
        return _json(types[event_type])

    return router


def _events(body: Any, most: int) -> list[Any]:
    events = body if isinstance(body, list) else [body]
    if not events:
        raise RefusedError("the list is empty", title="No events")
    if len(events) > most:
        raise RefusedError(
            f"{len(events):,} events in one list; up to {most:,} are taken",
            status=413,
            title="Too many events",
        )
    return events


def _document(router: APIRouter, state: IngestState, name: str, handler: Any) -> None:
    event_type = state.types[name]
    example = event_example(event_type)
    schema = event_json_schema(event_type)

    async def publish_one_type(request: Request) -> Response:
        return await handler(name, request)  # type: ignore[no-any-return]

    router.add_api_route(
        f"/v1/events/{name}",
        publish_one_type,
        methods=["POST"],
        operation_id=f"publish_{name}",
        summary=f"Publish {name}",
        description=(
            f"{event_type.schema.get('doc', '')} One event or a list of up to {state.max_events:,}; they go to "
            f"`{state.topics.events(name)}`, keyed by `{event_type.key}`."
        ).strip(),
        status_code=202,
        response_class=Response,
        responses={202: _accepted(), **problem_responses(422, 429, 503, s422=_REJECTED, s503=_UNKNOWN)},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "anyOf": [
                                schema,
                                {
                                    "type": "array",
                                    "items": schema,
                                    "minItems": 1,
                                    "maxItems": state.max_events,
                                },
                            ]
                        },
                        "examples": {
                            "one": {"summary": "One event", "value": example},
                            "list": {"summary": "A list", "value": [example]},
                        },
                    }
                },
            }
        },
    )


_REJECTED = "No event was accepted; `results` says for each what is wrong."
_UNKNOWN = (
    "The broker did not acknowledge everything in time. `results` names each event's id: send those that are "
    "`unknown` again, with these ids, after the seconds in `Retry-After`."
)
_RESULT_SCHEMA = {
    "type": "object",
    "required": ["event_id", "status"],
    "properties": {
        "event_id": {
            "type": ["string", "null"],
            "description": "The event's UUID; made where it brought none.",
        },
        "status": {"enum": ["accepted", "rejected"]},
        "error": {
            "type": "string",
            "description": "What is wrong with a rejected event, with the field's path.",
        },
        "partition": {"type": "integer", "description": "Where the broker wrote it."},
        "offset": {"type": "integer", "description": "Where the broker wrote it."},
    },
}


def _accepted() -> dict[str, Any]:
    good = {
        "event_id": "0190a6c5-7b2e-7c11-8000-0123456789ab",
        "status": "accepted",
        "partition": 0,
        "offset": 4711,
    }
    bad = {"event_id": None, "status": "rejected", "error": "dest: the field is missing"}
    return {
        "description": "The broker has acknowledged every accepted event. Look at `rejected`: a list may be mixed.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["accepted", "rejected", "results"],
                    "properties": {
                        "accepted": {"type": "integer"},
                        "rejected": {"type": "integer"},
                        "results": {"type": "array", "items": _RESULT_SCHEMA},
                    },
                },
                "example": {"accepted": 1, "rejected": 1, "results": [good, bad]},
            }
        },
    }


def _described(state: IngestState, name: str) -> dict[str, Any]:
    event_type = state.types[name]
    return {
        "name": name,
        "description": event_type.schema.get("doc", ""),
        "topic": state.topics.events(name),
        "key": event_type.key,
        "event_id": event_type.event_id,
        "event_time": event_type.event_time,
        "avro_schema": event_type.schema,
        "json_schema": event_json_schema(event_type),
        "example": event_example(event_type),
    }


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


def _json_response(description: str, example: Any) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"type": "object"}, "example": example}},
    }
