"""From what happens on the platform to causes of alerts: which group, how bad, what to say, what to do.

A group is ``<prefix>/<model>/<kind>``, ``<prefix>/features/parity`` or ``<prefix>/services/<service>``. Kinds of a
model's problems:

========== ==================================================================================
drift      a drift signal, whatever was measured: one problem per version and segment
training   a training failed, or its data were refused
promotion  a candidate was rejected or waits for a person, or a baseline won
champion   the active version fails, was pulled or rolled back; a version to fall back on fails
activity   a promotion, for those who want to know
deprecated the model reads a deprecated view: one problem per view, version and last day
levels     a service level's budget burns: one problem per instance and objective
========== ==================================================================================

Runbooks and severities of drift signals go by what was measured: ``drift``, ``quality`` or ``accuracy``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from driftline.alerts.alert import Severity, stable_id, to_iso
from driftline.alerts.happenings import (
    ANSWERS,
    BASELINE_WON,
    BEATS_BASELINES,
    ENDS,
    EVENTS,
    FAILING,
    LEAVES,
    RECOVERED,
    happening_of,
)
from driftline.alerts.inputs import Cause, Clearance
from driftline.alerts.kinds import CHAMPION, DEPRECATED, DRIFT, LEVELS, PARITY, PROMOTION, ROUTE, SERVICE
from driftline.alerts.rules import AlertRules
from driftline.alerts.signal_wording import kind_of_check, signal_subject, signal_text
from driftline.alerts.state import GroupState
from driftline.contracts.topics import DRIFT_SIGNALS, MODEL_EVENTS
from driftline.project.deprecations import DeprecatedUse
from driftline.runtime.clock import instant_us

BY = "alerter"
_LEVELS = {"WARNING": Severity.WARNING, "ALERT": Severity.CRITICAL, "RETRAIN": Severity.CRITICAL}
_RUNBOOKS = "services/alerter/README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Causes:
    """Turns records into causes for one project.

    Parameters
    ----------
    prefix
        Of the project's topics; the begin of every group.
    team
        Who is told of what belongs to no model.
    teams
        Who is told, by model.
    """

    prefix: str
    team: str
    teams: Mapping[str, str] = field(default_factory=dict)
    rules: AlertRules = field(default_factory=AlertRules)

    def of_signal(self, signal: Mapping[str, Any]) -> list[Cause | Clearance]:
        """Return what a drift signal means: a cause, or the end of one.

        The check and the column are the worst of their window, so they may differ from one signal of a problem to
        the next: the version and the segment alone say which problem it is.
        """
        group = self.group(signal["model"], DRIFT)
        problem = f"{signal['model_version']}|{signal['segment']}|"
        if signal["level"] == "RESOLVED":
            return [
                Clearance(
                    input_id=signal["signal_id"],
                    group=group,
                    problem=problem,
                    reason=signal["explanation"],
                    by=BY,
                )
            ]
        check, kind = signal["check"], kind_of_check(signal["check"])
        return [
            Cause(
                input_id=signal["signal_id"],
                group=group,
                problem=problem,
                severity=self._severity(check, kind, _LEVELS[signal["level"]]),
                source=DRIFT_SIGNALS,
                model=signal["model"],
                team=self._team(signal["model"]),
                title=f"{signal['model']}: {signal_subject(signal)}",
                text=signal_text(signal),
                runbook=self._runbook(check, kind),
                lasting=True,
                since=instant_us(signal["since"]),
                happened_at=instant_us(signal["window_end"]),
                by=BY,
            )
        ]

    def of_model_event(self, event: Mapping[str, Any]) -> list[Cause | Clearance]:
        """Return what an event in a model's life means: ends first, then a cause where it is one."""
        model, version = event["model"], event["version"] or ""
        found: list[Cause | Clearance] = [
            self._end(event, kind, problem="") for kind in ENDS.get(event["kind"], ())
        ]
        if event["kind"] in ANSWERS:
            found.append(self._end(event, PROMOTION, problem=f"APPROVAL_WANTED|{version}|"))
        if event["kind"] in LEAVES:
            found.append(self._end(event, CHAMPION, problem=f"{FAILING}|{version}|"))
        if event["kind"] == RECOVERED:
            found.append(self._end(event, CHAMPION, problem=f"{FAILING}|{version}|{event['by']}|"))
        if event["kind"] == "PROMOTED":
            # The old version's signals will not come back: it serves no more.
            found.append(self._end(event, DRIFT, problem="", keep=f"{version}|"))
        if event["kind"] == BEATS_BASELINES:
            found.append(self._end(event, PROMOTION, problem=f"{BASELINE_WON}|"))
        name = happening_of(event)
        happening = EVENTS.get(name)
        if happening is not None:
            at = instant_us(event["effective_at"])
            found.append(
                Cause(
                    input_id=event["event_id"],
                    group=self.group(model, happening.kind),
                    problem=f"{name}|{version}|" + (f"{event['by']}|" if name == FAILING else ""),
                    severity=self._severity(name, happening.kind, happening.severity),
                    source=MODEL_EVENTS,
                    model=model,
                    team=self._team(model),
                    title=f"{model}{f' {version}' if version else ''}: {happening.title}",
                    text=f"{to_iso(at)}, by {event['by']}: {event['reason']}. {happening.what_to_do}".strip(),
                    runbook=self._runbook(name, happening.kind),
                    lasting=happening.lasting,
                    since=at,
                    happened_at=at,
                    by=BY,
                )
            )
        return found

    def of_deprecated_use(self, use: DeprecatedUse, *, at: int) -> Cause:
        """Return the cause for a model that reads a deprecated view: a warning, critical once the last day is past.

        It is the same cause however often it is told, by view, version, last day and severity. ``at`` in microseconds.
        """
        past = use.past(datetime.fromtimestamp(at / 1e6, tz=UTC).date())
        group, problem = self.group(use.model, DEPRECATED), deprecation_problem(use)
        return Cause(
            input_id=stable_id("deprecated", group, problem, past),
            group=group,
            problem=problem,
            severity=self._severity(DEPRECATED, DEPRECATED, Severity.CRITICAL if past else Severity.WARNING),
            source=BY,
            model=use.model,
            team=use.owner,
            title=f"{use.model}: reads the deprecated view {use.view}",
            text=f"{use}{'. That day is past' if past else ''}. Change the model's views in driftline.yaml, then retrain.",
            runbook=self._runbook(DEPRECATED, DEPRECATED),
            lasting=True,
            since=at,
            happened_at=at,
            by=BY,
        )

    def of_burn(self, level: Mapping[str, Any], *, service: str, instance: str, at: int) -> Cause | Clearance:
        """Return what a service level of an instance means: a cause while its budget burns, else the end of it."""
        model, objective, burning = level["model"], level["objective"], level["burning"]
        group, problem = self.group(model, LEVELS), f"{instance}|{objective}|"
        if burning == "no":
            return Clearance(
                input_id=stable_id("burn", group, problem, "over", at),
                group=group,
                problem=problem,
                reason=f"the budget of {model}'s {objective} burns no more",
                by=BY,
            )
        usual = Severity.CRITICAL if burning == "fast" else Severity.WARNING
        rates = ", ".join(f"{rate:.1f} over {minutes} min" for minutes, rate in level["rates"].items())
        return Cause(
            input_id=stable_id("burn", group, problem, burning, at),
            group=group,
            problem=problem,
            severity=self._severity(objective, LEVELS, usual),
            source=service,
            model=model,
            team=self._team(model),
            title=f"{model}: the budget of its {objective} burns {burning}",
            text=(
                f"Of {level['requests']:,} requests at {instance} in six hours {level['good']:.3%} were good, {level['target']:.3%} "
                f"are promised. Burn rates: {rates}. `driftline status`, then its log."
            ),
            runbook=self._runbook(objective, LEVELS),
            lasting=True,
            since=at,
            happened_at=at,
            by=BY,
        )

    def of_ended_use(self, state: GroupState, uses: Iterable[DeprecatedUse]) -> list[Clearance]:
        """Return the ends of the deprecations in a group's open alert that no model of the project's has any more."""
        if state.current is None or not state.group.endswith(f"/{DEPRECATED}"):
            return []
        live = {deprecation_problem(use) for use in uses if self.group(use.model, DEPRECATED) == state.group}
        return [
            Clearance(
                input_id=stable_id("used no more", state.current.alert_id, one.key, one.seen),
                group=state.group,
                problem=one.key,
                reason=f"{one.key.partition('|')[0]} is read no more, or deprecated no more",
                by=BY,
            )
            for one in state.current.problems
            if one.key not in live
        ]

    def of_outage(self, *, service: str, instance: str, detail: str, since: int, at: int) -> Cause:
        """Return the cause for a service's instance that is not ready since a time (microseconds)."""
        return Cause(
            input_id=stable_id("outage", self.prefix, instance, since),
            group=self.service_group(service),
            problem=f"{instance}|",
            severity=self._severity(service, SERVICE, Severity.CRITICAL),
            source=service,
            model=None,
            team=self.team,
            title=f"{instance} is not ready",
            text=f"{instance} is not ready since {to_iso(since)}: {detail}. `driftline status`, then its log.",
            runbook=self._runbook(service, SERVICE),
            lasting=True,
            since=since,
            happened_at=at,
            by=BY,
        )

    def of_recovery(self, *, service: str, instance: str, at: int) -> Clearance:
        """Return the end of an instance's outage."""
        return Clearance(
            input_id=stable_id("recovery", self.prefix, instance, at),
            group=self.service_group(service),
            problem=f"{instance}|",
            reason=f"{instance} is ready again",
            by=BY,
        )

    def of_mismatch(self, *, view: str, team: str, text: str, since: int, at: int, by: str) -> Cause:
        """Return the cause for a view whose served values are not what its events give, in a look of a span."""
        return Cause(
            input_id=stable_id("parity", self.prefix, view, since, at),
            group=self.parity_group,
            problem=f"{view}|",
            severity=self._severity(view, PARITY, Severity.CRITICAL),
            source=by,
            model=None,
            team=team or self.team,
            title=f"{view}: served values are not what its events give",
            text=text,
            runbook=self._runbook(view, PARITY),
            lasting=True,
            since=since,
            happened_at=at,
            by=by,
        )

    def of_match(self, *, view: str, at: int, by: str) -> Clearance:
        """Return the end of that."""
        return Clearance(
            input_id=stable_id("parity again", self.prefix, view, at),
            group=self.parity_group,
            problem=f"{view}|",
            reason=f"all served values of {view} that were looked at are what its events give",
            by=by,
        )

    def of_deaf_route(self, *, route: str, notice_id: str, detail: str, at: int) -> Cause:
        """Return the cause for a route that takes no notifications."""
        return Cause(
            input_id=stable_id("deaf", notice_id),
            group=self.route_group(route),
            problem="",
            severity=self._severity(route, ROUTE, Severity.CRITICAL),
            source=BY,
            model=None,
            team=self.team,
            title=f"alerts do not reach route {route}",
            text=f"A notification was given up: {detail}. Those who listen there know nothing of the open alerts.",
            runbook=self._runbook(route, ROUTE),
            lasting=True,
            since=at,
            happened_at=at,
            by=BY,
        )

    def of_hearing_route(self, *, route: str, notice_id: str) -> Clearance:
        """Return the end of that."""
        return Clearance(
            input_id=stable_id("hearing", notice_id),
            group=self.route_group(route),
            problem="",
            reason=f"route {route} takes notifications again",
            by=BY,
        )

    def group(self, model: str, kind: str) -> str:
        """Return the group of a kind of problem of a model."""
        return f"{self.prefix}/{model}/{kind}"

    @property
    def parity_group(self) -> str:
        """The group of views whose served values differ from what their events give."""
        return f"{self.prefix}/features/{PARITY}"

    def service_group(self, service: str) -> str:
        """Return the group of a service's failures."""
        return f"{self.prefix}/services/{service}"

    def route_group(self, route: str) -> str:
        """Return the group of a route's failures."""
        return f"{self.prefix}/routes/{route}"

    def _end(
        self, event: Mapping[str, Any], kind: str, *, problem: str, keep: str | None = None
    ) -> Clearance:
        return Clearance(
            input_id=stable_id("end", event["event_id"], kind, problem),
            group=self.group(event["model"], kind),
            problem=problem,
            reason=f"{event['kind'].lower().replace('_', ' ')} {event['version'] or ''}: {event['reason']}",
            by=BY,
            keep=keep,
        )

    def _team(self, model: str) -> str:
        return self.teams.get(model) or self.team

    def _severity(self, name: str, kind: str, usual: Severity) -> Severity:
        return self.rules.severities.get(name) or self.rules.severities.get(kind) or usual

    def _runbook(self, name: str, kind: str) -> str:
        return self.rules.runbooks.get(name) or self.rules.runbooks.get(kind) or f"{_RUNBOOKS}#{kind}"


def deprecation_problem(use: DeprecatedUse) -> str:
    """Return the key of a model's problem: the view, its version, the last day to read it."""
    return f"{use.view}|{use.until}|"
