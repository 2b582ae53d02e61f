"""A/B tests: how much better an arm is than another, how sure that is, and how large a sample it takes.

A unit is what was assigned to an arm: an entity with all its outcomes, or one request. Outcomes of one unit hang together,
so errors are those of units, never of outcomes. A mean per outcome is a ratio of two sums over units, and its error that
of the linearised ratio, ``sqrt(n / (n - 1) * sum((S_u - mean * N_u)**2)) / sum(N_u)`` with S_u the unit's sum and N_u its
outcomes: Deng, Knoblich and Lu, "Applying the Delta Method in Metric Analytics", KDD 2018, section 3. With one outcome
each it is the usual standard error of a mean.

*Fixed horizon.* Welch's test (scipy's ``ttest_ind`` with ``equal_var=False`` for units of one outcome), with the sample
size at which it finds a difference of ``effect`` with the planned power. It is right for one look, at that sample. The size
follows from the variances that were seen, which inflates the error rate by next to nothing in large samples (Wittes and
Brittain, "The Role of Internal Pilot Studies", Statistics in Medicine 9, 1990).

*Always valid.* A confidence sequence, right at every look, however often one looks and whenever one stops. The score
``difference / error**2`` is taken as Brownian motion with drift ``difference`` at the time ``1 / error**2`` (Scharfstein,
Tsiatis and Robins, J. American Statistical Association 92, 1997), and kept within the two-sided normal mixture boundary
``sqrt((v + rho) * log((v + rho) / (rho * alpha**2)))``: Robbins, "Statistical Methods Related to the Law of the Iterated
Logarithm", Annals of Mathematical Statistics 41 (1970); Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform,
Nonparametric, Nonasymptotic Confidence Sequences", Annals of Statistics 49 (2021), equation 14. With an error that is
estimated it is an asymptotic one: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform Central Limit Theory and
Asymptotic Confidence Sequences", Annals of Statistics 52 (2024). ``rho`` is where the boundary is tightest at the planned
information, which follows from the plan alone and from nothing that was seen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from driftline.contracts.json_values import to_json
from driftline.models.trial import Metric, TestPlan

#: Fewer units in an arm than this say nothing: the limits that both methods stand on are far.
LEAST_UNITS = 100
#: Below this probability the assignment is not what was declared. Fabijan et al., "Diagnosing Sample Ratio Mismatch in
#: Online Controlled Experiments", KDD 2019, look at .0005 to .01.
LEAST_RATIO_P = 0.001

Floats = NDArray[np.float64]


class Verdict(StrEnum):
    """What a comparison says of an arm against the control."""

    BETTER = "better"
    WORSE = "worse"
    HIGHER = "higher"
    LOWER = "lower"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean per outcome with its error over units. ``outcomes`` may be none, and then it is NaN."""

    units: int
    outcomes: int
    mean: float
    error: float

    @property
    def unit_variance(self) -> float:
        """The variance that one unit contributes: the squared error times the units."""
        return self.error**2 * self.units


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A difference's bounds, and the probability of one at least as large where there is none."""

    p: float
    lower: float
    upper: float

    @property
    def decided(self) -> bool:
        """Whether zero lies outside."""
        return self.lower > 0 or self.upper < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """An arm against the control, in the metric's unit per outcome.

    Attributes
    ----------
    difference
        The arm's mean less the control's.
    fixed, always
        The two methods' intervals, each at its share of alpha.
    needed
        Units that the plan needs in the arm and in the control.
    reached
        Whether there are as many.
    """

    arm: str
    difference: float
    error: float
    fixed: Interval
    always: Interval
    needed: tuple[int, int]
    reached: bool
    verdict_fixed: Verdict
    verdict_always: Verdict

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it: what is not finite is null."""
        return {
            "arm": self.arm,
            "difference": to_json(self.difference),
            "standard_error": to_json(self.error),
            "fixed_horizon": {
                **_interval_json(self.fixed),
                "units_needed": {"arm": self.needed[0], "control": self.needed[1]},
                "planned_sample_reached": self.reached,
                "verdict": self.verdict_fixed.value,
            },
            "always_valid": {**_interval_json(self.always), "verdict": self.verdict_always.value},
        }


def mean_of(sums: Floats, counts: Floats) -> Mean:
    """Return the mean per outcome of units: the sum of each one's outcomes, and their number.

    >>> mean_of(np.array([1.0, 3.0, 2.0]), np.array([1.0, 1.0, 1.0]))
    Mean(units=3, outcomes=3, mean=2.0, error=0.5773502691896257)
    """
    units, outcomes = len(counts), float(counts.sum())
    if outcomes <= 0:
        return Mean(units=units, outcomes=0, mean=math.nan, error=math.inf)
    mean = float(sums.sum()) / outcomes
    error = math.inf
    if units > 1:
        error = math.sqrt(units / (units - 1) * float(((sums - mean * counts) ** 2).sum())) / outcomes
    return Mean(units=units, outcomes=round(outcomes), mean=mean, error=error)


def welch(arm: Mean, control: Mean, alpha: float) -> Interval:
    """Return the fixed-horizon interval of the arm's mean less the control's, two-sided (Welch, Biometrika 34, 1947)."""
    difference, error = arm.mean - control.mean, math.hypot(arm.error, control.error)
    if not math.isfinite(error):
        return _NOTHING
    if error == 0:
        return Interval(p=float(difference == 0), lower=difference, upper=difference)
    freedom = error**4 / (arm.error**4 / max(arm.units - 1, 1) + control.error**4 / max(control.units - 1, 1))
    reach = float(stats.t.ppf(1 - alpha / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(difference) / error, freedom))
    return Interval(p=p, lower=difference - reach, upper=difference + reach)


def always_valid(difference: float, error: float, rho: float, alpha: float) -> Interval:
    """Return the interval of a confidence sequence at this look; its ``p`` may be looked at as often as one likes too.

    Parameters
    ----------
    rho
        Where the mixture is centred, in units of information (one over a squared error).

    >>> found = always_valid(0.2, 0.05, best_rho(400.0, 0.05), 0.05)
    >>> round(found.lower, 3), round(found.upper, 3), round(found.p, 4)
    (0.048, 0.352, 0.0025)
    """
    if not math.isfinite(error):
        return _NOTHING
    if error == 0:
        return Interval(p=float(difference == 0), lower=difference, upper=difference)
    information = 1 / error**2
    total = information + rho
    reach = math.sqrt(total * math.log(total / (rho * alpha**2))) / information
    evidence = (difference * information) ** 2 / (2 * total) - math.log(total / rho) / 2
    return Interval(p=min(1.0, math.exp(-evidence)), lower=difference - reach, upper=difference + reach)


def planned_information(effect: float, alpha: float, power: float) -> float:
    """Return the information (one over a squared error) at which a difference is found with the planned power.

    >>> round(planned_information(0.1, 0.05, 0.8), 1)
    784.9
    """
    return ((float(stats.norm.ppf(1 - alpha / 2)) + float(stats.norm.ppf(power))) / effect) ** 2


def best_rho(information: float, alpha: float) -> float:
    """Return the ``rho`` at which the boundary is tightest at some information.

    Howard et al. (2021), section 3.5, to a close approximation: ``v / (2 log(1/alpha) + log(1 + 2 log(1/alpha)))``.
    """
    reach = 2 * math.log(1 / alpha)
    return information / (reach + math.log(1 + reach))


def needed_units(
    arm: Mean, control: Mean, shares: tuple[float, float], plan: TestPlan, alpha: float
) -> tuple[int, int]:
    """Return the units that the plan needs in an arm and in the control, with the variances that were seen.

    ``shares`` are the arm's and the control's of all units.

    >>> one = Mean(units=400, outcomes=400, mean=0.0, error=0.05)  # a variance of 1 for each unit
    >>> needed_units(one, one, (0.5, 0.5), TestPlan(effect=0.5, alpha=0.05, power=0.8), 0.05)
    (63, 63)
    """
    variance = arm.unit_variance / shares[0] + control.unit_variance / shares[1]
    if not math.isfinite(variance):
        return LEAST_UNITS, LEAST_UNITS
    total = planned_information(plan.effect, alpha, plan.power) * variance
    first, second = (max(math.ceil(total * share), 2) for share in shares)
    return first, second


def sample_ratio_p(units: Sequence[int], shares: Sequence[float]) -> float:
    """Return the probability of so uneven a split if the declared shares were drawn (Pearson's chi-square test).

    >>> sample_ratio_p([5_000, 5_000], [0.5, 0.5]), sample_ratio_p([5_000, 5_500], [0.5, 0.5]) < 0.001
    (1.0, True)
    """
    total = sum(units)
    kept = [(count, share) for count, share in zip(units, shares, strict=True) if share > 0]
    if not total or len(kept) < 2:
        return 1.0
    expected = np.array([share for _, share in kept])
    found = stats.chisquare([count for count, _ in kept], expected / expected.sum() * total)
    return float(found.pvalue)


def contrast(
    name: str,
    arm: Mean,
    control: Mean,
    shares: tuple[float, float],
    plan: TestPlan,
    *,
    comparisons: int = 1,
    sound: bool = True,
) -> Contrast:
    """Hold an arm against the control; alpha is shared evenly among the ``comparisons`` of the test (Bonferroni).

    Where the assignment is not ``sound`` nothing is decided, and neither with fewer units than ``LEAST_UNITS``.
    """
    alpha = plan.alpha / comparisons
    difference, error = arm.mean - control.mean, math.hypot(arm.error, control.error)
    fixed = welch(arm, control, alpha)
    rho = best_rho(planned_information(plan.effect, alpha, plan.power), alpha)
    always = always_valid(difference, error, rho, alpha)
    needed = needed_units(arm, control, shares, plan, alpha)
    enough = sound and min(arm.units, control.units) >= LEAST_UNITS
    reached = arm.units >= needed[0] and control.units >= needed[1] and enough
    return Contrast(
        arm=name,
        difference=difference,
        error=error,
        fixed=fixed,
        always=always,
        needed=needed,
        reached=reached,
        verdict_fixed=_verdict(fixed, plan.metric) if reached else Verdict.UNDECIDED,
        verdict_always=_verdict(always, plan.metric) if enough else Verdict.UNDECIDED,
    )


def unit_of(metric: Metric) -> str:
    """Return a metric in words.

    >>> unit_of(Metric.LOG_LOSS)
    'nats of log loss per outcome'
    """
    words: Mapping[Metric, str] = {
        Metric.LOG_LOSS: "nats of log loss per outcome",
        Metric.VALUE: "value per outcome",
        Metric.LABEL: "share of outcomes with label 1",
    }
    return words[metric]


def _verdict(found: Interval, metric: Metric) -> Verdict:
    if not found.decided:
        return Verdict.UNDECIDED
    higher = found.lower > 0
    if metric is Metric.LABEL:
        return Verdict.HIGHER if higher else Verdict.LOWER
    return Verdict.BETTER if higher is (metric is Metric.VALUE) else Verdict.WORSE


def _interval_json(found: Interval) -> dict[str, Any]:
    return {"p": found.p, "lower": to_json(found.lower), "upper": to_json(found.upper)}


_NOTHING = Interval(p=1.0, lower=-math.inf, upper=math.inf)
