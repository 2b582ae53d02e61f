"""Trials of versions on live traffic, as model events tell them: a canary that grows by steps, or an A/B test.

The fact that begins a trial holds all that it runs by, so a project file that changes meanwhile changes nothing in it.
A model has one trial at a time; its name is another each time, and is what the log's ``arm`` begins with.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from driftline.contracts.prediction_fields import arm_label
from driftline.models.model_event import Kind, ModelEvent
from driftline.project.declaration import ServiceLevelRule
from driftline.project.life_rules import CanaryRule

CHAMPION, CANARY = "champion", "canary"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")
_ROUNDING = 1e-9


class TrialKind(StrEnum):
    """What a trial is for."""

    CANARY = "canary"
    AB = "A/B test"


class Metric(StrEnum):
    """What an A/B test is judged by, per outcome."""

    LOG_LOSS = "log_loss"
    VALUE = "value"
    LABEL = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialArm:
    """A version under trial and the share of the requests that it answers."""

    name: str
    version: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How a canary grows.

    Attributes
    ----------
    shares
        Its share in each step, ascending.
    hold_us
        Event time that each step lasts at least.
    least_requests
        Requests that it must have been assigned in each step at least.
    most_fallbacks
        Share of its requests that another version may have answered.
    latency_us, late_share
        What the model promises of its answers over HTTP: at most this share takes longer; None: nothing is promised.
    """

    shares: tuple[float, ...]
    hold_us: int
    least_requests: int
    most_fallbacks: float
    latency_us: int | None = None
    late_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestPlan:
    """What an A/B test is to find, fixed before it begins.

    Attributes
    ----------
    metric
        What it is judged by.
    effect
        The smallest difference per outcome that matters, in the metric's unit.
    alpha
        Probability of naming a winner where there is no difference, over all comparisons together.
    power
        Probability of finding a difference of ``effect`` with the planned sample.
    """

    metric: Metric = Metric.LOG_LOSS
    effect: float = 0.01
    alpha: float = 0.05
    power: float = 0.8

    __test__ = False  # no test of pytest's

    def __post_init__(self) -> None:
        if not (self.effect > 0 and 0 < self.alpha < 1 and 0 < self.power < 1):
            raise ValueError("an effect is more than 0, alpha and power are probabilities between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A trial and where it stands.

    Attributes
    ----------
    sticky
        The entity whose requests all go to one arm; empty: each request is assigned by its own id.
    control
        The arm that the champion answers.
    began_us, since_us, until_us
        Event time from which it runs, its last step holds, and at which it ended (None: it runs).
    began_at_us, since_at_us
        When the facts of its beginning and of its last step were written.
    ended
        Why it ended; empty while it runs.
    """

    kind: TrialKind
    name: str
    arms: tuple[TrialArm, ...]
    sticky: str = ""
    control: str = CHAMPION
    steps: Steps | None = None
    plan: TestPlan | None = None
    step: int = 0
    began_us: int = 0
    since_us: int = 0
    until_us: int | None = None
    began_at_us: int = 0
    since_at_us: int = 0
    ended: str = ""

    def __post_init__(self) -> None:
        names = [self.name, self.control, *(one.name for one in self.arms)]
        bad = [name for name in names if not _NAME.fullmatch(name)]
        if bad:
            raise ValueError(f"{bad[0]!r} is no name: write letters, digits and . _ : - alone")
        if not self.arms or len(set(names[1:])) < len(names[1:]):
            raise ValueError("a trial needs arms with names of their own")
        if len({one.version for one in self.arms}) < len(self.arms):
            raise ValueError("each arm needs a version of its own")
        shares = self.steps.shares if self.steps is not None else ()
        total = math.fsum(one.share for one in self.arms)
        if not all(0 < share <= 1 for share in (*shares, *(one.share for one in self.arms))) or (
            total > 1 + _ROUNDING
        ):
            raise ValueError("shares must be more than 0, and add up to 1 at most")
        if self.kind is TrialKind.AB and total > 1 - _ROUNDING:
            raise ValueError("the champion needs a share too, or there is nothing to compare with")
        if list(shares) != sorted(set(shares)):
            raise ValueError("a canary's shares must grow from step to step")

    @property
    def version(self) -> str:
        """The version of the first arm; of a canary the only one."""
        return self.arms[0].version

    @property
    def versions(self) -> frozenset[str]:
        """The versions under trial."""
        return frozenset(one.version for one in self.arms)

    @property
    def last_step(self) -> bool:
        """Whether a canary has grown as far as it is to."""
        return self.steps is None or self.step + 1 >= len(self.steps.shares)

    def label(self, arm: str) -> str:
        """Return an arm as the log names it."""
        return arm_label(self.name, arm)

    def evidence(self) -> dict[str, Any]:
        """Return what the fact that begins it holds."""
        plan = None if self.plan is None else {**asdict(self.plan), "metric": self.plan.metric.value}
        told = {
            "kind": self.kind.value,
            "name": self.name,
            "arms": [asdict(one) for one in self.arms],
            "sticky": self.sticky,
            "control": self.control,
            "steps": None if self.steps is None else asdict(self.steps),
            "plan": plan,
        }
        return {"trial": told}

    def stepped(self, event: ModelEvent) -> "Trial":
        """Return the canary with its next share."""
        if self.steps is None or self.last_step:
            raise ValueError(f"trial {self.name!r} has no further step")
        step = self.step + 1
        arm = replace(self.arms[0], share=self.steps.shares[step])
        return replace(self, step=step, arms=(arm,), since_us=event.effective_us, since_at_us=event.at_us)

    def over(self, event: ModelEvent, why: str) -> "Trial":
        """Return the trial, ended."""
        return replace(self, until_us=event.effective_us, ended=why or event.reason or event.kind.value)


def trial_of(event: ModelEvent) -> Trial:
    """Return the trial that an event's evidence holds, as it begins; ValueError where it holds none."""
    try:
        told = event.told["trial"]
        steps = told["steps"]
        plan = told["plan"]
        return Trial(
            kind=TrialKind(told["kind"]),
            name=told["name"],
            arms=tuple(TrialArm(**one) for one in told["arms"]),
            sticky=told["sticky"],
            control=told["control"],
            steps=None if steps is None else Steps(**{**steps, "shares": tuple(steps["shares"])}),
            plan=None if plan is None else TestPlan(**{**plan, "metric": Metric(plan["metric"])}),
            began_us=event.effective_us,
            since_us=event.effective_us,
            began_at_us=event.at_us,
            since_at_us=event.at_us,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"its evidence holds no trial ({error!r})") from error


def canary(version: str, name: str, steps: Steps, sticky: str = "") -> Trial:
    """Return a canary of a version at its first step.

    >>> steps = Steps(shares=(0.05, 0.5), hold_us=1, least_requests=1, most_fallbacks=0.01)
    >>> canary("2", "canary-2", steps).arms
    (TrialArm(name='canary', version='2', share=0.05),)
    """
    arm = TrialArm(name=CANARY, version=version, share=steps.shares[0])
    return Trial(kind=TrialKind.CANARY, name=name, arms=(arm,), sticky=sticky, steps=steps)


def steps_of(rule: CanaryRule, levels: ServiceLevelRule | None) -> Steps:
    """Return how a canary grows by a project's rule, held to what the model promises its callers."""
    return Steps(
        shares=rule.shares,
        hold_us=rule.hold_us,
        least_requests=rule.least_requests,
        most_fallbacks=rule.most_fallbacks,
        latency_us=None if levels is None else levels.latency_us,
        late_share=None if levels is None else 1 - levels.latency_share,
    )


def free_name(wanted: str, trials: Iterable[Trial]) -> str:
    """Return a name that no trial of the model has had: as wanted, else with a number.

    >>> free_name("canary-2", []), free_name("canary-2", [canary("2", "canary-2", Steps(shares=(1.0,), hold_us=1,
    ...     least_requests=1, most_fallbacks=0.01))])
    ('canary-2', 'canary-2.2')
    """
    taken = {one.name for one in trials}
    names = (wanted if number == 1 else f"{wanted}.{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def stepping(trial: Trial, step: int, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the fact of a canary's step or end holds; ``more`` is what it stands on."""
    return {"trial_name": trial.name, "step": step, **more}


def names_trial(event: ModelEvent) -> tuple[str, int]:
    """Return the trial and the step that a later fact names; empty and 0 where it names none."""
    told = event.told
    step = told.get("step", 0)
    return str(told.get("trial_name", "")), step if isinstance(step, int) else 0


def trial_json(trial: Trial) -> str:
    """Return the evidence of a command that asks for a trial."""
    return json.dumps(trial.evidence())


#: The facts and the commands of each kind of trial.
STARTED: Mapping[Kind, TrialKind] = {Kind.CANARY_STARTED: TrialKind.CANARY, Kind.AB_STARTED: TrialKind.AB}
ENDED: Mapping[Kind, TrialKind] = {Kind.CANARY_ENDED: TrialKind.CANARY, Kind.AB_ENDED: TrialKind.AB}
