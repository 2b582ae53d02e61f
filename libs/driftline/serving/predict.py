"""The one scoring path: HTTP, stream and batch all come through `PredictionEngine.predict`."""

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.contracts import prediction_fields as fields
from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.project_schemas import prediction_schema
from driftline.features import FeatureView, OnStale
from driftline.features.event_columns import request_keys
from driftline.features.read import FRESH, MISSING, STALE, ViewValues
from driftline.models.bundle import BundleManifest
from driftline.project import InputType, ModelDeclaration, Project
from driftline.runtime import metrics
from driftline.runtime.clock import Clock, SystemClock
from driftline.runtime.errors import ConfigurationError
from driftline.serving.outcome import FAILED, REFUSED, FeatureColumns, Outcome, Rows
from driftline.serving.rack import LoadedModel, ModelRack
from driftline.serving.succession import Share, score_in_turn

_UUID = r"^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$"
#: How far ahead of now the instant of a request may lie.
_FUTURE_US = 86_400_000_000
_STATUS_NAMES = {FRESH: "fresh", STALE: "stale", MISSING: "missing"}


class FeatureReader(Protocol):
    """Where feature values come from: the online store, or a replay's own."""

    def read(
        self,
        requests: Sequence[tuple[FeatureView, Sequence[str | None] | pa.StringArray]],
        as_of_us: NDArray[np.int64],
    ) -> list[ViewValues]:
        """Read views for entities, each row as of its instant; raise UnavailableError where that is not possible."""
        ...


