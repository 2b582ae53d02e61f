"""What a project decides about a model's life: when it is trained anew, on what, and what makes a version champion.

Values alone; the rules that read them are in ``driftline.models``.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from driftline.runtime.durations import DAY_US


class Promotion(StrEnum):
    """Who has the last word on a version that the evidence is for."""

    AUTOMATIC = "automatic"
    APPROVAL = "approval"


class AskingLevel(StrEnum):
    """From which level on a drift signal asks for a retrain; the levels but ``NEVER`` are the signals'."""

    WARNING = "WARNING"
    ALERT = "ALERT"
    RETRAIN = "RETRAIN"
    NEVER = "NEVER"

    def asks(self, level: str) -> bool:
        """Whether a signal of a level is enough; one that is over (RESOLVED) never is.

        >>> AskingLevel.ALERT.asks("RETRAIN"), AskingLevel.ALERT.asks("WARNING"), AskingLevel.NEVER.asks("RETRAIN")
        (True, False, False)
        """
        order = list(AskingLevel)
        found = [one for one in order[:-1] if one.value == level]
        return bool(found) and order.index(found[0]) >= order.index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRule:
    """When champion and challenger are compared on live outcomes, and how sure one must be.

    Attributes
    ----------
    looks
        Numbers of days with outcomes after which a decision may fall, ascending.
    alpha
        Probability of promoting a challenger that is only as good, over all looks together.
    margin
        Advantage in nats of log loss per outcome that must be exceeded for a promotion.
    least_outcomes
        Fewer paired outcomes than this decide nothing before the last look.
    limit_days
        Days of event time after which a challenger that is not decided is rejected; None: twice the last look.
    """

    looks: tuple[int, ...] = (7, 14, 21, 28)
    alpha: float = 0.05
    margin: float = 0.0
    least_outcomes: int = 1_000
    limit_days: int | None = None

    @property
    def longest_days(self) -> int:
        """Days of event time that a comparison may take."""
        return self.limit_days or 2 * self.looks[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryRule:
    """How a version that the evidence is for takes over the traffic, step by step.

    Attributes
    ----------
    shares
        Its share of the requests in each step, ascending; after the last it is promoted.
    hold_us
        Event time that each step lasts at least.
    least_requests
        Requests that it must have been assigned in each step at least.
    most_fallbacks
        Share of its requests that another version may have answered.
    sticky
        The entity whose requests all go to one arm; empty: each request is assigned by its own id.
    """

    shares: tuple[float, ...] = (0.01, 0.05, 0.25)
    hold_us: int = DAY_US // 24
    least_requests: int = 500
    most_fallbacks: float = 0.01
    sticky: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionRule:
    """What makes a version champion.

    Attributes
    ----------
    by
        Whether a person has the last word.
    comparison
        How a challenger is held against the champion on live outcomes.
    least_held_back
        With fewer held-back rows that are new to the champion, the live comparison alone decides.
    baseline_margin
        Nats of log loss by which a version must beat every baseline on the held-back rows.
    watch
        Whether a new champion is rolled back where the one before it proves better.
    rollback_on_failure
        Whether a champion whose breaker opens is rolled back where the one before it answers.
    canary
        How a challenger that is better takes over; None: at once.
    """

    by: Promotion = Promotion.AUTOMATIC
    comparison: ComparisonRule = field(default_factory=ComparisonRule)
    least_held_back: int = 500
    baseline_margin: float = 0.0
    watch: bool = True
    rollback_on_failure: bool = True
    canary: CanaryRule | None = None

    @property
    def approval(self) -> bool:
        """Whether a person has the last word."""
        return self.by is Promotion.APPROVAL


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRule:
    """When a version that fails is not asked any more, and when it is tried again.

    The terms are those of Nygard, Release It! (2007), and of resilience4j, whose count-based window this is.

    Attributes
    ----------
    window
        Calls that the failure share is of: the last so many; a call scores a batch.
    least_calls
        Fewer calls than this since it closed never open it.
    failure_share
        Share of failed calls from which on it opens. A call fails by an exception, by taking longer than ``timeout_us``,
        by a result of the wrong shape, or where so large a share of its scores are no numbers.
    pause_us
        Time that it stays open before it lets a probe through (half-open).
    probes
        Probes that must succeed one after the other to close it; one that fails opens it again.
    timeout_us
        Time that one call may take before it is stopped.
    """

    window: int = 20
    least_calls: int = 5
    failure_share: float = 0.5
    pause_us: int = 10_000_000
    probes: int = 3
    timeout_us: int = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreeningRule:
    """From where on something in the training data is odd or wrong. Shares are of the rows.

    Attributes
    ----------
    least_rows
        Fewer rows teach nothing.
    missing_rise
        Rise of a column's missing share over the last training set that stops the training.
    outside_share
        Share outside of the last range that is a warning.
    duplicate_share
        Share of repeated request ids that stops the training; any is a warning.
    label_odds
        Factor by which the odds of the label may have changed.
    psi_warning, psi_refused
        Population stability index against the last training set; None never stops the training.
    """

    least_rows: int = 200
    missing_rise: float = 0.3
    outside_share: float = 0.01
    duplicate_share: float = 0.01
    label_odds: float = 3.0
    psi_warning: float = 0.25
    psi_refused: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainRule:
    """What asks for a retrain, and what it learns from. All times are event time.

    Attributes
    ----------
    drift
        The level from which on a drift signal asks.
    cooldown_us
        Time after a request in which nothing but a person makes another.
    every_us
        A schedule's period, its slots counted from the epoch in UTC; None: no schedule.
    volume
        New labelled rows since the last request that ask for one; None: not by volume.
    target_log_loss, target_value
        Log loss above which, and value per prediction below which, the model is not good enough, whatever it was in
        training; None: no such target. Measured over ``target_windows`` closed windows of outcomes.
    span_days
        Days of history to learn from; None: from where the champion's training began, else all there is.
    screening
        What stops a training on bad data.
    """

    drift: AskingLevel = AskingLevel.RETRAIN
    cooldown_us: int = 14 * DAY_US
    every_us: int | None = None
    volume: int | None = None
    target_log_loss: float | None = None
    target_value: float | None = None
    target_windows: int = 7
    span_days: int | None = None
    screening: ScreeningRule = field(default_factory=ScreeningRule)
