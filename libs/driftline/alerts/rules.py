"""The ``alerts:`` section of a project's ``driftline.yaml``: who is told of what, when, and how.

```yaml
alerts:
  grouping: 5s          # causes of a group gather so long before the first notification
  repeat: 4h            # told again while it fires and nobody has acknowledged it
  routes:
    - name: chat
      urls: ["${CHAT_URL:-terminal://}"]
    - name: pager
      urls: ["${PAGER_URL}"]
      severities: [CRITICAL]
      escalate: {after: 15m, to: manager}
      quiet: {from: "22:00", until: "07:00", zone: America/New_York, but: [CRITICAL]}
```
"""

import re
import string
from collections.abc import Mapping
from datetime import datetime, time
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    model_validator,
)

from driftline.alerts.alert import AlertStatus, Severity, to_time
from driftline.runtime.durations import parse_duration_us
from driftline.runtime.errors import ConfigurationError

#: What a title or body template may name.
PLACEHOLDERS = frozenset(
    {
        *("alert_id", "short_id", "group", "status", "severity", "source", "model", "team", "title", "text"),
        *("runbook", "count", "started_at", "updated_at", "key"),
    }
)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def _microseconds(value: object) -> object:
    return parse_duration_us(value) if isinstance(value, str) else value


def _clock_time(value: object) -> object:
    """Return a time of day; YAML reads 22:00 without quotes as the number 22 * 60."""
    if isinstance(value, int):
        hours, minutes = divmod(value, 60)
        return f"{hours:02}:{minutes:02}"
    return value


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone; write one like America/New_York") from error
    return name


def _template(text: str) -> str:
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ValueError(f"no template: {error}") from error
    unknown = sorted(names - PLACEHOLDERS)
    if unknown:
        raise ValueError(f"unknown placeholders {unknown}; there are {sorted(PLACEHOLDERS)}")
    return text


Duration = Annotated[int, BeforeValidator(_microseconds), Field(ge=0)]
ClockTime = Annotated[time, BeforeValidator(_clock_time)]
Template = Annotated[str, AfterValidator(_template)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)


class Escalation(_Strict):
    """Whom to tell next where nobody acknowledges."""

    after_us: Duration = Field(alias="after")
    to: Name


class Quiet(_Strict):
    """Hours of the day in which a route is not used, but for some severities."""

    begin: ClockTime = Field(alias="from")
    until: ClockTime
    zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    but: tuple[Severity, ...] = ()

    def holds(self, severity: Severity, now_us: int) -> bool:
        """Whether it is quiet now for a severity."""
        now = to_time(now_us).astimezone(ZoneInfo(self.zone)).time()
        if severity in self.but:
            return False
        if self.begin <= self.until:
            return self.begin <= now < self.until
        return now >= self.begin or now < self.until


class Route(_Strict):
    """Somebody who is told. Empty ``models``, ``teams`` and ``groups`` take all; patterns are like a shell's.

    ``urls`` are apprise's, or ``terminal://``, or ``file://PATH`` for JSON lines; ``${NAME}`` and
    ``${NAME:-default}`` stand for environment variables. ``severities: []`` makes a route that only escalations use.

    ``after_crash`` says what becomes of a notification that was on its way when the alerter was killed, so that
    nobody knows whether it arrived: ``again`` (with the same idempotency key), or ``skip``.
    """

    name: Name
    urls: tuple[SecretStr, ...] = Field(min_length=1)
    severities: tuple[Severity, ...] = (Severity.WARNING, Severity.CRITICAL)
    models: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    tell: tuple[AlertStatus, ...] = (AlertStatus.FIRING, AlertStatus.RESOLVED)
    escalate: Escalation | None = None
    quiet: Quiet | None = None
    title: Template | None = None
    body: Template | None = None
    timeout_us: Duration = Field(default=10_000_000, alias="timeout", gt=0)
    after_crash: Literal["again", "skip"] | None = None

    def wants(self, *, severity: Severity, model: str | None, team: str, group: str) -> bool:
        """Whether the route is told of such an alert."""
        return (
            severity in self.severities
            and _matches(self.models, model or "")
            and _matches(self.teams, team)
            and _matches(self.groups, group)
        )

    def is_quiet(self, severity: Severity, now_us: int) -> bool:
        """Whether the route must wait now."""
        return self.quiet is not None and self.quiet.holds(severity, now_us)

    def again_after_crash(self, target: int) -> bool:
        """Whether a URL's notification of unknown fate is sent again: where receivers can tell, unless it is said."""
        if self.after_crash is not None:
            return self.after_crash == "again"
        return self.scheme(target) in KEYED_SCHEMES

    def scheme(self, target: int) -> str:
        """Return the scheme of a URL; empty where a variable makes all of it."""
        return self.urls[target].get_secret_value().partition("://")[0].lower()


