"""Columns of the three topics: what of a prediction or label the waiting room needs, and outcomes from claims."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.contracts import prediction_fields as fields
from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.project_schemas import outcome_schema
from driftline.features.event_columns import micros
from driftline.models.outcomes import log_losses, squared_errors, values
from driftline.project import LabelRule, ModelDeclaration, Never, Project
from driftline.runtime.errors import BadMessageError
from services.outcome_joiner.waiting_room import HEADER, Claims, Rows

KINDS = ("JOINED", "CORRECTED", "NEVER")
_MEANS = {Never.EXCLUDE: np.nan, Never.NEGATIVE: 0.0, Never.POSITIVE: 1.0}
_NUMBERS = np.dtype([("offset", ">f8"), ("label", ">f8"), ("known", ">f8"), ("horizon", ">f8")])

Ints = NDArray[np.int64]


class OutcomeColumns:
    """Turns decoded batches into rows for the waiting room, and its claims into outcomes."""

    def __init__(self, project: Project) -> None:
        self._models: dict[str, ModelDeclaration] = {one.name: one for one in project.labelled_models}
        self.schema = arrow_schema(outcome_schema(project))

    def prediction_rows(self, table: pa.RecordBatch, values: list[bytes], offsets: Ints) -> Rows:
        """Return the predictions that wait: answered ones of models with labels; ``values`` are their records."""
        models = table.column(fields.MODEL).to_pylist()
        answered = [status == "ANSWERED" for status in table.column(fields.STATUS).to_pylist()]
        taken = np.flatnonzero(
            [good and name in self._models for good, name in zip(answered, models, strict=True)]
        )
        chosen = table.take(pa.array(taken))
        rules = [self._rule(models[row]) for row in taken.tolist()]
        header = np.empty(len(taken), HEADER)
        header["offset"] = offsets[taken]
        header["event_time"] = micros(chosen.column(fields.EVENT_TIME))
        header["horizon"] = [rule.horizon_us for rule in rules]
        heads, size = header.tobytes(), HEADER.itemsize
        return Rows(
            first=chosen.column(fields.REQUEST_ID).to_pylist(),
            second=self._keys(chosen, [models[row] for row in taken.tolist()]),
            third=[heads[at * size : (at + 1) * size] + values[row] for at, row in enumerate(taken.tolist())],
            offsets=offsets[taken],
            event_times=header["event_time"].astype(np.int64),
        )

    def _rule(self, model: str) -> LabelRule:
        rule = self._models[model].label
        assert rule is not None  # noqa: S101  labelled_models have one
        return rule

    def _keys(self, table: pa.RecordBatch, models: list[str]) -> list[str]:
        """Return each prediction's join key, "" where its model has none or the request did not carry it."""
        columns = {
            name: table.column(one.label.key).to_pylist()
            for name, one in self._models.items()
            if one.label is not None and one.label.key is not None
        }
        keys = []
        for row, model in enumerate(models):
            key = columns[model][row] if model in columns else None
            keys.append(f"k:{model}:{key}" if key else "")
        return keys

    def label_rows(
        self, table: pa.RecordBatch, offsets: Ints
    ) -> tuple[Rows, list[tuple[int, BadMessageError]]]:
        """Return the labels, and those that make no sense, by row."""
        bad: list[tuple[int, BadMessageError]] = []
        taken: list[int] = []
        join_ids: list[str] = []
        horizons: list[int] = []
        columns = (table.column(name).to_pylist() for name in ("model", "request_id", "key", "label"))
        for row, (model, request_id, key, label) in enumerate(zip(*columns, strict=True)):
            try:
                join_id, horizon = self._joins(model, request_id, key, label)
            except BadMessageError as error:
                bad.append((row, error))
                continue
            taken.append(row)
            join_ids.append(join_id)
            horizons.append(horizon)
        chosen = table.take(pa.array(taken, pa.int64()))
        numbers = np.empty(len(taken), _NUMBERS)
        numbers["offset"] = offsets[taken]
        numbers["label"] = chosen.column("label").to_numpy(zero_copy_only=False)
        numbers["known"] = micros(chosen.column("known_at"))
        numbers["horizon"] = horizons
        packed, size = numbers.tobytes(), _NUMBERS.itemsize
        rows = Rows(
            first=join_ids,
            second=chosen.column("label_id").to_pylist(),
            third=[packed[at * size : (at + 1) * size] for at in range(len(taken))],
            offsets=offsets[taken],
            event_times=numbers["known"].astype(np.int64),
        )
        return rows, bad

    def _joins(
        self, model: str | None, request_id: str | None, key: str | None, label: float | None
    ) -> tuple[str, int]:
        """Return a label's join id and horizon; raise BadMessageError where it names nothing that could be joined."""
        if label is not None and label not in {0.0, 1.0}:
            raise BadMessageError(f"label is {label:g}; it must be 0, 1 or null", stage="validate")
        if model is None and len(self._models) > 1:
            names = ", ".join(sorted(self._models))
            raise BadMessageError(f"model is missing, and several have labels: {names}", stage="validate")
        declared = self._models.get(model) if model is not None else next(iter(self._models.values()))
        if declared is None or declared.label is None:
            raise BadMessageError(f"no model with labels is named {model!r}", stage="validate")
        if request_id is not None:
            return f"r:{request_id}", declared.label.horizon_us
        if key is None:
            raise BadMessageError("neither request_id nor key says what the label is for", stage="validate")
        if declared.label.key is None:
            raise BadMessageError(
                f"model {declared.name!r} declares no label key, so labels must name request_id",
                stage="validate",
            )
        return f"k:{declared.name}:{key}", declared.label.horizon_us

    def outcomes(self, predictions: pa.RecordBatch, claims: Claims) -> pa.RecordBatch:
        """Return outcomes for claims; ``predictions`` are their records, decoded, in the same order."""
        models = np.asarray(predictions.column(fields.MODEL).to_pylist(), dtype=object)
        labels, previous = claims.label.copy(), claims.previous.copy()
        score = predictions.column(fields.SCORE).to_numpy(zero_copy_only=False).astype(np.float64)
        decisions = predictions.column(fields.DECISION).to_pylist()
        value = np.full(len(labels), np.nan)
        for name, declared in self._models.items():
            rows = np.flatnonzero(models == name)
            meaning = _MEANS[self._rule(name).never]
            for column in (labels, previous):
                column[rows] = np.where(np.isnan(column[rows]), meaning, column[rows])
            value[rows] = values(labels[rows], [decisions[row] for row in rows], declared.value)
        previous[claims.kind != KINDS.index("CORRECTED")] = np.nan
        made = {
            "kind": pa.array(KINDS).take(pa.array(claims.kind)),
            "label": _nullable(labels),
            "previous_label": _nullable(previous),
            "label_id": pa.array(claims.label_ids, pa.string()),
            "label_known_at": pa.array(claims.known_at_us, pa.timestamp("us")),
            "log_loss": _nullable(log_losses(labels, score)),
            "squared_error": _nullable(squared_errors(labels, score)),
            "value": _nullable(value),
        }
        columns = [
            (made[one.name] if one.name in made else predictions.column(one.name)).cast(one.type)
            for one in self.schema
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _nullable(values: NDArray[np.float64]) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))
