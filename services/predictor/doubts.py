"""Claims of which nobody knows whether the log has their records: waited for, looked for, logged where they are not."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from driftline.contracts import prediction_fields as fields
from driftline.runtime.errors import DriftlineError, UnavailableError
from driftline.runtime.logging import get_logger
from driftline.serving.claims import Claim, Claims
from driftline.serving.kept_answers import RepeatedRecord
from driftline.serving.logged_answers import LoggedAnswers

_log = get_logger(__name__)
_POLL_SECONDS = 0.005
_PATIENCE_SECONDS = 2.0
#: The topic answers within milliseconds, or is behind by more than a caller waits.
_TOPIC_SECONDS, _TOPIC_POLL_SECONDS = 1.0, 0.05


@dataclass(slots=True, eq=False)
class _Doubt:
    one: Any
    record: RepeatedRecord | None
    until: float
    next_look: float = 0.0

    @property
    def id(self) -> str:
        return str(self.one.request[fields.REQUEST_ID])


class Doubts:
    """Settles requests whose claims are in doubt, on a thread of its own.

    1. While the claim is younger than a record may take into the log, its process may be alive: look again.
    2. The claim was marked: that is the answer. It is gone: the request is a new one.
    3. It is older: one process takes it over, and looks for the record in the log. There: that is the answer.
       Not there: it is logged as it was claimed.
    4. The topic answers, so there is no claim: the record is looked for in the log. There: that is the answer, and
       claimed from now on. Not there within a second: the caller asks again.

    Parameters
    ----------
    delivery_seconds
        How long a record may take into the log at most.
    """

    def __init__(self, claims: Claims, log: LoggedAnswers, *, delivery_seconds: float) -> None:
        self._claims = claims
        self._log = log
        self._delivery_seconds = delivery_seconds
        self._came: SimpleQueue[_Doubt | None] = SimpleQueue()
        self._open: list[_Doubt] = []
        self._thread: threading.Thread | None = None
        self._resolve: Callable[[Any, Claim], None]
        self._anew: Callable[[Any], None]
        self._send: Callable[[Any, dict[str, Any], bytes], None]
        self._fail: Callable[[Any, DriftlineError], None]

    def start(
        self,
        *,
        resolve: Callable[[Any, Claim], None],
        anew: Callable[[Any], None],
        log: Callable[[Any, dict[str, Any], bytes], None],
        fail: Callable[[Any, DriftlineError], None],
    ) -> None:
        """Start. The callables take a request that is in doubt no more: answered, new, to be logged, not to be known."""
        self._resolve, self._anew, self._send, self._fail = resolve, anew, log, fail
        self._thread = threading.Thread(target=self._work, name="doubts", daemon=True)
        self._thread.start()

    def add(self, one: Any, record: RepeatedRecord | None) -> None:
        """Take a request, and the record that was claimed for it; None where the topic answers."""
        wait = _TOPIC_SECONDS if record is None else self._delivery_seconds + _PATIENCE_SECONDS
        self._came.put(_Doubt(one, record, time.monotonic() + wait))

    def close(self) -> None:
        """Stop; who still waits is told to ask again."""
        if self._thread is not None:
            self._came.put(None)
            self._thread.join(10)
        self._log.close()
        self._claims.close()

    def _work(self) -> None:
        while self._take():
            try:
                self._look()
            except DriftlineError as error:
                self._give_up(error)
            except Exception as error:  # noqa: BLE001 - whatever happens, nobody waits in vain
                _log.error("a claim in doubt", exc_info=error)
                self._give_up(UnavailableError(f"a fault of ours ({type(error).__name__}); it is in the log"))
        self._give_up(UnavailableError("the predictor is stopping"))

    def _take(self) -> bool:
        """Take what came; wait for the first, or a little where there are others. False at the end."""
        try:
            found = self._came.get(timeout=_POLL_SECONDS if self._open else None)
            while found is not None:
                self._open.append(found)
                found = self._came.get_nowait()
        except Empty:
            return True
        return False

    def _look(self) -> None:
        claims = self._claims.look([one.id for one in self._open])
        for doubt in list(self._open):
            claim = claims.get(doubt.id)
            if claim is None and doubt.record is None:
                if time.monotonic() >= doubt.next_look:
                    self._look_for_topics(doubt)
                continue
            if claim is not None and not claim.logged:
                claim = self._settled(doubt, claim)
                if claim is None:
                    continue
            self._open.remove(doubt)
            if claim is None:
                self._anew(doubt.one)
            elif claim.logged:
                self._resolve(doubt.one, claim)
            else:
                self._send(doubt.one, self._log.read(claim.value), claim.value)

    def _look_for_topics(self, doubt: _Doubt) -> None:
        """Answer with the record that the topic made (4)."""
        value = self._log.find(doubt.id, self._claims.asked_since_ms(doubt.id))
        if value is not None:
            self._claims.keep([doubt.id], [value])
            self._open.remove(doubt)
            self._resolve(doubt.one, Claim(value, logged=True))
        elif time.monotonic() > doubt.until:
            self._open.remove(doubt)
            reason = (
                "this request was asked over the topic first, whose answer is not in the log yet; ask again"
            )
            self._fail(doubt.one, UnavailableError(reason))
        else:
            doubt.next_look = time.monotonic() + _TOPIC_POLL_SECONDS

    def _settled(self, doubt: _Doubt, claim: Claim) -> Claim | None:
        """Return a claim that is in doubt no more (3): logged, or to be logged. None: look again later."""
        if self._claims.take_over(doubt.id, older_than_seconds=self._delivery_seconds):
            return find_claimed(self._claims, self._log, doubt.id, claim)
        if time.monotonic() > doubt.until:
            self._open.remove(doubt)
            self._fail(doubt.one, UnavailableError("this request is just being answered; ask again"))
        return None

    def _give_up(self, error: DriftlineError) -> None:
        given_up: Sequence[_Doubt] = self._open
        self._open = []
        for doubt in given_up:
            self._fail(doubt.one, error)


def find_claimed(claims: Claims, log: LoggedAnswers, request_id: str, claim: Claim) -> Claim:
    """Look for a claim's record in the log; return it as logged where it is there, else as it was.

    Raises
    ------
    UnavailableError
        The log or Redis does not answer, or the record cannot be read.
    """
    value = log.find(request_id, log.read(claim.value)[fields.PREDICTED_AT] // 1_000)
    if value is None:
        return claim
    claims.keep([request_id], [value])
    return Claim(value, logged=True)
