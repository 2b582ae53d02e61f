"""Are a training set's features what was known at each row's instant? A sample of them is computed again (``leak_check``, 1)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.features import FeatureView
from driftline.features.aggregations import UNWINDOWED
from driftline.features.derivations import Derived
from driftline.features.event_columns import float_inputs, micros
from driftline.features.matching import matches
from driftline.features.update import present
from driftline.models.leak_report import Evidence, Finding, Notes
from driftline.models.plain_features import Event, known_features, plain_values
from driftline.models.training_set import Rows
from driftline.project.declaration import ModelDeclaration
from driftline.project.history import KNOWN_AT

_LOOSE = 1e-6
_EXPLAINED = 20

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sampled:
    """A view's events of the sampled rows' entities: their positions by key."""

    view: FeatureView
    events: pa.Table
    places: Mapping[tuple[Any, ...], Ints]
    time_us: Ints
    known_us: Ints
    marks: tuple[NDArray[np.bool_], ...]
    fields: tuple[str, ...]

    @classmethod
    def of(cls, view: FeatureView, events: pa.Table, requests: pa.Table) -> "_Sampled":
        for name, asked in zip(view.source.entity_fields, view.entity.keys, strict=True):
            wanted = pc.unique(requests[asked]).drop_null().cast(pa.string())
            events = events.filter(pc.is_in(events[name].cast(pa.string()), wanted))
        there = pc.and_(pc.is_valid(events[view.source.event_time]), pc.is_valid(events[KNOWN_AT]))
        events = events.filter(there)
        keys = zip(*(events[name].to_pylist() for name in view.source.entity_fields), strict=True)
        places: dict[tuple[Any, ...], list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        conditions = (view.where, *(one.condition for one in view.aggregated))
        asked_of = {name for one in conditions if one is not None for name in one.fields}
        return cls(
            view=view,
            events=events,
            places={key: np.array(own, np.int64) for key, own in places.items()},
            time_us=micros(events[view.source.event_time]),
            known_us=micros(events[KNOWN_AT]),
            marks=_marks(view, events),
            fields=tuple(sorted(asked_of | {one.field for one in view.aggregated if one.field})),
        )

    def known(self, key: tuple[Any, ...], by_us: int) -> Ints:
        """Return the places of an entity's events that were known by an instant."""
        own = self.places.get(key, np.empty(0, np.int64))
        return own[self.known_us[own] <= by_us]

    def needed(self, places: Ints, as_of_us: int) -> list[Event]:
        """Return of these events those that plain Python has to see: the windows', and the newest with each field."""
        longest = max((one.window_us or 0 for one in self.view.aggregated), default=0)
        kept = set(places[self.time_us[places] > as_of_us - longest].tolist())
        kept.update(self._newest(places))
        taken = np.array(sorted(kept), np.int64)
        found: list[dict[str, Any]] = self.events.select(list(self.fields)).take(pa.array(taken)).to_pylist()
        times = self.time_us[taken].tolist()
        if not self.fields:
            return [{"time_us": time} for time in times]
        return [{**event, "time_us": time} for event, time in zip(found, times, strict=True)]

    def _newest(self, places: Ints) -> Iterator[int]:
        """Yield the newest events of all, and of those that each unwindowed feature looks at; of equal times all."""
        for there in self.marks:
            own = places[there[places]]
            if len(own):
                yield from own[self.time_us[own] == self.time_us[own].max()].tolist()


def _marks(view: FeatureView, events: pa.Table) -> tuple[NDArray[np.bool_], ...]:
    """Return which events the view is about, then those that each of its unwindowed features looks at."""
    about = np.ones(len(events), np.bool_) if view.where is None else matches(view.where, events)
    found = [about]
    for feature in view.aggregated:
        if feature.aggregate in UNWINDOWED and not feature.reads_text:
            there = about if feature.condition is None else about & matches(feature.condition, events)
            if feature.field:
                there = there & present(float_inputs(events, [feature.field])[feature.field])
            found.append(there)
    return tuple(found)


def check_features(
    model: ModelDeclaration, view: FeatureView, rows: Rows, evidence: Evidence, chosen: Ints, notes: Notes
) -> None:
    """Compute the features of sampled rows again, and compare them (1)."""
    for part in view.parts:
        _check_stored(model, view, part, rows, evidence, chosen, notes)
    if view.joins:
        _check_formulas(model, view, rows, evidence, chosen, notes)


def _check_formulas(
    model: ModelDeclaration, view: FeatureView, rows: Rows, evidence: Evidence, chosen: Ints, notes: Notes
) -> None:
    """Compute what a view derives from several sources again, by the kernels from the events known by then."""
    places = [place for place, one in enumerate(view.features) if isinstance(one, Derived)]
    types = {part.source.event_type for part in view.stored}
    known_us = {name: micros(evidence.events[name][KNOWN_AT]) for name in types}
    again = np.full((len(chosen), len(places)), np.nan)
    for at, row in enumerate(chosen.tolist() if places else ()):
        by_us = int(evidence.answered_us[row])
        known = {name: evidence.events[name].filter(pa.array(known_us[name] <= by_us)) for name in types}
        again[at] = evidence.join(view, known, evidence.requests.slice(row, 1))[0, places]
    exact = np.zeros(len(chosen), np.bool_)
    for at, place in enumerate(places):
        column = view.columns[place]
        stored = rows.numeric[chosen, model.numeric_columns.index(column)]
        wrong = np.flatnonzero(~_same(stored, again[:, at], exact))
        notes.by_kernels.append(column)
        notes.values += len(stored)
        if len(wrong):
            text = _differs(stored[wrong], again[wrong, at], 0)
            notes.findings.append(
                Finding(kind="feature", column=column, text=text, rows=len(wrong), of=len(chosen))
            )


