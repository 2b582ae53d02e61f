"""Small makers of inputs, and a world around the book: a log, runs that are killed, channels that fail."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydantic import SecretStr

from driftline.alerts.alert import Alert, Severity
from driftline.alerts.book import abandoned, advance
from driftline.alerts.inputs import (
    Acknowledge,
    Adopt,
    Cause,
    Clearance,
    Delivered,
    Failed,
    Input,
    Silence,
    Started,
    Unsilence,
)
from driftline.alerts.rules import AlertRules, Route
from driftline.alerts.state import GroupState

SECOND = 1_000_000
GROUP = "flights/lateness/drift"


def cause(
    input_id: str,
    *,
    problem: str = "v1||",
    severity: Severity = Severity.CRITICAL,
    group: str = GROUP,
    lasting: bool = True,
    since: int = 0,
) -> Cause:
    return Cause(
        input_id=input_id,
        group=group,
        problem=problem,
        severity=severity,
        source="drift-signals",
        model="lateness",
        team="flights-team",
        title=f"{problem} moved",
        text=f"{problem} moved far",
        runbook="runbook#drift",
        lasting=lasting,
        since=since,
        happened_at=since,
        by="alerter",
    )


def over(input_id: str, *, problem: str = "v1||", group: str = GROUP, keep: str | None = None) -> Clearance:
    return Clearance(
        input_id=input_id, group=group, problem=problem, reason="quiet again", by="alerter", keep=keep
    )


def ack(alert_id: str, by: str = "anna") -> Acknowledge:
    return Acknowledge(input_id="ack", group=GROUP, alert_id=alert_id, by=by)


def silence(until: int, by: str = "anna") -> Silence:
    return Silence(input_id="silence", group=GROUP, until=until, reason="", by=by)


def unsilence() -> Unsilence:
    return Unsilence(input_id="unsilence", group=GROUP, by="anna")


def route(name: str, **more: object) -> Route:
    return Route.model_validate({"name": name, "urls": (SecretStr("terminal://"),), **more})


def rules(*routes: Route, **more: object) -> AlertRules:
    return AlertRules.model_validate({"routes": routes or (route("chat"),), "grouping": "1s", **more})


@dataclass(kw_only=True)
class Book:
    """One group's state, with everything that came out of it."""

    rules: AlertRules
    state: GroupState = field(default_factory=lambda: GroupState(group=GROUP))
    alerts: list[Alert] = field(default_factory=list)
    now: int = 0

    def tell(self, *events: Input) -> "Book":
        for event in events:
            self._take(event)
        return self

    def wait(self, seconds: float) -> "Book":
        """Let time pass, in one tick."""
        self.now += round(seconds * SECOND)
        self._take(None)
        return self

    def deliver(self) -> list[tuple[str, str, str]]:
        """Deliver all that is due, again and again; return (route, status, severity) in order."""
        delivered = []
        while self.due:
            for notice in self.due:
                self.tell(started(notice.notice_id, notice.attempt), taken(notice.notice_id, notice.attempt))
                delivered.append((notice.route, notice.status.value, notice.severity.value))
        return delivered

    def _take(self, event: Input | None) -> None:
        step = advance(self.state, event, now_us=self.now, rules=self.rules)
        assert GroupState.from_json(step.state.as_json()) == step.state
        self.state, self.due = step.state, step.due
        self.alerts += step.alerts

    @property
    def last(self) -> Alert:
        return self.alerts[-1]


def started(notice_id: str, attempt: int = 0, boot: str = "boot-1", group: str = GROUP) -> Started:
    return Started(input_id="s", group=group, notice_id=notice_id, attempt=attempt, boot=boot, by="alerter")


def taken(notice_id: str, attempt: int = 0, group: str = GROUP) -> Delivered:
    return Delivered(input_id="d", group=group, notice_id=notice_id, attempt=attempt, by="alerter")


def refused(notice_id: str, attempt: int = 0, group: str = GROUP) -> Failed:
    return Failed(
        input_id="f", group=group, notice_id=notice_id, attempt=attempt, reason="busy", by="alerter"
    )


@dataclass(kw_only=True)
class World:
    """The alerter as it is put together: a log that is folded in order, runs that end anywhere, a channel.

    ``arrived`` counts what the channel has taken, by notification; ``tries`` every call of it.
    """

    rules: AlertRules
    random: random.Random
    failing: float = 0.0
    dying: float = 0.0
    log: list[Input] = field(default_factory=list)
    at: int = 0
    now: int = 0
    boot: int = 0
    state: GroupState = field(default_factory=lambda: GroupState(group=GROUP))
    alerts: list[Alert] = field(default_factory=list)
    arrived: Counter[str] = field(default_factory=Counter)
    tries: Counter[tuple[str, int]] = field(default_factory=Counter)
    kills: int = 0

    def publish(self, *events: Input) -> None:
        self.log += events

    def run(self, *, steps: int) -> None:
        """Let the alerter work for so many steps; it may be killed between any two effects."""
        for _ in range(steps):
            try:
                if self.at < len(self.log) and self.random.random() < 0.7:
                    self._fold(self.log[self.at])
                else:
                    self._tick()
            except _Killed:
                self.kills += 1
                self.boot += 1

    def settle(self) -> None:
        """Let it work undisturbed until nothing is left to do."""
        self.dying = self.failing = 0.0
        for _ in range(2_000):
            self.run(steps=5)
            if self.at == len(self.log) and not any(notice.open for _, notice in self.state.notices):
                return
        raise AssertionError(f"never settles: {self.state}")

    def _fold(self, event: Input) -> None:
        step = advance(self.state, event, now_us=self.now, rules=self.rules)
        self._maybe_die()  # outputs may be written, the state is not: the input comes again
        before, self.state, self.at = self.state, step.state, self.at + 1
        self.alerts += step.alerts
        if isinstance(event, Started) and event.boot == self._boot and before != step.state:
            self._call_channel(event)

    def _call_channel(self, event: Started) -> None:
        self._maybe_die()
        self.tries[event.notice_id, event.attempt] += 1
        if self.random.random() < self.failing:
            self._maybe_die()
            self.log.append(refused(event.notice_id, event.attempt))
            return
        self.arrived[event.notice_id] += 1
        self._maybe_die()  # taken, but not written down
        self.log.append(taken(event.notice_id, event.attempt))

    def _tick(self) -> None:
        self.now += self.random.choice([SECOND // 2, SECOND, 5 * SECOND])
        step = advance(self.state, None, now_us=self.now, rules=self.rules)
        self._maybe_die()
        if abandoned(step.state, self._boot):
            self.log.append(Adopt(input_id="adopt", group=GROUP, boot=self._boot, by="alerter"))
        for notice in step.due:
            self.log.append(started(notice.notice_id, notice.attempt, boot=self._boot))
        self._maybe_die()
        self.state = step.state
        self.alerts += step.alerts

    @property
    def _boot(self) -> str:
        return f"boot-{self.boot}"

    def _maybe_die(self) -> None:
        if self.random.random() < self.dying:
            raise _Killed


class _Killed(Exception):  # noqa: N818
    pass


def interleavings(first: Sequence[Input], second: Sequence[Input], draw: Callable[[], bool]) -> list[Input]:
    """Return both sequences as one, each in its own order."""
    left, right, out = list(first), list(second), []
    while left or right:
        out.append((left if left and (not right or draw()) else right).pop(0))
    return out
