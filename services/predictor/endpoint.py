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
from driftline.serving.kept_answers import RepeatedRecord
from driftline.serving.request_values import WrongValueError
from services.predictor.answers import REPEATED_HEADER, Answers
from services.predictor.api import ANSWERED, PredictorState, unanswered
from services.predictor.requests import TIMEOUT_HEADER, GoodBodies, read_timeout_ms

_JSON = b"application/json"
_TIMEOUT = TIMEOUT_HEADER.lower().encode()
_REPEATED = (REPEATED_HEADER.lower().encode(), b"true")


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
        declared = None if model is None or scope.get("method") != "POST" else _declared(scope)
        if model is None or batches is None or declared is None:
            await self._app(scope, receive, send)
            return
        message = await receive()  # the limits have read the whole body
        read = model.bodies.read(message["body"], self._state.clock.now_us())
        if read is None:
            await self._app(scope, _again(message, receive), send)
            return
        scope["route"] = model
        try:
            logged = await batches.predict(read.record, declared.timeout_ms, brought=read.brought)
        except DriftlineError as error:
            with log_context(request_id=read.id):
                response = problem_of(error, {"request_id": read.id})
        else:
            if logged[fields.STATUS] == ANSWERED:
                await send_json(model.answers.json(logged), send, isinstance(logged, RepeatedRecord))
                return
            with log_context(request_id=read.id):
                response = unanswered(logged, known=True)
        await response(scope, receive, send)


async def send_json(body: bytes, send: Send, repeated: bool = False) -> None:
    """Send an answer that is there; ``repeated`` where it is one of before."""
    headers = [(b"content-type", _JSON), (b"content-length", b"%d" % len(body))]
    if repeated:
        headers.append(_REPEATED)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True, slots=True)
class _Declared:
    """What a good request's headers say."""

    timeout_ms: int | None


_PLAIN = _Declared(None)


def _declared(scope: Scope) -> _Declared | None:
    """Return what the headers say; None where that is wrong or unusual, which the routes explain."""
    timeout: str | None = None
    for name, value in scope["headers"]:
        if name == b"content-type" and value != _JSON:
            return None
        if name == _TIMEOUT:
            if timeout is not None:
                return None
            timeout = value.decode("latin-1")
    if timeout is None:
        return _PLAIN
    try:
        return _Declared(read_timeout_ms(timeout))
    except WrongValueError:
        return None


def _again(message: Message, receive: Receive) -> Receive:
    """Return a ``receive`` that gives a message that was taken once more, then goes on."""
    taken = [message]

    async def again() -> Message:
        return taken.pop() if taken else await receive()

    return again
