"""A few requests of which nothing is unusual, the short way: no array per column, no groups of rows.

A batch is plain where all its rows ask one model that is loaded and tries nothing, and none is wrong in itself; and it
stays so while its features are read and one version scores all rows. ``PredictionEngine`` leaves this way as soon as
it is not: what was read and scored is settled the way of any batch, which gives the same records where both can.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isinf
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.contracts import prediction_fields as fields
from driftline.features import OnStale
from driftline.features.read import STALE, ViewValues
from driftline.models.scoring import Scorer
from driftline.project import InputType, ModelDeclaration, Project
from driftline.runtime.ids import is_uuid
from driftline.serving.outcome import without_nan
from driftline.serving.rack import LoadedModel, ModelRack
from driftline.serving.request_values import FUTURE_US
from driftline.serving.rows import Record

_ANSWERED = fields.STATUSES[0]
_id, _model, _instant = itemgetter(fields.REQUEST_ID), itemgetter(fields.MODEL), itemgetter(fields.EVENT_TIME)


class PlainRows:
    """Knows plain batches, and tells their records."""

    def __init__(self, project: Project, rack: ModelRack) -> None:
        self._rack = rack
        views = project.request_views
        nothing: dict[str, Any] = dict.fromkeys(
            [*(name for view in views for name in view.columns), *(view.age_column for view in views)]
        )
        self._models = {
            name: _Model.of(model, nothing)
            for name, model in project.models.items()
            if model.views and not model.coded_inputs
        }

    def model(self, records: Sequence[Record], now_us: int) -> "PlainModel | None":
        """Return what predicts some requests if they are plain, else None."""
        if not records:
            return None
        name = _model(records[0])
        model, loaded = self._models.get(name), self._rack.get(name)
        if model is None or loaded is None or loaded.split is not None:
            return None
        latest = now_us + FUTURE_US
        for record in records:
            if _model(record) != name or not 0 <= _instant(record) <= latest or not is_uuid(_id(record)):
                return None
            for key in model.keys:
                if record[key] is None:
                    return None
            for number in model.numbers:
                value = record[number]
                if value is not None and isinf(value):
                    return None
        return PlainModel(model, loaded, records)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Model:
    """A model's declaration, worked out once. ``made`` is what answers begin with; ``refusing`` has the places of views."""

    declaration: ModelDeclaration
    keys: tuple[str, ...]
    numbers: tuple[str, ...]
    columns: tuple[str, ...]
    ages: tuple[str, ...]
    refusing: tuple[int, ...]
    place: Mapping[str, int]
    made: Mapping[str, Any]

    @staticmethod
    def of(declaration: ModelDeclaration, nothing: Mapping[str, Any]) -> "_Model":
        views = declaration.views
        columns = tuple(name for view in views for name in view.columns)
        return _Model(
            declaration=declaration,
            keys=declaration.entity_keys,
            numbers=tuple(one.name for one in declaration.inputs if one.type is InputType.DOUBLE),
            columns=columns,
            ages=tuple(view.age_column for view in views),
            refusing=tuple(at for at, view in enumerate(views) if view.on_stale is OnStale.REFUSE),
            place={name: at for at, name in enumerate(columns)},
            made={
                **nothing,
                fields.STATUS: _ANSWERED,
                fields.ERROR: None,
                fields.FEATURE_VIEWS: [view.ref for view in views],
                fields.DEGRADED: None,
                fields.ARM: None,
            },
        )


class PlainModel:
    """Predicts one plain batch; to be asked in the order of its methods."""

    def __init__(self, model: _Model, loaded: LoadedModel, records: Sequence[Record]) -> None:
        self.loaded = loaded
        self._model = model
        self._records = records
        self._read: Sequence[ViewValues] = ()
        self._features: NDArray[np.float64] = np.empty((len(records), 0))

    def stays_plain(self, read: Sequence[ViewValues]) -> bool:
        """Take the values of the model's views; False where one of them is too old to be served."""
        self._read = read
        self._features = read[0].values if len(read) == 1 else np.hstack([one.values for one in read])
        return not any((read[at].status == STALE).any() for at in self._model.refusing)

    def inputs(
        self, scorer: Scorer, at: NDArray[np.intp] | None
    ) -> tuple[NDArray[np.float64], Mapping[str, list[str | None]]]:
        """Return a version's numeric matrix and its categories, for all rows or some."""
        records = self._records if at is None else [self._records[row] for row in at.tolist()]
        features = self._features if at is None else self._features[at]
        manifest, place = scorer.manifest, self._model.place
        numeric = np.empty((len(records), len(manifest.numeric)))
        for column, name in enumerate(manifest.numeric):
            where = place.get(name)
            numeric[:, column] = [record[name] for record in records] if where is None else features[:, where]
        categorical = {name: [record[name] for record in records] for name in manifest.categorical}
        return numeric, categorical

    def records(
        self, version: str, scores: NDArray[np.float64], told: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Return the log's records of rows that ``version`` has answered; ``told`` is the same in all of them."""
        model = self._model
        rule = model.declaration.decision
        made = {**model.made, fields.MODEL_VERSION: version, **told}
        rows = zip(self._records, scores.tolist(), self._features.tolist(), self._ages(), strict=True)
        records = []
        for request, score, values, ages in rows:
            record = {**request, **made}
            record[fields.SCORE] = score
            record[fields.DECISION] = rule.above if score >= rule.threshold else rule.below
            record.update(zip(model.columns, without_nan(values), strict=True))
            record.update(zip(model.ages, ages, strict=True))
            records.append(record)
        return records

    def _ages(self) -> list[tuple[int | None, ...]]:
        """Return each row's ages, in milliseconds."""
        columns = [[None if age < 0 else age // 1_000 for age in view.age_us.tolist()] for view in self._read]
        return list(zip(*columns, strict=True))
