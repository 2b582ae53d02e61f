"""The short way of a prediction: good requests to a model are answered before routes are matched and requests wrapped.

It stands within the limits of the application and in front of its routes. What is anything but a good request (a
wrong body, another media type, no such model) goes on to the routes, which say what is wrong. So this file has no
refusals of its own, and the routes document it.
"""

from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from driftline.contracts import prediction_fields as fields
from driftline.runtime.errors import DriftlineError
from driftline.runtime.logging import log_context
from driftline.runtime.problem import problem_of
from services.predictor.answers import Answers
from services.predictor.api import ANSWERED, PredictorState, unanswered
from services.predictor.batching import HttpBatches, Record
from services.predictor.requests import GoodBodies

_JSON = b"application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _ModelPath:
    """One model's path: how requests to it are read and answered. ``path`` is what metrics call it."""

    path: str
    bodies: GoodBodies
    answers: Answers


class QuickAnswers:
    """An ASGI middleware that answers good requests for predictions."""

    def __init__(self, app: ASGIApp, state: PredictorState) -> None:
        self._app = app
        self._state = state
        self._paths = {
            path: _ModelPath(
                path=path, bodies=GoodBodies(state.project, declaration), answers=state.answers[name]
            )
            for name, declaration in state.project.models.items()
            for path in [f"/v1/models/{name}/predictions"]
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a good request; leave any other to the application."""
        model = self._paths.get(scope.get("path", ""))
        batches = self._state.batches
        if model is None or batches is None or scope.get("method") != "POST" or not _is_json(scope):
            await self._app(scope, receive, send)
            return
        message = await receive()  # the limits have read the whole body
        request = model.bodies.read(message["body"], self._state.clock.now_us())
        if request is None:
            await self._app(scope, _again(message, receive), send)
            return
        scope["route"] = model
        await _answer(batches, request, model.answers, scope, receive, send)


async def _answer(
    batches: HttpBatches, request: Record, answers: Answers, scope: Scope, receive: Receive, send: Send
) -> None:
    try:
        logged = await batches.predict(request)
    except DriftlineError as error:
        with log_context(request_id=request[fields.REQUEST_ID]):
            response = problem_of(error, {"request_id": request[fields.REQUEST_ID]})
    else:
        if logged[fields.STATUS] == ANSWERED:
            await _send_json(answers.json(logged), send)
            return
        with log_context(request_id=request[fields.REQUEST_ID]):
            response = unanswered(logged, known=True)
    await response(scope, receive, send)


async def _send_json(body: bytes, send: Send) -> None:
    headers = [(b"content-type", _JSON), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_json(scope: Scope) -> bool:
    """Tell whether a body is declared as JSON in the usual way, or not at all."""
    return all(value == _JSON for name, value in scope["headers"] if name == b"content-type")


def _again(message: Message, receive: Receive) -> Receive:
    """Return a ``receive`` that gives a message that was taken once more, then goes on."""
    taken = [message]

    async def again() -> Message:
        return taken.pop() if taken else await receive()

    return again