#: Channels that hand the idempotency key to the receiver, or look it up themselves (files).
KEYED_SCHEMES = frozenset(
    {"json", "jsons", "form", "forms", "xml", "xmls", "mailto", "mailtos", "file", "terminal"}
)


class PlannedSilence(_Strict):
    """A silence known beforehand, such as a maintenance window."""

    groups: tuple[str, ...] = Field(min_length=1)
    begin: AwareDatetime | None = Field(default=None, alias="from")
    until: AwareDatetime | None = None
    reason: str = ""

    def holds(self, group: str, now_us: int) -> bool:
        """Whether a group is silenced now."""
        now: datetime = to_time(now_us)
        begun = self.begin is None or self.begin <= now
        return begun and (self.until is None or now < self.until) and _matches(self.groups, group)


class Retry(_Strict):
    """How often and how late a failed notification is tried again."""

    attempts: int = Field(default=8, ge=1, le=100)
    first_us: Duration = Field(default=2_000_000, alias="first")
    longest_us: Duration = Field(default=300_000_000, alias="longest")


def _terminal() -> tuple[Route, ...]:
    return (Route(name="terminal", urls=(SecretStr("terminal://"),)),)


class AlertRules(_Strict):
    """The whole section. ``runbooks`` and ``severities`` are by kind of problem (``driftline.alerts.kinds``)."""

    grouping_us: Duration = Field(default=5_000_000, alias="grouping")
    repeat_us: Duration = Field(default=14_400_000_000, alias="repeat")
    forget_us: Duration = Field(default=86_400_000_000, alias="forget", gt=0)
    retry: Retry = Retry()
    routes: tuple[Route, ...] = Field(default_factory=_terminal)
    silences: tuple[PlannedSilence, ...] = ()
    runbooks: dict[str, str] = {}
    severities: dict[str, Severity] = {}

    @model_validator(mode="after")
    def _check_routes(self) -> Self:
        names = [route.name for route in self.routes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two routes are named {', '.join(twice)}")
        for route in self.routes:
            if route.escalate is not None and route.escalate.to not in names:
                raise ValueError(f"route {route.name} escalates to {route.escalate.to}, which is no route")
        return self

    def route(self, name: str) -> Route | None:
        """Return a route by name; None where there is none any more."""
        return next((route for route in self.routes if route.name == name), None)

    def silenced(self, group: str, now_us: int) -> bool:
        """Whether a planned silence holds for a group."""
        return any(silence.holds(group, now_us) for silence in self.silences)

    def with_environment(self, environment: Mapping[str, str]) -> "AlertRules":
        """Return the rules with the variables of their URLs replaced.

        Raises
        ------
        ConfigurationError
            Names the variables that are not set, with their routes. Never shows a URL.
        """
        missing: list[str] = []

        def expanded(route: Route) -> Route:
            def value(match: re.Match[str]) -> str:
                found = environment.get(match[1]) or match[2]
                if found is None:
                    missing.append(f"{match[1]} (route {route.name})")
                return found or ""

            urls = tuple(SecretStr(_VARIABLE.sub(value, url.get_secret_value())) for url in route.urls)
            return route.model_copy(update={"urls": urls})

        routes = tuple(expanded(route) for route in self.routes)
        if missing:
            msg = f"alerts: not set: {', '.join(missing)}. Set them, or write ${{NAME:-default}} in driftline.yaml"
            raise ConfigurationError(msg)
        return self.model_copy(update={"routes": routes})


def _matches(patterns: tuple[str, ...], text: str) -> bool:
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)


def parse_rules(section: Any) -> AlertRules:
    """Return the rules of a parsed section; ``None`` means the defaults. Raises pydantic's ValidationError."""
    return AlertRules.model_validate(section or {})
