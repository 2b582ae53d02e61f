"""Batches of predictions and outcomes as profiles, one per model, version, window and segment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.contracts import prediction_fields as fields
from driftline.features.code_lists import read_codes
from driftline.features.event_columns import micros
from driftline.models.model_reference import (
    EVERYTHING,
    SAMPLE_ROWS,
    SEGMENT_SAMPLE_ROWS,
    ModelReference,
)
from driftline.monitoring.arrow_columns import numeric_values
from driftline.monitoring.outcome_profile import OutcomeProfile
from driftline.monitoring.profile import Profile
from driftline.project import ModelDeclaration

PREDICTIONS, OUTCOMES = "PREDICTIONS", "OUTCOMES"
#: A baseline never says that something is certain.
_CLIP = 1e-3

AnyProfile = Profile | OutcomeProfile


class Key(NamedTuple):
    """What a profile is of. ``window`` is its begin, in microseconds."""

    model: str
    version: str
    kind: str
    segment: str
    window: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of one model version: the table and which of its rows are in which window."""

    table: pa.RecordBatch
    windows: NDArray[np.int64]


def profiled_predictions(
    table: pa.RecordBatch, model: ModelDeclaration, version: str, reference: ModelReference
) -> Iterator[tuple[Key, Profile]]:
    """Yield profiles of answered predictions of one model version."""
    table = _spoken(table, model, reference)
    windows = _windows(micros(table.column(fields.EVENT_TIME)), model.monitor.window_us)
    whole = reference.whole
    columns = {name: numeric_values(table.column(name)) for name in whole.numeric_names}
    texts = {name: table.column(name) for name in whole.category_names}
    score = numeric_values(table.column(fields.SCORE))
    for segment, window, rows in _parts(table, model, windows, reference.references):
        taken = pa.array(rows)
        yield (
            Key(model.name, version, PREDICTIONS, segment, window),
            Profile.of(
                reference.references[segment],
                table.column(fields.REQUEST_ID).take(taken),
                {name: column[rows] for name, column in columns.items()},
                {name: column.take(taken) for name, column in texts.items()},
                score[rows],
                sample_rows=SAMPLE_ROWS if segment == EVERYTHING else SEGMENT_SAMPLE_ROWS,
            ),
        )


def profiled_outcomes(
    table: pa.RecordBatch, model: ModelDeclaration, version: str, reference: ModelReference
) -> Iterator[tuple[Key, OutcomeProfile]]:
    """Yield profiles of outcomes of one model version: those that have a label, each prediction once.

    A correction belongs to a prediction that was counted in an earlier window, so it is left out: accuracy is what was
    known when the window closed.
    """
    kinds = table.column("kind").to_pylist()
    labels = numeric_values(table.column("label"))
    counted = np.array([kind != "CORRECTED" for kind in kinds]) & ~np.isnan(labels)
    table, labels = _spoken(table.filter(pa.array(counted)), model, reference), labels[counted]
    windows = _windows(micros(table.column("label_known_at")), model.monitor.window_us)
    score = numeric_values(table.column(fields.SCORE))
    value = numeric_values(table.column("value"))
    baselines = {}
    if model.baseline is not None:
        baselines["moving_average"] = np.clip(numeric_values(table.column(model.baseline)), _CLIP, 1 - _CLIP)
    for segment, window, rows in _parts(table, model, windows, reference.references):
        yield (
            Key(model.name, version, OUTCOMES, segment, window),
            OutcomeProfile.of(
                labels[rows] == 1,
                score[rows],
                decision_threshold=model.decision.threshold,
                value=value[rows] if model.value else None,
                baselines={name: column[rows] for name, column in baselines.items()},
            ),
        )


def by_version(table: pa.RecordBatch) -> Iterator[tuple[str, str, pa.RecordBatch]]:
    """Yield (model, version, its rows) of a batch; rows that no version scored are left out."""
    scored = table.filter(pc.is_valid(table.column(fields.SCORE)))
    if not scored.num_rows:
        return
    models = scored.column(fields.MODEL).to_pylist()
    versions = scored.column(fields.MODEL_VERSION).to_pylist()
    pairs = list(zip(models, versions, strict=True))
    for model, version in dict.fromkeys(pairs):
        mine = [pair == (model, version) for pair in pairs]
        yield model, version, scored if all(mine) else scored.filter(pa.array(mine))


def _spoken(table: pa.RecordBatch, model: ModelDeclaration, reference: ModelReference) -> pa.RecordBatch:
    """Return rows with the codes of their inputs in the versions that the reference knows."""
    if not model.coded_inputs:
        return table
    times_us = micros(table.column(fields.EVENT_TIME))
    return read_codes(table, times_us, model.coded_inputs, reference.codes)[0]


def _windows(times_us: NDArray[np.int64], width_us: int) -> NDArray[np.int64]:
    return times_us // width_us * width_us


def _parts(
    table: pa.RecordBatch,
    model: ModelDeclaration,
    windows: NDArray[np.int64],
    segments: Mapping[str, object],
) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
    """Yield (segment, window, its rows) for everything and for each value of each declared segment."""
    for window in np.unique(windows).tolist():
        inside = np.flatnonzero(windows == window)
        yield EVERYTHING, window, inside
        for name in model.segments:
            encoded = table.column(name).take(pa.array(inside)).dictionary_encode()
            codes = encoded.indices.fill_null(-1).to_numpy()
            values: Sequence[str] = encoded.dictionary.to_pylist()
            for code, value in enumerate(values):
                if f"{name}={value}" in segments:
                    yield f"{name}={value}", window, inside[codes == code]
