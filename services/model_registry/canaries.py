"""What becomes of a canary: back to the champion, a larger share, or the title. Pure, from a history and evidence to facts.

It ends at once where a predictor reports that its version fails, and where the log of predictions shows beyond doubt
that it does worse than was promised. It grows where a step has lasted long enough in event time, had enough requests,
and kept the promises as far as was seen.

The registry looks once a second, so "beyond doubt" is a bound that holds with probability .999 (Clopper and Pearson,
Biometrika 26, 1934), and a handful of bad requests is none.
"""

from dataclasses import asdict, dataclass

from scipy import stats

from driftline.models.lifecycle import ModelHistory, State
from driftline.models.model_event import Kind, ModelEvent
from driftline.models.trial import Steps, Trial, stepping
from driftline.project import PromotionRule
from services.model_registry.facts import Facts

_DOUBT = 0.001
_LEAST_BAD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryEvidence:
    """What the log of predictions says of a canary's step; times are event times, microseconds since the epoch.

    Attributes
    ----------
    trial, step
        What it is of.
    requests, fallbacks, failed
        Requests assigned to the canary; those that another version answered; those that nobody could answer, which may
        be the requests' fault and count for nothing.
    timed, late
        Answers over HTTP, and those that took longer than was promised.
    champion_timed, champion_late
        The same of the champion's arm, in the same time.
    first_us, last_us
        Instants of the canary's first and last request.
    """

    trial: str
    step: int
    requests: int = 0
    fallbacks: int = 0
    failed: int = 0
    timed: int = 0
    late: int = 0
    champion_timed: int = 0
    champion_late: int = 0
    first_us: int = 0
    last_us: int = 0

    def trouble(self, steps: Steps) -> str:
        """Return what is shown beyond doubt to be worse than was promised; empty where nothing is."""
        if self.fallbacks >= _LEAST_BAD and at_least(self.fallbacks, self.requests) > steps.most_fallbacks:
            return f"others had to answer {self.fallbacks:,} of its {self.requests:,} requests"
        if steps.late_share is not None and self.late >= _LEAST_BAD:
            usual = max(steps.late_share, at_most(self.champion_late, self.champion_timed))
            if at_least(self.late, self.timed) > usual:
                return (
                    f"{self.late:,} of its {self.timed:,} answers were late, of the champion's "
                    f"{self.champion_late:,} of {self.champion_timed:,}"
                )
        return ""

    def holds(self, steps: Steps) -> bool:
        """Whether the step has lasted long enough, and what was promised was kept as far as was seen."""
        if self.requests < steps.least_requests or self.last_us - self.first_us < steps.hold_us:
            return False
        if self.fallbacks > steps.most_fallbacks * self.requests:
            return False
        if steps.late_share is None or not self.timed:
            return True
        usual = self.champion_late / self.champion_timed if self.champion_timed else 0.0
        return self.late <= max(steps.late_share, usual) * self.timed


def judge_canary(
    history: ModelHistory, trial: Trial, evidence: CanaryEvidence | None, rule: PromotionRule, facts: Facts
) -> None:
    """Add the fact that follows for the canary that runs, if any does."""
    report = _failing(history, trial)
    if report is not None:
        facts.add(
            Kind.CANARY_ENDED,
            trial.version,
            report.effective_us,
            f"it fails in service: {report.reason}",
            because=(trial.name,),
            evidence=stepping(trial, trial.step, {}),
            cause_id=report.event_id,
        )
        return
    steps = trial.steps
    if steps is None or evidence is None or (evidence.trial, evidence.step) != (trial.name, trial.step):
        return
    told = stepping(trial, trial.step, {"canary": asdict(evidence), "share": trial.arms[0].share})
    trouble = evidence.trouble(steps)
    if trouble:
        facts.add(
            Kind.CANARY_ENDED,
            trial.version,
            evidence.last_us,
            trouble,
            because=(trial.name,),
            evidence=told,
        )
    elif evidence.holds(steps):
        _grow(history, trial, steps, evidence, rule, facts)


def _grow(
    history: ModelHistory,
    trial: Trial,
    steps: Steps,
    evidence: CanaryEvidence,
    rule: PromotionRule,
    facts: Facts,
) -> None:
    held = f"{evidence.requests:,} requests at {trial.arms[0].share:.2%} went well"
    step = trial.step if trial.last_step else trial.step + 1
    told = stepping(trial, step, {"canary": asdict(evidence)})
    if not trial.last_step:
        facts.add(
            Kind.CANARY_STEPPED,
            trial.version,
            evidence.last_us,
            f"{held}; {steps.shares[step]:.2%} from now on",
            because=(trial.name, str(step)),
            evidence=told,
        )
    elif history.state_of(trial.version) is not State.PENDING:
        kind = Kind.APPROVAL_WANTED if rule.approval else Kind.PROMOTED
        if kind is Kind.APPROVAL_WANTED and history.state_of(trial.version) not in _ASKABLE:
            kind = Kind.PROMOTED  # a person began this canary of a version that was decided on before
        facts.add(
            kind,
            trial.version,
            evidence.last_us,
            f"its canary has come to its end: {held}",
            because=("canary", trial.name),
            evidence=told,
        )


_ASKABLE = frozenset({State.VALIDATED, State.CHALLENGER})


def _failing(history: ModelHistory, trial: Trial) -> ModelEvent | None:
    label = trial.label(trial.arms[0].name)
    reports = (event for event in history.events if event.kind is Kind.FAILING)
    return next((event for event in reports if event.told.get("arm") == label), None)


def at_least(bad: int, of: int) -> float:
    """Return the share that is surely exceeded, with ``bad`` seen among so many.

    >>> round(at_least(20, 500), 4), at_least(0, 500)
    (0.0181, 0.0)
    """
    return float(stats.beta.ppf(_DOUBT, bad, of - bad + 1)) if bad else 0.0


def at_most(bad: int, of: int) -> float:
    """Return the share that is surely not exceeded; 1 where nothing was seen.

    >>> round(at_most(0, 500), 4), at_most(0, 0)
    (0.0137, 1.0)
    """
    return float(stats.beta.ppf(1 - _DOUBT, bad + 1, of - bad)) if bad < of else 1.0
