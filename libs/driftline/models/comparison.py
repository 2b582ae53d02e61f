"""Champion against challenger on the same outcomes: is the challenger better, worse, or is it too early to say?

The outcomes of one day hang together (one storm delays them all), so they are no independent evidence. Differences of
log loss are therefore summed by day, and the days are the sample:

- The mean difference per outcome is the ratio of the days' sums, its standard error that of clusters,
  ``sqrt(B / (B - 1) * sum((S_b - mean * n_b)**2)) / sum(n_b)`` over B days, and its quantiles Student's with B - 1
  degrees of freedom: Cameron and Miller, "A Practitioner's Guide to Cluster-Robust Inference", J. Human Resources 50
  (2015), sections II and VI. A difference of losses per period is the test of Diebold and Mariano, "Comparing
  Predictive Accuracy", J. Business & Economic Statistics 13 (1995), with days as periods.
- Looking every day would find "better" by chance sooner or later. So there are few looks, each at a fixed number of
  days, all held to one level that gives the false-promotion rate ``alpha`` for all of them together (Pocock's test;
  Jennison and Turnbull, "Group Sequential Methods", 1999, chapter 2). A look uses exactly its first days, so it says
  the same whenever it is taken.

Days that follow each other are still a little alike, which makes the error rate somewhat larger than stated.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from driftline.contracts.json_values import to_json
from driftline.models.outcomes import log_losses
from driftline.project.life_rules import ComparisonRule
from driftline.runtime.durations import DAY_US


class Decision(StrEnum):
    """What a comparison says."""

    PROMOTE = "promote"
    REJECT = "reject"
    WAIT = "wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Outcomes of one day: how many, and the sums of both models' log losses. ``day`` counts from the epoch, UTC."""

    day: int
    rows: int
    champion_loss: float
    challenger_loss: float

    @property
    def difference(self) -> float:
        """Sum of the challenger's advantage, in nats: positive where it is better."""
        return self.champion_loss - self.challenger_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much better the challenger is, per outcome in nats, with its error over days.

    ``p_better`` is the one-sided probability of such an advantage if it were the margin that was asked for (none, where
    no margin was), ``p_worse`` of such a disadvantage if there were none. ``lower`` and ``upper`` are each one-sided
    bounds at the level that was asked for.
    """

    days: int
    outcomes: int
    champion_log_loss: float
    challenger_log_loss: float
    mean: float
    standard_error: float
    lower: float
    upper: float
    p_better: float
    p_worse: float

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it: what is not finite is null."""
        return {name: to_json(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A decision, its reason in a sentence, what it stands on, and the last day that it used."""

    decision: Decision
    reason: str
    difference: Difference | None = None
    last_day: int | None = None


def paired_blocks(
    as_of_us: NDArray[np.int64],
    labels: NDArray[np.bool_] | NDArray[np.float64],
    champion: NDArray[np.float64],
    challenger: NDArray[np.float64],
) -> list[Block]:
    """Return the days of paired outcomes, ascending: instants, labels (0 or 1) and both models' scores, shape [n]."""
    truth = labels.astype(np.float64)
    return blocks_of(as_of_us // DAY_US, log_losses(truth, champion), log_losses(truth, challenger))


def blocks_of(
    days: NDArray[np.int64],
    champion: NDArray[np.float64],
    challenger: NDArray[np.float64],
    rows: NDArray[np.int64] | None = None,
) -> list[Block]:
    """Sum losses by day. ``rows`` is how many outcomes each entry adds (1, or 0 for a correction)."""
    found, place = np.unique(days, return_inverse=True)
    weights = np.ones(len(days)) if rows is None else rows
    sums = [np.bincount(place, column, len(found)) for column in (weights, champion, challenger)]
    return [
        Block(day=int(day), rows=round(float(n)), champion_loss=float(first), challenger_loss=float(second))
        for day, n, first, second in zip(found, *sums, strict=True)
    ]


def measure(blocks: Sequence[Block], *, level: float = 0.05, margin: float = 0.0) -> Difference:
    """Return the challenger's advantage over these days; with one day alone nothing is sure (infinite error).

    >>> blocks = [Block(day=d, rows=10, champion_loss=5.0, challenger_loss=4.0 + d / 10) for d in range(4)]
    >>> found = measure(blocks)
    >>> round(found.mean, 3), found.outcomes, found.p_better < 0.01
    (0.085, 40, True)
    """
    rows = np.array([block.rows for block in blocks], dtype=np.float64)
    sums = np.array([block.difference for block in blocks])
    total = float(rows.sum())
    if total <= 0:
        raise ValueError("there are no outcomes to compare on")
    mean = float(sums.sum()) / total
    count = len(blocks)
    error = math.inf
    if count > 1:
        error = math.sqrt(count / (count - 1) * float(((sums - mean * rows) ** 2).sum())) / total
    lower, upper = _bounds(mean, error, count - 1, level)
    p_better, _ = _tails(mean - margin, error, count - 1)
    _, p_worse = _tails(mean, error, count - 1)
    return Difference(
        days=count,
        outcomes=round(total),
        champion_log_loss=sum(block.champion_loss for block in blocks) / total,
        challenger_log_loss=sum(block.challenger_loss for block in blocks) / total,
        mean=mean,
        standard_error=error,
        lower=lower,
        upper=upper,
        p_better=p_better,
        p_worse=p_worse,
    )


def compare(
    blocks: Sequence[Block],
    rule: ComparisonRule,
    *,
    first_day: int | None = None,
    closed_day: int | None = None,
) -> Comparison:
    """Decide from the days that are closed, ascending. Days after the deciding look change nothing.

    Promote where the advantage is significantly more than the margin at a look, reject where the disadvantage is
    significant, or where the last look has found no such advantage. Otherwise wait, but not beyond the rule's limit.

    Parameters
    ----------
    first_day
        The day on which the comparison began, from which the limit counts; None: there is no limit.
    closed_day
        The newest day that is closed, with outcomes or without.
    """
    end = None if first_day is None else first_day + rule.longest_days
    blocks = [block for block in blocks if end is None or block.day < end]
    for number, look in enumerate(rule.looks, 1):
        if len(blocks) < look:
            break
        taken = blocks[:look]
        last = number == len(rule.looks)
        outcomes = sum(block.rows for block in taken)
        if outcomes < max(rule.least_outcomes, 1):
            if last:
                reason = (
                    f"only {outcomes:,} paired outcomes in {look} days, {rule.least_outcomes:,} are needed"
                )
                return Comparison(decision=Decision.REJECT, reason=reason, last_day=taken[-1].day)
            continue
        level = look_level(rule.looks, rule.alpha)
        found = measure(taken, level=level, margin=rule.margin)
        decision = _decision(found, level, last=last)
        if decision is not Decision.WAIT:
            reason = _explained(found, decision, rule.margin)
            return Comparison(decision=decision, reason=reason, difference=found, last_day=taken[-1].day)
    if end is not None and closed_day is not None and closed_day >= end - 1:
        reason = f"not decided within {rule.longest_days} days: only {len(blocks)} of them have outcomes"
        return Comparison(decision=Decision.REJECT, reason=reason, last_day=end - 1)
    return Comparison(
        decision=Decision.WAIT,
        reason=f"{len(blocks)} days are closed, the next look is after {_next_look(len(blocks), rule)}",
        difference=measure(blocks, margin=rule.margin) if sum(block.rows for block in blocks) > 0 else None,
    )


@cache
def look_level(looks: tuple[int, ...], alpha: float) -> float:
    """Return the one-sided level of each look at which all of them together err with probability ``alpha``.

    The sums of days are taken as normal with independent increments, and the density of the sum that has passed no
    look yet is carried from look to look (Armitage, McPherson and Rowe, J. Royal Statistical Society A 132, 1969).
    Jennison and Turnbull, table 2.1, have 2.067 standard errors for four looks and .05, which is a level of .0193.

    >>> round(look_level((7, 14, 21, 28), 0.05), 4)
    0.0193
    >>> round(look_level((28,), 0.05), 4)
    0.05
    """

    def too_much(reach: float) -> float:
        return _crossing(looks, reach) - alpha

    return float(stats.norm.sf(optimize.brentq(too_much, 0.5, 6.0, xtol=1e-6)))


def _crossing(looks: Sequence[int], reach: float, points: int = 201) -> float:
    """Return the probability that a driftless sum passes ``reach`` of its standard errors at any of the looks."""
    before, passed = 0, 0.0
    grid, mass = np.zeros(1), np.ones(1)
    for look in looks:
        step, top = math.sqrt(look - before), reach * math.sqrt(look)
        passed += float((mass * stats.norm.sf(top - grid, scale=step)).sum())
        ahead = np.linspace(-8 * math.sqrt(look), top, points)
        weights = np.full(points, ahead[1] - ahead[0])
        weights[[0, -1]] /= 2
        density = stats.norm.pdf(ahead[:, None] - grid[None, :], scale=step) @ mass
        grid, mass, before = ahead, density * weights, look
    return passed


def _decision(found: Difference, level: float, *, last: bool) -> Decision:
    if found.p_better < level:
        return Decision.PROMOTE
    if last or found.p_worse < level:
        return Decision.REJECT
    return Decision.WAIT


def _explained(found: Difference, decision: Decision, margin: float) -> str:
    sizes = (
        f"log loss {found.challenger_log_loss:.4f} against the champion's {found.champion_log_loss:.4f} on "
        f"{found.outcomes:,} paired outcomes of {found.days} days"
    )
    if decision is Decision.PROMOTE:
        return f"better: {sizes} (p {found.p_better:.2g})"
    if found.p_worse < found.p_better and found.mean < 0:
        return f"worse: {sizes} (p {found.p_worse:.2g})"
    least = f" by more than {margin:g}" if margin else ""
    return f"not shown to be better{least}: {sizes} (p {found.p_better:.2g})"


def _next_look(days: int, rule: ComparisonRule) -> int:
    return next((look for look in rule.looks if look > days), rule.looks[-1])


def _bounds(mean: float, error: float, freedom: int, level: float) -> tuple[float, float]:
    """Return the lower and the upper bound of a mean, each one-sided."""
    if freedom < 1:
        return -math.inf, math.inf
    reach = float(stats.t.ppf(1 - level, freedom)) * error
    return mean - reach, mean + reach


def _tails(mean: float, error: float, freedom: int) -> tuple[float, float]:
    """Return the probabilities of a mean at least as high, and at least as low, if the true one is zero."""
    if freedom < 1:
        return 1.0, 1.0
    if error == 0:
        return float(mean <= 0), float(mean >= 0)
    ratio = mean / error
    return float(stats.t.sf(ratio, freedom)), float(stats.t.cdf(ratio, freedom))