def _check_stored(
    model: ModelDeclaration,
    served: FeatureView,
    view: FeatureView,
    rows: Rows,
    evidence: Evidence,
    chosen: Ints,
    notes: Notes,
) -> None:
    """Compute the features of a stored view again; ``served`` is the view whose columns they are."""
    requests = evidence.requests.take(pa.array(chosen))
    held = _Sampled.of(view, evidence.events[view.source.event_type], requests)
    plain = known_features(view)
    names = [feature.name for feature in view.features]
    told_as = [f"{served.name}__{name}" for name in names]
    columns = [model.numeric_columns.index(column) for column in told_as]
    stored = rows.numeric[chosen][:, columns]
    again = np.full(stored.shape, np.nan)
    loose = np.zeros(stored.shape, np.bool_)
    by_kernel = [place for place, name in enumerate(names) if name not in plain]
    keys = list(zip(*(requests[key].to_pylist() for key in view.entity.keys), strict=True))
    for at, (row, key) in enumerate(zip(chosen.tolist(), keys, strict=True)):
        by_us = int(evidence.answered_us[row])
        found = _plain(held, key, by_us, int(rows.as_of_us[row]))
        for place, name in enumerate(names):
            again[at, place], loose[at, place] = found.get(name, (math.nan, False))
        if by_kernel:
            truncated = held.events.take(pa.array(held.known(key, by_us)))
            own = {view.source.event_type: truncated}
            again[at, by_kernel] = evidence.join(view, own, requests.slice(at, 1))[0, by_kernel]
    notes.by_kernels += [told_as[place] for place in by_kernel]
    notes.values += stored.size
    for place, column in enumerate(told_as):
        wrong = np.flatnonzero(~_same(stored[:, place], again[:, place], loose[:, place]))
        if len(wrong):
            told = [keys[at] for at in wrong.tolist()]
            late = _of_label(held, names[place], rows, evidence, chosen[wrong], told, stored[wrong, place])
            text = _differs(stored[wrong, place], again[wrong, place], late)
            notes.findings.append(
                Finding(kind="feature", column=column, text=text, rows=len(wrong), of=len(chosen))
            )


def _plain(held: _Sampled, key: tuple[Any, ...], by_us: int, as_of_us: int) -> dict[str, tuple[float, bool]]:
    """Return a row's plain values by feature, and whether each may differ by rounding."""
    places = held.known(key, by_us) if None not in key else np.empty(0, np.int64)
    found = plain_values(held.view, held.needed(places, as_of_us), as_of_us)
    return {name: (value, name in found.loose) for name, value in found.values.items()}


def _same(stored: NDArray[np.float32], again: Floats, loose: NDArray[np.bool_]) -> NDArray[np.bool_]:
    with np.errstate(over="ignore"):
        wanted = again.astype(np.float32)
    equal = (stored == wanted) | (np.isnan(stored) & np.isnan(wanted))
    near = np.isclose(stored, wanted, rtol=_LOOSE, atol=0.0)
    found: NDArray[np.bool_] = equal | (loose & near)
    return found


def _of_label(
    held: _Sampled,
    name: str,
    rows: Rows,
    evidence: Evidence,
    wrong: Ints,
    keys: Sequence[tuple[Any, ...]],
    stored: NDArray[np.float32],
) -> int:
    """Count the differing values that are what was known when the label was."""
    count = 0
    for row, key, value in zip(wrong[:_EXPLAINED].tolist(), keys, stored, strict=False):
        instants = (int(rows.label_known_us[row]), int(rows.as_of_us[row]))
        by_us = evidence.until_us(rows)[row]
        found = [_plain(held, key, int(by_us), as_of_us).get(name) for as_of_us in instants]
        candidates = np.array([math.nan if one is None else one[0] for one in found])
        count += bool(_same(np.full(2, value, np.float32), candidates, np.ones(2, np.bool_)).any())
    return count


def _differs(stored: NDArray[np.float32], again: Floats, late: int) -> str:
    gaps = np.abs(stored.astype(np.float64) - again)
    both = gaps[~np.isnan(gaps)]
    nulls = int((np.isnan(stored) != np.isnan(again)).sum())
    parts = ["differs from what was known at the instant"]
    if len(both) and both.max() > 0:
        parts.append(f"by up to {both.max():.6g}")
    if nulls:
        parts.append(f"({nulls} null on one side only)")
    if late:
        looked = min(_EXPLAINED, len(stored))
        parts.append(
            f"and of {looked} looked at {late} are what was known when the label was: joined too late"
        )
    return " ".join(parts)
