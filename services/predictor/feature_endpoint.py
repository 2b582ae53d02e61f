"""The short way of a feature read: plain requests for a known view, answered without the application's routes.

Like ``endpoint.py`` for predictions: what is anything but plain (no such view, an instant that is none, other
parameters) goes on to the route, which says what is wrong and documents both ways.
"""

from functools import partial
from urllib.parse import unquote

from driftline.runtime.direct import DirectRequest, DirectRoute
from driftline.runtime.errors import DriftlineError
from driftline.runtime.problem import problem_of
from driftline.serving.request_values import WrongValueError, read_instant_us
from services.predictor.api import FEATURES_PATH, PredictorState
from services.predictor.feature_reads import Outcome

_PREFIX = "/v1/features/"
_PREFIX_BYTES = _PREFIX.encode()
_AS_OF = "as_of="


class QuickFeatures:
    """Finds the direct route of feature reads."""

    def __init__(self, state: PredictorState) -> None:
        self._state = state
        self._route = DirectRoute(FEATURES_PATH, "GET", self._take)

    def find(self, method: bytes, target: bytes) -> DirectRoute | None:
        """Return the route of features."""
        return self._route if method == b"GET" and target.startswith(_PREFIX_BYTES) else None

    def _take(self, request: DirectRequest) -> bool:
        """Have a plain request read; leave any other."""
        if request.body or b"#" in request.head.target or not request.head.target.isascii():
            return False
        path, _, query = request.head.target.decode("ascii").partition("?")
        name, _, entity = (unquote(path) if "%" in path else path)[len(_PREFIX) :].partition("/")
        view = self._state.project.views.get(name)
        instant_us = self._instant_us(query)
        if view is None or not entity or "\n" in entity or instant_us is None:
            return False
        tell = partial(self._tell, request)
        try:
            self._state.features.ask(view, entity, instant_us, tell, request.waits)
        except DriftlineError as error:
            tell(error)
        return True

    @staticmethod
    def _tell(request: DirectRequest, outcome: Outcome) -> None:
        if isinstance(outcome, DriftlineError):
            request.respond(problem_of(outcome))
        elif isinstance(outcome, Exception):
            request.fail(outcome)
        else:
            request.answer_json(outcome)

    def _instant_us(self, query: str) -> int | None:
        """Return the instant that a query names, now without one; None where it says anything else."""
        if not query:
            return self._state.clock.now_us()
        if not query.startswith(_AS_OF) or "&" in query or "+" in query:
            return None
        try:
            return read_instant_us(unquote(query[len(_AS_OF) :]))
        except WrongValueError:
            return None
