"""The online store: feature views read from Redis (or Valkey), all entities and views in one round trip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias, cast

import numpy as np
import pyarrow as pa
import redis
from numpy.typing import NDArray

from driftline.features.declarations import FeatureView
from driftline.features.joining import joined_values
from driftline.features.keys import owner_key, parse_owner
from driftline.features.layout import State, ViewLayout
from driftline.features.read import ViewValues, read_state
from driftline.features.store_connection import ReadConnection, StoreConnection
from driftline.features.stored_views import StoredView, StoredViews
from driftline.features.update import merge_parts
from driftline.project.declaration import Project
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.runtime.redis_servers import ERRORS, RedisServers, names_cluster

#: One read of features is part of a request: it answers, or fails, within so many seconds.
TIMEOUT_SECONDS = 2.0

#: The layout and the fingerprint that a blob begins with.
_HEAD_BYTES = 8
#: So few are looked at one by one.
_FEW_BLOBS = 16
#: So few rows that ask for fewer entities are computed each by itself.
_FEW_ROWS = 32

#: Keys of entities, one per row; None where a row names none.
Entities: TypeAlias = Sequence[str | None] | pa.StringArray
#: A view, the entity that each row asks it for, and each row's instant in microseconds.
AskedAt: TypeAlias = tuple[FeatureView, Entities, NDArray[np.int64]]


class ReadPlan(NamedTuple):
    """The keys to be read, and what makes each view's values of theirs (raises ConfigurationError as ``read``)."""

    keys: list[str]
    values: Callable[[Sequence[bytes | None]], list[ViewValues]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """Where one view's blobs are among those read, and which entity each row asks for.

    The blobs are those of ``distinct`` entities, all parts of each, in the order in which rows first name them. A row
    that names no entity asks for number ``distinct``.
    """

    stored: StoredView
    start: int
    distinct: int
    entity_of_row: NDArray[np.intp]

    @property
    def in_order(self) -> bool:
        """Whether each row asks for an entity of its own, so that rows and entities stand in the same order."""
        return len(self.entity_of_row) == self.distinct


class OnlineStore:
    """Reads feature values, as of an instant, from the blobs that the feature store writes.

    Parameters
    ----------
    client
        The store's URL (``redis+cluster://`` too): one connection is opened then, which threads use in turn. Or a
        redis client without response decoding.
    prefix
        The topics' prefix, ``[environment.]project``.
    partitions
        For each event type, how many partitions its topic has.
    """

    def __init__(
        self,
        client: redis.Redis | RedisServers | ReadConnection | str,
        *,
        prefix: str,
        project: Project,
        partitions: Mapping[str, int],
    ) -> None:
        self._client = _reader(client) if isinstance(client, str) else client
        self._prefix = prefix
        self._partitions = dict(partitions)
        self._views = StoredViews(prefix, project, self._partitions)

    def read(
        self,
        requests: Sequence[tuple[FeatureView, Entities]],
        as_of_us: NDArray[np.int64],
    ) -> list[ViewValues]:
        """Read views for entities, each row as of its instant: one MGET for all of them.

        Every request names a view and the key of one entity per row (None and unknown entities are MISSING; a
        composite entity's is made by ``join_key``). ``as_of_us`` holds the rows' instants, for all requests.

        Raises
        ------
        UnavailableError
            If the store cannot be reached.
        RefusedError
            If a text is no key of a composite entity.
        ConfigurationError
            If the store holds this version of a view with other features.
        """
        as_of = np.asarray(as_of_us, np.int64)
        return self.read_each([(view, entities, as_of) for view, entities in requests])

    def read_each(self, requests: Sequence[AskedAt]) -> list[ViewValues]:
        """Read views as ``read`` does, each for rows of its own, with their own instants."""
        plan = self.plan(requests)
        return plan.values(self._mget(plan.keys))

    def plan(self, requests: Sequence[AskedAt]) -> ReadPlan:
        """Return what ``read_each`` has to read, for who has a connection of its own. Raises what it raises."""
        if any(view.joins for view, _, _ in requests):
            return self._plan_joined(requests)
        keys: list[str] = []
        wanted = [self._collect(view, entities, keys) for view, entities, _ in requests]

        def values(blobs: Sequence[bytes | None]) -> list[ViewValues]:
            asked = zip(wanted, requests, strict=True)
            return [_read_view(item, blobs, as_of) for item, (_, _, as_of) in asked]

        return ReadPlan(keys, values)

    def applied_offsets(self, event_type: str) -> dict[int, int]:
        """Return for each partition of an event type's topic the offset after the last applied event.

        Partitions of which nothing was ever applied are left out.
        """
        partitions = range(self._partitions[event_type])
        values = self._mget([owner_key(self._prefix, event_type, p) for p in partitions])
        return {
            p: parse_owner(value)[1] for p, value in zip(partitions, values, strict=True) if value is not None
        }

    def _plan_joined(self, requests: Sequence[AskedAt]) -> ReadPlan:
        """Plan to read what is stored of all views, each once, and to join it."""
        # By identity: declarations take longer to hash than their blobs to read.
        wanted = {
            (id(part), id(entities), id(as_of)): (part, entities, as_of)
            for view, entities, as_of in requests
            for part in view.stored
        }
        plan = self.plan(list(wanted.values()))

        def values(blobs: Sequence[bytes | None]) -> list[ViewValues]:
            found = dict(zip(wanted, plan.values(blobs), strict=True))

            def joined(view: FeatureView, entities: int, as_of: int) -> ViewValues:
                return joined_values(view, lambda part: found[id(part), entities, as_of])

            return [joined(view, id(entities), id(as_of)) for view, entities, as_of in requests]

        return ReadPlan(plan.keys, values)

    def _collect(self, view: FeatureView, entities: Entities, keys: list[str]) -> _Wanted:
        """Append the keys of a view's distinct entities."""
        stored = self._views.of(view)
        named, entity_of_row = _distinct(entities)
        start = len(keys)
        keys += stored.keys(named)
        return _Wanted(stored=stored, start=start, distinct=len(named), entity_of_row=entity_of_row)

    def _mget(self, keys: list[str]) -> list[bytes | None]:
        if not keys:
            return []
        try:
            return cast("list[bytes | None]", self._client.mget(keys))
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise UnavailableError(f"the feature store's Redis does not answer: {error}") from error
        except ERRORS as error:
            if not isinstance(self._client, RedisServers):
                raise
            self._client.moved()
            raise UnavailableError(f"the feature store's Redis cluster does not answer: {error}") from error


def _distinct(entities: Entities) -> tuple[list[str], NDArray[np.intp]]:
    """Return the distinct entities in the order of their first row, and each row's place among them.

    The place of a row that names none is the number of distinct ones.
    """
    if isinstance(entities, pa.Array):
        encoded = entities.dictionary_encode()
        named: list[str] = encoded.dictionary.to_pylist()
        return named, encoded.indices.fill_null(len(named)).to_numpy().astype(np.intp)
    places: dict[str, int] = {}
    of_row = [-1 if entity is None else places.setdefault(entity, len(places)) for entity in entities]
    found = np.array(of_row, np.intp)
    if len(places) < len(of_row):
        found[found < 0] = len(places)
    return list(places), found


def _reader(url: str) -> RedisServers | StoreConnection:
    if names_cluster(url):
        return RedisServers(url, timeout=TIMEOUT_SECONDS)
    return StoreConnection(url, timeout_seconds=TIMEOUT_SECONDS)


def connect(url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> redis.Redis:
    """Return a client for the online store: bytes in, bytes out, bounded waits."""
    return redis.Redis.from_url(
        url,
        decode_responses=False,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        health_check_interval=30,
    )


def rows_from_blobs(layout: ViewLayout, blobs: Sequence[bytes | None]) -> State:
    """Return blobs as state rows (read-only memory; copy to update them); an absent blob is an empty row.

    Raises
    ------
    ConfigurationError
        If a blob was written with another layout: the view was changed under the same version.
    """
    nothing, head = _blank(layout)
    size = len(nothing)
    data = b"".join([nothing if blob is None else blob for blob in blobs])
    fits = len(data) == size * len(blobs)
    # Layout and fingerprint are the first eight bytes of each row. For a few rows an array costs more than a look at each.
    if fits and len(blobs) <= _FEW_BLOBS:
        fits = all(data.startswith(head, at) for at in range(0, len(data), size))
    elif fits:
        heads = np.ndarray(len(blobs), np.uint64, data, strides=(size,))
        fits = np.count_nonzero(heads == np.frombuffer(head, np.uint64)) == len(blobs)
    if not fits:
        msg = (
            f"feature view {layout.view.ref} is not what the online store holds under this name and version: its "
            f"windows, fields, conditions or source were changed. Raise its version (version={layout.view.version + 1}), so that "
            "it is computed anew beside the old one"
        )
        raise ConfigurationError(msg)
    rows: State = np.frombuffer(data, layout.dtype)
    return rows


@lru_cache(maxsize=1024)
def _blank(layout: ViewLayout) -> tuple[bytes, bytes]:
    """Return a row without events, and what every row of the layout begins with."""
    nothing = layout.blank.tobytes()
    return nothing, nothing[:_HEAD_BYTES]


def _read_view(wanted: _Wanted, blobs: Sequence[bytes | None], as_of_us: NDArray[np.int64]) -> ViewValues:
    layout, parts, asked = wanted.stored.layout, wanted.stored.parts, wanted.entity_of_row
    stop = wanted.start + wanted.distinct * parts
    rows = rows_from_blobs(layout, blobs[wanted.start : stop])
    if parts > 1:
        rows = merge_parts(layout, rows.reshape(wanted.distinct, parts))
    if wanted.in_order:
        return read_state(layout, rows, as_of_us)
    if len(asked) and asked.max() == wanted.distinct:  # one more row, without events, for who names no entity
        rows = np.append(rows, layout.blank)
    if len(asked) <= max(wanted.distinct, _FEW_ROWS):
        return read_state(layout, rows[asked], as_of_us)
    # Rows that ask for one entity as of one instant are computed once, unless finding them costs more.
    order = np.lexsort((as_of_us, asked))
    entity, instant = asked[order], as_of_us[order]
    first = np.append(True, (entity[1:] != entity[:-1]) | (instant[1:] != instant[:-1]))
    read = read_state(layout, rows[entity[first]], instant[first])
    back = np.empty(len(order), np.intp)
    back[order] = np.cumsum(first) - 1
    return read.take(back)
