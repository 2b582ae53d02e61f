"""When a service counts as failed: not ready for so long, and over only after it was ready for so long.

So a restart is no outage, and a service that is up for a moment between crashes has one outage, not many.
"""

from dataclasses import dataclass, replace
from typing import Literal

Change = Literal["failed", "recovered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is known of one instance. Times in microseconds; ``told`` says whether its failure was reported.

    ``told`` is None before the first report: an earlier run may have reported a failure that is over by now.
    """

    bad_since: int | None = None
    good_since: int | None = None
    told: bool | None = None


def observe(
    state: Observed, *, ready: bool, now_us: int, patience_us: int, final: bool = False
) -> tuple[Observed, Change | None]:
    """Return what is known after one look, and what is to be reported.

    ``final`` says that a failure will not mend itself: it is reported at once.

    >>> state, _ = observe(Observed(), ready=False, now_us=0, patience_us=10)
    >>> state, change = observe(state, ready=False, now_us=10, patience_us=10)
    >>> change
    'failed'
    >>> observe(state, ready=False, now_us=20, patience_us=10)[1] is None
    True
    """
    if ready:
        return _seen_ready(state, now_us, patience_us)
    bad_since = now_us if state.bad_since is None else state.bad_since
    state = replace(state, bad_since=bad_since, good_since=None)
    if state.told or not (final or now_us - bad_since >= patience_us):
        return state, None
    return replace(state, told=True), "failed"


def _seen_ready(state: Observed, now_us: int, patience_us: int) -> tuple[Observed, Change | None]:
    good_since = now_us if state.good_since is None else state.good_since
    state = replace(state, good_since=good_since)
    if now_us - good_since < patience_us:
        return state, None
    change: Change | None = None if state.told is False else "recovered"
    return Observed(good_since=good_since, told=False), change
