"""What asks for a retrain: handlers around the pure rules in ``driftline.models.retraining``.

| record | handler |
|---|---|
| drift signal | ``on_drift_signal``: one of level RETRAIN asks |
| window report | ``on_window_report``: counts outcomes, moves the clock; schedule, volume and targets ask |
| retrain request | ``on_retrain_request``: of whomever, starts the cooldown |

The table's key is the model, its state a ``TriggerState``. A request's id is made from its cause, so that a record
which is handled twice asks once.
"""

from typing import Any

from driftline.control import Context
from driftline.models.retraining import (
    RetrainRequest,
    RetrainRule,
    Signal,
    Step,
    TriggerState,
    Window,
    on_request,
    on_signal,
    on_window,
)
from driftline.project import Project
from driftline.runtime.logging import get_logger

_log = get_logger(__name__)
BY = "retrain_trigger"


class TriggerAgents:
    """The handlers of the retrain trigger."""

    def __init__(self, project: Project, rule: RetrainRule, *, requests: str) -> None:
        self._project = project
        self._rule = rule
        self._requests = requests

    async def on_drift_signal(self, record: dict[str, Any], context: Context) -> None:
        """Answer a signal."""
        signal = Signal.of(record)
        if signal.model in self._project.models:
            step = on_signal(
                self._state(signal.model, context), signal, self._rule, by=BY, at_us=context.timestamp_us
            )
            await self._take(signal.model, step, context)

    async def on_window_report(self, record: dict[str, Any], context: Context) -> None:
        """Count a closed window of outcomes."""
        window = Window.of(record)
        if window is not None and window.model in self._project.models:
            step = on_window(
                self._state(window.model, context), window, self._rule, by=BY, at_us=context.timestamp_us
            )
            await self._take(window.model, step, context)

    async def on_retrain_request(self, record: dict[str, Any], context: Context) -> None:
        """Remember a request, its own ones too."""
        request = RetrainRequest.of(record)
        state = on_request(self._state(request.model, context), request)
        context.table.put(request.model, state.as_json())

    @staticmethod
    def _state(model: str, context: Context) -> TriggerState:
        return TriggerState.of(context.table.get(model))

    async def _take(self, model: str, step: Step, context: Context) -> None:
        state, request = step
        if request is not None:
            _log.info("retrain", model=model, cause=request.cause.value, reason=request.reason)
            await context.send(self._requests, model, request.record())
        context.table.put(model, state.as_json())
