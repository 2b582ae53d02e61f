"""Does a training set know what it could not have known? What is looked for, and how:

1. **A feature that is not what was known.** Of a sample of rows every feature is computed again from the events that
   were known at the row's instant, one by one in plain Python (``plain_features``), and compared as float32, bit for
   bit. Features that plain Python does not define are read by the kernels from those events alone, later ones left out.
   Where a value differs, it is said whether it is the one of the label's instant.
2. **A column that gives the label away.** A half of the rows teaches how often the label is true for each value (or
   64th part of the values); the other half is ordered by that. An area under the curve beyond ``_GIVES_AWAY`` is a leak.
3. **An input that a later event tells.** Inputs are searched for in the events of the same keys that became known
   between the request and its label, and in as many before it. Found there and not before is a leak.
4. **A label that was known before it was asked for**, and **events that were known before they happened**, beyond the
   project's ``future_skew``: the store refuses such events, so they are never served.

What it cannot see: a leak that touches fewer rows than the sample meets, and an input of the future that neither
determines the label nor stands in any event.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from driftline.features import FeatureView
from driftline.features.aggregations import UNWINDOWED
from driftline.features.event_columns import float_inputs, micros
from driftline.features.matching import matches
from driftline.features.update import present
from driftline.models.plain_features import Event, known_features, plain_values
from driftline.models.training_set import Join, Rows
from driftline.project.declaration import InputType, ModelDeclaration
from driftline.project.history import KNOWN_AT

SAMPLE = 200
#: An area under the curve that no honest column reaches alone.
_GIVES_AWAY = 0.98
_JUDGED_ROWS, _LEAST_ROWS, _LEAST_EACH, _BINS = 50_000, 200, 20, 64
_FOUND, _MORE_THAN_BEFORE, _LEAST_FOUND, _SEARCHED_ROWS, _SEARCHED_EVENTS = 0.9, 0.5, 20, 500, 50
_LOOSE = 1e-6
_EXPLAINED = 20

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that must not be: ``rows`` of ``of`` that were looked at."""

    kind: str
    column: str
    text: str
    rows: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakReport:
    """What a check found.

    Attributes
    ----------
    rows, sampled, values
        Rows of the set, those of which the features were computed again, and the values that were compared.
    by_kernels
        Feature columns that were read by the kernels from the events known by then, not in plain Python.
    unjudged
        What could not be looked at, and why.
    accepted
        Findings on columns of which a person said that they are known when they are asked for.
    """

    rows: int
    sampled: int
    values: int
    findings: tuple[Finding, ...]
    by_kernels: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()
    accepted: tuple[Finding, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "clean": self.clean,
            "rows": self.rows,
            "sampled": self.sampled,
            "values": self.values,
            "findings": [_told(one) for one in self.findings],
            "accepted": [_told(one) for one in self.accepted],
            "by_kernels": list(self.by_kernels),
            "unjudged": list(self.unjudged),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a training set is held against.

    Attributes
    ----------
    events
        By event type, with ``known_at``.
    requests
        The set's requests, in the order of its rows: their keys and inputs.
    answered_us
        Up to which instant each request knew events, on the clock of ``known_at``.
    join
        How the set's features were joined.
    future_skew_us
        How far ahead of its being known an event may lie.
    """

    events: Mapping[str, pa.Table]
    requests: pa.Table
    answered_us: Ints
    join: Join
    future_skew_us: int

    def until_us(self, rows: Rows) -> Ints:
        """Return when each row's label was known, on the clock of ``known_at``."""
        until: Ints = self.answered_us + np.maximum(rows.label_known_us - rows.as_of_us, 0)
        return until


@dataclass(slots=True)
class _Notes:
    """What the steps of a check write down."""

    findings: list[Finding] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    by_kernels: list[str] = field(default_factory=list)
    values: int = 0


def check_leaks(
    model: ModelDeclaration,
    rows: Rows,
    evidence: Evidence,
    *,
    sample: int = SAMPLE,
    accept: Sequence[str] = (),
    progress: Progress = lambda _: None,
) -> LeakReport:
    """Look for what the rows could not have known; ``accept`` names columns whose findings are told and do not count."""
    notes = _Notes()
    chosen = np.sort(np.random.default_rng(0).choice(len(rows), min(sample, len(rows)), replace=False))
    for view in model.views:
        progress(f"leak check: {view.ref}")
        _check_view(model, view, rows, evidence, chosen, notes)
    progress("leak check: labels")
    notes.findings += _known_labels(rows)
    _check_columns(model, rows, notes)
    progress("leak check: inputs")
    for name in sorted({view.source.event_type for view in model.views}):
        _search_inputs(model, name, rows, evidence, notes)
        _known_early(model, name, evidence, notes)
    return LeakReport(
        rows=len(rows),
        sampled=len(chosen),
        values=notes.values,
        findings=tuple(one for one in notes.findings if one.column not in accept),
        accepted=tuple(one for one in notes.findings if one.column in accept),
        by_kernels=tuple(notes.by_kernels),
        unjudged=tuple(notes.unjudged),
    )


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


def _check_view(
    model: ModelDeclaration, view: FeatureView, rows: Rows, evidence: Evidence, chosen: Ints, notes: _Notes
) -> None:
    """Compute the features of sampled rows again, and compare them (1)."""
    requests = evidence.requests.take(pa.array(chosen))
    held = _Sampled.of(view, evidence.events[view.source.event_type], requests)
    plain = known_features(view)
    names = [feature.name for feature in view.features]
    columns = [model.numeric_columns.index(column) for column in view.columns]
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
            again[at, by_kernel] = evidence.join(view, truncated, requests.slice(at, 1))[0, by_kernel]
    notes.by_kernels += [view.columns[place] for place in by_kernel]
    notes.values += stored.size
    for place, column in enumerate(view.columns):
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


def _known_labels(rows: Rows) -> Iterator[Finding]:
    """Yield the labels that were known before they were asked for (4)."""
    early = int((rows.label_known_us < rows.as_of_us).sum())
    if early:
        text = "was known before the request's instant: what was predicted had happened already"
        yield Finding(kind="label", column="label", text=text, rows=early, of=len(rows))


def _check_columns(model: ModelDeclaration, rows: Rows, notes: _Notes) -> None:
    """Look at each column alone: does it give the label away? (2)"""
    step = max(1, len(rows) // _JUDGED_ROWS)
    labels = rows.labels[::step]
    columns: dict[str, Ints] = {}
    for place, name in enumerate(model.numeric_columns):
        values = rows.numeric[::step, place]
        if len(np.unique(labels)) == 2 and np.array_equal(values, labels):
            notes.findings.append(_gives_away(name, "equals the label in every row", len(labels)))
        else:
            columns[name] = _binned(values)
    halves = (labels[0::2], labels[1::2])
    if len(labels) < _LEAST_ROWS or any(min(one.sum(), (~one).sum()) < _LEAST_EACH for one in halves):
        notes.unjudged.append(
            f"whether a column gives the label away: that takes {_LEAST_ROWS} rows, and {2 * _LEAST_EACH} of each label"
        )
        return
    for name, texts in rows.categorical.items():
        columns[name] = pd.factorize(np.asarray(texts[::step], dtype=object), use_na_sentinel=False)[0]
    for name, codes in columns.items():
        area = _area(codes, labels)
        if area >= _GIVES_AWAY:
            text = f"gives the label away: alone it orders unseen rows with an area under the curve of {area:.4f}"
            notes.findings.append(_gives_away(name, text, len(labels)))


def _gives_away(column: str, text: str, rows: int) -> Finding:
    return Finding(kind="label", column=column, text=text, rows=rows, of=rows)


def _binned(values: NDArray[np.float32]) -> Ints:
    """Return the number of each value's part: one for each of few values, else of as many; null is one of its own."""
    there = values[~np.isnan(values)]
    distinct = np.unique(there)
    if len(distinct) > _BINS:
        distinct = np.unique(np.quantile(there, np.linspace(0, 1, _BINS + 1)[1:-1]))
    codes: Ints = np.searchsorted(distinct, values, side="left").astype(np.int64)
    return np.where(np.isnan(values), len(distinct) + 1, codes)


def _area(codes: Ints, labels: NDArray[np.bool_]) -> float:
    """Return the area under the curve on every second row, of the label's rate by code in the others."""
    size = int(codes.max()) + 1
    total = np.bincount(codes[0::2], minlength=size)
    true = np.bincount(codes[0::2], weights=labels[0::2], minlength=size)
    overall = labels[0::2].mean()
    rates = (true + overall) / (total + 1)
    return float(roc_auc_score(labels[1::2], rates[codes[1::2]]))


def _search_inputs(
    model: ModelDeclaration, event_type: str, rows: Rows, evidence: Evidence, notes: _Notes
) -> None:
    """Look for the inputs among what later events of the same keys tell (3)."""
    events, requests = evidence.events[event_type], evidence.requests
    texts = {*model.entity_keys, *(one.name for one in model.inputs if one.type is InputType.STRING)}
    shared = sorted(texts & set(events.column_names))
    if not shared or not len(rows):
        return
    step = max(1, len(rows) // _SEARCHED_ROWS)
    chosen = np.arange(0, len(rows), step)
    asked = requests.take(pa.array(chosen))
    held = _ByKeys.of(events, shared, asked)
    pairs = [
        (one.name, name)
        for one in model.inputs
        if one.name not in shared
        for name in events.column_names
        if name not in shared and _comparable(one.type, events.schema.field(name).type)
    ]
    keys = list(zip(*(asked[name].to_pylist() for name in shared), strict=True))
    until_us = evidence.until_us(rows)
    around = [
        held.around(key, int(evidence.answered_us[row]), int(until_us[row]))
        for row, key in zip(chosen.tolist(), keys, strict=True)
    ]
    told = {name: held.events[name].to_pylist() for name in {name for _, name in pairs}}
    for column, name in pairs:
        after = before = looked = 0
        for value, (future, past) in zip(asked[column].to_pylist(), around, strict=True):
            if value is None or not len(future):
                continue
            looked += 1
            after += any(told[name][place] == value for place in future)
            before += any(told[name][place] == value for place in past)
        if (
            looked >= _LEAST_FOUND
            and after / looked >= _FOUND
            and (after - before) / looked >= _MORE_THAN_BEFORE
        ):
            text = (
                f"is what a later event tells: {event_type}.{name} of the same {', '.join(shared)}, known only after the "
                f"request (before it, the same value stands in {before} of {looked})"
            )
            notes.findings.append(Finding(kind="input", column=column, text=text, rows=after, of=looked))


@dataclass(frozen=True, slots=True, kw_only=True)
class _ByKeys:
    """Events in the order in which they became known, and the places of each key's."""

    events: pa.Table
    known_us: Ints
    places: Mapping[tuple[Any, ...], Ints]

    @classmethod
    def of(cls, events: pa.Table, shared: Sequence[str], asked: pa.Table) -> "_ByKeys":
        for name in shared:
            wanted = pc.unique(asked[name]).drop_null().cast(pa.string())
            events = events.filter(pc.is_in(events[name].cast(pa.string()), wanted))
        events = events.filter(pc.is_valid(events[KNOWN_AT]))
        events = events.take(pa.array(np.argsort(micros(events[KNOWN_AT]), kind="stable")))
        places: dict[tuple[Any, ...], list[int]] = {}
        for place, key in enumerate(zip(*(events[name].to_pylist() for name in shared), strict=True)):
            places.setdefault(key, []).append(place)
        return cls(
            events=events,
            known_us=micros(events[KNOWN_AT]),
            places={key: np.array(own, np.int64) for key, own in places.items()},
        )

    def around(self, key: tuple[Any, ...], after_us: int, until_us: int) -> tuple[list[int], list[int]]:
        """Return the events that became known in ``(after_us, until_us]``, and as many before; fifty at most."""
        own = self.places.get(key, np.empty(0, np.int64))
        start, stop = np.searchsorted(self.known_us[own], [after_us, until_us], side="right").tolist()
        future = own[start : min(stop, start + _SEARCHED_EVENTS)]
        return future.tolist(), own[max(0, start - len(future)) : start].tolist()


def _comparable(kind: InputType, field_type: pa.DataType) -> bool:
    if kind is InputType.STRING:
        return bool(pa.types.is_string(field_type) or pa.types.is_large_string(field_type))
    return bool(pa.types.is_floating(field_type) or pa.types.is_integer(field_type))


def _known_early(model: ModelDeclaration, event_type: str, evidence: Evidence, notes: _Notes) -> None:
    """Write down events that were known before they happened (4)."""
    events = evidence.events[event_type]
    time = next(view.source.event_time for view in model.views if view.source.event_type == event_type)
    both = events.filter(pc.and_(pc.is_valid(events[time]), pc.is_valid(events[KNOWN_AT])))
    early = int((micros(both[time]) - micros(both[KNOWN_AT]) > evidence.future_skew_us).sum())
    if early:
        text = f"events were known before they happened ({KNOWN_AT} before {time}): the store refuses such events"
        notes.findings.append(Finding(kind="event", column=event_type, text=text, rows=early, of=len(both)))


def _told(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "column": finding.column,
        "text": finding.text,
        "rows": finding.rows,
        "of": finding.of,
    }
