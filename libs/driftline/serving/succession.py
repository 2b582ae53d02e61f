"""Scores from the first version of a line that can give them: the champion, and where it fails those before it.

1. Versions are asked in turn, each for the rows that have no score yet. One whose breaker is open is passed over.
2. Where that leaves rows without a score, those passed over are asked after all: there is nothing to lose.
3. A row that another than the first version has answered says so, and why; so does one that nobody could answer.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from driftline.models.scoring import Scorer
from driftline.runtime import metrics
from driftline.runtime.logging import get_logger
from driftline.runtime.metrics import GatheringHistogram
from driftline.serving.breaker import Breaker
from driftline.serving.time_limit import CallTimeoutError

_log = get_logger(__name__)

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]
_NO_ROWS: Rows = np.empty(0, np.intp)
#: So few scores are looked at sooner one by one than all at once.
_FEW_SCORES = 16
#: A model's numeric matrix and its categories as it knows them, for some of the rows (None: all of them).
Inputs = Callable[[Scorer, Rows | None], tuple[Floats, Mapping[str, Sequence[str | None]]]]


class _FailedCallError(Exception):
    """A version gave no scores; the text says why."""


class _ShapeError(ValueError):
    """A model gave something else than one score for each row."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServedVersion:
    """A version that is loaded and warmed up. ``sha256`` is its manifest's."""

    scorer: Scorer
    sha256: str
    breaker: Breaker

    @property
    def version(self) -> str:
        """The version's name."""
        return self.scorer.manifest.version

    @property
    def ref(self) -> str:
        """The model with the version."""
        return self.scorer.manifest.ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A breaker that opened (``failing``) or closed. ``answered_by`` is who answered instead; None: nobody."""

    version: str
    failing: bool
    reason: str
    answered_by: str | None = None


@dataclass(slots=True, eq=False)
class Share:
    """Rows (None: all) that a version answered with scores; ``note`` says why it was not the first that did.

    Without a version nobody could answer them, and the note is the reason.
    """

    rows: Rows | None
    version: ServedVersion | None
    scores: Floats
    note: str


@dataclass(slots=True)
class _Progress:
    left: Rows | None = None
    reasons: list[str] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    opened: list[Change] = field(default_factory=list)

    def ask(self, version: ServedVersion, inputs: Inputs, count: int) -> None:
        """Ask a version for what is left, and keep what it gave."""
        rows = count if self.left is None else len(self.left)
        try:
            scores, good = _call(version, inputs, self.left, rows, self)
        except _FailedCallError as failure:
            self.reasons.append(str(failure))
            return
        if good is None:
            self._answered(self.left, version, scores)
            self.left = _NO_ROWS
            return
        if good.any():
            left = np.arange(count) if self.left is None else self.left
            self._answered(left[good], version, scores[good])
            self.left = left[~good]
        self.reasons.append(f"{version.ref} gave a score that is no number")

    def _answered(self, rows: Rows | None, version: ServedVersion, scores: Floats) -> None:
        note = "; ".join([*self.reasons, f"{version.ref} answered"]) if self.reasons else ""
        self.shares.append(Share(rows, version, scores, note))
        if not self.opened:
            return
        for one in [one for one in self.opened if one.version != version.version]:
            self.opened.remove(one)
            self.changes.append(replace(one, answered_by=version.version))

    @property
    def done(self) -> bool:
        return self.left is not None and not len(self.left)


def score_in_turn(
    line: Sequence[ServedVersion], inputs: Inputs, count: int, *, unusable: str = ""
) -> tuple[list[Share], list[Change]]:
    """Return who answered which of ``count`` rows, and what became of breakers.

    Parameters
    ----------
    line
        Versions in the order in which they are asked; at least one.
    unusable
        Why the version that should be first is not in the line.
    """
    progress = _Progress(reasons=[unusable] if unusable else [])
    passed = []
    for version in line:  # 1.
        if version.breaker.allows():
            progress.ask(version, inputs, count)
            if progress.done:
                return progress.shares, progress.changes + progress.opened
        else:
            passed.append(version)
            why = f"its breaker is {version.breaker.state} ({version.breaker.why})"
            progress.reasons.append(f"{version.ref} is not asked: {why}")
    for version in passed:  # 2.
        if not progress.done:
            progress.ask(version, inputs, count)
    if not progress.done:
        rows = count if progress.left is None else len(progress.left)
        progress.shares.append(Share(progress.left, None, np.full(rows, np.nan), "; ".join(progress.reasons)))
    return progress.shares, progress.changes + progress.opened


def _call(
    version: ServedVersion, inputs: Inputs, at: Rows | None, rows: int, progress: _Progress
) -> tuple[Floats, NDArray[np.bool_] | None]:
    """Return a version's scores and which of them are numbers (None: all); count the call."""
    scorer, rule = version.scorer, version.breaker.rule
    numeric, categorical = inputs(scorer, at)
    begun = time.perf_counter()
    try:
        scores = scorer.score(numeric, categorical)
        if scores.shape != (rows,):
            raise _ShapeError(f"it gave scores of shape {scores.shape} for {rows:,} rows")
    except Exception as error:  # ONNX Runtime raises bare exceptions of a dozen private types
        _log.error("the model failed", model=version.ref, error=str(error))
        _count_failure(version, _kind(error), str(error), progress)
        raise _FailedCallError(f"{version.ref} failed: {error}") from error
    seconds = time.perf_counter() - begun
    _timer(scorer.manifest.model).note(seconds)
    good = None if _all_numbers(scores) else np.isfinite(scores)
    bad = 0 if good is None else rows - int(good.sum())
    if bad and bad >= rule.failure_share * rows:
        _count_failure(version, "no_number", f"{bad:,} of {rows:,} scores are no numbers", progress)
    elif seconds * 1e6 > rule.timeout_us:  # its answer is here, so it stands
        _count_failure(version, "timeout", str(CallTimeoutError(rule.timeout_us / 1e6)), progress)
    elif version.breaker.succeeded():
        reason = f"{version.ref} answers again"
        progress.changes.append(Change(version=version.version, failing=False, reason=reason))
    return scores, good


def _all_numbers(scores: Floats) -> bool:
    if len(scores) <= _FEW_SCORES:
        return all(map(isfinite, scores.tolist()))
    return bool(np.isfinite(scores).all())


@cache
def _timer(model: str) -> GatheringHistogram:
    """Return what times a model's calls; finding it by its label costs more than a note."""
    return metrics.SCORE_SECONDS.labels(model)


def _count_failure(version: ServedVersion, kind: str, text: str, progress: _Progress) -> None:
    metrics.MODEL_FAILURES.labels(version.scorer.manifest.model, kind).inc()
    if version.breaker.failed(text):
        progress.opened.append(Change(version=version.version, failing=True, reason=text))


def _kind(error: Exception) -> str:
    if isinstance(error, CallTimeoutError):
        return "timeout"
    return "shape" if isinstance(error, _ShapeError) else "exception"
