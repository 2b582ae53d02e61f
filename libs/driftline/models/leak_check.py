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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from driftline.features.event_columns import micros
from driftline.models.feature_leaks import check_features
from driftline.models.leak_report import Evidence, Finding, LeakReport, Notes
from driftline.models.training_set import Rows
from driftline.project.declaration import InputType, ModelDeclaration
from driftline.project.history import KNOWN_AT

SAMPLE = 200
#: An area under the curve that no honest column reaches alone.
_GIVES_AWAY = 0.98
_JUDGED_ROWS, _LEAST_ROWS, _LEAST_EACH, _BINS = 50_000, 200, 20, 64
_FOUND, _MORE_THAN_BEFORE, _LEAST_FOUND, _SEARCHED_ROWS, _SEARCHED_EVENTS = 0.9, 0.5, 20, 500, 50

Ints = NDArray[np.int64]
Progress = Callable[[str], None]


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
    notes = Notes()
    chosen = np.sort(np.random.default_rng(0).choice(len(rows), min(sample, len(rows)), replace=False))
    for view in model.views:
        progress(f"leak check: {view.ref}")
        check_features(model, view, rows, evidence, chosen, notes)
    progress("leak check: labels")
    notes.findings += _known_labels(rows)
    _check_columns(model, rows, notes)
    progress("leak check: inputs")
    for name in sorted({part.source.event_type for view in model.views for part in view.stored}):
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


def _known_labels(rows: Rows) -> Iterator[Finding]:
    """Yield the labels that were known before they were asked for (4)."""
    early = int((rows.label_known_us < rows.as_of_us).sum())
    if early:
        text = "was known before the request's instant: what was predicted had happened already"
        yield Finding(kind="label", column="label", text=text, rows=early, of=len(rows))


def _check_columns(model: ModelDeclaration, rows: Rows, notes: Notes) -> None:
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
    model: ModelDeclaration, event_type: str, rows: Rows, evidence: Evidence, notes: Notes
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


def _known_early(model: ModelDeclaration, event_type: str, evidence: Evidence, notes: Notes) -> None:
    """Write down events that were known before they happened (4)."""
    events = evidence.events[event_type]
    stored = (part.source for view in model.views for part in view.stored)
    time = next(source.event_time for source in stored if source.event_type == event_type)
    both = events.filter(pc.and_(pc.is_valid(events[time]), pc.is_valid(events[KNOWN_AT])))
    early = int((micros(both[time]) - micros(both[KNOWN_AT]) > evidence.future_skew_us).sum())
    if early:
        text = f"events were known before they happened ({KNOWN_AT} before {time}): the store refuses such events"
        notes.findings.append(Finding(kind="event", column=event_type, text=text, rows=early, of=len(both)))
