"""What the log holds of an A/B test: who was assigned to which arm, and what came of it, by unit.

A request counts for the arm that it was assigned to, whichever version answered it in the end, or the arms would differ
in more than their version. Of several outcomes of a request the last in the log counts.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from driftline.archive.columns import OFFSET
from driftline.contracts import prediction_fields as fields
from driftline.features import Entity
from driftline.features.event_columns import one_array, request_keys
from driftline.models.experiments import Mean, mean_of
from driftline.models.trial import Metric, Trial
from driftline.project import ModelDeclaration
from driftline.runtime.errors import ConfigurationError

_UNIT = "unit"
_KEPT = (fields.ARM, _UNIT, fields.REQUEST_ID, OFFSET)
_METRICS = tuple(one.value for one in Metric)
#: Batches that are kept apart before they are made one.
_MOST_BATCHES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """The requests of an arm in the log: how many, of how many units, and how many another version answered."""

    requests: int
    units: int
    fallbacks: int


@dataclass(slots=True)
class AbOutcomes:
    """Gathers the records of a trial of a model."""

    model: ModelDeclaration
    trial: Trial
    _entity: Entity | None = field(init=False, default=None)
    _outcomes: list[pa.Table] = field(init=False, default_factory=list)
    _units: list[pa.Table] = field(init=False, default_factory=list)
    _requests: dict[str, int] = field(init=False, default_factory=dict)
    _fallbacks: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        entities = {one.name: one for one in self.model.entities}
        if self.trial.sticky and self.trial.sticky not in entities:
            raise ConfigurationError(
                f"the trial {self.trial.name} assigned by entity {self.trial.sticky!r}, which model {self.model.name!r} "
                "does not declare any more; analyse it with the project of then"
            )
        self._entity = entities.get(self.trial.sticky)

    @property
    def arms(self) -> dict[str, str]:
        """Each arm's version by its name, the control's first; that is the champion, whichever it was."""
        return {self.trial.control: "", **{one.name: one.version for one in self.trial.arms}}

    def add_outcomes(self, records: pa.Table) -> None:
        """Take outcomes, with their offsets."""
        rows = self._mine(records)
        if len(rows):
            self._outcomes.append(rows.select([*_KEPT, *_METRICS]))

    def add_predictions(self, records: pa.Table) -> None:
        """Take logged predictions."""
        rows = self._mine(records)
        if not len(rows):
            return
        for name, version in self.arms.items():
            own = rows.filter(pc.equal(rows[fields.ARM], self.trial.label(name)))
            self._requests[name] = self._requests.get(name, 0) + len(own)
            if version:
                answered = own.filter(pc.equal(own[fields.STATUS].cast(pa.string()), fields.STATUSES[0]))
                others = pc.sum(pc.not_equal(answered[fields.MODEL_VERSION], version)).as_py() or 0
                self._fallbacks[name] = self._fallbacks.get(name, 0) + others
        self._units.append(_distinct(rows.select([fields.ARM, _UNIT])))
        if len(self._units) > _MOST_BATCHES:
            self._units = [_distinct(pa.concat_tables(self._units))]

    def assigned(self) -> dict[str, Assigned]:
        """Return what each arm was assigned."""
        units = (
            _distinct(pa.concat_tables(self._units))[fields.ARM] if self._units else pa.array([], pa.string())
        )
        return {
            name: Assigned(
                requests=self._requests.get(name, 0),
                units=pc.sum(pc.equal(units, self.trial.label(name))).as_py() or 0,
                fallbacks=self._fallbacks.get(name, 0),
            )
            for name in self.arms
        }

    def means(self, metric: Metric) -> dict[str, Mean]:
        """Return the mean of a metric per outcome of each arm, with its error over units."""
        nothing = mean_of(np.empty(0), np.empty(0))
        if not self._outcomes:
            return dict.fromkeys(self.arms, nothing)
        rows = _last(pa.concat_tables(self._outcomes))
        rows = rows.filter(pc.is_valid(rows[metric.value]))
        sums = rows.group_by([fields.ARM, _UNIT]).aggregate([(metric.value, "sum"), (metric.value, "count")])
        found = {}
        for name in self.arms:
            own = sums.filter(pc.equal(sums[fields.ARM], self.trial.label(name)))
            columns = (own[f"{metric.value}_{how}"].to_numpy().astype(np.float64) for how in ("sum", "count"))
            found[name] = mean_of(*columns)
        return found

    def _mine(self, records: pa.Table) -> pa.Table:
        """Return the trial's records, each with its unit."""
        if fields.ARM not in records.column_names:  # written before there were arms
            return records.slice(0, 0)
        labels = pa.array([self.trial.label(name) for name in self.arms])
        mine = pc.and_(
            pc.equal(records[fields.MODEL], self.model.name), pc.is_in(records[fields.ARM], labels)
        )
        rows = records.filter(mine)
        ids = pc.utf8_lower(one_array(rows[fields.REQUEST_ID]))
        units = ids if self._entity is None else request_keys(self._entity, rows)
        rows = rows.set_column(rows.column_names.index(fields.REQUEST_ID), fields.REQUEST_ID, ids)
        return rows.append_column(_UNIT, units)


def _distinct(rows: pa.Table) -> pa.Table:
    return rows.group_by(rows.column_names).aggregate([])


def _last(rows: pa.Table) -> pa.Table:
    """Return the last record of each request: all of a request are in one partition."""
    ordered = rows.sort_by([(fields.REQUEST_ID, "ascending"), (OFFSET, "ascending")])
    ids = one_array(ordered[fields.REQUEST_ID])
    last = pc.not_equal(ids.slice(0, len(ids) - 1), ids.slice(1)).to_numpy(zero_copy_only=False)
    return ordered.filter(pa.array(np.append(last.astype(np.bool_), True)))
