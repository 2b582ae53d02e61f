"""The features of then, computed again from the archive's events with the kernels that serve them.

A request knows the events that were in the log when it was answered, and reads them as of its own instant. These are two
clocks: on a live platform they are the same but for milliseconds, in a playback years apart. The point-in-time join has
one, so an event's place in the log is told in the requests' own instants:

1. An entity's requests have ranks: how many of its events were in the log when each was answered.
2. A *chain* is a set of its requests whose instants grow whenever their ranks do. Mostly there is one.
3. In a chain, an event is known from the first instant on whose rank includes it.
4. Where there are several chains, each is an entity of its own, with all of the events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.archive.columns import EVENT_DATE, INSTANT, OFFSET, PARTITION, TIMESTAMP
from driftline.contracts.prediction_fields import EVENT_TIME, PREDICTED_AT
from driftline.features import FeatureView
from driftline.features.entity_keys import split_key
from driftline.features.event_columns import event_keys, float_inputs, micros, request_keys
from driftline.features.joining import joined_values
from driftline.features.point_in_time import as_of_join
from driftline.features.read import ViewValues
from driftline.models.bundle import BundleManifest
from driftline.project import EventType, Project
from driftline.replay.grouping import positions_by
from driftline.runtime.errors import ConfigurationError
from driftline.serving.tracing import reach_us

_KNOWN, _CHAIN = "__known", "__chain"

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class EventTables(Protocol):
    """Where events come from: the archive."""

    def columns(self, stream: str) -> pa.Schema:
        """Return the columns of a stream."""
        ...

    def scan(self, stream: str, chosen: pc.Expression) -> Iterator[pa.Table]:
        """Yield the rows of a stream for which an expression holds."""
        ...


class ArchivedFeatures:
    """Computes features again, a batch of requests at a time.

    The archive has all events that the store had, and a little more than it knew: an event that was in the log, but
    not yet in the store when the request was answered, counts here. Events that run ahead of the log by more than the
    project's ``future_skew`` are left out, as the store does; those that ``max_jump`` refused are not told apart.
    Values without a window (the last one, the time since) look back thirty days, or as far as the view's age says.
    """

    def __init__(self, project: Project, events: EventTables) -> None:
        self._project, self._events = project, events

    def recompute(self, rows: pa.Table, manifest: BundleManifest) -> Mapping[str, Floats]:
        """Return the feature columns that a model reads.

        Raises
        ------
        ConfigurationError
            The project no longer declares one of the views, or the archive has no such events.
        """
        found: dict[str, Floats] = {}
        for ref in manifest.views:
            view = self._project.views.get(ref.rpartition("@")[0])
            if view is None or view.ref != ref:
                raise ConfigurationError(
                    f"{manifest.ref} reads {ref}, which the project does not declare any more: its features cannot be "
                    "computed again; check out the project as it was then, or use --features logged"
                )
            values = self._view(view, rows).values
            found.update(zip(view.columns, np.ascontiguousarray(values.T), strict=True))
        return {name: values for name, values in found.items() if name in manifest.numeric}

    def _view(self, view: FeatureView, rows: pa.Table) -> ViewValues:
        keys = request_keys(view.entity, rows).to_pylist()
        as_of_us, answered_us = micros(rows[EVENT_TIME]), micros(rows[PREDICTED_AT])
        return joined_values(
            view,
            lambda part: join_as_logged(part, self.events_of(part, rows), keys, as_of_us, answered_us),
        )

    def events_of(self, view: FeatureView, rows: pa.Table, *, after_us: int = 0) -> pa.Table:
        """Return the events that logged requests may have read of a stored view, and those logged up to ``after_us`` later."""
        keys = request_keys(view.entity, rows).to_pylist()
        as_of_us, answered_us = micros(rows[EVENT_TIME]), micros(rows[PREDICTED_AT])
        back_us = np.full(len(rows), reach_us(view))
        if view.age_column in rows.column_names:  # a part of a view has no age of its own in the log
            age_us = float_inputs(rows, [view.age_column])[view.age_column] * 1_000
            back_us = np.maximum(back_us, np.nan_to_num(age_us, nan=0.0).astype(np.int64) + 1_000)
        return self._read(view, keys, int((as_of_us - back_us).min()), int(answered_us.max()) + after_us)

    def _read(self, view: FeatureView, keys: Sequence[str | None], since_us: int, until_us: int) -> pa.Table:
        event_type = self._project.event_type(view.source.event_type)
        time = event_type.event_time
        since, until = (pa.scalar(one, pa.int64()).cast(INSTANT) for one in (since_us, until_us))
        chosen = (
            (pc.field(EVENT_DATE) >= since.cast(pa.date32()))
            & (pc.field(time) >= since)
            & (pc.field(TIMESTAMP) <= until)
        )
        parts = zip(*(split_key(view.entity, key) for key in set(keys) if key is not None), strict=True)
        for name, values in zip(view.source.entity_fields, parts, strict=False):  # no keys, no parts
            chosen &= pc.field(name).isin(pa.array(sorted(set(values)), pa.string()))
        empty = self._events.columns(event_type.name).empty_table()
        found = pa.concat_tables([empty, *self._events.scan(event_type.name, chosen)])
        return counted_events(event_type, found, self._project.future_skew_us)


def counted_events(event_type: EventType, events: pa.Table, future_skew_us: int) -> pa.Table:
    """Return the events of a log that the store counted: each id once, none that runs ahead of the log.

    They come in the log's order, by partition.
    """
    ordered = events.sort_by([(PARTITION, "ascending"), (OFFSET, "ascending")])
    _, first = np.unique(
        np.asarray(ordered[event_type.event_id].to_pylist(), dtype=object).astype(str), return_index=True
    )
    once = ordered.take(pa.array(np.sort(first)))
    ahead = micros(once[event_type.event_time]) - micros(once[TIMESTAMP])
    return once.filter(pa.array(ahead <= future_skew_us))


def join_as_logged(
    view: FeatureView, events: pa.Table, keys: Sequence[str | None], as_of_us: Ints, answered_us: Ints
) -> ViewValues:
    """Return a view's values for requests: as of their instants, from what the log held when they were answered.

    Parameters
    ----------
    events
        With ``_timestamp``, when each came into the log; each event once.
    keys, as_of_us, answered_us
        Of each request its entity's key, its instant, and when it was answered, in microseconds.
    """
    logged_us = micros(events[TIMESTAMP])
    entity_of = np.asarray(event_keys(view.source, events).cast(pa.string()).to_pylist(), dtype=object)
    asked = np.asarray(keys, dtype=object)
    parts, known, names = [], [], []
    chain_of = np.empty(len(asked), object)
    by_entity = positions_by(entity_of)
    for number, (key, rows) in enumerate(positions_by(asked).items()):
        mine = np.empty(0, np.intp) if key is None else by_entity.get(key, np.empty(0, np.intp))
        mine = mine[np.argsort(logged_us[mine], kind="stable")]
        ranks = np.searchsorted(logged_us[mine], answered_us[rows], side="right")
        for chain, chosen in enumerate(_chains(ranks, as_of_us[rows])):
            name = f"{number}.{chain}"
            chain_of[rows[chosen]] = name
            from_us = _known_from(ranks[chosen], as_of_us[rows[chosen]], len(mine))
            there = np.flatnonzero(from_us >= 0)
            parts.append(mine[there])
            known.append(from_us[there])
            names.append(np.full(len(there), name, object))
    taken = events.take(pa.array(np.concatenate([np.empty(0, np.intp), *parts])))
    taken = taken.append_column(_CHAIN, pa.array(np.concatenate([np.empty(0, object), *names]), pa.string()))
    instants = pa.array(np.concatenate([np.empty(0, np.int64), *known]), pa.int64()).cast(INSTANT)
    taken = taken.append_column(_KNOWN, instants)
    chains = pa.array(chain_of, pa.string())
    return as_of_join(view, taken, chains, as_of_us, known_at=_KNOWN, entities=_CHAIN)


def _chains(ranks: Ints, as_of_us: Ints) -> list[NDArray[np.intp]]:
    """Cut an entity's requests into chains: within one, of two requests the one with the larger rank has the later instant.

    >>> [one.tolist() for one in _chains(np.array([0, 1, 1, 2]), np.array([5, 6, 7, 6]))]
    [[0, 1, 2], [3]]
    """
    order = np.lexsort((as_of_us, ranks))
    if _is_chain(ranks[order], as_of_us[order]):
        return [order]
    chains: list[list[int]] = []
    for row in order.tolist():
        rank, instant = int(ranks[row]), int(as_of_us[row])
        for chain in chains:
            last = chain[-1]
            if as_of_us[last] < instant or (ranks[last] == rank and as_of_us[last] == instant):
                chain.append(row)
                break
        else:
            chains.append([row])
    return [np.array(chain, np.intp) for chain in chains]


def _is_chain(ranks: Ints, as_of_us: Ints) -> bool:
    later = np.diff(as_of_us) > 0
    return bool(np.all(later | ((np.diff(ranks) == 0) & (np.diff(as_of_us) == 0))))


def _known_from(ranks: Ints, as_of_us: Ints, events: int) -> Ints:
    """Return for each event, in the log's order, the first instant of a chain that knows of it; -1 if none does."""
    order = np.argsort(ranks, kind="stable")
    # The event at position k is known to those whose rank is beyond k.
    first = np.searchsorted(ranks[order], np.arange(events), side="right")
    earliest = np.minimum.accumulate(as_of_us[order][::-1])[::-1]
    return np.append(earliest, -1)[first]