class PredictionEngine:
    """Turns requests into predictions, a batch at a time: every request row gives exactly one prediction row."""

    def __init__(
        self, project: Project, store: FeatureReader, rack: ModelRack, clock: Clock | None = None
    ) -> None:
        self._project = project
        self._store = store
        self._rack = rack
        self._clock = clock or SystemClock()
        self.schema = arrow_schema(prediction_schema(project))
        self._columns = FeatureColumns.of(project.request_views)
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
        outcome = Outcome(requests.num_rows, self._columns)
        models = requests.column(fields.MODEL).dictionary_encode()
        model_of_row = models.indices.to_numpy(zero_copy_only=False)
        as_of_us = requests.column(fields.EVENT_TIME).cast(pa.int64()).to_numpy(zero_copy_only=False)
        self._refuse_bad(requests, as_of_us, outcome)
        for number, name in enumerate(models.dictionary.to_pylist()):
            asked = model_of_row == number
            self._predict_model(name, np.flatnonzero(asked & outcome.open), requests, as_of_us, outcome)
            self._count(name, channel, outcome.status[asked])
        return self._assemble(requests, outcome, channel, (time.perf_counter_ns() - begun) // 1_000)

    def failed(self, requests: pa.RecordBatch, channel: str, error: str) -> pa.RecordBatch:
        """Return predictions that say FAILED for requests that could not be tried."""
        return self._settled(requests, channel, FAILED, error)

    def refused(self, requests: pa.RecordBatch, channel: str, error: str) -> pa.RecordBatch:
        """Return predictions that say REFUSED for requests that are wrong in themselves."""
        return self._settled(requests, channel, REFUSED, error)

    def _settled(self, requests: pa.RecordBatch, channel: str, status: int, error: str) -> pa.RecordBatch:
        outcome = Outcome(requests.num_rows, self._columns)
        outcome.close(np.arange(requests.num_rows), status, error)
        for name in requests.column(fields.MODEL).to_pylist():
            self._count(name, channel, np.array([status]))
        return self._assemble(requests, outcome, channel, 0)

    def _count(self, name: str, channel: str, statuses: NDArray[np.integer]) -> None:
        label = name if name in self._project.models else "unknown"
        for status, number in enumerate(np.bincount(statuses).tolist()):
            if number:
                metrics.PREDICTIONS.labels(label, channel, fields.STATUSES[status]).inc(number)

    def _refuse_bad(self, requests: pa.RecordBatch, as_of_us: NDArray[np.int64], outcome: Outcome) -> None:
        valid = pc.match_substring_regex(requests.column(fields.REQUEST_ID), _UUID)
        nameless = ~valid.to_numpy(zero_copy_only=False)
        outcome.close(np.flatnonzero(nameless), REFUSED, "request_id is no UUID")
        absurd = (as_of_us < 0) | (as_of_us > self._clock.now_us() + _FUTURE_US)
        reason = "event_time lies before 1970 or more than a day ahead"
        outcome.close(np.flatnonzero(absurd & outcome.open), REFUSED, reason)

    def _predict_model(
        self, name: str, rows: Rows, requests: pa.RecordBatch, as_of_us: NDArray[np.int64], outcome: Outcome
    ) -> None:
        """Settle the rows of one model."""
        declaration, loaded = self._project.models.get(name), self._rack.get(name)
        if declaration is None:
            known = ", ".join(sorted(self._project.models)) or "none"
            outcome.close(rows, REFUSED, f"no model is named {name!r}; known are: {known}")
            return
        self._refuse_wrong(declaration, rows, requests, outcome)
        rows = rows[outcome.open[rows]]
        if loaded is None:
            outcome.close(rows, FAILED, self._rack.missing.get(name, "the model is not loaded"))
            return
        if not len(rows):
            return
        taken = requests if len(rows) == requests.num_rows else requests.take(pa.array(rows))
        try:
            self._read_features(loaded, taken, rows, as_of_us[rows], outcome)
        except ConfigurationError as error:
            outcome.close(rows, FAILED, str(error))
            return
        going = outcome.open[rows]
        if not going.all():
            rows, taken = rows[going], taken.take(pa.array(np.flatnonzero(going)))
        if len(rows):
            self._score(loaded, taken, rows, outcome)

    @staticmethod
    def _refuse_wrong(
        declaration: ModelDeclaration, rows: Rows, requests: pa.RecordBatch, outcome: Outcome
    ) -> None:
        """Refuse rows without one of the model's entities, or with an infinite input."""
        for key in declaration.entity_keys:
            if requests.column(key).null_count:
                absent = requests.column(key).is_null().to_numpy(zero_copy_only=False)[rows]
                outcome.close(rows[absent], REFUSED, f"entity {key!r} is missing")
        for one in declaration.inputs:
            if one.type is InputType.DOUBLE:
                endless = np.isinf(requests.column(one.name).to_numpy(zero_copy_only=False)[rows])
                outcome.close(rows[endless], REFUSED, f"input {one.name!r} is not finite")

    def _read_features(
        self,
        loaded: LoadedModel,
        taken: pa.RecordBatch,
        rows: Rows,
        as_of_us: NDArray[np.int64],
        outcome: Outcome,
    ) -> None:
        views = loaded.declaration.views
        keys = {entity.name: request_keys(entity, taken) for entity in loaded.declaration.entities}
        with metrics.STEP_SECONDS.labels("features").time():
            read = self._store.read([(view, keys[view.entity.name]) for view in views], as_of_us)
        outcome.set_views(rows, [view.ref for view in views])
        outcome.version.set(rows, loaded.version)
        for view, values in zip(views, read, strict=True):
            outcome.set_features(rows, view, values.values, values.age_us)
            for status, number in enumerate(np.bincount(values.status).tolist()):
                if number:
                    metrics.FEATURES_SERVED.labels(view.ref, _STATUS_NAMES[status]).inc(number)
            if view.on_stale is OnStale.REFUSE:
                stale = rows[(values.status == STALE) & outcome.open[rows]]
                outcome.close(stale, REFUSED, f"feature view {view.ref} is stale (older than {view.ttl})")

    def _score(self, loaded: LoadedModel, taken: pa.RecordBatch, rows: Rows, outcome: Outcome) -> None:
        def inputs(
            manifest: BundleManifest, at: Rows | None
        ) -> tuple[NDArray[np.float64], dict[str, list[str | None]]]:
            some, where = (taken, rows) if at is None else (taken.take(pa.array(at)), rows[at])
            numeric = np.empty((len(where), len(manifest.numeric)))
            for position, column in enumerate(manifest.numeric):
                feature = outcome.feature(column)
                numeric[:, position] = (
                    some.column(column).to_numpy(zero_copy_only=False) if feature is None else feature[where]
                )
            return numeric, {name: some.column(name).to_pylist() for name in manifest.categorical}

        shares, changes = score_in_turn(loaded.line, inputs, len(rows), unusable=loaded.unusable)
        for share in shares:
            self._keep(loaded, share, rows if share.rows is None else rows[share.rows], outcome)
        if changes:
            newest = pc.max(taken.column(fields.EVENT_TIME).cast(pa.int64())).as_py()
            self._rack.note(loaded, changes, newest)

    @staticmethod
    def _keep(loaded: LoadedModel, share: Share, rows: Rows, outcome: Outcome) -> None:
        """Settle rows that a version answered, or that nobody could."""
        if share.version is None:
            outcome.close(rows, FAILED, share.note)
            return
        if share.note:
            outcome.error.set(rows, share.note)
            outcome.version.set(rows, share.version.version)
            if share.version.version != loaded.active:
                metrics.MODEL_FALLBACKS.labels(loaded.declaration.name).inc(len(rows))
        outcome.answer(rows, share.scores)
        rule = loaded.declaration.decision
        above = share.scores >= rule.threshold
        outcome.decision.set(rows[above], rule.above)
        outcome.decision.set(rows[~above], rule.below)

    def _assemble(
        self, requests: pa.RecordBatch, outcome: Outcome, channel: str, duration_us: int
    ) -> pa.RecordBatch:
        count = outcome.count
        now = pa.scalar(self._clock.now_us(), pa.timestamp("us"))
        made = {
            **outcome.columns(),
            **{name: requests.column(name) for name in self._passed_on},
            fields.CHANNEL: pa.repeat(pa.scalar(channel), count),
            fields.PREDICTED_AT: pa.repeat(now, count),
            fields.DURATION_US: pa.repeat(pa.scalar(duration_us, pa.int64()), count),
        }
        return pa.RecordBatch.from_arrays([made[one.name] for one in self.schema], schema=self.schema)
