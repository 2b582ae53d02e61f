"""Looks at parity now and then, on a thread of its own: are served feature values what their events give?

A mismatch of a view is a cause in ``alert-inputs``; a later look that compares values of the view and finds none is the end
of it.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from driftline.alerts.alert import to_iso
from driftline.alerts.causes import Causes
from driftline.alerts.inputs import Cause, Clearance
from driftline.project import Project
from driftline.replay.parity import ColumnParity, ParityLook, look_at_parity
from driftline.replay.records import ArchiveRecords
from driftline.runtime import metrics
from driftline.runtime.clock import Clock, SystemClock
from driftline.runtime.errors import ConfigurationError, DriftlineError
from driftline.runtime.logging import get_logger
from services.archiver.pipeline import SERVICE

_log = get_logger(__name__)
_STOP_SECONDS = 10.0
#: What could not be looked at is looked at later, but not more than so many spans of it.
_MOST_SPANS = 6
_TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """A look every ``seconds``, at a share of the predictions that are ``settle_seconds`` old."""

    seconds: float
    settle_seconds: float
    grace_seconds: float
    share: float


class ParityWatch:
    """``look`` is one look; ``mine`` says whether this process is the one that looks, ``put`` writes to the alerts' log."""

    def __init__(
        self,
        project: Project,
        records: ArchiveRecords,
        causes: Causes,
        put: Callable[[Cause | Clearance], None],
        *,
        mine: Callable[[], bool],
        rhythm: Rhythm,
        clock: Clock | None = None,
    ) -> None:
        self._project, self._records, self._causes, self._put = project, records, causes, put
        self._mine, self._rhythm, self._clock = mine, rhythm, clock or SystemClock()
        self._looked_until: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="parity", daemon=True)

    def start(self) -> None:
        """Begin; the first look is a span after the start."""
        self._thread.start()

    def stop(self) -> None:
        """End, soon."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def look(self) -> ParityLook | None:
        """Look at what was answered since the last look; None where that is not this process's, or was not possible."""
        if not self._mine():
            self._looked_until = None
            return None
        until = self._clock.now_us() - round(self._rhythm.settle_seconds * 1e6)
        span = round(self._rhythm.seconds * 1e6)
        since = until - span if self._looked_until is None else self._looked_until
        since = max(since, until - _MOST_SPANS * span)
        try:
            found = look_at_parity(
                self._project,
                self._records,
                since_us=since,
                until_us=until,
                share=self._rhythm.share,
                grace_us=round(self._rhythm.grace_seconds * 1e6),
            )
            self._tell(found)
        except (DriftlineError, TimeoutError) as error:
            outcome = "nothing_archived" if isinstance(error, ConfigurationError) else "failed"
            metrics.PARITY_LOOKS.labels(outcome).inc()
            _log.warning("parity was not looked at", error=str(error))
            self._looked_until = since
            return None
        self._looked_until = until
        metrics.PARITY_LOOKS.labels("different" if found.different else "equal").inc()
        _count(found)
        return found

    def _tell(self, look: ParityLook) -> None:
        for ref, columns in look.views().items():
            different = [one for one in columns if one.different]
            if not different:
                self._put(self._causes.of_match(view=ref, at=look.until_us, by=SERVICE))
                continue
            _log.error("served values differ", view=ref, columns=[one.column for one in different])
            view = self._project.views[ref.rpartition("@")[0]]
            self._put(
                self._causes.of_mismatch(
                    view=ref,
                    team=view.owner,
                    text=mismatch_text(ref, different, look),
                    since=look.since_us,
                    at=look.until_us,
                    by=SERVICE,
                )
            )

    def _run(self) -> None:
        while not self._stop.wait(self._rhythm.seconds):
            self.look()


def mismatch_text(ref: str, different: Sequence[ColumnParity], look: ParityLook) -> str:
    """Say what differs, how often and by how much."""
    worst = sorted(different, key=lambda one: -one.mismatch_rate)
    lines = [
        f"Of the requests answered from {to_iso(look.since_us)} to {to_iso(look.until_us)}, {look.requests:,} were looked at. "
        f"Computed again from the archived events, {len(worst)} columns of {ref} differ from what was served:"
    ]
    lines += [
        f"{one.column}: {one.different:,} of {one.compared:,} ({one.mismatch_rate:.2%}), by up to {one.max_difference:.6g}"
        f"{f', {one.nulls:,} null on one side only' if one.nulls else ''}; for example request {one.example}"
        for one in worst[:_TOLD]
    ]
    return "\n".join([*lines, "`driftline parity`, then `driftline trace` of the request."])


def _count(look: ParityLook) -> None:
    for ref, columns in look.views().items():
        numbers = {
            "different": sum(one.different for one in columns),
            "in_flight": sum(one.in_flight for one in columns),
        }
        numbers["equal"] = sum(one.compared for one in columns) - sum(numbers.values())
        for result, number in numbers.items():
            metrics.PARITY_VALUES.labels(ref, result).inc(number)
    for ref, rate in look.mismatch_rates().items():
        metrics.PARITY_MISMATCH.labels(ref).set(rate)
