"""Carries notifications to their channels, one thread each, so that a slow one holds up no other.

A channel's thread takes one notification at a time through the log of inputs (steps 2 to 4 of the README):

1. offered: it is due, and waits here for its turn;
2. its turn: STARTED is written into the log;
3. taken: STARTED came back and was the first, so that this run delivers it; or declined: it was not, or the
   notification is out of date;
4. delivered, or not: DELIVERED or FAILED is written into the log, and the next one has its turn.

So at any moment at most one notification of a channel is started and not reported, however many wait.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from driftline.alerts.alert import stable_id
from driftline.alerts.causes import BY
from driftline.alerts.delivery import Channel, DeliveryError
from driftline.alerts.inputs import Delivered, Failed, Started
from driftline.alerts.wording import Notification
from driftline.runtime.errors import DriftlineError
from driftline.runtime.logging import get_logger

_log = get_logger(__name__)

#: A route and the number of its URL.
Target = tuple[str, int]
#: Longer than it takes to restart or rebalance; then the turn passes on, and the notification is offered again.
_ANSWER_SECONDS = 60.0
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_KNOWN = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One attempt at one notification, before its words are made."""

    group: str
    target: Target
    notice_id: str
    attempt: int

    @property
    def name(self) -> tuple[str, int]:
        """What makes it one: the notification and the attempt."""
        return self.notice_id, self.attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A claim that is granted: what to say, and where."""

    claim: Claim
    channel: Channel
    notification: Notification


class _Answer:
    """What the log says to a claim."""

    def __init__(self) -> None:
        self.given = threading.Event()
        self.errand: Errand | None = None


class Courier:
    """Takes claims and errands; each is carried out once, however often it is given.

    ``write`` puts an input into the log and raises DriftlineError where it cannot. ``boot`` is this run's UUID.
    """

    def __init__(self, write: Callable[[Started | Delivered | Failed], None], *, boot: str, by: str) -> None:
        self._write = write
        self._boot = boot
        self._by = by
        self._lock = threading.Lock()
        self._queues: dict[Target, queue.Queue[Claim | Errand]] = {}
        self._threads: list[threading.Thread] = []
        self._offered: set[tuple[str, int]] = set()
        self._answers: dict[tuple[str, int], _Answer] = {}
        self._taken: dict[tuple[str, int], None] = {}  # in order, so that the oldest can go
        self._closing = threading.Event()

    def offer(self, claim: Claim) -> None:
        """Say that a notification is due; it waits for its turn. Offered again meanwhile, it waits once."""
        with self._lock:
            if not self._closing.is_set() and claim.name not in self._offered:
                self._offered.add(claim.name)
                self._queue(claim.target).put(claim)

    def take(self, errand: Errand) -> None:
        """Carry out an errand whose claim was granted; one that was taken before is not taken again."""
        name = errand.claim.name
        with self._lock:
            if name in self._taken:
                return
            self._taken[name] = None
            if len(self._taken) > _KNOWN:
                self._taken.pop(next(iter(self._taken)))
            answer = self._answers.get(name)
            if answer is None:  # its thread has stopped waiting
                self._queue(errand.claim.target).put(errand)
            else:
                answer.errand = errand
                answer.given.set()

    def decline(self, notice_id: str, attempt: int) -> None:
        """Drop a claim that was not granted."""
        with self._lock:
            answer = self._answers.get((notice_id, attempt))
            if answer is not None:
                answer.given.set()

    def close(self, timeout: float) -> None:
        """Finish what is under way and end the threads. What only waits is left to the next run."""
        self._closing.set()
        for thread in self._threads:
            thread.join(timeout)

    def _queue(self, target: Target) -> "queue.Queue[Claim | Errand]":
        if target not in self._queues:
            line: queue.Queue[Claim | Errand] = queue.Queue()
            self._queues[target] = line
            name = f"route-{target[0]}-{target[1]}"
            thread = threading.Thread(target=self._run, args=(line,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return self._queues[target]

    def _run(self, line: "queue.Queue[Claim | Errand]") -> None:
        while not self._closing.is_set():
            try:
                found = line.get(timeout=0.1)
            except queue.Empty:
                continue
            errand = self._claim(found) if isinstance(found, Claim) else found
            if errand is not None:
                self._tell(self._deliver(errand))

    def _claim(self, claim: Claim) -> Errand | None:
        """Write STARTED (2) and wait for what comes of it (3)."""
        answer = _Answer()
        with self._lock:
            self._answers[claim.name] = answer
        try:
            self._write(self._started(claim))
            for _ in range(round(_ANSWER_SECONDS / 0.1)):
                if answer.given.wait(0.1) or self._closing.is_set():
                    break
        except (DriftlineError, TimeoutError) as error:
            _log.warning("a delivery cannot be started yet", error=str(error))
            self._closing.wait(_FIRST_PAUSE)
        with self._lock:
            del self._answers[claim.name]
            self._offered.discard(claim.name)
        if answer.errand is None and self._closing.is_set():
            self._tell(self._failed(claim, "the alerter was stopped before it was sent"))
        return answer.errand

    def _deliver(self, errand: Errand) -> Delivered | Failed:
        claim = errand.claim
        try:
            errand.channel.deliver(errand.notification)
        except DeliveryError as error:
            _log.warning("not delivered", route=claim.target[0], attempt=claim.attempt, reason=str(error))
            return self._failed(claim, str(error))
        except Exception as error:  # noqa: BLE001  a plugin of apprise may raise anything; its text may hold its URL
            _log.warning("not delivered", route=claim.target[0], error=type(error).__name__)
            return self._failed(claim, f"the channel failed with {type(error).__name__}")
        title = errand.notification.title
        _log.info("delivered", route=claim.target[0], notification=claim.notice_id, title=title)
        return Delivered(
            input_id=stable_id("delivered", *claim.name),
            group=claim.group,
            notice_id=claim.notice_id,
            attempt=claim.attempt,
            by=self._by,
        )

    def _started(self, claim: Claim) -> Started:
        return Started(
            input_id=stable_id("started", *claim.name, self._boot),
            group=claim.group,
            notice_id=claim.notice_id,
            attempt=claim.attempt,
            boot=self._boot,
            by=BY,
        )

    def _failed(self, claim: Claim, reason: str) -> Failed:
        return Failed(
            input_id=stable_id("failed", *claim.name),
            group=claim.group,
            notice_id=claim.notice_id,
            attempt=claim.attempt,
            reason=reason,
            by=self._by,
        )

    def _tell(self, result: Delivered | Failed) -> None:
        """Write a result into the log, whatever it takes (4)."""
        pause = _FIRST_PAUSE
        while True:
            try:
                self._write(result)
            except (DriftlineError, TimeoutError) as error:
                _log.warning("the result of a delivery is not written down yet", error=str(error))
                if self._closing.wait(pause):
                    return
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return
