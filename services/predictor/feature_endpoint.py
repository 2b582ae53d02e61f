"""The short way of a feature read: plain requests for a known view, answered in front of the routes.

Like ``endpoint.py`` for predictions: what is anything but plain (no such view, an instant that is none, other
parameters) goes on to the route, which says what is wrong and documents both ways.
"""

from dataclasses import dataclass
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from driftline.runtime.errors import DriftlineError
from driftline.runtime.problem import problem_of
from driftline.serving.request_values import WrongValueError, read_instant_us
from services.predictor.api import FEATURES_PATH, PredictorState
from services.predictor.endpoint import send_json

_PREFIX = "/v1/features/"
_AS_OF = b"as_of="


@dataclass(frozen=True, slots=True)
class _Route:
    """``path`` is what metrics call it."""

    path: str


_ROUTE = _Route(FEATURES_PATH)


class QuickFeatures:
    """An ASGI middleware that answers plain requests for features."""

    def __init__(self, app: ASGIApp, state: PredictorState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a plain request; leave any other to the application."""
        path: str = scope.get("path", "")
        if not path.startswith(_PREFIX) or scope.get("method") != "GET" or scope.get("root_path"):
            await self._app(scope, receive, send)
            return
        name, _, entity = path[len(_PREFIX) :].partition("/")
        view = self._state.project.views.get(name)
        instant_us = self._instant_us(scope["query_string"])
        if view is None or not entity or "\n" in entity or instant_us is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = _ROUTE
        try:
            body = await self._state.features.read(view, entity, instant_us)
        except DriftlineError as error:
            await problem_of(error)(scope, receive, send)
        else:
            await send_json(body, send)

    def _instant_us(self, query: bytes) -> int | None:
        """Return the instant that a query names, now without one; None where it says anything else."""
        if not query:
            return self._state.clock.now_us()
        if not query.startswith(_AS_OF) or b"&" in query or b"+" in query:
            return None
        try:
            return read_instant_us(unquote(query[len(_AS_OF) :].decode("latin-1")))
        except WrongValueError:
            return None
