"""The one scoring path: HTTP, stream and batch all come through `PredictionEngine.predict`."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.contracts import prediction_fields as fields
from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.project_schemas import prediction_schema
from driftline.features import FeatureView, OnStale
from driftline.features.read import FRESH, MISSING, STALE, ViewValues
from driftline.project import InputType, Project
from driftline.runtime import metrics
from driftline.runtime.clock import Clock, SystemClock
from driftline.runtime.errors import ConfigurationError
from driftline.runtime.logging import get_logger
from driftline.serving.rack import LoadedModel, ModelRack

_log = get_logger(__name__)

ANSWERED, REFUSED, FAILED = fields.STATUSES
_UUID = r"^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$"
#: How far ahead of now the instant of a request may lie.
_FUTURE_US = 86_400_000_000
_STATUS_NAMES = {FRESH: "fresh", STALE: "stale", MISSING: "missing"}
_NO_AGE = -1


@dataclass(slots=True)
class _Rows:
    """What becomes of a batch, column by column; filled in group by group."""

    count: int
    status: list[str] = field(init=False)
    error: list[str | None] = field(init=False)
    version: list[str | None] = field(init=False)
    decision: list[str | None] = field(init=False)
    views_read: list[list[str]] = field(init=False)
    score: NDArray[np.float64] = field(init=False)
    open: NDArray[np.bool_] = field(init=False)
    features: dict[str, NDArray[np.float64]] = field(init=False, default_factory=dict)
    ages: dict[str, NDArray[np.int64]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        nothing: list[str | None] = [None] * self.count
        self.status = [ANSWERED] * self.count
        self.error, self.version, self.decision = nothing, nothing.copy(), nothing.copy()
        self.views_read = [[] for _ in range(self.count)]
        self.score = np.full(self.count, np.nan)
        self.open = np.ones(self.count, np.bool_)

    def close(self, rows: NDArray[np.intp], status: str, error: str) -> None:
        """Settle rows that get no score."""
        self.open[rows] = False
        for row in rows.tolist():
            self.status[row], self.error[row] = status, error


class PredictionEngine:
    """Turns requests into predictions, a batch at a time: every request row gives exactly one prediction row."""

    def __init__(
        self, project: Project, store: OnlineStore, rack: ModelRack, clock: Clock | None = None
    ) -> None:
        self._project = project
        self._store = store
        self._rack = rack
        self._clock = clock or SystemClock()
        self.schema = arrow_schema(prediction_schema(project))
        self._passed_on = (
            *(fields.REQUEST_ID, fields.MODEL, fields.REQUESTED_AT, fields.EVENT_TIME, fields.CALLER),
            *project.request_entities,
            *(one.name for one in project.request_inputs),
        )

    def predict(self, requests: pa.RecordBatch, channel: str) -> pa.RecordBatch:
        """Score a batch of requests.

        Parameters
        ----------
        requests
            Columns of the project's request schema.
        channel
            HTTP, TOPIC or BATCH.

        Returns
        -------
        pa.RecordBatch
            Columns of the project's prediction schema, rows in the requests' order. Bad requests are REFUSED,
            what went wrong here is FAILED, each with its error.

        Raises
        ------
        UnavailableError
            Where the online store cannot be reached.
        """
        begun = time.perf_counter_ns()
        rows = _Rows(requests.num_rows)
        names = requests.column(fields.MODEL).to_pylist()
        as_of_us = requests.column(fields.EVENT_TIME).cast(pa.int64()).to_numpy(zero_copy_only=False)
        self._refuse_bad(requests, as_of_us, rows)
        array = np.array(names, dtype=object)
        for name in dict.fromkeys(names):
            members = np.flatnonzero(rows.open & (array == name))
            if len(members):
                self._predict_group(name, members, requests, as_of_us, rows)
        table = self._assemble(requests, rows, channel, (time.perf_counter_ns() - begun) // 1_000)
        for (name, status), number in Counter(zip(names, rows.status, strict=True)).items():
            label = name if name in self._project.models else "unknown"
            metrics.PREDICTIONS.labels(label, channel, status).inc(number)
        return table

    def failed(self, requests: pa.RecordBatch, channel: str, error: str) -> pa.RecordBatch:
        """Return predictions that say FAILED for requests that could not be tried."""
        return self._settled(requests, channel, FAILED, error)

    def refused(self, requests: pa.RecordBatch, channel: str, error: str) -> pa.RecordBatch:
        """Return predictions that say REFUSED for requests that are wrong in themselves."""
        return self._settled(requests, channel, REFUSED, error)

    def _settled(self, requests: pa.RecordBatch, channel: str, status: str, error: str) -> pa.RecordBatch:
        rows = _Rows(requests.num_rows)
        rows.close(np.arange(requests.num_rows), status, error)
        return self._assemble(requests, rows, channel, 0)

    def _refuse_bad(self, requests: pa.RecordBatch, as_of_us: NDArray[np.int64], rows: _Rows) -> None:
        valid = pc.match_substring_regex(requests.column(fields.REQUEST_ID), _UUID).to_numpy(
            zero_copy_only=False
        )
        rows.close(np.flatnonzero(~valid), REFUSED, "request_id is no UUID")
        latest = self._clock.now_us() + _FUTURE_US
        absurd = (as_of_us < 0) | (as_of_us > latest)
        rows.close(
            np.flatnonzero(absurd & rows.open),
            REFUSED,
            "event_time lies before 1970 or more than a day ahead",
        )

    def _predict_group(
        self,
        name: str,
        members: NDArray[np.intp],
        requests: pa.RecordBatch,
        as_of_us: NDArray[np.int64],
        rows: _Rows,
    ) -> None:
        """Score the rows of one model."""
        declaration = self._project.models.get(name)
        if declaration is None:
            known = ", ".join(sorted(self._project.models)) or "none"
            rows.close(members, REFUSED, f"no model is named {name!r}; known are: {known}")
            return
        loaded = self._rack.get(name)
        if loaded is None:
            rows.close(members, FAILED, self._rack.missing.get(name, "the model is not loaded"))
            return
        for entity in declaration.entities:
            absent = requests.column(entity.name).is_null().to_numpy(zero_copy_only=False)[members]
            rows.close(members[absent], REFUSED, f"entity {entity.name!r} is missing")
        members = members[rows.open[members]]
        if not len(members):
            return
        taken = requests if len(members) == requests.num_rows else requests.take(pa.array(members))
        try:
            read = self._read(loaded, taken, as_of_us[members])
        except ConfigurationError as error:
            rows.close(members, FAILED, str(error))
            return
        self._keep_features(loaded, members, read, rows)
        going = rows.open[members]
        if going.any():
            self._score(loaded, members, going, taken, rows)

    def _read(
        self, loaded: LoadedModel, taken: pa.RecordBatch, as_of_us: NDArray[np.int64]
    ) -> list[ViewValues]:
        keys = {entity.name: taken.column(entity.name).to_pylist() for entity in loaded.declaration.entities}
        with metrics.STEP_SECONDS.labels("features").time():
            return self._store.read(
                [(view, keys[view.entity.name]) for view in loaded.declaration.views], as_of_us
            )

    def _keep_features(
        self, loaded: LoadedModel, members: NDArray[np.intp], read: list[ViewValues], rows: _Rows
    ) -> None:
        refs = [view.ref for view in loaded.declaration.views]
        for row in members.tolist():
            rows.views_read[row] = refs
            rows.version[row] = loaded.version
        for view, values in zip(loaded.declaration.views, read, strict=True):
            for position, column in enumerate(view.columns):
                target = rows.features.setdefault(column, np.full(rows.count, np.nan))
                target[members] = values.values[:, position]
            ages = rows.ages.setdefault(view.age_column, np.full(rows.count, _NO_AGE, np.int64))
            ages[members] = np.where(values.age_us < 0, _NO_AGE, values.age_us // 1_000)
            for status, number in zip(*np.unique(values.status, return_counts=True), strict=True):
                metrics.FEATURES_SERVED.labels(view.ref, _STATUS_NAMES[int(status)]).inc(int(number))
            if view.on_stale is OnStale.REFUSE:
                stale = members[(values.status == STALE) & rows.open[members]]
                rows.close(stale, REFUSED, f"feature view {view.ref} is stale (older than {view.ttl})")

    def _score(
        self,
        loaded: LoadedModel,
        members: NDArray[np.intp],
        going: NDArray[np.bool_],
        taken: pa.RecordBatch,
        rows: _Rows,
    ) -> None:
        manifest = loaded.scorer.manifest
        numeric = np.empty((len(members), len(manifest.numeric)))
        for position, column in enumerate(manifest.numeric):
            if column in rows.features:
                numeric[:, position] = rows.features[column][members]
            else:
                numeric[:, position] = taken.column(column).to_numpy(zero_copy_only=False)
        categorical = {name: taken.column(name).to_pylist() for name in manifest.categorical}
        if not going.all():
            numeric = numeric[going]
            chosen = np.flatnonzero(going).tolist()
            categorical = {name: [values[row] for row in chosen] for name, values in categorical.items()}
            members = members[going]
        try:
            with metrics.SCORE_SECONDS.labels(manifest.model).time():
                scores = loaded.scorer.score(numeric, categorical)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises bare exceptions; each row says so in the log
            _log.error("the model failed", model=manifest.ref, error=str(error))
            rows.close(members, FAILED, f"{manifest.ref} failed: {error}")
            return
        wrong = ~np.isfinite(scores)
        rows.close(members[wrong], FAILED, f"{manifest.ref} gave a score that is no number")
        rows.score[members[~wrong]] = scores[~wrong]
        rule = loaded.declaration.decision
        for row, score in zip(members[~wrong].tolist(), scores[~wrong].tolist(), strict=True):
            rows.decision[row] = rule.above if score >= rule.threshold else rule.below

    def _assemble(
        self, requests: pa.RecordBatch, rows: _Rows, channel: str, duration_us: int
    ) -> pa.RecordBatch:
        count = rows.count
        now = pa.scalar(self._clock.now_us(), pa.timestamp("us"))
        made: dict[str, Any] = {
            fields.MODEL_VERSION: pa.array(rows.version, pa.string()),
            fields.CHANNEL: pa.repeat(pa.scalar(channel), count),
            fields.STATUS: pa.array(rows.status, pa.string()),
            fields.SCORE: _nullable(rows.score),
            fields.DECISION: pa.array(rows.decision, pa.string()),
            fields.ERROR: pa.array(rows.error, pa.string()),
            fields.PREDICTED_AT: pa.repeat(now, count),
            fields.DURATION_US: pa.repeat(pa.scalar(duration_us, pa.int64()), count),
            fields.FEATURE_VIEWS: pa.array(rows.views_read, pa.list_(pa.string())),
        }
        made.update({name: requests.column(name) for name in self._passed_on})
        made.update({name: _nullable(values) for name, values in rows.features.items()})
        made.update({name: pa.array(ages, mask=ages == _NO_AGE) for name, ages in rows.ages.items()})
        columns = [made[one.name] if one.name in made else pa.nulls(count, one.type) for one in self.schema]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _nullable(values: NDArray[np.float64]) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))
