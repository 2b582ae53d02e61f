"""The book of alerts: what a group's state becomes when something happens. Pure.

1. A cause opens an alert, or adds to the open one. Its problems have keys; the same cause twice changes nothing.
2. The alert is over when its last problem is. Those who were told that it fires are told that it is over.
3. A rise of the severity tells everybody again, and ends an acknowledgement: that was for something less.
4. Acknowledged: no reminders, no escalation. Silenced: nobody is told; what still burns afterwards fires.
5. A notification is WAITING until a run of the alerter writes STARTED. The first STARTED in the log counts.
   DELIVERED and FAILED end it. A new run ADOPTs what an earlier one left STARTED: it is sent again with the same
   idempotency key, or not at all, as its route says.
6. Things that have no end (a candidate was rejected) are forgotten after a while, without a word.
"""

from dataclasses import dataclass, replace

from driftline.alerts.alert import Alert, AlertStatus, stable_id
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
from driftline.alerts.notices import (
    due,
    escalate,
    is_held,
    known_routes,
    plan_acknowledged,
    plan_end,
    plan_firing,
    remind,
    retried,
    rises,
    without_waiting,
)
from driftline.alerts.rules import AlertRules
from driftline.alerts.state import Episode, GroupState, Notice, Problem, Stage

_BY = "alerter"
#: A group in which nothing happened for so long is forgotten with what it has seen.
_IDLE_US = 7 * 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one input or tick does: the new state, the alerts that changed, the notifications that may start now."""

    state: GroupState
    alerts: tuple[Alert, ...]
    due: tuple[Notice, ...]


def advance(state: GroupState, event: Input | None, *, now_us: int, rules: AlertRules) -> Step:
    """Take an input, or with None the passing of time, into the book.

    ``now_us`` is the alerter's time: of the input's record, or of the tick. Event times are in the inputs.
    """
    after = _pass_time(state, now_us, rules) if event is None else _take(state, event, now_us, rules)
    alerts = _changed(state, after, now_us)
    if not all(_is_kept(one) for one in after.episodes):
        after = replace(after, episodes=tuple(one for one in after.episodes if _is_kept(one)))
    return Step(state=after, alerts=alerts, due=tuple(due(after, rules, now_us=now_us)))


def is_idle(state: GroupState, now_us: int) -> bool:
    """Whether a group may be forgotten."""
    return not state.episodes and state.silenced_until <= now_us and now_us - state.touched > _IDLE_US


def abandoned(state: GroupState, boot: str) -> bool:
    """Whether another run of the alerter has started something that it has not reported."""
    return any(notice.stage is Stage.STARTED and notice.boot != boot for _, notice in state.notices)


def _is_kept(episode: Episode) -> bool:
    return episode.open or any(notice.open for notice in episode.notices)


def _changed(before: GroupState, after: GroupState, now_us: int) -> tuple[Alert, ...]:
    known = {one.alert_id: one.alert(before.group, at=0) for one in before.episodes}
    return tuple(
        episode.alert(after.group, at=now_us)
        for episode in after.episodes
        if known.get(episode.alert_id) != episode.alert(after.group, at=0)
    )


def _take(state: GroupState, event: Input, now_us: int, rules: AlertRules) -> GroupState:
    match event:
        case Cause():
            return _count_cause(state, event, now_us, rules)
        case Clearance():
            return _clear(state, event, now_us, rules)
        case Acknowledge():
            return _acknowledge(state, event, now_us, rules)
        case Silence():
            state = replace(state, silenced_until=event.until, silenced_by=event.by, touched=now_us)
            return _follow_silence(state, now_us, rules, by=event.by)
        case Unsilence():
            state = replace(state, silenced_until=0, silenced_by="", touched=now_us)
            return _follow_silence(state, now_us, rules, by=event.by)
        case Adopt():
            return _adopt(state, event, now_us, rules)
        case Started() | Delivered() | Failed():
            return _note_delivery(state, event, now_us, rules)


def _count_cause(state: GroupState, cause: Cause, now_us: int, rules: AlertRules) -> GroupState:
    if state.has_seen(cause.input_id):  # 1.
        return state
    state = state.having_seen(cause.input_id, at=now_us)
    current = state.current
    episode = _opened(state, cause, now_us, rules) if current is None else _added(current, cause, now_us)
    episode = episode.with_problem(
        Problem(
            key=cause.problem,
            severity=cause.severity,
            title=cause.title,
            text=cause.text,
            runbook=cause.runbook,
            lasting=cause.lasting,
            since=cause.since,
            seen=now_us,
        )
    )
    news = current is None or rises(episode.severity, than=current.severity)
    if news and episode.status is AlertStatus.FIRING:
        episode = plan_firing(state.group, episode, rules, due=now_us + rules.grouping_us, now_us=now_us)
    return state.with_episode(episode)


def _opened(state: GroupState, cause: Cause, now_us: int, rules: AlertRules) -> Episode:
    return Episode(
        alert_id=stable_id(state.group, cause.input_id),
        status=AlertStatus.SILENCED if _silenced(state, now_us, rules) else AlertStatus.FIRING,
        severity=cause.severity,
        source=cause.source,
        model=cause.model,
        team=cause.team,
        cause_id=cause.input_id,
        count=1,
        started_at=cause.since,
        updated_at=cause.happened_at,
        fired=now_us,
        told=now_us,
        by=cause.by,
    )


def _added(episode: Episode, cause: Cause, now_us: int) -> Episode:
    episode = replace(
        episode,
        cause_id=cause.input_id,
        count=episode.count + 1,
        started_at=min(episode.started_at, cause.since),
        updated_at=max(episode.updated_at, cause.happened_at),
    )
    if not rises(cause.severity, than=episode.severity):
        return episode
    episode = replace(episode, severity=cause.severity, source=cause.source)
    if episode.status is AlertStatus.ACKNOWLEDGED:  # 3.
        episode = replace(episode, status=AlertStatus.FIRING, fired=now_us, by=cause.by)
    return episode


def _clear(state: GroupState, end: Clearance, now_us: int, rules: AlertRules) -> GroupState:
    if state.has_seen(end.input_id):
        return state
    state = state.having_seen(end.input_id, at=now_us)
    episode = state.current
    if episode is None:
        return state

    def ends(problem: Problem) -> bool:
        kept = end.keep is not None and problem.key.startswith(end.keep)
        return problem.key.startswith(end.problem) and not kept

    left = tuple(one for one in episode.problems if not ends(one))
    if len(left) == len(episode.problems):
        return state
    if left:
        return state.with_episode(episode.with_problems(left))
    return state.with_episode(_resolved(episode, f"Over: {end.reason}.", end.by, now_us, rules))


def _resolved(episode: Episode, text: str, by: str, now_us: int, rules: AlertRules) -> Episode:
    silenced = episode.status is AlertStatus.SILENCED
    text = f"{text}\n\n{episode.text}"
    episode = replace(episode, status=AlertStatus.RESOLVED, problems=(), text=text, by=by)
    return without_waiting(episode) if silenced else plan_end(episode, rules, now_us=now_us)  # 2.


def _acknowledge(state: GroupState, command: Acknowledge, now_us: int, rules: AlertRules) -> GroupState:
    episode = state.current
    if episode is None or episode.alert_id != command.alert_id or episode.status is AlertStatus.ACKNOWLEDGED:
        return state
    episode = replace(episode, status=AlertStatus.ACKNOWLEDGED, by=command.by)
    return state.with_episode(plan_acknowledged(state.group, episode, rules, now_us=now_us))  # 4.


def _follow_silence(state: GroupState, now_us: int, rules: AlertRules, *, by: str) -> GroupState:
    """Silence what is not silenced and should be; let fire what is silenced and should not be."""
    episode = state.current
    if episode is None:
        return state
    wanted = _silenced(state, now_us, rules)
    if wanted and episode.status is not AlertStatus.SILENCED:  # 4.
        return state.with_episode(replace(without_waiting(episode), status=AlertStatus.SILENCED, by=by))
    if not wanted and episode.status is AlertStatus.SILENCED:
        episode = replace(episode, status=AlertStatus.FIRING, fired=now_us, by=by)
        return state.with_episode(plan_firing(state.group, episode, rules, due=now_us, now_us=now_us))
    return state


def _silenced(state: GroupState, now_us: int, rules: AlertRules) -> bool:
    return now_us < state.silenced_until or rules.silenced(state.group, now_us)


def _note_delivery(
    state: GroupState, event: Started | Delivered | Failed, now_us: int, rules: AlertRules
) -> GroupState:
    found = state.find_notice(event.notice_id)
    if found is None:
        return state
    episode, notice = found
    at_this = notice.attempt == event.attempt
    match event:  # 5.
        case Delivered():
            notice = replace(notice, stage=Stage.DELIVERED, boot="", detail="")
        case Started() if at_this and notice.stage is Stage.WAITING and not is_held(episode, notice):
            notice = replace(notice, stage=Stage.STARTED, boot=event.boot)
        case Failed() if at_this and notice.stage is Stage.STARTED:
            notice = retried(notice, rules, reason=event.reason, now_us=now_us)
        case _:
            return state
    return replace(state.with_episode(episode.with_notice(notice)), touched=now_us)


def _adopt(state: GroupState, event: Adopt, now_us: int, rules: AlertRules) -> GroupState:
    for episode, notice in list(state.notices):
        if notice.stage is not Stage.STARTED or notice.boot == event.boot:
            continue
        route = rules.route(notice.route)
        if route is not None and notice.target < len(route.urls) and route.again_after_crash(notice.target):
            fate = replace(notice, stage=Stage.WAITING, boot="", due=now_us)
        else:
            fate = replace(
                notice, stage=Stage.UNKNOWN, boot="", detail="the alerter was killed while it was on its way"
            )
        current = next(one for one in state.episodes if one.alert_id == episode.alert_id)
        state = state.with_episode(current.with_notice(fate))
    return state


def _pass_time(state: GroupState, now_us: int, rules: AlertRules) -> GroupState:
    state = _follow_silence(state, now_us, rules, by=_BY)
    state = _forget(state, now_us, rules)
    episode = state.current
    if episode is not None and episode.status is AlertStatus.FIRING:
        episode = escalate(episode, rules, now_us=now_us)
        state = state.with_episode(remind(state.group, episode, rules, now_us=now_us))
    for one in state.episodes:
        state = state.with_episode(known_routes(one, rules))
    return state


def _forget(state: GroupState, now_us: int, rules: AlertRules) -> GroupState:
    episode = state.current
    if episode is None:
        return state
    left = tuple(one for one in episode.problems if one.lasting or now_us < one.seen + rules.forget_us)
    if len(left) == len(episode.problems):
        return state
    if left:
        return state.with_episode(episode.with_problems(left))
    quiet = replace(without_waiting(episode), status=AlertStatus.RESOLVED, problems=(), by=_BY)
    return state.with_episode(quiet)  # 6.
