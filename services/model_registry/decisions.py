"""What the registry decides: pure functions from a model's history and its evidence to the next facts.

Every fact's id is made from what causes it, so deciding again gives the same facts, which count once.
"""

from dataclasses import dataclass
from typing import Any

from driftline.models.bundle import BundleManifest
from driftline.models.comparison import Comparison, Decision
from driftline.models.lifecycle import ModelHistory, State
from driftline.models.model_event import Kind, ModelEvent
from driftline.models.shadow import Pair
from driftline.models.trial import TrialKind, canary, free_name, steps_of
from driftline.project import CanaryRule, PromotionRule, ServiceLevelRule
from driftline.runtime.clock import text_us
from services.model_registry.canaries import CanaryEvidence, judge_canary
from services.model_registry.facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a comparison says of a pair, and the instant from which that can be known."""

    pair: Pair
    comparison: Comparison
    known_us: int


def adopt(history: ModelHistory, manifest: BundleManifest, at_us: int, *, sha256: str) -> list[ModelEvent]:
    """Return the facts for a version that a person trained and activated with ``driftline train``.

    ``sha256`` is its manifest's: a replay holds the bundle to it for as long as the facts are kept.
    """
    if history.state_of(manifest.version) is not None:
        return []
    facts = Facts(history, at_us)
    until = text_us(manifest.training.end)
    reason = "trained and activated by a person (`driftline train`)"
    metrics = {name: found.model_dump(mode="json") for name, found in manifest.metrics.items()}
    views = {"views": list(manifest.views), "deprecated": list(manifest.deprecated)}
    evidence = {"sha256": sha256, "metrics": metrics, **views}
    for kind in (Kind.REGISTERED, Kind.VALIDATED, Kind.PROMOTED):
        facts.add(
            kind, manifest.version, until, reason, because=("adopted",), evidence=evidence, until_us=until
        )
    return facts.made


def pairs_of(history: ModelHistory, rule: PromotionRule) -> list[Pair]:
    """Return what is to be compared: the challenger with the champion, the champion with the one before it."""
    champion = history.serving
    if champion is None:
        return []
    pairs = []
    if history.challenger is not None:
        start = max(_until(history, champion), _until(history, history.challenger))
        pairs.append(
            Pair(model=history.model, champion=champion, challenger=history.challenger, start_us=start)
        )
    if rule.watch and history.previous is not None:
        since = history.last_change_us or 0
        start = max(_until(history, champion), _until(history, history.previous), since)
        pairs.append(
            Pair(model=history.model, champion=champion, challenger=history.previous, start_us=start)
        )
    return pairs


def decide(
    history: ModelHistory,
    verdicts: list[Verdict],
    rule: PromotionRule,
    at_us: int,
    *,
    levels: ServiceLevelRule | None = None,
    evidence: CanaryEvidence | None = None,
) -> list[ModelEvent]:
    """Return the facts that follow from a history and its evidence; at most one of them changes the champion.

    ``levels`` is what the model promises its callers, ``evidence`` what was seen of the canary that runs.
    """
    facts = Facts(history, at_us)
    _retire_older_challengers(history, facts)
    if history.champion is None:
        _first_champion(history, rule, facts)
        return facts.made
    if history.withdrawal is not None:
        _successor(history, facts)
        return facts.made
    if history.trial is not None and history.trial.kind is TrialKind.CANARY:
        judge_canary(history, history.trial, evidence, rule, facts)
    for verdict in verdicts:
        if verdict.pair.champion != history.champion:
            continue
        if verdict.pair.challenger == history.challenger:
            _judge_challenger(verdict, rule, levels, facts)
        elif verdict.pair.challenger == history.previous and not _changes(facts):
            _judge_champion(verdict, facts)
    return facts.made


def _retire_older_challengers(history: ModelHistory, facts: Facts) -> None:
    *older, newest = history.in_state(State.CHALLENGER) or [""]
    tried = frozenset() if history.trial is None else history.trial.versions
    for version in (one for one in older if one not in tried):
        life = history.versions[newest]
        reason = f"the newer challenger {newest} takes its place"
        facts.add(Kind.RETIRED, version, life.since_us, reason, because=(newest,))


def _first_champion(history: ModelHistory, rule: PromotionRule, facts: Facts) -> None:
    found = history.in_state(State.VALIDATED)
    if not found or history.pending is not None:
        return
    version = found[-1]
    since = history.versions[version].since_us
    kind = Kind.APPROVAL_WANTED if rule.approval else Kind.PROMOTED
    facts.add(kind, version, since, "it passed its gates, and there is no champion yet", because=("first",))


def _successor(history: ModelHistory, facts: Facts) -> None:
    """Ask a person for a model that is out of service: whoever took it out decides what serves next."""
    found = [*history.in_state(State.VALIDATED), *history.in_state(State.CHALLENGER)]
    if found and history.pending is None:
        version = max(found, key=lambda one: history.versions[one].since_us)
        since = history.versions[version].since_us
        reason = "it passed its gates, and the model is out of service"
        facts.add(Kind.APPROVAL_WANTED, version, since, reason, because=("withdrawn",))


def _judge_challenger(
    verdict: Verdict, rule: PromotionRule, levels: ServiceLevelRule | None, facts: Facts
) -> None:
    """Decide on a challenger; while a trial runs, nothing but a challenger that is worse in its own canary."""
    pair, comparison, trial = verdict.pair, verdict.comparison, facts.history.trial
    if comparison.decision is Decision.WAIT or _changes(facts):
        return
    worse = comparison.decision is Decision.REJECT
    if trial is not None and not (
        worse and trial.kind is TrialKind.CANARY and trial.version == pair.challenger
    ):
        return
    if rule.canary is not None and not worse:
        _begin_canary(verdict, rule.canary, levels, facts)
        return
    kind = Kind.REJECTED
    if comparison.decision is Decision.PROMOTE:
        kind = Kind.APPROVAL_WANTED if rule.approval else Kind.PROMOTED
    facts.add(
        kind,
        pair.challenger,
        verdict.known_us,
        comparison.reason,
        because=("compared to", pair.champion, str(pair.start_us)),
        evidence=_evidence(verdict),
    )


def _begin_canary(verdict: Verdict, rule: CanaryRule, levels: ServiceLevelRule | None, facts: Facts) -> None:
    pair, history = verdict.pair, facts.history
    name = free_name(f"canary-{pair.challenger}", history.trials)
    trial = canary(pair.challenger, name, steps_of(rule, levels), rule.sticky)
    facts.add(
        Kind.CANARY_STARTED,
        pair.challenger,
        verdict.known_us,
        verdict.comparison.reason,
        because=("compared to", pair.champion, str(pair.start_us), history.reigns[-1].event_id),
        evidence={**_evidence(verdict), **trial.evidence()},
    )


def _judge_champion(verdict: Verdict, facts: Facts) -> None:
    """Roll back where the former champion is shown to be the better one."""
    pair, comparison = verdict.pair, verdict.comparison
    if comparison.decision is not Decision.PROMOTE:
        return
    reason = f"the former champion {pair.challenger} is {comparison.reason}"
    because = ("compared to", pair.challenger, str(pair.start_us))
    facts.add(
        Kind.ROLLED_BACK,
        pair.champion,
        verdict.known_us,
        reason,
        because=because,
        evidence=_evidence(verdict),
    )


def _changes(facts: Facts) -> bool:
    return any(one.kind in {Kind.PROMOTED, Kind.ROLLED_BACK, Kind.PULLED} for one in facts.made)


def _evidence(verdict: Verdict) -> dict[str, Any]:
    found = verdict.comparison.difference
    return {
        "champion": verdict.pair.champion,
        "challenger": verdict.pair.challenger,
        "last_day": verdict.comparison.last_day,
        "difference": None if found is None else found.as_json(),
    }


def _until(history: ModelHistory, version: str) -> int:
    return history.versions[version].data_until_us or 0
