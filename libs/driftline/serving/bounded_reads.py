"""Features for callers who wait: read from the online store in time, or done without, as each model's rule says.

1. A thread of its own reads, so that a store that is silent, slow to connect or dribbles never holds up a caller's
   thread for longer than the rule allows. It reads one batch at a time; a late reply is read there, and thrown away.
2. After a read that failed, or took longer than the model waits, nobody waits for it for a moment (a circuit breaker
   per model). Then one read is the probe, and holds up no caller for longer than the least patient model would wait.
3. What cannot be had is refused with UnavailableError, or served as for entities without events, with the reason.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.features import FeatureView
from driftline.features.joining import joined_values
from driftline.features.layout import ViewLayout
from driftline.features.read import DEGRADED, ViewValues, read_state
from driftline.project import BreakerRule, ModelDeclaration, StoreRule
from driftline.runtime import metrics
from driftline.runtime.errors import UnavailableError
from driftline.runtime.logging import get_logger
from driftline.serving.breaker import Breaker, BreakerState
from driftline.serving.claimed_reads import ClaimsFoundError

_log = get_logger(__name__)
#: The first read that fails opens it: each further one would cost its callers the whole wait.
_BREAKER = BreakerRule(window=1, least_calls=1, failure_share=1.0, pause_us=250_000, probes=1)
_TELL_SECONDS = 10.0

#: A view, and the key of the entity that each row asks it for.
Asked = tuple[FeatureView, Sequence[str | None] | pa.StringArray]
Instants = NDArray[np.int64]


class FeatureReader(Protocol):
    """Where feature values come from: the online store, or a replay's own."""

    def read(self, requests: Sequence[Asked], as_of_us: Instants) -> list[ViewValues]:
        """Read views for entities, each row as of its instant; raise UnavailableError where that is not possible."""
        ...


@dataclass(slots=True)
class _Untold:
    """What was done without the store and is not in the service's log yet."""

    requests: int = 0
    told_at: float = -math.inf


class BoundedReads:
    """Reads features for the models of a project, each within its rule.

    Parameters
    ----------
    now
        Gives seconds that only go on.
    """

    def __init__(
        self,
        store: FeatureReader,
        models: Iterable[ModelDeclaration],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        declared = tuple(models)
        self._store = store
        self._now = now
        self._shortest = min(model.store.wait_us / 1e6 for model in declared)
        self._breakers = {model.name: Breaker(_BREAKER, now) for model in declared}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="features")
        self._lock = threading.Lock()
        self._untold: dict[str, _Untold] = {}

    @staticmethod
    def wanted(models: Iterable[ModelDeclaration]) -> bool:
        """Whether any model has a rule of its own."""
        return any(model.store != StoreRule() for model in models)

    def read(
        self,
        model: ModelDeclaration,
        requests: Sequence[Asked],
        as_of_us: Instants,
        within: float = math.inf,
    ) -> tuple[list[ViewValues], str | None]:
        """Return a model's features, and why they are not the store's where they are not.

        Parameters
        ----------
        within
            Seconds that the callers themselves leave for it. Only a model that can do without the store hurries.

        Raises
        ------
        UnavailableError
            The store did not answer in time, and the model's rule is to refuse.
        """
        try:
            return self._read(model, requests, as_of_us, within if model.store.degrades else math.inf), None
        except UnavailableError as error:
            if not model.store.degrades:
                raise
            reason = str(error)
        self._tell(model.name, len(as_of_us), reason)
        return [without_store(view, as_of_us) for view, _ in requests], reason

    def patience(self, model: ModelDeclaration) -> float | None:
        """Return for how many seconds a model's features are waited for, for who reads them by itself and tells ``missed``.

        None while the store has not answered just now: ``read`` knows what then.
        """
        if self._breakers[model.name].state is not BreakerState.CLOSED:
            return None
        return model.store.wait_us / 1e6

    def missed(self, model: ModelDeclaration, reason: str) -> None:
        """Note that the store did not answer within a model's patience."""
        self._breakers[model.name].failed(reason)

    def close(self) -> None:
        """Read nothing more."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _read(
        self, model: ModelDeclaration, requests: Sequence[Asked], as_of_us: Instants, within: float
    ) -> list[ViewValues]:
        breaker, wait = self._breakers[model.name], model.store.wait_us / 1e6
        if not breaker.allows():  # 2.
            raise UnavailableError(f"the feature store did not answer just now: {breaker.why}")
        if breaker.state is not BreakerState.CLOSED:
            within = min(within, self._shortest)
        patience = max(min(wait, within), 0.0)
        reading = self._reader.submit(self._read_now, model, requests, as_of_us)  # 1.
        try:
            return reading.result(patience)
        except TimeoutError:
            reading.cancel()  # if it has not begun
            late = _late(patience)
            if patience >= wait:  # else it may come in the model's time yet
                breaker.failed(late)
            raise UnavailableError(late) from None

    def _read_now(
        self, model: ModelDeclaration, requests: Sequence[Asked], as_of_us: Instants
    ) -> list[ViewValues]:
        """Read, however long it takes, and count how it went; on the reader's thread."""
        breaker, wait, begun = self._breakers[model.name], model.store.wait_us / 1e6, self._now()
        try:
            values = self._store.read(requests, as_of_us)
        except UnavailableError as error:
            breaker.failed(str(error))
            raise
        except ClaimsFoundError:  # it has answered
            breaker.succeeded()
            raise
        if self._now() - begun > wait:
            breaker.failed(_late(wait))
        elif breaker.succeeded():
            _log.info("the feature store answers again", model=model.name)
        return values

    def _tell(self, model: str, requests: int, reason: str) -> None:
        metrics.PREDICTIONS_DEGRADED.labels(model).inc(requests)
        with self._lock:
            untold = self._untold.setdefault(model, _Untold())
            untold.requests += requests
            if self._now() - untold.told_at < _TELL_SECONDS:
                return
            count, untold.requests, untold.told_at = untold.requests, 0, self._now()
        _log.warning("predictions without the feature store", model=model, requests=count, reason=reason)


def _late(seconds: float) -> str:
    return f"the feature store did not answer within {seconds * 1e3:.0f} ms"


def without_store(view: FeatureView, as_of_us: Instants) -> ViewValues:
    """Return a view's values as for entities without events: its defaults, null where none is declared."""

    def stored(part: FeatureView) -> ViewValues:
        layout = ViewLayout.of(part)
        return read_state(layout, layout.empty(len(as_of_us)), as_of_us)

    nothing = joined_values(view, stored)
    status = np.full(len(as_of_us), DEGRADED, np.uint8)
    return replace(nothing, status=status)
