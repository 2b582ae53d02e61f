"""The route of a model's live predictions."""

import asyncio
import contextlib
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from driftline.contracts import prediction_fields as fields
from driftline.project import Project
from driftline.runtime.errors import RefusedError
from driftline.runtime.limits import lift_deadline
from driftline.runtime.problem import problem_responses
from services.predictor.live_events import Positions, read_positions, read_wanted
from services.predictor.live_feed import MOST_RESUMED, QUEUE, Listener, LiveFeed

EVENT_STREAM = "text/event-stream"
_DESCRIPTION = f"""
What enters the log of the model's predictions, over HTTP and over the topic, as server-sent events, from now on:
`event: prediction`, its `data` the answer with `entities`, `channel`, `error` and `predicted_at`. The inputs and who asked are
not told.

The `id` of an event is a place in the log. Who comes back with it in `Last-Event-ID` (browsers do so by themselves) goes on from there, as far
back as the topic and {MOST_RESUMED:,} records reach. Of a listener that reads too slowly {QUEUE} events wait; then the oldest are left out.
`event: missed` says how many were. A comment comes every fifteen seconds when nothing else does. The stream ends when the
predictor stops, or cannot read the log: come back.
"""
_EXAMPLE = (
    "retry: 2000\nid: 0:41,1:7\n\n"
    'id: 0:42,1:7\nevent: prediction\ndata: {"request_id":"0190a6c5-7b2e-7c11-8000-0123456789ab","score":0.27}\n\n'
    'event: missed\ndata: {"missed":12}\n\n'
)


class _Stream(StreamingResponse):
    """An answer without a deadline, until its listener is sent away; the listener leaves however it ends."""

    def __init__(self, feed: LiveFeed, listener: Listener, since: Positions | None) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # proxies pass it on as it comes
        super().__init__(feed.stream(listener, since), media_type=EVENT_STREAM, headers=headers)
        self._feed, self._listener = feed, listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lift_deadline(scope)
        try:
            with contextlib.suppress(TimeoutError):  # it was sent away and does not read: it is cut off
                async with asyncio.timeout(None) as self._listener.limit:
                    await super().__call__(scope, receive, send)
        finally:
            self._feed.leave(self._listener)


def live_routes(project: Project, feed: LiveFeed) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.get(
        "/v1/models/{model}/predictions/live",
        tags=["predictions"],
        summary="Listen to a model's predictions",
        description=_DESCRIPTION.strip(),
        response_class=Response,
        responses={
            200: {
                "description": "Events, until one side ends it.",
                "content": {EVENT_STREAM: {"schema": {"type": "string"}, "example": _EXAMPLE}},
            },
            **problem_responses(404, 422, 429, 503),
        },
    )
    async def live(
        model: str,
        status: Annotated[
            list[str] | None, Query(description=f"Only these: {', '.join(fields.STATUSES)}.", max_length=3)
        ] = None,
        entity: Annotated[
            list[str] | None, Query(description="`name:key`: only requests about it.", max_length=20)
        ] = None,
        sample: Annotated[
            float, Query(gt=0, le=1, description="Share of the requests, chosen by a hash of their ids.")
        ] = 1.0,
        last_event_id: Annotated[
            str | None, Header(description="The id of the last event that was heard.")
        ] = None,
    ) -> Response:
        declared = project.models.get(model)
        if declared is None:
            known = ", ".join(sorted(project.models)) or "none"
            reason = f"no model is named {model[:100]!r}; known are: {known}"
            raise RefusedError(reason, status=404, title="Unknown model")
        wanted = read_wanted(declared, status or (), entity or (), sample)
        since = read_positions(last_event_id) if last_event_id else None
        listener = await feed.join(wanted)
        return _Stream(feed, listener, since)

    return router
