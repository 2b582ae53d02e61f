"""The one scoring path: HTTP, stream and batch all come through `PredictionEngine.predict`.

Requests come as an Arrow batch, or, a few at a time, as rows; predictions leave in the same form. Only reading
fields and assembling the log's records differ between the two, never a value.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from prometheus_client import Counter

from driftline.contracts import prediction_fields as fields
from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.project_schemas import prediction_schema
from driftline.features import OnStale
from driftline.features.online import AskedAt, ReadPlan
from driftline.features.read import DEGRADED, FRESH, MISSING, STALE, ViewValues
from driftline.models.scoring import Scorer
from driftline.project import InputType, ModelDeclaration, Project
from driftline.runtime import metrics
from driftline.runtime.clock import Clock, SystemClock
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.serving.arms import LoadedArm
from driftline.serving.bounded_reads import Asked, BoundedReads, FeatureReader
from driftline.serving.outcome import ANSWERED, FAILED, REFUSED, FeatureColumns, Outcome, Rows
from driftline.serving.plain_rows import PlainModel, PlainRows
from driftline.serving.rack import LoadedModel, ModelRack
from driftline.serving.request_form import (
    Requests,
    instants_of,
    keys_of,
    nameless,
    rows_by_model,
    sticky_keys,
)
from driftline.serving.request_values import FUTURE_US
from driftline.serving.rows import RequestRows
from driftline.serving.succession import Change, Inputs, ServedVersion, Share, score_in_turn

_STATUS_NAMES = {FRESH: "fresh", STALE: "stale", MISSING: "missing", DEGRADED: "degraded"}


#: Who answered which rows, and what became of breakers (``score_in_turn``).
Scored: TypeAlias = tuple[list[Share], list[Change]]


@dataclass(frozen=True, slots=True)
class _Read:
    """The values of a model's views; why they are not the store's (``degraded``), or why there are none (``error``)."""

    values: list[ViewValues] = field(default_factory=list)
    degraded: str | None = None
    error: str = ""


@dataclass(slots=True, eq=False)
class BegunPrediction:
    """Plain requests whose features are being read."""

    plain: PlainModel
    requests: RequestRows
    channel: str
    begun_ns: int
    reading: ReadPlan

    @property
    def declaration(self) -> ModelDeclaration:
        """The model that they ask."""
        return self.plain.loaded.declaration


#: Says what is to be read of views (``OnlineStore.plan``).
PlanReads: TypeAlias = Callable[[Sequence[AskedAt]], ReadPlan]


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
        self._plain = PlainRows(project, rack)
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
        if isinstance(requests, RequestRows):
            plain = self._plain.model(requests.records, self._clock.now_us())
            if plain is not None:
                read = self._read(plain.loaded, requests, instants_of(requests), within)
                return self._predict_plain(plain, requests, channel, read, begun)
        outcome = Outcome(requests.num_rows, self._columns)
        as_of_us = instants_of(requests)
        self._refuse_bad(requests, as_of_us, outcome)
        for name, asked in rows_by_model(requests):
            self._predict_model(name, asked[outcome.open[asked]], requests, as_of_us, outcome, within)
            self._count(name, channel, outcome.status[asked])
        return self._assemble(requests, outcome, channel, _since(begun))

    def begin(self, requests: RequestRows, channel: str, plan: PlanReads) -> BegunPrediction | None:
        """Begin to predict some requests, for who reads their features with a connection of its own.

        Returns None unless they are plain (``plain_rows``): ``predict`` is to be asked then. Model rules about the store
        are the caller's to keep.
        """
        begun = time.perf_counter_ns()
        plain = self._plain.model(requests.records, self._clock.now_us())
        if plain is None:
            return None
        as_of_us = instants_of(requests)
        asked = _asked(plain.loaded, requests)
        reading = plan([(view, entities, as_of_us) for view, entities in asked])
        return BegunPrediction(plain, requests, channel, begun, reading)

    def finish(self, begun: BegunPrediction, blobs: Sequence[bytes | None]) -> list[dict[str, Any]]:
        """Return the predictions of requests that were begun; ``blobs`` are the values of their keys."""
        try:
            read = self._noted(begun.plain.loaded, begun.reading.values(blobs), begun.begun_ns)
        except ConfigurationError as error:
            read = _Read(error=str(error))
        return self._predict_plain(begun.plain, begun.requests, begun.channel, read, begun.begun_ns)

    def _predict_plain(
        self, plain: PlainModel, requests: RequestRows, channel: str, read: _Read, begun: int
    ) -> list[dict[str, Any]]:
        """Predict a plain batch; where it turns out not to be one, settle it as any other."""
        loaded, count = plain.loaded, requests.num_rows
        scored: Scored | None = None
        if not read.error and read.degraded is None and plain.stays_plain(read.values):
            scored = score_in_turn(loaded.line, plain.inputs, count, unusable=loaded.unusable)
            version = _answers_alone(*scored)
            if version is not None:
                _predictions(loaded.declaration.name, channel, ANSWERED).inc(count)
                told = self._told(channel, _since(begun))
                return plain.records(version.version, scored[0][0].scores, told)
        outcome, rows = Outcome(count, self._columns), np.arange(count)
        self._settle(loaded, requests, rows, outcome, read, scored)
        self._count(loaded.declaration.name, channel, outcome.status)
        records: list[dict[str, Any]] = self._assemble(requests, outcome, channel, _since(begun))
        return records

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
        outcome.close(nameless(requests).nonzero()[0], REFUSED, "request_id is no UUID")
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
        self._settle(loaded, taken, rows, outcome, self._read(loaded, taken, as_of_us[rows], within))

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

    def _read(
        self, loaded: LoadedModel, requests: Requests, as_of_us: NDArray[np.int64], within: float
    ) -> _Read:
        """Read the features of requests that name all entities."""
        asked = _asked(loaded, requests)
        begun = time.perf_counter_ns()
        try:
            if self._bounded is None:
                return self._noted(loaded, self._store.read(asked, as_of_us), begun)
            values, degraded = self._bounded.read(loaded.declaration, asked, as_of_us, within)
        except ConfigurationError as error:
            return _Read(error=str(error))
        except UnavailableError as error:
            if self._bounded is None:
                raise
            return _Read(error=str(error))
        return self._noted(loaded, values, begun, degraded)

    def _noted(
        self, loaded: LoadedModel, values: list[ViewValues], begun_ns: int, degraded: str | None = None
    ) -> _Read:
        """Note how long a read took, and what was served."""
        self._timer.note((time.perf_counter_ns() - begun_ns) / 1e9)
        for view, found in zip(loaded.declaration.views, values, strict=True):
            for status, number in enumerate(np.bincount(found.status).tolist()):
                if number:
                    _served(view.ref, status).inc(number)
        return _Read(values, degraded)

    def _settle(
        self,
        loaded: LoadedModel,
        requests: Requests,
        rows: Rows,
        outcome: Outcome,
        read: _Read,
        scored: Scored | None = None,
    ) -> None:
        """Settle rows by the features that were read for them, and by their scores where they have been asked for."""
        if read.error:
            outcome.close(rows, FAILED, read.error)
            return
        self._take_features(loaded, rows, outcome, read)
        if scored is not None:
            self._keep(loaded, loaded.whole, scored[0], rows, outcome)
            self._note(loaded, scored[1], requests)
            return
        going = outcome.open[rows]
        if not going.all():
            rows, requests = rows[going], requests.take(pa.array(np.flatnonzero(going)))
        if len(rows):
            self._score(loaded, requests, rows, outcome)

    @staticmethod
    def _take_features(loaded: LoadedModel, rows: Rows, outcome: Outcome, read: _Read) -> None:
        views = loaded.declaration.views
        if read.degraded is not None:
            outcome.degraded.set(rows, read.degraded)
        outcome.set_views(rows, [view.ref for view in views])
        outcome.version.set(rows, loaded.version)
        for view, values in zip(views, read.values, strict=True):
            outcome.set_features(rows, view, values.values, values.age_us)
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
            read, unmapped = scorer.categories(categorical, instants_of(some))
            for name, number in unmapped.items():
                metrics.UNMAPPED_CODES.labels(name, manifest.ref).inc(number)
            return numeric, read

        changes: list[Change] = []
        if loaded.split is None:
            changes += self._ask(loaded, loaded.whole, inputs, rows, outcome)
        else:
            for arm, at in loaded.split.assign(sticky_keys(loaded.split.entity, taken)):
                outcome.arm.set(rows[at], arm.label)
                outcome.version.set(rows[at], arm.line[0].version)
                own = inputs if len(at) == len(rows) else _within(inputs, at)
                changes += self._ask(loaded, arm, own, rows[at], outcome)
        self._note(loaded, changes, taken)

    def _note(self, loaded: LoadedModel, changes: list[Change], requests: Requests) -> None:
        if changes:
            self._rack.note(loaded, changes, int(instants_of(requests).max()))

    def _ask(
        self, loaded: LoadedModel, arm: LoadedArm, inputs: Inputs, rows: Rows, outcome: Outcome
    ) -> list[Change]:
        """Settle the rows of an arm; return what became of breakers."""
        shares, changes = score_in_turn(arm.line, inputs, len(rows), unusable=arm.unusable)
        self._keep(loaded, arm, shares, rows, outcome)
        return changes

    def _keep(
        self, loaded: LoadedModel, arm: LoadedArm, shares: list[Share], rows: Rows, outcome: Outcome
    ) -> None:
        for share in shares:
            self._keep_share(loaded, arm, share, rows if share.rows is None else rows[share.rows], outcome)

    @staticmethod
    def _keep_share(loaded: LoadedModel, arm: LoadedArm, share: Share, rows: Rows, outcome: Outcome) -> None:
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
        if isinstance(requests, RequestRows):
            told = self._told(channel, duration_us)
            return [
                {**request, **made, **told}
                for request, made in zip(requests.records, outcome.rows(), strict=True)
            ]
        count = outcome.count
        now = pa.scalar(self._clock.now_us(), pa.timestamp("us"))
        columns = {
            **outcome.columns(),
            **{name: requests.column(name) for name in self._passed_on},
            fields.CHANNEL: pa.repeat(pa.scalar(channel), count),
            fields.PREDICTED_AT: pa.repeat(now, count),
            fields.DURATION_US: pa.repeat(pa.scalar(duration_us, pa.int64()), count),
        }
        return pa.RecordBatch.from_arrays([columns[one.name] for one in self.schema], schema=self.schema)

    def _told(self, channel: str, duration_us: int) -> dict[str, Any]:
        """Return what is the same for all records of a batch."""
        return {
            fields.CHANNEL: channel,
            fields.PREDICTED_AT: self._clock.now_us(),
            fields.DURATION_US: duration_us,
        }


def _asked(loaded: LoadedModel, requests: Requests) -> list[Asked]:
    """Return a model's views and the entities that requests, which name all of them, ask each for."""
    keys = {entity.name: keys_of(entity, requests) for entity in loaded.declaration.entities}
    return [(view, keys[view.entity.name]) for view in loaded.declaration.views]


def _since(begun_ns: int) -> int:
    """Return the microseconds since an instant of ``time.perf_counter_ns``."""
    return (time.perf_counter_ns() - begun_ns) // 1_000


def _answers_alone(shares: Sequence[Share], changes: Sequence[Change]) -> ServedVersion | None:
    """Return the version that answered all rows where nothing is to be told beside; else None."""
    if len(shares) != 1 or changes or shares[0].rows is not None or shares[0].note:
        return None
    return shares[0].version


@cache
def _predictions(model: str, channel: str, status: int) -> Counter:
    """Return the count of a kind of prediction; finding it by its labels costs more than adding to it."""
    return metrics.PREDICTIONS.labels(model, channel, fields.STATUSES[status])


@cache
def _served(view: str, status: int) -> Counter:
    return metrics.FEATURES_SERVED.labels(view, _STATUS_NAMES[status])


def _within(inputs: Inputs, rows: Rows) -> Inputs:
    """Return the inputs of some rows, as those of a whole."""

    def some(
        scorer: Scorer, at: Rows | None
    ) -> tuple[NDArray[np.float64], Mapping[str, Sequence[str | None]]]:
        return inputs(scorer, rows if at is None else rows[at])

    return some
