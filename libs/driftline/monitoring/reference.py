"""What a model's training or validation data looked like: built once per model version, compared with ever after."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.monitoring.accuracy import Accuracy, exact_auc
from driftline.monitoring.outcome_profile import OutcomeProfile
from driftline.monitoring.probability_map import ProbabilityMap
from driftline.monitoring.reference_arrays import ReferenceArrays
from driftline.monitoring.reference_columns import CategoryColumn, NumericColumn
from driftline.runtime.errors import ConfigurationError

Floats = NDArray[np.float64]

VERSION = 1
#: The score's name where it stands among the numeric columns.
SCORE = "score"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Reference:
    """The reference of one model version.

    Attributes
    ----------
    numeric, categorical, score
        The columns.
    confidence, confidence_std
        Mean and standard deviation of ``|2 * score - 1|``.
    expected_loss, expected_loss_std
        Mean and standard deviation per row of the log loss that ``probability`` expects, in nats.
    probability
        From score to probability, fitted on the labels; the identity without labels.
    quality
        How well the scores fit the labels (exact AUC); None without labels.
    sample
        Shape (rows, numeric columns + score): a random sample of rows, NaN where a value is missing.
    """

    rows: int
    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoryColumn, ...]
    score: NumericColumn
    confidence: float
    confidence_std: float
    expected_loss: float
    expected_loss_std: float
    probability: ProbabilityMap
    quality: Accuracy | None
    sample: Floats

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that name this reference; profiles carry them."""
        canonical = json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]

    @cached_property
    def arrays(self) -> ReferenceArrays:
        """The columns side by side, made once, for vectorised comparison."""
        return ReferenceArrays.of(self.numeric, self.score, self.categorical, self.sample)

    @property
    def numeric_names(self) -> tuple[str, ...]:
        """The numeric columns' names, without the score."""
        return tuple(column.name for column in self.numeric)

    @property
    def category_names(self) -> tuple[str, ...]:
        """The category columns' names."""
        return tuple(column.name for column in self.categorical)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values (the sample as base64 of little-endian float64, row by row)."""
        return {
            "version": VERSION,
            "rows": self.rows,
            "numeric": [asdict(column) for column in self.numeric],
            "categorical": [asdict(column) for column in self.categorical],
            "score": asdict(self.score),
            "confidence": [self.confidence, self.confidence_std],
            "expected_loss": [self.expected_loss, self.expected_loss_std],
            "probability": asdict(self.probability),
            "quality": self.quality.as_json() if self.quality else None,
            "sample": base64.b64encode(self.sample.astype("<f8").tobytes()).decode(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reference:
        """Return the reference of JSON values.

        Raises
        ------
        ConfigurationError
            Where another release wrote it.
        """
        if value.get("version") != VERSION:
            raise ConfigurationError(
                f"a reference of version {value.get('version')}; this release reads {VERSION}: train the model again"
            )
        columns = len(value["numeric"]) + 1
        sample = np.frombuffer(base64.b64decode(value["sample"]), "<f8").reshape(-1, columns)
        probability = value["probability"]
        return cls(
            rows=value["rows"],
            numeric=tuple(_numeric(column) for column in value["numeric"]),
            categorical=tuple(_category(column) for column in value["categorical"]),
            score=_numeric(value["score"]),
            confidence=value["confidence"][0],
            confidence_std=value["confidence"][1],
            expected_loss=value["expected_loss"][0],
            expected_loss_std=value["expected_loss"][1],
            probability=ProbabilityMap(
                log_odds=tuple(probability["log_odds"]),
                corrections=tuple(probability["corrections"]),
                slope=probability["slope"],
            ),
            quality=Accuracy.from_json(value["quality"]) if value["quality"] else None,
            sample=sample.astype(np.float64),
        )


def build_reference(
    numeric: Mapping[str, NDArray[Any]],
    categorical: Mapping[str, Sequence[str | None]],
    score: NDArray[Any],
    labels: NDArray[Any] | None,
    *,
    value: NDArray[Any] | None = None,
    decision_threshold: float = 0.5,
    bins: int = 10,
    categories_kept: int = 50,
    sample_rows: int = 2000,
    seed: int = 0,
) -> Reference:
    """Describe a model's training or validation rows.

    Parameters
    ----------
    numeric, categorical
        The columns by name, all of one length. NaN, infinity and None are missing.
    score
        The model's probability for each row, 0 to 1.
    labels
        Whether the event happened; None where it is not known (then there is no quality).
    value
        The business value of each row's decision, in the project's unit; needs labels.
    decision_threshold
        Scores at or above it decide yes.

    Raises
    ------
    ConfigurationError
        Where columns differ in length, hold nothing, share a name, or scores are no probabilities.
    """
    columns = {name: np.asarray(column, dtype=np.float64) for name, column in numeric.items()}
    scores = np.asarray(score, dtype=np.float64)
    _check(columns, categorical, scores, labels)
    certainty = np.abs(2 * scores - 1)
    truths = None if labels is None else np.asarray(labels).astype(bool)
    probability = ProbabilityMap() if truths is None else ProbabilityMap.fitted(truths, scores)
    expected = probability.expected_log_loss(scores)
    return Reference(
        rows=len(scores),
        numeric=tuple(NumericColumn.of(name, column, bins) for name, column in columns.items()),
        categorical=tuple(
            CategoryColumn.of(name, column, categories_kept) for name, column in categorical.items()
        ),
        score=NumericColumn.of(SCORE, scores, bins),
        confidence=float(certainty.mean()),
        confidence_std=float(certainty.std()),
        expected_loss=float(expected.mean()),
        expected_loss_std=float(expected.std()),
        probability=probability,
        quality=None if truths is None else _quality(truths, scores, value, decision_threshold),
        sample=_sample([*columns.values(), scores], sample_rows, seed),
    )


def _check(
    numeric: Mapping[str, Floats],
    categorical: Mapping[str, Sequence[str | None]],
    scores: Floats,
    labels: NDArray[Any] | None,
) -> None:
    if not len(scores):
        raise ConfigurationError("a reference needs rows: there is no score at all")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ConfigurationError("a reference's scores must be probabilities from 0 to 1, none missing")
    lengths = {name: len(column) for name, column in numeric.items()}
    lengths |= {name: len(column) for name, column in categorical.items()}
    if labels is not None:
        lengths["labels"] = len(labels)
    for name, length in lengths.items():
        if length != len(scores):
            raise ConfigurationError(f"reference column {name!r} has {length} rows, the scores {len(scores)}")
    if SCORE in lengths:
        raise ConfigurationError(f"{SCORE!r} is the prediction's own field: rename the column")
    shared = sorted(numeric.keys() & categorical.keys())
    if shared:
        raise ConfigurationError(f"a column is numeric or a category, not both: {', '.join(shared)}")


def _quality(
    labels: NDArray[np.bool_], scores: Floats, value: NDArray[Any] | None, decision_threshold: float
) -> Accuracy:
    values = None if value is None else np.asarray(value, dtype=np.float64)
    profile = OutcomeProfile.of(labels, scores, decision_threshold=decision_threshold, value=values)
    return profile.accuracy(auc=exact_auc(labels, scores))


def _sample(columns: list[Floats], rows: int, seed: int) -> Floats:
    length = len(columns[0])
    chosen = np.sort(np.random.default_rng(seed).choice(length, min(rows, length), replace=False))
    sample = np.stack([column[chosen] for column in columns], axis=1)
    sample[~np.isfinite(sample)] = np.nan
    return sample


def _numeric(value: Mapping[str, Any]) -> NumericColumn:
    return NumericColumn(**{**value, "edges": tuple(value["edges"]), "counts": tuple(value["counts"])})


def _category(value: Mapping[str, Any]) -> CategoryColumn:
    sequences = {name: tuple(value[name]) for name in ("kept", "counts", "others")}
    return CategoryColumn(**{**value, **sequences})
