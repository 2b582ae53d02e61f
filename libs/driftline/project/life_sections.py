"""The sections ``promotion:``, ``breaker:`` and ``retrain:`` of a model in ``driftline.yaml``, as they are written and checked.

```yaml
promotion:
  by: automatic            # or approval: a person has the last word
  looks: [7, 14, 21, 28]   # days with outcomes after which champion and challenger are compared
  confidence: 0.95         # that a challenger which is only as good is not promoted
  margin: 0.002            # nats of log loss by which it must be better
  least_outcomes: 1000     # fewer paired outcomes decide nothing
  limit: 56d               # not decided by then, it is rejected
  rollback_on_failure: true
  canary:                  # what is better takes over by steps; left out: at once
    shares: [0.01, 0.05, 0.25]
    hold: 1h               # event time of a step
    least_requests: 500    # of a step
    most_fallbacks: 0.01   # share of its requests that others may have answered
    sticky: customer       # entity whose requests stay in one arm; left out: each request for itself
breaker:
  window: 20               # calls of which
  failure_share: 0.5       # so many fail: the version is not asked
  pause: 10s               # for so long
  timeout: 2s              # a call that takes longer fails
retrain:
  drift: RETRAIN           # the level from which on a drift signal asks; or NEVER
  cooldown: 14d
  every: 30d
  volume: 50000            # new labelled rows
  target_log_loss: 0.45
  span: 180d               # how far back it learns
  screening: {psi_refused: 0.5}
```
"""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from driftline.project.life_rules import (
    AskingLevel,
    BreakerRule,
    CanaryRule,
    ComparisonRule,
    Promotion,
    PromotionRule,
    RetrainRule,
    ScreeningRule,
)
from driftline.runtime.durations import DAY_US, parse_duration_us

_FEWEST_DAYS = 2


def _checked_duration(text: str) -> str:
    parse_duration_us(text)
    return text


def _whole_days(text: str) -> str:
    if parse_duration_us(text) % DAY_US:
        raise ValueError(f"{text!r} is not a number of whole days; write one like 28d or 4w")
    return text


