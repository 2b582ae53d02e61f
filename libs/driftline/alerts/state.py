"""What the book remembers of one group of alerts."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Any, Self

from pydantic import TypeAdapter

from driftline.alerts.alert import Alert, AlertStatus, Severity, stable_id

#: Inputs of a group that are remembered, so that one that comes again changes nothing.
_REMEMBERED = 256
_PROBLEMS_SHOWN = 10


class Stage(StrEnum):
    """How far a notification is."""

    WAITING = "WAITING"  # written down, not begun
    STARTED = "STARTED"  # a run of the alerter is delivering it
    DELIVERED = "DELIVERED"  # the channel took it
    GIVEN_UP = "GIVEN_UP"  # it failed too often
    UNKNOWN = "UNKNOWN"  # the alerter was killed while it was on its way; it is not sent again


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem of a group. ``since`` is event time, ``seen`` the alerter's time; microseconds."""

    key: str
    severity: Severity
    title: str
    text: str
    runbook: str | None
    lasting: bool
    since: int
    seen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A notification that is due, on its way, or done with. Its id is its idempotency key.

    ``planned`` is when it was written down, in the alerter's time; 0 where that is not known.
    """

    notice_id: str
    route: str
    target: int
    status: AlertStatus
    severity: Severity
    round: int
    due: int
    planned: int = 0
    stage: Stage = Stage.WAITING
    attempt: int = 0
    boot: str = ""
    detail: str = ""

    @property
    def open(self) -> bool:
        """Whether something is still to happen with it."""
        return self.stage in (Stage.WAITING, Stage.STARTED)

    @property
    def told(self) -> bool:
        """Whether somebody may have it."""
        return self.attempt > 0 or self.stage in (Stage.STARTED, Stage.DELIVERED, Stage.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One alert from its first cause to its end. ``fired`` and ``told`` are the alerter's time, the others event time.

    ``round`` counts the reminders; each is a notification of its own.
    """

    alert_id: str
    status: AlertStatus
    severity: Severity
    source: str
    model: str | None
    team: str
    cause_id: str
    count: int
    started_at: int
    updated_at: int
    fired: int
    told: int
    by: str
    problems: tuple[Problem, ...] = ()
    notices: tuple[Notice, ...] = ()
    round: int = 0
    title: str = ""
    text: str = ""
    runbook: str | None = None

    @property
    def open(self) -> bool:
        """Whether it is not over."""
        return self.status is not AlertStatus.RESOLVED

    @property
    def notified(self) -> tuple[str, ...]:
        """Routes all of whose channels took the newest notification of the status."""
        routes: dict[str, dict[tuple[str, int], list[Notice]]] = {}
        for notice in self.notices:
            if notice.status is self.status:
                batches = routes.setdefault(notice.route, {})
                batches.setdefault((notice.severity, notice.round), []).append(notice)
        return tuple(
            sorted(
                route
                for route, batches in routes.items()
                if any(all(one.stage is Stage.DELIVERED for one in batch) for batch in batches.values())
            )
        )

    def with_problem(self, problem: Problem) -> Self:
        """Return it with a problem added or renewed, and its words made anew."""
        others = tuple(one for one in self.problems if one.key != problem.key)
        known = next((one for one in self.problems if one.key == problem.key), None)
        if known is not None:
            problem = replace(problem, since=min(known.since, problem.since))
        return self.with_problems((*others, problem))

    def with_problems(self, problems: tuple[Problem, ...]) -> Self:
        """Return it with these problems, at least one, and the words that they make."""
        ordered = sorted(problems, key=lambda one: (-one.severity.rank, one.since, one.key))
        worst = ordered[0]
        more = f" (and {len(ordered) - 1} more)" if len(ordered) > 1 else ""
        texts = [one.text for one in ordered[:_PROBLEMS_SHOWN]]
        if len(ordered) > _PROBLEMS_SHOWN:
            texts.append(f"... and {len(ordered) - _PROBLEMS_SHOWN} more.")
        return replace(
            self,
            problems=problems,
            title=worst.title + more,
            text="\n\n".join(texts),
            runbook=worst.runbook,
        )

    def with_notice(self, notice: Notice) -> Self:
        """Return it with one notice in place of the one with its id."""
        return replace(
            self,
            notices=tuple(notice if one.notice_id == notice.notice_id else one for one in self.notices),
        )

    def alert(self, group: str, *, at: int) -> Alert:
        """Return its public record."""
        return Alert(
            alert_id=self.alert_id,
            group=group,
            status=self.status,
            severity=self.severity,
            source=self.source,
            model=self.model,
            team=self.team,
            title=self.title,
            text=self.text,
            runbook=self.runbook,
            cause_id=self.cause_id,
            count=self.count,
            started_at=self.started_at,
            updated_at=self.updated_at,
            notified=self.notified,
            by=self.by,
            at=at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupState:
    """All that is known of a group: its alert, those that are over but not all told, its silence, what it has seen."""

    group: str
    episodes: tuple[Episode, ...] = ()
    seen: tuple[str, ...] = ()
    silenced_until: int = 0
    silenced_by: str = ""
    touched: int = 0

    @property
    def current(self) -> Episode | None:
        """The alert that is not over."""
        return next((one for one in self.episodes if one.open), None)

    @property
    def notices(self) -> Iterator[tuple[Episode, Notice]]:
        """All notices with their alerts, the oldest alert first."""
        return ((episode, notice) for episode in self.episodes for notice in episode.notices)

    def has_seen(self, input_id: str) -> bool:
        """Whether an input was counted already."""
        return _short(input_id) in self.seen

    def having_seen(self, input_id: str, *, at: int) -> Self:
        """Return it with an input remembered."""
        return replace(self, seen=(*self.seen, _short(input_id))[-_REMEMBERED:], touched=at)

    def with_episode(self, episode: Episode) -> Self:
        """Return it with one alert in place of the one with its id, or added."""
        known = any(one.alert_id == episode.alert_id for one in self.episodes)
        if not known:
            return replace(self, episodes=(*self.episodes, episode))
        return replace(
            self,
            episodes=tuple(episode if one.alert_id == episode.alert_id else one for one in self.episodes),
        )

    def find_notice(self, notice_id: str) -> tuple[Episode, Notice] | None:
        """Return a notice with its alert."""
        return next((found for found in self.notices if found[1].notice_id == notice_id), None)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "GroupState":
        """Return the state of JSON values."""
        return _adapter().validate_python(values)


@cache
def _adapter() -> TypeAdapter[GroupState]:
    return TypeAdapter(GroupState)


def _short(input_id: str) -> str:
    return hashlib.blake2b(input_id.encode(), digest_size=8).hexdigest()


def notice_id(
    alert_id: str, *, status: AlertStatus, severity: Severity, route: str, target: int, number: int
) -> str:
    """Return the id of a notification: the same alert, status, severity, channel and round have the same."""
    return stable_id(alert_id, status, severity, route, target, number)
