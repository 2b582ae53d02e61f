"""The online store: feature views read from Redis (or Valkey), all entities and views in one round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import redis
from numpy.typing import NDArray

from driftline.features.declarations import FeatureView
from driftline.features.entity_keys import split_key
from driftline.features.keys import blob_key, owner_key, parse_owner, partition_of
from driftline.features.layout import State, ViewLayout
from driftline.features.read import ViewValues, read_state
from driftline.features.store_connection import ReadConnection
from driftline.features.update import merge_parts
from driftline.project.declaration import Project
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.runtime.redis_servers import ERRORS, RedisServers, names_cluster

#: One read of features is part of a request: it answers, or fails, within so many seconds.
TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """Where one view's blobs are among those read, and which entity each row asks for.

    The blobs are those of ``distinct`` entities, ``parts`` each, in the order in which rows first name them. A row
    that names no entity asks for number ``distinct``.
    """

    layout: ViewLayout
    start: int
    parts: int
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
        A redis client without response decoding, or the URL to make one from (``redis+cluster://`` too); or a
        connection for small reads.
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
        self._stems: dict[tuple[str, str], list[str]] = {}
        self._prefix = prefix
        self._project = project
        self._partitions = dict(partitions)

    def read(
        self,
        requests: Sequence[tuple[FeatureView, Sequence[str | None] | pa.StringArray]],
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
        keys: list[str] = []
        wanted = [self._collect(view, entities, keys) for view, entities in requests]
        blobs = self._mget(keys)
        as_of = np.asarray(as_of_us, np.int64)
        return [_read_view(item, blobs, as_of) for item in wanted]

    def applied_offsets(self, event_type: str) -> dict[int, int]:
        """Return for each partition of an event type's topic the offset after the last applied event.

        Partitions of which nothing was ever applied are left out.
        """
        partitions = range(self._partitions[event_type])
        values = self._mget([owner_key(self._prefix, event_type, p) for p in partitions])
        return {
            p: parse_owner(value)[1] for p, value in zip(partitions, values, strict=True) if value is not None
        }

    def _collect(
        self, view: FeatureView, entities: Sequence[str | None] | pa.StringArray, keys: list[str]
    ) -> _Wanted:
        """Append the keys of a view's distinct entities, all parts of one entity side by side."""
        event_type = view.source.event_type
        partitions = self._partitions[event_type]
        topic_key = self._project.event_types[event_type].key
        keyed = topic_key in view.source.entity_fields
        start = len(keys)
        named, entity_of_row = _distinct(entities)
        stems = self._stems_of(view, event_type)
        parts_of = [split_key(view.entity, entity) for entity in named] if view.entity.composite else ()
        if keyed and view.entity.composite:
            place = view.source.entity_fields.index(topic_key)
            homes = [partition_of(parts[place], partitions) for parts in parts_of]
            keys.extend([stems[home] + entity for home, entity in zip(homes, named, strict=True)])
        elif keyed:
            keys.extend([stems[partition_of(entity, partitions)] + entity for entity in named])
        else:
            keys.extend([stem + entity for entity in named for stem in stems])
        return _Wanted(
            layout=ViewLayout.of(view),
            start=start,
            parts=1 if keyed else partitions,
            distinct=len(named),
            entity_of_row=entity_of_row,
        )

    def _stems_of(self, view: FeatureView, event_type: str) -> list[str]:
        """Return the beginnings of a view's keys, one per partition."""
        stems = self._stems.get((event_type, view.ref))
        if stems is None:
            homes = range(self._partitions[event_type])
            stems = [blob_key(self._prefix, event_type, home, view.ref, "") for home in homes]
            self._stems[event_type, view.ref] = stems
        return stems

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


def _distinct(entities: Sequence[str | None] | pa.StringArray) -> tuple[list[str], NDArray[np.intp]]:
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


def _reader(url: str) -> redis.Redis | RedisServers:
    return RedisServers(url, timeout=TIMEOUT_SECONDS) if names_cluster(url) else connect(url)


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
    nothing = layout.blank.tobytes()
    size = layout.blob_bytes
    data = b"".join([nothing if blob is None else blob for blob in blobs])
    fits = len(data) == size * len(blobs)
    if fits:  # layout and fingerprint, the first eight bytes of each row, in one comparison
        heads = np.ndarray(len(blobs), np.uint64, data, strides=(size,))
        fits = bool((heads == np.frombuffer(nothing, np.uint64, 1)).all())
    if not fits:
        msg = (
            f"feature view {layout.view.ref} is not what the online store holds under this name and version: its "
            f"windows, fields, conditions or source were changed. Raise its version (version={layout.view.version + 1}), so that "
            "it is computed anew beside the old one"
        )
        raise ConfigurationError(msg)
    rows: State = np.frombuffer(data, layout.dtype)
    return rows


def _read_view(wanted: _Wanted, blobs: list[bytes | None], as_of_us: NDArray[np.int64]) -> ViewValues:
    layout, asked = wanted.layout, wanted.entity_of_row
    stop = wanted.start + wanted.distinct * wanted.parts
    parts = rows_from_blobs(layout, blobs[wanted.start : stop]).reshape(wanted.distinct, wanted.parts)
    rows = merge_parts(layout, parts)
    if wanted.in_order:
        return read_state(layout, rows, as_of_us)
    if len(asked) and asked.max() == wanted.distinct:  # one more row, without events, for who names no entity
        rows = np.append(rows, layout.blank)
    if len(asked) <= wanted.distinct:
        return read_state(layout, rows[asked], as_of_us)
    # Rows that ask for one entity as of one instant are computed once.
    order = np.lexsort((as_of_us, asked))
    entity, instant = asked[order], as_of_us[order]
    first = np.append(True, (entity[1:] != entity[:-1]) | (instant[1:] != instant[:-1]))
    read = read_state(layout, rows[entity[first]], instant[first])
    back = np.empty(len(order), np.intp)
    back[order] = np.cumsum(first) - 1
    return ViewValues(values=read.values[back], age_us=read.age_us[back], status=read.status[back])