Duration = Annotated[str, AfterValidator(_checked_duration)]
Days = Annotated[str, AfterValidator(_whole_days)]
_Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CanarySection(_Section):
    """``models.<name>.promotion.canary``."""

    shares: tuple[float, ...] = (0.01, 0.05, 0.25)
    hold: Duration = "1h"
    least_requests: int = Field(default=500, ge=1)
    most_fallbacks: float = Field(default=0.01, ge=0, lt=1)
    sticky: str = ""

    @field_validator("shares")
    @classmethod
    def _growing(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if not shares or shares[0] <= 0 or shares[-1] > 1 or sorted(set(shares)) != list(shares):
            raise ValueError("write growing shares above 0 and up to 1, like [0.01, 0.05, 0.25]")
        return shares

    def rule(self) -> CanaryRule:
        """Return what the section declares."""
        return CanaryRule(
            shares=self.shares,
            hold_us=parse_duration_us(self.hold),
            least_requests=self.least_requests,
            most_fallbacks=self.most_fallbacks,
            sticky=self.sticky,
        )


class PromotionSection(_Section):
    """``models.<name>.promotion``."""

    by: Promotion = Promotion.AUTOMATIC
    looks: tuple[int, ...] = (7, 14, 21, 28)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    margin: float = Field(default=0.0, ge=0)
    least_outcomes: int = Field(default=1_000, ge=1)
    limit: Days | None = None
    least_held_back: int = Field(default=500, ge=2)
    baseline_margin: float = Field(default=0.0, ge=0)
    watch: bool = True
    rollback_on_failure: bool = True
    canary: CanarySection | None = None

    @field_validator("looks")
    @classmethod
    def _ascending(cls, days: tuple[int, ...]) -> tuple[int, ...]:
        if not days or days[0] < _FEWEST_DAYS or sorted(set(days)) != list(days):
            raise ValueError("write ascending numbers of days from 2 on, like [7, 14, 21, 28]")
        return days

    @model_validator(mode="after")
    def _limit_after_the_last_look(self) -> Self:
        if self.limit is not None and parse_duration_us(self.limit) < self.looks[-1] * DAY_US:
            raise ValueError(
                f"limit: {self.limit} ends before the last look, after {self.looks[-1]} days; "
                "write a longer limit, or earlier looks"
            )
        return self

    def rule(self) -> PromotionRule:
        """Return what the section declares."""
        comparison = ComparisonRule(
            looks=self.looks,
            alpha=round(1 - self.confidence, 12),
            margin=self.margin,
            least_outcomes=self.least_outcomes,
            limit_days=None if self.limit is None else parse_duration_us(self.limit) // DAY_US,
        )
        return PromotionRule(
            by=self.by,
            comparison=comparison,
            least_held_back=self.least_held_back,
            baseline_margin=self.baseline_margin,
            watch=self.watch,
            rollback_on_failure=self.rollback_on_failure,
            canary=None if self.canary is None else self.canary.rule(),
        )


class BreakerSection(_Section):
    """``models.<name>.breaker``."""

    window: int = Field(default=20, ge=1, le=10_000)
    least_calls: int = Field(default=5, ge=1)
    failure_share: float = Field(default=0.5, gt=0, le=1)
    pause: Duration = "10s"
    probes: int = Field(default=3, ge=1)
    timeout: Duration = "2s"

    @model_validator(mode="after")
    def _can_open(self) -> Self:
        if self.least_calls > self.window:
            raise ValueError(
                f"least_calls: {self.least_calls} is more than the window of {self.window} calls, so it would never open; "
                "write a longer window, or fewer calls"
            )
        return self

    def rule(self) -> BreakerRule:
        """Return what the section declares."""
        return BreakerRule(
            window=self.window,
            least_calls=self.least_calls,
            failure_share=self.failure_share,
            pause_us=parse_duration_us(self.pause),
            probes=self.probes,
            timeout_us=parse_duration_us(self.timeout),
        )


class ScreeningSection(_Section):
    """``models.<name>.retrain.screening``."""

    least_rows: int = Field(default=200, ge=0)
    missing_rise: _Share = 0.3
    outside_share: _Share = 0.01
    duplicate_share: _Share = 0.01
    label_odds: float = Field(default=3.0, ge=1)
    psi_warning: float = Field(default=0.25, gt=0)
    psi_refused: float | None = Field(default=None, gt=0)


class RetrainSection(_Section):
    """``models.<name>.retrain``."""

    drift: AskingLevel = AskingLevel.RETRAIN
    cooldown: Duration = "14d"
    every: Duration | None = None
    volume: int | None = Field(default=None, ge=1)
    target_log_loss: float | None = Field(default=None, gt=0)
    target_value: float | None = None
    target_windows: int = Field(default=7, ge=1, le=400)
    span: Days | None = None
    screening: ScreeningSection = ScreeningSection()

    @field_validator("span")
    @classmethod
    def _long_enough(cls, text: str | None) -> str | None:
        if text is not None and parse_duration_us(text) < _FEWEST_DAYS * DAY_US:
            raise ValueError(f"{text} is too short to learn from and to hold rows back; write 2d or more")
        return text

    @model_validator(mode="after")
    def _schedule_outlasts_the_cooldown(self) -> Self:
        if self.every is not None and parse_duration_us(self.every) < parse_duration_us(self.cooldown):
            raise ValueError(
                f"every: {self.every} is shorter than the cooldown of {self.cooldown}, which would hold the schedule "
                "back; write a shorter cooldown, or a longer period"
            )
        return self

    def rule(self) -> RetrainRule:
        """Return what the section declares."""
        return RetrainRule(
            drift=self.drift,
            cooldown_us=parse_duration_us(self.cooldown),
            every_us=None if self.every is None else parse_duration_us(self.every),
            volume=self.volume,
            target_log_loss=self.target_log_loss,
            target_value=self.target_value,
            target_windows=self.target_windows,
            span_days=None if self.span is None else parse_duration_us(self.span) // DAY_US,
            screening=ScreeningRule(**self.screening.model_dump()),
        )
