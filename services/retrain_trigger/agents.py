"""What asks for a retrain: handlers around the pure rules in ``driftline.models.retraining``.

| record | handler |
|---|---|
| drift signal | ``on_drift_signal``: one of the level that the model's ``retrain:`` section names asks |
| window report | ``on_window_report``: counts outcomes, moves the clock; schedule, volume and targets ask |
| retrain request | ``on_retrain_request``: of whomever, starts the cooldown |

The table's key is the model, its state a ``TriggerState``. A request's id is made from its cause, so that a record
which is handled twice asks once.
"""

from typing import Any

from driftline.control import Context
from driftline.models.retraining import (
    RetrainRequest,
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

    def __init__(self, project: Project, *, requests: str) -> None:
        self._models = project.models
        self._requests = requests

    async def on_drift_signal(self, record: dict[str, Any], context: Context) -> None:
        """Answer a signal."""
        signal = Signal.of(record)
        declared = self._models.get(signal.model)
        if declared is not None:
            state = self._state(signal.model, context)
            step = on_signal(state, signal, declared.retrain, by=BY, at_us=context.timestamp_us)
            await self._take(signal.model, step, context)

    async def on_window_report(self, record: dict[str, Any], context: Context) -> None:
        """Count a closed window of outcomes."""
        window = Window.of(record)
        declared = None if window is None else self._models.get(window.model)
        if window is not None and declared is not None:
            state = self._state(window.model, context)
            step = on_window(state, window, declared.retrain, by=BY, at_us=context.timestamp_us)
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
