"""The one scoring path: HTTP, stream and batch all come through `PredictionEngine.predict`.

Requests come as an Arrow batch, or, a few at a time, as rows; predictions leave in the same form. Only reading
fields and assembling the log's records differ between the two, never a value.
"""

import math
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from prometheus_client import Counter

from driftline.contracts import prediction_fields as fields
from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.project_schemas import prediction_schema
from driftline.features import Entity, OnStale
from driftline.features.entity_keys import join_key
from driftline.features.event_columns import request_keys
from driftline.features.read import DEGRADED, FRESH, MISSING, STALE
from driftline.models.scoring import Scorer
from driftline.project import InputType, ModelDeclaration, Project
from driftline.runtime import metrics
from driftline.runtime.clock import Clock, SystemClock
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.runtime.ids import UUID_PATTERN, is_uuid
from driftline.serving.arms import LoadedArm
from driftline.serving.bounded_reads import Asked, BoundedReads, FeatureReader
from driftline.serving.outcome import FAILED, REFUSED, FeatureColumns, Outcome, Rows
from driftline.serving.rack import LoadedModel, ModelRack
from driftline.serving.request_values import FUTURE_US
from driftline.serving.rows import RequestRows
from driftline.serving.succession import Change, Inputs, Share, score_in_turn

_STATUS_NAMES = {FRESH: "fresh", STALE: "stale", MISSING: "missing", DEGRADED: "degraded"}

#: Requests in either form.
Requests: TypeAlias = pa.RecordBatch | RequestRows


