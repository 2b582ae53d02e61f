"""What the alerter does with each record; ``assembly`` has the table of topic -> handler.

1. Signals and model events become causes, and go into the log of inputs, keyed by group.
2. Each input is folded into its group's state; every changed alert goes to ``alerts``.
3. At a tick, what may start now is offered to the courier, which writes STARTED into the log with this run's id.
4. STARTED comes back out of the log. If it was the first, and this run's, the courier takes the errand.
5. The courier writes DELIVERED or FAILED into the log.
6. At a tick, what another run has started is adopted, through the log as well: so all that the other run had
   reported is known by then.
7. At the first tick, and at the first of a day, models that read deprecated views become causes, the same ones each
   time; at every tick, what is read no more is over.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from driftline.alerts.alert import stable_id
from driftline.alerts.book import abandoned, advance, is_idle
from driftline.alerts.causes import BY, Causes
from driftline.alerts.delivery import Channel
from driftline.alerts.inputs import Adopt, Delivered, Failed, Input, Started, input_of, input_record
from driftline.alerts.rules import AlertRules
from driftline.alerts.state import GroupState, Notice, Stage
from driftline.alerts.wording import compose
from driftline.control import Context
from driftline.project.deprecations import DeprecatedUse
from driftline.runtime.errors import BadMessageError
from driftline.runtime.logging import get_logger
from services.alerter.courier import Claim, Courier, Errand
from services.alerter.measuring import OpenAlerts, count_attempts

_log = get_logger(__name__)

Open = Callable[[str, int], Channel]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertAgents:
    """The handlers.

    Parameters
    ----------
    boot
        UUID of this run of the process.
    open_channel
        Returns the channel of a route's URL, by the route's name and the URL's number.
    hearing
        Routes that this run knows to take notifications.
    deprecated
        The project's models that read deprecated views.
    """

    inputs: str
    alerts: str
    rules: AlertRules
    causes: Causes
    courier: Courier
    open_channel: Open
    boot: str
    hearing: set[str] = field(default_factory=set)
    deprecated: tuple[DeprecatedUse, ...] = ()
    told: set[str] = field(default_factory=set)
    open_alerts: OpenAlerts = field(default_factory=OpenAlerts)

    async def translate_signal(self, record: dict[str, Any], context: Context) -> None:
        """Turn a drift signal into causes (1)."""
        try:
            found = self.causes.of_signal(record)
        except KeyError as error:
            raise BadMessageError(f"a drift signal of an unknown level: {error}", stage="validate") from error
        for event in found:
            await self._put(event, context)

    async def translate_model_event(self, record: dict[str, Any], context: Context) -> None:
        """Turn an event in a model's life into causes (1)."""
        for event in self.causes.of_model_event(record):
            await self._put(event, context)

    async def fold_input(self, record: dict[str, Any], context: Context) -> None:
        """Take an input into the book (2), and start an errand where it is this run's turn (4)."""
        event = input_of(record)
        before = _stored(context, event.group)
        step = advance(before, event, now_us=context.timestamp_us, rules=self.rules)
        for alert in step.alerts:
            await context.send(self.alerts, alert.group, alert.as_record())
        if step.state != before:
            context.table.put(event.group, step.state.as_json())
        if isinstance(event, Delivered | Failed | Adopt):
            count_attempts(before, step.state, event, now_us=context.timestamp_us, rules=self.rules)
        if isinstance(event, Started) and event.boot == self.boot:
            self._start(step.state, event)
        if isinstance(event, Delivered | Failed):
            await self._judge_route(before, step.state, event, context)

    async def pass_time(self, record: dict[str, Any], context: Context) -> None:
        """Take a tick into every group of the partition (2), start what is due (3), adopt what is abandoned (6)."""
        now_us, states = record["at_us"], []
        await self._tell_deprecated(now_us, context)
        for group, stored in context.table.items():
            before = GroupState.from_json(stored)
            step = advance(before, None, now_us=now_us, rules=self.rules)
            for alert in step.alerts:
                await context.send(self.alerts, group, alert.as_record())
            if is_idle(step.state, now_us):
                context.table.delete(group)
            elif step.state != before:
                context.table.put(group, step.state.as_json())
            if abandoned(step.state, self.boot):
                await self._put(self._adoption(group), context)
            for end in self.causes.of_ended_use(step.state, self.deprecated):
                await self._put(end, context)
            for notice in step.due:
                self.courier.offer(_claim(group, notice))
            states.append(step.state)
        self.open_alerts.see(context.partition, states, at_us=now_us)

    async def _tell_deprecated(self, now_us: int, context: Context) -> None:
        """Warn the owners of models that read deprecated views (7)."""
        for cause in (self.causes.of_deprecated_use(use, at=now_us) for use in self.deprecated):
            if cause.input_id not in self.told:
                await self._put(cause, context)
                self.told.add(cause.input_id)

    def _start(self, state: GroupState, event: Started) -> None:
        errand = self._errand(state, event)
        if errand is None:
            self.courier.decline(event.notice_id, event.attempt)
        else:
            self.courier.take(errand)

    def _errand(self, state: GroupState, event: Started) -> Errand | None:
        """Return what this run is to deliver; None where another run was first, or nothing is to be told any more."""
        found = state.find_notice(event.notice_id)
        if found is None:
            return None
        episode, notice = found
        route = self.rules.route(notice.route)
        granted = notice.stage is Stage.STARTED and (notice.boot, notice.attempt) == (
            self.boot,
            event.attempt,
        )
        if not granted or route is None or notice.target >= len(route.urls):
            return None
        return Errand(
            claim=_claim(state.group, notice),
            channel=self.open_channel(notice.route, notice.target),
            notification=compose(episode.alert(state.group, at=0), notice, route),
        )

    async def _judge_route(
        self, before: GroupState, after: GroupState, event: Delivered | Failed, context: Context
    ) -> None:
        """Make an alert of a route that takes nothing any more, and end it when it does."""
        old, new = before.find_notice(event.notice_id), after.find_notice(event.notice_id)
        if old is None:
            return
        _, notice = old
        if isinstance(event, Delivered):
            if notice.route not in self.hearing:
                end = self.causes.of_hearing_route(route=notice.route, notice_id=notice.notice_id)
                await self._put(end, context)
                self.hearing.add(notice.route)
        elif new is None or new[1].stage is Stage.GIVEN_UP:
            self.hearing.discard(notice.route)
            _log.error("given up", route=notice.route, notification=notice.notice_id, reason=event.reason)
            await self._put(
                self.causes.of_deaf_route(
                    route=notice.route,
                    notice_id=notice.notice_id,
                    detail=event.reason,
                    at=context.timestamp_us,
                ),
                context,
            )

    def _adoption(self, group: str) -> Adopt:
        return Adopt(input_id=stable_id("adopt", group, self.boot), group=group, boot=self.boot, by=BY)

    async def _put(self, event: Input, context: Context) -> None:
        await context.send(self.inputs, event.group, input_record(event, at_us=context.timestamp_us))


def _claim(group: str, notice: Notice) -> Claim:
    return Claim(
        group=group,
        target=(notice.route, notice.target),
        notice_id=notice.notice_id,
        attempt=notice.attempt,
    )


def _stored(context: Context, group: str) -> GroupState:
    found = context.table.get(group)
    return GroupState(group=group) if found is None else GroupState.from_json(found)
