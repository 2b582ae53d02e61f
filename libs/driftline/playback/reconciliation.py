"""Do the books balance? What was acknowledged, what the topics hold and what the services counted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.request import urlopen

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from driftline.playback.journal import Journal
from driftline.playback.sending import Sent
from driftline.runtime import metrics

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCounts:
    """What the services say about themselves in their metrics, summed over their instances."""

    accepted: int
    applied: int
    duplicates: int
    dead_letters: int
    predictions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Both sides of the books, and every difference in words: none where they balance."""

    acknowledged: int
    applied: int
    duplicates: int
    dead_letters: int
    requests: int
    predictions: int
    differences: tuple[str, ...]


def read_service_counts(urls: Iterable[str]) -> ServiceCounts:
    """Read the counters of running services from their ``/metrics``."""
    totals: Counter[str] = Counter()
    for url in urls:
        with urlopen(f"{url}/metrics", timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - our own service
            for family in text_string_to_metric_families(response.read().decode()):
                for sample in family.samples:
                    if sample.name == f"{family.name}_total":
                        totals[family.name] += int(sample.value)
    return ServiceCounts(
        accepted=totals[_name(metrics.EVENTS_ACCEPTED)],
        applied=totals[_name(metrics.EVENTS_APPLIED)],
        duplicates=totals[_name(metrics.EVENTS_DUPLICATE)],
        dead_letters=totals[_name(metrics.DEAD_LETTERS)],
        predictions=totals[_name(metrics.PREDICTIONS)],
    )


def subtract(after: ServiceCounts, before: ServiceCounts) -> ServiceCounts:
    """Return what was counted between two readings."""
    return ServiceCounts(
        accepted=after.accepted - before.accepted,
        applied=after.applied - before.applied,
        duplicates=after.duplicates - before.duplicates,
        dead_letters=after.dead_letters - before.dead_letters,
        predictions=after.predictions - before.predictions,
    )


def reconcile(journal: Journal, sent: Sent, requested: Sequence[str], counted: ServiceCounts) -> Counts:
    """Compare the player's ledger, the topics and the services' counters, to the last message."""
    messages = sum(events.messages for events in journal.events.values())
    applied = sum(len(events.applied) for events in journal.events.values())
    duplicates = sum(events.duplicates for events in journal.events.values())
    dead = len(journal.dead_letters)
    differences = []

    def compare(what: str, left: int, right: int) -> None:
        if left != right:
            differences.append(f"{what}: {left:,} against {right:,}")

    # A list that was sent again may lie on the topic twice without our knowing; the topic is the truth then.
    if not sent.acknowledged <= messages <= sent.acknowledged + sent.resent:
        differences.append(
            f"acknowledged to the player, on the topics: {sent.acknowledged:,} against {messages:,}"
        )
    compare("acknowledged, applied + duplicates + dead letters", messages, applied + duplicates + dead)
    compare("applied by the topics, by the feature store's counter", applied, counted.applied)
    compare("duplicates by the topics, by the feature store's counter", duplicates, counted.duplicates)
    compare("dead letters on their topic, by the services' counters", dead, counted.dead_letters)
    differences += _compare_dead_letters(journal, sent)
    differences += _compare_requests(journal, requested)
    compare(
        "predictions in the log, by the predictor's counter", len(journal.predictions), counted.predictions
    )
    return Counts(
        acknowledged=messages,
        applied=applied,
        duplicates=duplicates,
        dead_letters=dead,
        requests=len(requested),
        predictions=len(journal.predictions),
        differences=tuple(differences),
    )


def _compare_dead_letters(journal: Journal, sent: Sent) -> list[str]:
    """Return in words how the dead letters differ from the messages that were damaged on purpose."""
    found = []
    strange = sorted(journal.dead_letters.keys() - sent.damaged)
    if strange:
        first = strange[0]
        place = "/".join(str(part) for part in first)
        found.append(
            f"{len(strange):,} dead letters were not sent damaged, first {place}: {journal.dead_letters[first]}"
        )
    missing = sorted(sent.damaged - journal.dead_letters.keys())
    if missing:
        place = "/".join(str(part) for part in missing[0])
        found.append(f"{len(missing):,} damaged messages are no dead letters, first {place}")
    return found


def _compare_requests(journal: Journal, requested: Sequence[str]) -> list[str]:
    """Return in words how the log differs from exactly one prediction per request."""
    logged: Mapping[str, int] = Counter(journal.predictions["request_id"].to_pylist())
    asked = set(requested)
    missing = [request for request in requested if request not in logged]
    twice = [request for request, times in logged.items() if times > 1]
    strange = [request for request in logged if request not in asked]
    found = [
        f"{len(requests):,} {what}, first {requests[0]}"
        for what, requests in (
            ("requests have no prediction", missing),
            ("requests have more than one prediction", twice),
            ("predictions answer no request", strange),
        )
        if requests
    ]
    if journal.undecodable_predictions:
        found.append(f"{journal.undecodable_predictions:,} predictions cannot be decoded")
    return found


def _name(metric: MetricWrapperBase) -> str:
    return next(iter(metric.describe())).name
