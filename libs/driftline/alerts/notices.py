"""Who is to be told of an alert, and when: notifications are written down here, and delivered elsewhere."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from driftline.alerts.alert import AlertStatus, Severity
from driftline.alerts.rules import AlertRules, Route
from driftline.alerts.state import Episode, GroupState, Notice, Stage, notice_id


def plan(episode: Episode, routes: Iterable[Route], *, due: int, now_us: int) -> Episode:
    """Return an alert with a notification of its status for every channel of some routes; one that it has stays."""
    known = {notice.notice_id for notice in episode.notices}
    new = [
        notice
        for route in routes
        if episode.status in route.tell
        for notice in _notices_of(episode, route, due=due, now_us=now_us)
        if notice.notice_id not in known
    ]
    if not new:
        return episode
    return replace(episode, notices=(*episode.notices, *new), told=now_us)


def _notices_of(episode: Episode, route: Route, *, due: int, now_us: int) -> list[Notice]:
    return [
        Notice(
            notice_id=notice_id(
                episode.alert_id,
                status=episode.status,
                severity=episode.severity,
                route=route.name,
                target=target,
                number=episode.round,
            ),
            route=route.name,
            target=target,
            status=episode.status,
            severity=episode.severity,
            round=episode.round,
            due=due,
            planned=now_us,
        )
        for target in range(len(route.urls))
    ]


def routes_for(group: str, episode: Episode, rules: AlertRules) -> list[Route]:
    """Return the routes that are told of an alert of this severity."""
    return [
        route
        for route in rules.routes
        if route.wants(severity=episode.severity, model=episode.model, team=episode.team, group=group)
    ]


def plan_firing(group: str, episode: Episode, rules: AlertRules, *, due: int, now_us: int) -> Episode:
    """Return a firing alert with its notifications."""
    return _without_lesser(plan(episode, routes_for(group, episode, rules), due=due, now_us=now_us))


def _without_lesser(episode: Episode) -> Episode:
    """Return an alert without notifications, not begun, that one of a higher severity replaces."""
    better = {(one.route, one.target) for one in episode.notices if one.severity is episode.severity}

    def stays(notice: Notice) -> bool:
        replaced = notice.severity is not episode.severity and (notice.route, notice.target) in better
        return not (replaced and notice.stage is Stage.WAITING and not notice.told)

    return replace(episode, notices=tuple(one for one in episode.notices if stays(one)))


def plan_end(episode: Episode, rules: AlertRules, *, now_us: int) -> Episode:
    """Return an alert that is over with notifications for those who were told that it fires."""
    told = {one.route for one in episode.notices if one.status is AlertStatus.FIRING and one.told}
    episode = without_waiting(episode)
    return plan(episode, [route for route in rules.routes if route.name in told], due=now_us, now_us=now_us)


def plan_acknowledged(group: str, episode: Episode, rules: AlertRules, *, now_us: int) -> Episode:
    """Return an acknowledged alert with notifications for the routes that want them."""
    return plan(without_waiting(episode), routes_for(group, episode, rules), due=now_us, now_us=now_us)


def without_waiting(episode: Episode) -> Episode:
    """Return an alert without the notifications that were never begun: they are out of date."""
    kept = tuple(one for one in episode.notices if one.stage is not Stage.WAITING or one.told)
    return episode if len(kept) == len(episode.notices) else replace(episode, notices=kept)


def escalate(episode: Episode, rules: AlertRules, *, now_us: int) -> Episode:
    """Return a firing alert with the notifications of those routes that unanswered ones hand on to."""
    told = {one.route for one in episode.notices if one.status is AlertStatus.FIRING}
    next_routes = [
        found
        for route in rules.routes
        if route.name in told
        and route.escalate is not None
        and now_us >= episode.fired + route.escalate.after_us
        and route.escalate.to not in told
        and (found := rules.route(route.escalate.to)) is not None
    ]
    return plan(episode, next_routes, due=now_us, now_us=now_us)


def remind(group: str, episode: Episode, rules: AlertRules, *, now_us: int) -> Episode:
    """Return an alert that has fired unanswered for the repeat interval with its next round of notifications."""
    if any(one.open for one in episode.notices) or now_us < episode.told + rules.repeat_us:
        return episode
    reached = {one.route for one in episode.notices}
    routes = [route for route in rules.routes if route.name in reached] or routes_for(group, episode, rules)
    if not any(AlertStatus.FIRING in route.tell for route in routes):
        return episode
    kept = tuple(one for one in episode.notices if one.round == episode.round)
    return plan(replace(episode, notices=kept, round=episode.round + 1), routes, due=now_us, now_us=now_us)


def due(state: GroupState, rules: AlertRules, *, now_us: int) -> list[Notice]:
    """Return the notifications that may start now, oldest alert first.

    A channel gets the notifications of one alert in their order: none starts while an earlier one is open. They
    wait during a route's quiet hours, and while somebody has acknowledged or silenced what they tell.
    """
    found = []
    busy: set[tuple[str, str, int]] = set()
    for episode, notice in state.notices:
        channel = (episode.alert_id, notice.route, notice.target)
        route = rules.route(notice.route)
        if not notice.open or route is None or is_held(episode, notice) or channel in busy:
            continue
        busy.add(channel)
        if (
            notice.stage is Stage.WAITING
            and notice.due <= now_us
            and not route.is_quiet(notice.severity, now_us)
        ):
            found.append(notice)
    return found


def is_held(episode: Episode, notice: Notice) -> bool:
    """Whether a notification must wait, as somebody has acknowledged or silenced what it tells."""
    tells_fire = notice.status is AlertStatus.FIRING and notice.stage is Stage.WAITING
    return tells_fire and episode.status in (AlertStatus.ACKNOWLEDGED, AlertStatus.SILENCED)


def retried(notice: Notice, rules: AlertRules, *, reason: str, now_us: int) -> Notice:
    """Return a failed notification: due again after a pause that doubles, or given up after the last attempt."""
    attempt = notice.attempt + 1
    if attempt >= rules.retry.attempts:
        return replace(notice, attempt=attempt, stage=Stage.GIVEN_UP, detail=reason)
    pause = backoff_us(notice.notice_id, attempt, rules)
    return replace(notice, attempt=attempt, stage=Stage.WAITING, boot="", due=now_us + pause, detail=reason)


def backoff_us(key: str, attempt: int, rules: AlertRules) -> int:
    """Return the pause before an attempt (from 1), in microseconds: doubled each time, less up to a half.

    The jitter is made from the key, so that the book stays a function of its inputs.
    """
    whole = min(rules.retry.longest_us, rules.retry.first_us << (attempt - 1))
    draw = int.from_bytes(hashlib.blake2b(f"{key}:{attempt}".encode(), digest_size=4).digest()) / 2**32
    return round(whole * (1 - draw / 2))


def known_routes(episode: Episode, rules: AlertRules) -> Episode:
    """Return an alert without open notifications for channels that the rules no longer have."""

    def stays(notice: Notice) -> bool:
        route = rules.route(notice.route)
        return not notice.open or (route is not None and notice.target < len(route.urls))

    kept = tuple(one for one in episode.notices if stays(one))
    return episode if len(kept) == len(episode.notices) else replace(episode, notices=kept)


def rises(severity: Severity, than: Severity) -> bool:
    """Whether a severity is higher than another."""
    return severity.rank > than.rank
