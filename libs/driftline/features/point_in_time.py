"""Feature values for a training set: what the online store would have answered at each row's instant.

The state of an entity is a function of the set of its events (see ``layout``), and an event is in the set
as of ``t`` if it was known at ``t``. So values come straight from the events, whole columns at a time:

1. The newest event and the last values as of ``t`` are running maxima over the events in the order in
   which they became known.
2. The windows of a *plain* row, one whose window holds only events that were known by then, are
   differences of running sums (in integers, so exact), and minima, maxima and largest ranks of slices; sums that
   decay are weighed tile by tile, as the store does.
3. The windows of the other rows (an event was still unknown, or one was known ahead of its time) come from
   the store's own kernels, fed with the events that each row may know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.features.declarations import FeatureView
from driftline.features.event_columns import event_keys, micros, one_array
from driftline.features.history import History
from driftline.features.history_totals import fill_totals
from driftline.features.joining import joined_values
from driftline.features.layout import ViewLayout
from driftline.features.matching import layout_inputs, matches, spoken
from driftline.features.read import ViewValues, finalize

Ints = NDArray[np.int64]
Events: TypeAlias = pa.Table | pa.RecordBatch


def as_of_join(
    view: FeatureView,
    events: Events | Mapping[str, Events],
    keys: Sequence[str | None] | pa.Array,
    as_of_us: Ints,
    *,
    known_at: str | None = None,
    entities: str | None = None,
) -> ViewValues:
    """Return a view's values for entities, each as of an instant.

    Bit for bit what the store answers that was fed with the events in the order in which they became known.

    Parameters
    ----------
    events
        The source's events, in any order, each once; of a view with several sources by event type. Those without
        an entity or a time are left out, and those that the view's condition leaves out.
    keys
        The key of each row's entity (a composite one's as ``entity_keys.join_key`` makes it).
    as_of_us
        The instant of each row, in microseconds.
    known_at
        Column with the instant from which an event was known; the event time unless said.
    entities
        Column with the key of each event's entity; what the source's fields say unless said.
    """

    def stored(part: FeatureView) -> ViewValues:
        own = events[part.source.event_type] if isinstance(events, Mapping) else events
        return _stored_join(part, own, keys, as_of_us, known_at=known_at, entities=entities)

    return joined_values(view, stored)


def _stored_join(
    view: FeatureView,
    events: Events,
    keys: Sequence[str | None] | pa.Array,
    as_of_us: Ints,
    *,
    known_at: str | None,
    entities: str | None,
) -> ViewValues:
    layout = ViewLayout.of(view)
    history, row_entity = _history(layout, events, keys, known_at=known_at, entities=entities)
    # Rows in the order of the events: what they search for lies side by side.
    order = np.lexsort((np.asarray(as_of_us, np.int64), row_entity))
    as_of, row_entity = np.asarray(as_of_us, np.int64)[order], row_entity[order]
    totals = np.empty((len(as_of), sum(len(r.windows_us) * r.columns for r in layout.rings)))
    newest = history.running_newest(row_entity, as_of)
    last_value, last_time = history.lasts(row_entity, as_of)
    if layout.rings:
        fill_totals(history, row_entity, as_of, newest=newest, totals=totals)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return finalize(
        layout,
        totals=totals[back],
        last_value=last_value[back],
        last_time=last_time[back],
        newest=newest[back],
        as_of_us=as_of[back],
    )


def _history(
    layout: ViewLayout,
    events: pa.Table | pa.RecordBatch,
    keys: Sequence[str | None] | pa.Array,
    *,
    known_at: str | None,
    entities: str | None,
) -> tuple[History, Ints]:
    """Number the entities that are asked for, and sort those of their events that the view is about."""
    source = layout.view.source
    asked = one_array(keys) if isinstance(keys, pa.Array | pa.ChunkedArray) else pa.array(keys, pa.string())
    asked = asked.cast(pa.string())
    numbered = asked.drop_null().unique()
    row_entity = pc.index_in(asked, numbered).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    if isinstance(events, pa.RecordBatch):
        events = pa.Table.from_batches([events])
    events, _ = spoken(layout.view, events)
    known_column = known_at or source.event_time
    conditions = [item.condition for item in layout.made if item.condition is not None]
    asked_of = {name for condition in conditions for name in condition.fields}
    texts = {item.field for item in layout.made if item.reads_text}
    named = {source.event_time, known_column, *layout.fields, *asked_of, *texts}
    said = event_keys(source, events) if entities is None else one_array(events.column(entities))
    field = said.cast(pa.string())
    counts = pc.is_in(field, numbered)
    for name in (source.event_time, known_column):
        counts = pc.and_(counts, one_array(events.column(name)).is_valid())
    if layout.view.where is not None:
        counts = pc.and_(counts, pa.array(matches(layout.view.where, events)))
    events = events.select(sorted(named)).filter(counts)
    entity = pc.index_in(field.filter(counts), numbered).to_numpy(zero_copy_only=False).astype(np.int64)
    time_us = micros(events.column(source.event_time))
    order = np.lexsort((time_us, entity))
    history = History(
        layout=layout,
        entity=entity[order],
        time_us=time_us[order],
        known_us=micros(events.column(known_column))[order],
        values={name: column[order] for name, column in layout_inputs(layout, events).items()},
    )
    return history, row_entity
