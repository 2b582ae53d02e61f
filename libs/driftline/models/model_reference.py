"""What a model version looked like when it was validated: the reference that its drift is measured against.

One reference for all of the held-out rows, one for each large enough segment of them, and thresholds calibrated on the
whole. A bundle carries it as ``reference.json.gz``.
"""

from __future__ import annotations

import functools
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from driftline.models.outcomes import decisions_of, values
from driftline.monitoring.calibration import calibrate
from driftline.monitoring.checks import Check, evaluate
from driftline.monitoring.levels import Level
from driftline.monitoring.profile import Profile
from driftline.monitoring.reference import Reference, build_reference
from driftline.monitoring.thresholds import Judgement, Override, Thresholds, judge
from driftline.project.declaration import ModelDeclaration

REFERENCE_FILE = "reference.json.gz"
#: The segment of all rows.
EVERYTHING = ""
#: Rows that samples keep: of the whole, and of a segment (too few for KS and Wasserstein, which it goes without).
SAMPLE_ROWS, SEGMENT_SAMPLE_ROWS = 256, 16
_SEGMENT_REFERENCE_SAMPLE = 200
#: A segment with fewer rows in the reference is not looked at: its own bins would be noise.
_LEAST_SEGMENT_ROWS = 300
_SIZES = (50, 200, 1_000, 5_000, 25_000)
_REPLICATES = 2_000
_SAMPLED = frozenset({Check.KS, Check.WASSERSTEIN})


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelReference:
    """References by segment (``origin=JFK``; "" is everything), and the whole's thresholds."""

    references: Mapping[str, Reference]
    thresholds: Thresholds
    #: Which version of a code list an input's categories are of; the first where it is not there.
    codes: Mapping[str, int] = field(default_factory=dict)

    @property
    def whole(self) -> Reference:
        """The reference of everything."""
        return self.references[EVERYTHING]

    def judge(self, segment: str, profile: Profile, overrides: Sequence[Override] = ()) -> list[Judgement]:
        """Hold a window of a segment against its reference.

        The false-alarm rates of the thresholds are for all segments of a window together: each threshold is moved out
        by the tail's own slope (a rate k times smaller lies ``log10(k)`` times the distance from the warning to the
        alert threshold further out, where those rates differ tenfold and the tail is exponential). A small segment's
        reference is itself a sample: with m reference and n window rows, statistics of both vary like a window of
        n m / (n + m) rows against a fixed reference.
        """
        reference = self.references[segment]
        measurements = evaluate(reference, profile)
        rows = profile.rows
        if segment != EVERYTHING:
            measurements = [one for one in measurements if one.check not in _SAMPLED]
            rows = max(1, round(rows * reference.rows / (rows + reference.rows)))
        return judge(measurements, self._family, overrides, rows=rows)

    @functools.cached_property
    def _family(self) -> Thresholds:
        warning, alert = self.thresholds.values[Level.WARNING], self.thresholds.values[Level.ALERT]
        decades = math.log(self.thresholds.rates[Level.WARNING] / self.thresholds.rates[Level.ALERT])
        step = np.where(np.isfinite(alert), (alert - warning) / decades, 0.0)
        further = step * math.log(len(self.references))
        return replace(
            self.thresholds, values={Level.WARNING: warning + further, Level.ALERT: alert + further}
        )

    def to_bytes(self) -> bytes:
        """Return it as compressed JSON; the same reference gives the same bytes."""
        content = {
            "references": {name: one.as_json() for name, one in self.references.items()},
            "thresholds": self.thresholds.as_json(),
            **({"codes": dict(self.codes)} if self.codes else {}),
        }
        return gzip.compress(json.dumps(content, separators=(",", ":")).encode(), mtime=0)

    @classmethod
    def from_bytes(cls, data: bytes) -> ModelReference:
        """Return the reference that was written."""
        content = json.loads(gzip.decompress(data))
        return cls(
            references={name: Reference.from_json(one) for name, one in content["references"].items()},
            thresholds=Thresholds.from_json(content["thresholds"]),
            codes=content.get("codes", {}),
        )


def load_model_reference(bundle: Path) -> ModelReference | None:
    """Return the reference in a bundle's folder; None where it was trained without one."""
    path = bundle / REFERENCE_FILE
    return ModelReference.from_bytes(path.read_bytes()) if path.is_file() else None


class ModelReferences:
    """The references of model versions, read from their bundles once."""

    def __init__(self, models: Path) -> None:
        self._models = models
        self._found: dict[tuple[str, str], ModelReference] = {}

    def find(self, model: str, version: str) -> ModelReference | None:
        """Return a version's reference; None while (or where) its bundle has none."""
        if (model, version) not in self._found:
            found = load_model_reference(self._models / model / version)
            if found is None:
                return None
            self._found[model, version] = found
        return self._found[model, version]


def build_model_reference(
    model: ModelDeclaration,
    numeric: NDArray[np.floating],
    categorical: Mapping[str, Sequence[str | None]],
    scores: NDArray[np.float64],
    labels: NDArray[np.bool_],
) -> ModelReference:
    """Build it from held-out rows: ``numeric`` is [n, K] in the order of ``model.numeric_columns``."""
    columns = {name: numeric[:, at].astype(np.float64) for at, name in enumerate(model.numeric_columns)}
    worth = values(labels.astype(np.float64), decisions_of(scores, model.decision).tolist(), model.value)

    def reference(rows: NDArray[np.intp], sample_rows: int) -> Reference:
        return build_reference(
            {name: column[rows] for name, column in columns.items()},
            {name: [texts[row] for row in rows] for name, texts in categorical.items()},
            scores[rows],
            labels[rows],
            value=worth[rows] if model.value else None,
            decision_threshold=model.decision.threshold,
            sample_rows=sample_rows,
        )

    references = {EVERYTHING: reference(np.arange(len(scores)), 2_000)}
    for name in model.segments:
        texts = np.array(["" if text is None else text for text in categorical[name]], dtype=object)
        found, counts = np.unique(texts, return_counts=True)
        for value in found[counts >= _LEAST_SEGMENT_ROWS].tolist():
            rows = np.flatnonzero(texts == value)
            references[f"{name}={value}"] = reference(rows, _SEGMENT_REFERENCE_SAMPLE)
    thresholds = calibrate(references[EVERYTHING], _SIZES, sample_rows=SAMPLE_ROWS, replicates=_REPLICATES)
    codes = {one.field: one.codes.reads for one in model.coded_inputs}
    return ModelReference(references=references, thresholds=thresholds, codes=codes)
