"""Reads of features that come one by one, answered together: one round trip to the store and one kernel per view.

A caller that has gone, or whose deadline has passed, is not read for. What goes wrong with one read (a view that the
store holds with other features) is not told to its neighbours.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from driftline.features import FeatureView
from driftline.features.entity_keys import split_key
from driftline.features.read import ViewValues
from driftline.runtime.errors import UnavailableError
from driftline.runtime.futures import complete
from driftline.runtime.logging import get_logger
from services.predictor.answers import FeatureAnswers
from services.predictor.zero_wait_queue import ZeroWaitQueue, call

_log = get_logger(__name__)

#: What a read comes to: the answer as JSON, or what went wrong.
Outcome: TypeAlias = bytes | Exception
Tell: TypeAlias = Callable[[Outcome], None]


class FeatureStore(Protocol):
    """Where features are read from (the online store)."""

    def read_each(
        self, requests: Sequence[tuple[FeatureView, Sequence[str], NDArray[np.int64]]]
    ) -> list[ViewValues]:
        """Read views, each for rows of its own: entities and instants."""
        ...


class _Asked:
    """One read, and who is told on which event loop what it came to, if it still waits."""

    __slots__ = ("entity", "instant_us", "loop", "tell", "view", "waits")

    def __init__(
        self, view: FeatureView, entity: str, instant_us: int, tell: Tell, waits: Callable[[], bool]
    ) -> None:
        self.view = view
        self.entity = entity
        self.instant_us = instant_us
        self.tell = tell
        self.waits = waits
        self.loop = asyncio.get_running_loop()


class FeatureReads:
    """Answers reads of features, batch by batch.

    Parameters
    ----------
    views
        The views that may be asked for, by name.
    max_batch, max_waiting
        Most reads answered at once, and most that may wait.
    incomplete
        Says why views must not be served yet, by reference.
    """

    def __init__(
        self,
        store: FeatureStore,
        views: Mapping[str, FeatureView],
        *,
        max_batch: int,
        max_waiting: int,
        incomplete: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._store = store
        self._incomplete = incomplete
        self._answers = {name: FeatureAnswers(view) for name, view in views.items()}
        self._queue = ZeroWaitQueue(
            self._answer, items="feature reads", max_batch=max_batch, max_waiting=max_waiting
        )

    async def read(self, view: FeatureView, entity: str, instant_us: int) -> bytes:
        """Return the answer, as JSON, for an entity as of an instant.

        Raises
        ------
        BackpressureError
            Too many reads wait.
        RefusedError
            The text is no key of a composite entity.
        UnavailableError
            The store cannot be read, or the view is being filled.
        ConfigurationError
            The store holds this version of the view with other features.
        """
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.ask(view, entity, instant_us, partial(complete, answer), lambda: not answer.done())
        return await answer

    def ask(
        self, view: FeatureView, entity: str, instant_us: int, tell: Tell, waits: Callable[[], bool]
    ) -> None:
        """Have ``tell`` told, on this event loop, what ``read`` returns or raises, as long as its caller ``waits``.

        What can be said at once is raised here.
        """
        split_key(view.entity, entity)
        if why := self._incomplete().get(view.ref):
            raise UnavailableError(why)
        self._queue.admit()
        asked = _Asked(view, entity, instant_us, tell, waits)
        self._queue.put(asked, asked.loop)

    async def read_rows(
        self, views: Sequence[FeatureView], keys: Mapping[str, Sequence[str]], instant_us: int
    ) -> list[dict[str, Any]]:
        """Return what views serve of many entities, in one round trip to the store: by view's name, for each row.

        ``keys`` are the rows' keys by the entity's name, as long as there are rows.

        Raises
        ------
        RefusedError, UnavailableError, ConfigurationError
            As ``read``.
        """
        for view in views:
            if why := self._incomplete().get(view.ref):
                raise UnavailableError(why)
        rows = len(next(iter(keys.values())))
        instants = np.full(rows, instant_us, np.int64)
        wanted = [(view, keys[view.entity.name], instants) for view in views]
        found = await asyncio.to_thread(self._store.read_each, wanted)
        served = [self._answers[view.name].served(read) for view, read in zip(views, found, strict=True)]
        names = [view.name for view in views]
        return [dict(zip(names, row, strict=True)) for row in zip(*served, strict=True)]

    def close(self) -> None:
        """Answer what waits, then stop."""
        self._queue.close()

    def _answer(self, taken: Sequence[_Asked]) -> None:
        wanted = [one for one in taken if one.waits()]
        outcomes = self._outcomes(wanted)
        for loop in {one.loop for one in wanted}:  # one, but in tests
            settled = [(one, found) for one, found in zip(wanted, outcomes, strict=True) if one.loop is loop]
            call(loop, partial(_settle, settled))

    def _outcomes(self, wanted: Sequence[_Asked]) -> Sequence[Outcome]:
        try:
            return self._read_together(wanted) if wanted else []
        except UnavailableError as error:
            return [error] * len(wanted)
        except Exception as error:  # noqa: BLE001 - whatever happens, the thread goes on and nobody waits in vain
            if len(wanted) == 1:
                return [error]
            return [outcome for one in wanted for outcome in self._outcomes([one])]

    def _read_together(self, wanted: Sequence[_Asked]) -> Sequence[Outcome]:
        rows: dict[str, list[int]] = {}
        for row, one in enumerate(wanted):
            rows.setdefault(one.view.name, []).append(row)
        requests = [
            (
                wanted[asked[0]].view,
                [wanted[row].entity for row in asked],
                np.array([wanted[row].instant_us for row in asked], np.int64),
            )
            for asked in rows.values()
        ]
        outcomes: list[Outcome] = [b""] * len(wanted)
        for (name, asked), read in zip(rows.items(), self._store.read_each(requests), strict=True):
            bodies = self._answers[name].json(
                [wanted[row].entity for row in asked], [wanted[row].instant_us for row in asked], read
            )
            for row, body in zip(asked, bodies, strict=True):
                outcomes[row] = body
        return outcomes


def _settle(settled: Sequence[tuple[_Asked, Outcome]]) -> None:
    for one, outcome in settled:
        try:
            one.tell(outcome)
        except Exception as error:  # noqa: BLE001 - the others are told
            _log.error("telling of a feature read failed", exc_info=error)