class PredictionEngine:
    """Turns requests into predictions, a batch at a time: every request row gives exactly one prediction row.

    With ``bounded`` each model's rule says how long its requests wait for features and what then, so a store that does
    not answer fails, or degrades, the requests of one model and not the batch.
    """

    def __init__(
        self,
        project: Project,
        store: FeatureReader,
        rack: ModelRack,
        clock: Clock | None = None,
        *,
        bounded: BoundedReads | None = None,
    ) -> None:
        self._project = project
        self._store = store
        self._bounded = bounded
        self._rack = rack
        self._clock = clock or SystemClock()
        self.schema = arrow_schema(prediction_schema(project))
        self._columns = FeatureColumns.of(project.request_views)
        self._timer = metrics.STEP_SECONDS.labels("features")
        self._passed_on = (
            *(fields.REQUEST_ID, fields.MODEL, fields.REQUESTED_AT, fields.EVENT_TIME, fields.CALLER),
            *project.request_entities,
            *(one.name for one in project.request_inputs),
        )

    @overload
    def predict(
        self, requests: RequestRows, channel: str, *, within: float = ...
    ) -> list[dict[str, Any]]: ...

    @overload
    def predict(self, requests: pa.RecordBatch, channel: str, *, within: float = ...) -> pa.RecordBatch: ...

    def predict(self, requests: Requests, channel: str, *, within: float = math.inf) -> Any:
        """Score a batch of requests.

        Parameters
        ----------
        requests
            Columns of the project's request schema; or rows, where they are few.
        channel
            HTTP, TOPIC or BATCH.
        within
            Seconds that the callers leave for reading features; heeded by models that can do without the store.

        Returns
        -------
        pa.RecordBatch or list of records
            Columns of the project's prediction schema, rows in the requests' order. Bad requests are REFUSED,
            what went wrong here is FAILED, each with its error. Rows give records (times in microseconds).

        Raises
        ------
        UnavailableError
            Where the online store cannot be reached, and no model's rule says what then.
        """
        begun = time.perf_counter_ns()
        outcome = Outcome(requests.num_rows, self._columns)
        as_of_us = _instants(requests)
        self._refuse_bad(requests, as_of_us, outcome)
        for name, asked in _rows_by_model(requests):
            self._predict_model(name, asked[outcome.open[asked]], requests, as_of_us, outcome, within)
            self._count(name, channel, outcome.status[asked])
        return self._assemble(requests, outcome, channel, (time.perf_counter_ns() - begun) // 1_000)

    def failed(self, requests: Requests, channel: str, error: str) -> Any:
        """Return predictions that say FAILED for requests that could not be tried."""
        return self._settled(requests, channel, FAILED, error)

    def refused(self, requests: Requests, channel: str, error: str) -> Any:
        """Return predictions that say REFUSED for requests that are wrong in themselves."""
        return self._settled(requests, channel, REFUSED, error)

    def _settled(self, requests: Requests, channel: str, status: int, error: str) -> Any:
        outcome = Outcome(requests.num_rows, self._columns)
        outcome.close(np.arange(requests.num_rows), status, error)
        for name in requests.column(fields.MODEL).to_pylist():
            self._count(name, channel, np.array([status]))
        return self._assemble(requests, outcome, channel, 0)

    def _count(self, name: str, channel: str, statuses: NDArray[np.integer]) -> None:
        label = name if name in self._project.models else "unknown"
        for status, number in enumerate(np.bincount(statuses).tolist()):
            if number:
                _predictions(label, channel, status).inc(number)

    def _refuse_bad(self, requests: Requests, as_of_us: NDArray[np.int64], outcome: Outcome) -> None:
        nameless = _nameless(requests)
        outcome.close(nameless.nonzero()[0], REFUSED, "request_id is no UUID")
        absurd = (as_of_us < 0) | (as_of_us > self._clock.now_us() + FUTURE_US)
        reason = "event_time lies before 1970 or more than a day ahead"
        outcome.close((absurd & outcome.open).nonzero()[0], REFUSED, reason)

    def _predict_model(
        self,
        name: str,
        rows: Rows,
        requests: Requests,
        as_of_us: NDArray[np.int64],
        outcome: Outcome,
        within: float,
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
            self._read_features(loaded, taken, rows, as_of_us[rows], outcome, within)
        except ConfigurationError as error:
            outcome.close(rows, FAILED, str(error))
            return
        except UnavailableError as error:
            if self._bounded is None:
                raise
            outcome.close(rows, FAILED, str(error))
            return
        going = outcome.open[rows]
        if not going.all():
            rows, taken = rows[going], taken.take(pa.array(np.flatnonzero(going)))
        if len(rows):
            self._score(loaded, taken, rows, outcome)

    @staticmethod
    def _refuse_wrong(
        declaration: ModelDeclaration, rows: Rows, requests: Requests, outcome: Outcome
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
        taken: Requests,
        rows: Rows,
        as_of_us: NDArray[np.int64],
        outcome: Outcome,
        within: float,
    ) -> None:
        views = loaded.declaration.views
        keys = {entity.name: _keys(entity, taken) for entity in loaded.declaration.entities}
        begun = time.perf_counter()
        asked: list[Asked] = [(view, keys[view.entity.name]) for view in views]
        if self._bounded is None:
            read, degraded = self._store.read(asked, as_of_us), None
        else:
            read, degraded = self._bounded.read(loaded.declaration, asked, as_of_us, within)
        self._timer.observe(time.perf_counter() - begun)
        if degraded is not None:
            outcome.degraded.set(rows, degraded)
        outcome.set_views(rows, [view.ref for view in views])
        outcome.version.set(rows, loaded.version)
        for view, values in zip(views, read, strict=True):
            outcome.set_features(rows, view, values.values, values.age_us)
            for status, number in enumerate(np.bincount(values.status).tolist()):
                if number:
                    _served(view.ref, status).inc(number)
            if view.on_stale is OnStale.REFUSE:
                stale = rows[(values.status == STALE) & outcome.open[rows]]
                outcome.close(stale, REFUSED, f"feature view {view.ref} is stale (older than {view.ttl})")

    def _score(self, loaded: LoadedModel, taken: Requests, rows: Rows, outcome: Outcome) -> None:
        def inputs(
            scorer: Scorer, at: Rows | None
        ) -> tuple[NDArray[np.float64], Mapping[str, Sequence[str | None]]]:
            manifest = scorer.manifest
            some, where = (taken, rows) if at is None else (taken.take(pa.array(at)), rows[at])
            numeric = np.empty((len(where), len(manifest.numeric)))
            for position, column in enumerate(manifest.numeric):
                feature = outcome.feature(column)
                numeric[:, position] = (
                    some.column(column).to_numpy(zero_copy_only=False) if feature is None else feature[where]
                )
            categorical = {name: some.column(name).to_pylist() for name in manifest.categorical}
            if not scorer.reads_codes:
                return numeric, categorical
            read, unmapped = scorer.categories(categorical, _instants(some))
            for name, number in unmapped.items():
                metrics.UNMAPPED_CODES.labels(name, manifest.ref).inc(number)
            return numeric, read

        changes: list[Change] = []
        if loaded.split is None:
            changes += self._ask(loaded, loaded.whole, inputs, rows, outcome)
        else:
            for arm, at in loaded.split.assign(_sticky_keys(loaded.split.entity, taken)):
                outcome.arm.set(rows[at], arm.label)
                outcome.version.set(rows[at], arm.line[0].version)
                own = inputs if len(at) == len(rows) else _within(inputs, at)
                changes += self._ask(loaded, arm, own, rows[at], outcome)
        if changes:
            self._rack.note(loaded, changes, int(_instants(taken).max()))

    def _ask(
        self, loaded: LoadedModel, arm: LoadedArm, inputs: Inputs, rows: Rows, outcome: Outcome
    ) -> list[Change]:
        """Settle the rows of an arm; return what became of breakers."""
        shares, changes = score_in_turn(arm.line, inputs, len(rows), unusable=arm.unusable)
        for share in shares:
            self._keep(loaded, arm, share, rows if share.rows is None else rows[share.rows], outcome)
        return changes

    @staticmethod
    def _keep(loaded: LoadedModel, arm: LoadedArm, share: Share, rows: Rows, outcome: Outcome) -> None:
        """Settle rows that a version answered, or that nobody could."""
        if share.version is None:
            outcome.close(rows, FAILED, share.note)
            return
        if share.note:
            outcome.error.set(rows, share.note)
            outcome.version.set(rows, share.version.version)
            if share.version.version != arm.version:
                metrics.MODEL_FALLBACKS.labels(loaded.declaration.name).inc(len(rows))
        outcome.answer(rows, share.scores)
        rule = loaded.declaration.decision
        above = share.scores >= rule.threshold
        outcome.decision.set(rows[above], rule.above)
        outcome.decision.set(rows[~above], rule.below)

    def _assemble(self, requests: Requests, outcome: Outcome, channel: str, duration_us: int) -> Any:
        now_us = self._clock.now_us()
        if isinstance(requests, RequestRows):
            told = {fields.CHANNEL: channel, fields.PREDICTED_AT: now_us, fields.DURATION_US: duration_us}
            return [
                {**request, **made, **told}
                for request, made in zip(requests.records, outcome.rows(), strict=True)
            ]
        count = outcome.count
        now = pa.scalar(now_us, pa.timestamp("us"))
        columns = {
            **outcome.columns(),
            **{name: requests.column(name) for name in self._passed_on},
            fields.CHANNEL: pa.repeat(pa.scalar(channel), count),
            fields.PREDICTED_AT: pa.repeat(now, count),
            fields.DURATION_US: pa.repeat(pa.scalar(duration_us, pa.int64()), count),
        }
        return pa.RecordBatch.from_arrays([columns[one.name] for one in self.schema], schema=self.schema)


@cache
def _predictions(model: str, channel: str, status: int) -> Counter:
    """Return the count of a kind of prediction; finding it by its labels costs more than adding to it."""
    return metrics.PREDICTIONS.labels(model, channel, fields.STATUSES[status])


@cache
def _served(view: str, status: int) -> Counter:
    return metrics.FEATURES_SERVED.labels(view, _STATUS_NAMES[status])


def _instants(requests: Requests) -> NDArray[np.int64]:
    """Return the event times, in microseconds since the epoch."""
    if isinstance(requests, RequestRows):
        return np.array(requests.column(fields.EVENT_TIME).to_pylist(), np.int64)
    column = requests.column(fields.EVENT_TIME).cast(pa.int64())
    instants: NDArray[np.int64] = column.to_numpy(zero_copy_only=False)
    return instants


def _nameless(requests: Requests) -> NDArray[np.bool_]:
    """Tell which requests have no UUID."""
    if isinstance(requests, RequestRows):
        ids = requests.column(fields.REQUEST_ID).to_pylist()
        return np.array([not is_uuid(one) for one in ids], np.bool_)
    valid = pc.match_substring_regex(requests.column(fields.REQUEST_ID), f"^{UUID_PATTERN}$")
    nameless: NDArray[np.bool_] = ~valid.to_numpy(zero_copy_only=False)
    return nameless


def _rows_by_model(requests: Requests) -> list[tuple[str, Rows]]:
    """Return the rows that ask each model, models in the order of their first request."""
    if isinstance(requests, RequestRows):
        names = requests.column(fields.MODEL).to_pylist()
        return [
            (name, np.array([row for row, other in enumerate(names) if other == name], np.intp))
            for name in dict.fromkeys(names)
        ]
    models = requests.column(fields.MODEL).dictionary_encode()
    of_row = models.indices.to_numpy(zero_copy_only=False)
    return [
        (name, np.flatnonzero(of_row == number)) for number, name in enumerate(models.dictionary.to_pylist())
    ]


def _keys(entity: Entity, requests: Requests) -> Sequence[str | None] | pa.StringArray:
    """Return the key of the entity that each request names; null where it does not name all of it."""
    if not isinstance(requests, RequestRows):
        return request_keys(entity, requests)
    if not entity.composite:
        keys: list[str | None] = requests.column(entity.keys[0]).to_pylist()
        return keys
    parts = zip(*(requests.column(key).to_pylist() for key in entity.keys), strict=True)
    return [None if None in each else join_key(each) for each in parts]


def _sticky_keys(entity: Entity | None, requests: Requests) -> Sequence[str | None] | pa.StringArray:
    """Return what requests are assigned to arms by: an entity's key, or the request's own id."""
    if entity is not None:
        return _keys(entity, requests)
    ids = requests.column(fields.REQUEST_ID)
    if isinstance(requests, RequestRows):
        return [one.lower() for one in ids.to_pylist()]
    return pc.utf8_lower(ids)


def _within(inputs: Inputs, rows: Rows) -> Inputs:
    """Return the inputs of some rows, as those of a whole."""

    def some(
        scorer: Scorer, at: Rows | None
    ) -> tuple[NDArray[np.float64], Mapping[str, Sequence[str | None]]]:
        return inputs(scorer, rows if at is None else rows[at])

    return some
