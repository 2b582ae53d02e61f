"""A long play, month by month: what the loop did, and what it was worth beside two that have no loop.

Three models answer the same requests and are held to the same outcomes: the first version, which never changes; whatever
was champion when a request was served, by its log; and a plain monthly retrain on all data so far (``monthly``).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.features.event_columns import micros
from driftline.models.bundle import load_bundle
from driftline.models.fitting import midnight_us
from driftline.models.model_event import Kind
from driftline.models.outcomes import log_losses
from driftline.models.retraining import Cause, RetrainRequest, request
from driftline.models.scoring import Scorer
from driftline.models.shadow import score_logged
from driftline.playback.monthly import monthly_schedule, plain_scores
from driftline.playback.season import Chronicle, versions, with_label
from driftline.project import ModelDeclaration, Project

#: Facts that say no to a version.
REFUSALS = frozenset({Kind.REJECTED, Kind.DATA_REFUSED, Kind.TRAINING_FAILED})
RIVALS = ("static", "served", "plain")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLosses:
    """Mean log loss of the three on the same outcomes; None where one of them has not answered."""

    static: float | None
    served: float | None
    plain: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """One month: outcomes by the month of their request, what the loop did by the month in which it holds."""

    month: str
    outcomes: int
    positive_share: float | None
    log_loss: LogLosses
    signals: Mapping[str, int]
    retrains: Mapping[str, int]
    refusals: int
    promotions: int
    roll_backs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A version that a person had trained on part of the data, and the facts of its life."""

    version: str
    learnt_from: str
    learnt_until: str
    facts: list[dict[str, Any]]

    @property
    def end(self) -> dict[str, Any] | None:
        """The fact that decided it; None where nothing did."""
        decisive = {*REFUSALS, Kind.PROMOTED, Kind.RETIRED}
        return next((fact for fact in reversed(self.facts) if fact["kind"] in decisive), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Year:
    """Everything that a long play found out; times are days and instants of event time, UTC."""

    project: str
    model: str
    first_version: str
    candidate: str
    trained_from: str
    start: str
    end: str
    step_minutes: int
    predictions: int
    outcomes: Mapping[str, int]
    months: list[Month]
    overall: LogLosses
    versions: list[dict[str, Any]]
    signals: list[dict[str, Any]]
    alerts: Mapping[str, int]
    retrains: list[dict[str, Any]]
    models: list[dict[str, Any]]
    offers: list[Offer]
    unclosed_windows: int
    seconds: Mapping[str, float]

    def with_seconds(self, what: str, seconds: float) -> "Year":
        """Return the same with how long something more took."""
        return replace(self, seconds={**self.seconds, what: seconds})

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``summary.json``."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write ``summary.json``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_dict(), indent=2) + "\n")


def three_months_before(model: ModelDeclaration, offer: date) -> RetrainRequest:
    """Return the request of a person who wants a model of the three whole months before a day."""
    month = offer.year * 12 + offer.month - 1 - 3
    begin = date(month // 12, month % 12 + 1, 1)
    return request(
        Cause.PERSON,
        f"the months {begin} to {offer}",
        model.name,
        f"a person wants a model of {begin:%d %B} to {offer:%d %B} alone",
        midnight_us(offer),
        by="year",
        at_us=midnight_us(offer),
        data_from_us=midnight_us(begin),
    )


def tell_year(
    project: Project,
    model: ModelDeclaration,
    models: Path,
    chronicle: Chronicle,
    *,
    first_version: str,
    trained_from: date,
    start: date,
    end: date,
    step_minutes: int,
    offers: Sequence[RetrainRequest],
    seconds: Mapping[str, float],
    progress: Callable[[str], None] = lambda _: None,
) -> Year:
    """Hold the three beside each other, and order by months what the loop did."""
    first = load_bundle(models / model.name / first_version)
    labelled = with_label(chronicle.outcomes)
    labels = labelled["label"].to_numpy()
    progress("scoring with the first version")
    losses = {
        "static": log_losses(labels, score_logged(Scorer(first, model.coded_inputs), labelled)),
        "served": labelled["log_loss"].to_numpy(),
        "plain": log_losses(
            labels,
            plain_scores(
                project,
                model,
                labelled,
                monthly_schedule(start, end),
                candidate=first.manifest.candidate,
                since=trained_from,
                progress=progress,
            ),
        ),
    }
    signals = [_signal(one) for one in chronicle.signals]
    # That a person trained the first version is no deed of the loop.
    facts = [one for one in chronicle.models if one["version"] != first_version or one["kind"] != "PROMOTED"]
    return Year(
        project=project.name,
        model=model.name,
        first_version=first_version,
        candidate=first.manifest.candidate,
        trained_from=trained_from.isoformat(),
        start=start.isoformat(),
        end=end.isoformat(),
        step_minutes=step_minutes,
        predictions=chronicle.requested,
        outcomes=dict(Counter(chronicle.outcomes["kind"].to_pylist())),
        months=months(micros(labelled["event_time"]), labels, losses, signals, chronicle.retrains, facts),
        overall=_means(losses, np.ones(len(labels), np.bool_)),
        versions=versions(model, chronicle.outcomes, models, first_version),
        signals=signals,
        alerts=chronicle.alert_counts,
        retrains=chronicle.retrains,
        models=facts,
        offers=[_offer(one, facts) for one in offers],
        unclosed_windows=chronicle.unclosed_windows,
        seconds={**seconds, "play": chronicle.seconds, **_waited(chronicle)},
    )


def months(
    asked_us: NDArray[np.int64],
    labels: Floats,
    losses: Mapping[str, Floats],
    signals: Iterable[Mapping[str, Any]],
    retrains: Iterable[Mapping[str, Any]],
    facts: Iterable[Mapping[str, Any]],
) -> list[Month]:
    """Order by months: losses by the request's, signals, retrains and facts by the instant from which they hold."""
    month = asked_us.astype("datetime64[us]").astype("datetime64[M]").astype(str)
    signalled = _by_month((one["at"], _where(one)) for one in signals)
    asked_for = _by_month((one["data_until"], one["cause"]) for one in retrains)
    happened = _by_month((one["at"], one["kind"]) for one in facts)
    found = []
    for name in sorted({*month.tolist(), *signalled, *asked_for, *happened}):
        chosen = month == name
        kinds = happened.get(name, Counter())
        found.append(
            Month(
                month=name,
                outcomes=int(chosen.sum()),
                positive_share=float(labels[chosen].mean()) if chosen.any() else None,
                log_loss=_means(losses, chosen),
                signals=dict(sorted(signalled.get(name, Counter()).items())),
                retrains=dict(sorted(asked_for.get(name, Counter()).items())),
                refusals=sum(kinds[kind] for kind in REFUSALS),
                promotions=kinds[Kind.PROMOTED],
                roll_backs=kinds[Kind.ROLLED_BACK],
            )
        )
    return found


def _where(signal: Mapping[str, Any]) -> str:
    level = str(signal["level"])
    return f"{level} in a part" if signal["segment"] else level


def _by_month(found: Iterable[tuple[str, str]]) -> dict[str, Counter[str]]:
    by_month: dict[str, Counter[str]] = {}
    for at, what in found:
        by_month.setdefault(f"{datetime.fromisoformat(at):%Y-%m}", Counter())[what] += 1
    return by_month


def _means(losses: Mapping[str, Floats], chosen: NDArray[np.bool_]) -> LogLosses:
    return LogLosses(**{name: _mean(losses[name][chosen]) for name in RIVALS})


def _mean(found: Floats) -> float | None:
    return float(found.mean()) if len(found) and np.isfinite(found).all() else None


def _signal(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "at": record["window_end"].isoformat(),
        "level": record["level"],
        "segment": record["segment"],
        "version": record["model_version"],
        "check": record["check"],
        "explanation": record["explanation"],
    }


def _offer(made: RetrainRequest, facts: Iterable[Mapping[str, Any]]) -> Offer:
    return Offer(
        version=made.version,
        learnt_from=_day(made.data_from_us or 0),
        learnt_until=_day(made.data_until_us),
        facts=[dict(one) for one in facts if one["version"] == made.version],
    )


def _day(us: int) -> str:
    return str(np.datetime64(us, "us").astype("datetime64[D]"))


def _waited(chronicle: Chronicle) -> dict[str, float]:
    return {f"of play: waiting for {name}": seconds for name, seconds in chronicle.waited.items()}
