"""The short way of a prediction: good requests to a model are answered without routes, tasks and wrapped requests.

What is anything but a good request (a wrong body, another media type, no such model) goes on to the application's routes,
which say what is wrong. So this file has no refusals of its own, and the routes document it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from driftline.contracts import prediction_fields as fields
from driftline.project import ModelDeclaration
from driftline.runtime.direct import Answer, DirectRequest, DirectRoute, RequestHead
from driftline.runtime.errors import DriftlineError
from driftline.runtime.logging import log_context
from driftline.runtime.problem import problem_of
from driftline.serving.kept_answers import RepeatedRecord
from driftline.serving.request_values import WrongValueError
from services.predictor.answers import REPEATED_HEADER
from services.predictor.api import ANSWERED, PredictorState, unanswered
from services.predictor.requests import TIMEOUT_HEADER, GoodBodies, ReadRequest, read_timeout_ms
from services.predictor.waiting import Outcome

_JSON = b"application/json"
_TIMEOUT = TIMEOUT_HEADER.lower().encode()
_REPEATED = b"%b: true\r\n" % REPEATED_HEADER.lower().encode()


class QuickPredictions:
    """Finds the direct routes of models."""

    def __init__(self, state: PredictorState) -> None:
        self._routes = {
            route.path.encode(): route
            for name, declaration in state.project.models.items()
            for route in [
                DirectRoute(f"/v1/models/{name}/predictions", "POST", _Model(state, declaration).take)
            ]
        }

    def find(self, method: bytes, target: bytes) -> DirectRoute | None:
        """Return the route of a model's predictions."""
        return self._routes.get(target) if method == b"POST" else None


class _Model:
    """Reads and answers good requests to one model."""

    def __init__(self, state: PredictorState, declaration: ModelDeclaration) -> None:
        self._state = state
        self._bodies = GoodBodies(state.project, declaration)
        self._answers = state.answers[declaration.name]
        self._model = declaration.name
        self._head: RequestHead | None = None  # the newest; clients send the same again and again
        self._declared: _Declared | None = None  # by that
        self._full: Answer | None = None  # made once: under more load than we bear it is what is said most

    def take(self, request: DirectRequest) -> bool:
        """Have a good request predicted; leave any other."""
        batches = self._state.batches
        if batches is not None and (shed := batches.sheds(self._model)) is not None:
            self._full = self._full or Answer.of(problem_of(shed))
            request.answer(*self._full)
            return True
        if request.head is not self._head:
            self._head, self._declared = request.head, _declared(request.head.headers)
        declared = self._declared
        if batches is None or declared is None:
            return False
        read = self._bodies.read(request.body, self._state.clock.now_us())
        if read is None:
            return False
        tell = partial(self._tell, request, read)
        try:
            batches.ask(read.record, tell, declared.timeout_ms, brought=read.brought)
        except DriftlineError as error:
            tell(error)
        return True

    def _tell(self, request: DirectRequest, read: ReadRequest, outcome: Outcome) -> None:
        try:
            if isinstance(outcome, DriftlineError):
                with log_context(request_id=read.id):
                    request.respond(problem_of(outcome, {"request_id": read.id}))
            elif outcome[fields.STATUS] == ANSWERED:
                repeated = _REPEATED if isinstance(outcome, RepeatedRecord) else b""
                request.answer_json(self._answers.json(outcome), repeated)
            else:
                with log_context(request_id=read.id):
                    request.respond(unanswered(outcome, known=True))
        except Exception as error:  # noqa: BLE001 - whatever happens, nobody waits in vain
            request.fail(error)


@dataclass(frozen=True, slots=True)
class _Declared:
    """What a good request's headers say."""

    timeout_ms: int | None


_PLAIN = _Declared(None)


def _declared(headers: Sequence[tuple[bytes, bytes]]) -> _Declared | None:
    """Return what the headers say; None where that is wrong or unusual, which the routes explain."""
    timeout: str | None = None
    for name, value in headers:
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
