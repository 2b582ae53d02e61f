"""Score logged requests again, and hold each score against the logged one, bit by bit.

1. Requests that were refused, failed, or answered without a model are counted and told, not scored.
2. The others go by version: the one that answered, or the one that is asked for instead.
3. A version scores only requests that were served every view that it reads, in the version that it was trained on.
4. Equal means the same 64 bits. What the features were is the log's word, or computed again from the events.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.archive.columns import INSTANT, OFFSET, PARTITION
from driftline.contracts import prediction_fields as names
from driftline.features.event_columns import float_inputs
from driftline.features.read import same_bits
from driftline.models.bundle import BundleError, BundleManifest
from driftline.models.outcomes import decisions_of, log_losses
from driftline.models.scoring import Scorer
from driftline.models.shadow import score_logged
from driftline.project.declaration import DecisionRule
from driftline.replay.bundles import Bundles
from driftline.replay.grouping import positions_by
from driftline.replay.summary import FeatureCheck, Floats, Pairing, Summary

EQUAL, DIFFERENT, UNSCORED = "equal", "different", "unscored"
#: What a replay tells of each request.
RESULT = pa.schema(
    [
        pa.field("request_id", pa.string()),
        pa.field("model", pa.string()),
        pa.field("logged_version", pa.string()),
        pa.field("version", pa.string()),
        pa.field("predicted_at", INSTANT),
        pa.field("event_time", INSTANT),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("status", pa.string()),
        pa.field("result", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("logged_score", pa.float64()),
        pa.field("score", pa.float64()),
        pa.field("difference", pa.float64()),
        pa.field("logged_decision", pa.string()),
        pa.field("decision", pa.string()),
        pa.field("features_changed", pa.int32()),
    ]
)
_ANSWERED = names.STATUSES[0]
_NO_MODEL = "answered without a model"
_NO_SCORE = "the log names a version and no score"
_CORRECTED = "CORRECTED"

Rows = NDArray[np.intp]


class Features(Protocol):
    """Where features come from, if not from the log."""

    def recompute(self, rows: pa.Table, manifest: BundleManifest) -> Mapping[str, Floats]:
        """Return the feature columns that a model reads, computed again; NaN is null.

        Raises ConfigurationError where that is not possible.
        """
        ...


class Replay:
    """Scores batches of logged requests again, and sums up.

    Parameters
    ----------
    rules
        By model, what turns a score into a decision; a model without one is judged by its bundle's own rule.
    version
        The version that scores; the one that answered each request if None.
    features
        Computes features again; as they were served if None.
    """

    def __init__(
        self,
        bundles: Bundles,
        rules: Mapping[str, DecisionRule],
        *,
        version: str | None = None,
        features: Features | None = None,
    ) -> None:
        self._bundles, self._rules = bundles, rules
        self._version, self._features = version, features
        self.summary = Summary(features=None if features is None else FeatureCheck())

    def score(self, records: pa.Table) -> pa.Table:
        """Score logged predictions again; return a row of ``RESULT`` for each, in their order.

        The same requests give the same bits in batches of any size.
        """
        found = _Results(records)
        self.summary.records += len(records)
        for model, logged, rows in _by_version(records):
            self._score_version(model, logged, rows, records, found)
        return found.table()

    def add_outcomes(self, outcomes: pa.Table) -> None:
        """Add the losses of what became known of the requests, by the logged scores and by the new ones.

        An outcome carries what its prediction was made from, so nothing has to be looked up. Those of versions
        of which some request could not be scored are left out: the two losses are of the same requests.
        """
        for model, logged, rows in _by_version(outcomes):
            version = self._version or logged or ""
            pairing = self.summary.pairings.get((model, logged or "", version))
            if pairing is None or pairing.unscored or not pairing.scored:
                continue
            taken = outcomes.take(pa.array(rows))
            corrected = np.asarray(taken["kind"].to_pylist(), dtype=object) == _CORRECTED
            columns = float_inputs(taken, ("label", "previous_label", names.SCORE))
            label, previous = columns["label"], np.where(corrected, columns["previous_label"], np.nan)
            scorer = self._bundles.find(model, version)
            scores = score_logged(scorer, self._inputs(taken, scorer.manifest)[0])
            label, previous = (np.where(np.isfinite(scores), one, np.nan) for one in (label, previous))
            count = int((~np.isnan(label)).sum()) - int((~np.isnan(previous)).sum())
            logged_loss, new_loss = (
                float(
                    (np.nan_to_num(log_losses(label, one)) - np.nan_to_num(log_losses(previous, one))).sum()
                )
                for one in (columns[names.SCORE], scores)
            )
            pairing.add_losses(count, logged_loss, new_loss)

    def _score_version(
        self, model: str, logged: str | None, rows: Rows, records: pa.Table, found: "_Results"
    ) -> None:
        answered = found.status[rows] == _ANSWERED
        for status in np.unique(found.status[rows[~answered]].astype(str)).tolist():
            of_status = rows[found.status[rows] == status]
            self.summary.not_answered[status.lower()] += len(of_status)
        rows = rows[answered]
        if not len(rows):
            return
        if logged is None:
            found.leave(rows, _NO_MODEL)
            self.summary.not_answered[_NO_MODEL] += len(rows)
            return
        version = self._version or logged
        pairing = self.summary.pairing(model, logged, version)
        found.version[rows] = version
        scored = ~np.isnan(found.logged_score[rows])
        if not scored.all():
            self._leave(pairing, rows[~scored], _NO_SCORE, found)
            rows = rows[scored]
        try:
            scorer = self._bundles.find(model, version)
        except BundleError as error:
            self._leave(pairing, rows, str(error), found)
            return
        served = _served(records, rows, scorer.manifest)
        if not served.all():
            reads = ", ".join(scorer.manifest.views)
            self._leave(
                pairing, rows[~served], f"{scorer.manifest.ref} reads {reads}: it was not served them", found
            )
        if served.any():
            self._compare(pairing, scorer, rows[served], records, found)

    def _compare(
        self, pairing: Pairing, scorer: Scorer, rows: Rows, records: pa.Table, found: "_Results"
    ) -> None:
        manifest = scorer.manifest
        served = records.take(pa.array(rows))
        taken, again = self._inputs(served, manifest)
        if self.summary.features is not None:
            found.features_changed[rows] = self._compare_features(self.summary.features, served, again)
        try:
            scores = score_logged(scorer, taken)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises bare exceptions; told with each request
            self._leave(pairing, rows, f"{manifest.ref} failed: {error}", found)
            return
        good = np.isfinite(scores)
        if not good.all():
            self._leave(pairing, rows[~good], f"{manifest.ref} gives a score that is no number", found)
        rows, scores = rows[good], scores[good]
        decisions = decisions_of(scores, self._rules.get(manifest.model, manifest.decision))
        logged = found.logged_score[rows]
        equal = same_bits(scores, logged)
        found.score[rows], found.decision[rows] = scores, decisions
        found.result[rows] = np.where(equal, EQUAL, DIFFERENT).astype(object)
        pairing.add(equal, np.abs(scores - logged), decisions != found.logged_decision[rows])

    def _inputs(self, rows: pa.Table, manifest: BundleManifest) -> tuple[pa.Table, Mapping[str, Floats]]:
        """Return requests with all columns that a model reads, and the features that were computed again."""
        for name in (*manifest.numeric, *manifest.categorical):
            if name not in rows.column_names:  # an input that nobody could give then
                kind = pa.float64() if name in manifest.numeric else pa.string()
                rows = rows.append_column(name, pa.nulls(len(rows), kind))
        again = {} if self._features is None else self._features.recompute(rows, manifest)
        for name, values in again.items():
            column = pa.array(values, mask=np.isnan(values))
            rows = rows.set_column(rows.column_names.index(name), name, column)
        return rows, again

    @staticmethod
    def _compare_features(
        check: FeatureCheck, rows: pa.Table, again: Mapping[str, Floats]
    ) -> NDArray[np.int32]:
        """Return how many features of each request are not those that were served."""
        changed = np.zeros(len(rows), np.int32)
        for name, served in float_inputs(rows, again).items():
            same = same_bits(served, again[name])
            check.add(name, same)
            changed += ~same
        return changed

    def _leave(self, pairing: Pairing, rows: Rows, reason: str, found: "_Results") -> None:
        pairing.unscored += len(rows)
        self.summary.reasons[reason] += len(rows)
        found.leave(rows, reason)


class _Results:
    """The results of a batch, filled in version by version."""

    def __init__(self, records: pa.Table) -> None:
        count = len(records)
        self._records = records
        self.status = _texts(records, names.STATUS)
        self.logged_score = np.ascontiguousarray(float_inputs(records, [names.SCORE])[names.SCORE])
        self.logged_decision = _texts(records, names.DECISION)
        self.version = np.full(count, None, object)
        self.result = np.full(count, UNSCORED, object)
        self.reason = _texts(records, names.ERROR)
        self.score = np.full(count, np.nan)
        self.decision = np.full(count, None, object)
        self.features_changed = np.full(count, -1, np.int32)

    def leave(self, rows: Rows, reason: str) -> None:
        """Say why rows are not scored."""
        self.reason[rows] = reason

    def table(self) -> pa.Table:
        """Return the results."""
        missing = np.isnan(self.score)
        made = {
            "request_id": self._records[names.REQUEST_ID],
            "model": self._records[names.MODEL],
            "logged_version": self._records[names.MODEL_VERSION],
            "version": self.version,
            "predicted_at": self._records[names.PREDICTED_AT],
            "event_time": self._records[names.EVENT_TIME],
            "partition": self._records[PARTITION],
            "offset": self._records[OFFSET],
            "status": self.status,
            "result": self.result,
            "reason": self.reason,
            "logged_score": pa.array(self.logged_score, mask=np.isnan(self.logged_score)),
            "score": pa.array(self.score, mask=missing),
            "difference": pa.array(self.score - self.logged_score, mask=missing),
            "logged_decision": self.logged_decision,
            "decision": self.decision,
            "features_changed": pa.array(self.features_changed, mask=self.features_changed < 0),
        }
        columns = [
            column.cast(field.type)
            if isinstance(column, pa.Array | pa.ChunkedArray)
            else pa.array(column, field.type)
            for field, column in ((field, made[field.name]) for field in RESULT)
        ]
        return pa.Table.from_arrays(columns, schema=RESULT)


def _by_version(records: pa.Table) -> Iterator[tuple[str, str | None, Rows]]:
    """Yield each model and version that is in the log, with its rows."""
    pairs = zip(records[names.MODEL].to_pylist(), records[names.MODEL_VERSION].to_pylist(), strict=True)
    for (model, version), rows in positions_by(pairs).items():
        yield model, version, rows


def _served(records: pa.Table, rows: Rows, manifest: BundleManifest) -> NDArray[np.bool_]:
    """Tell which requests were served every view that a model reads, in its version."""
    lists = records[names.FEATURE_VIEWS].take(pa.array(rows))
    texts = pc.binary_join(lists, "\n").combine_chunks().dictionary_encode()
    wanted = set(manifest.views)
    has = np.array(
        [wanted <= set((text or "").split("\n")) for text in texts.dictionary.to_pylist()], np.bool_
    )
    codes = texts.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    found: NDArray[np.bool_] = np.append(has, not wanted)[codes]
    return found


def _texts(records: pa.Table, name: str) -> NDArray[np.object_]:
    texts = np.empty(len(records), object)
    texts[:] = records[name].to_pylist()
    return texts
