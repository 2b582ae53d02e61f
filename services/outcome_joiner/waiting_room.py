"""Predictions and labels that wait for each other in Redis; which outcome which row causes.

``join.lua`` holds the rules. What makes an outcome exactly one:

1. A row is applied once: the room keeps, per partition, the offset after the last row applied.
2. Each outcome is *claimed* in the room, under the place and offset of the row that causes it.
3. The outcomes and the row's offset are one Kafka transaction.
4. Killed between 2 and 3, the row comes again: it changes nothing, and finds its claims again.
5. Two members may hold the two sides of a pair: whichever row is applied second claims the outcome. The script is
   atomic, so exactly one is second.
6. Redis emptied: the key ``ready`` is gone, every application is refused, and one member builds the room anew from
   the topics, up to the group's committed offsets (``rebuild``). A row behind those was never committed, so that
   its outcomes are claimed, and sent, when it comes again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.commands.core import Script
from redis.exceptions import ClusterError, MovedError, OutOfMemoryError, ReadOnlyError, ResponseError

from driftline.runtime.errors import UnavailableError
from driftline.runtime.ids import new_id
from driftline.runtime.redis_servers import ERRORS, RedisServers

_SCRIPT = (Path(__file__).parent / "join.lua").read_text()
#: Rows of one script call: other readers of this Redis wait for some milliseconds at most.
_CHUNK = 1_000
_DELETE = 1_000
_LOCK_SECONDS = 60
_LOST = "LOST"
_WHOLE = b"whole"

PREDICTIONS, LABELS = "p", "l"

Values = Sequence[bytes | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A partition of one side: predictions or labels."""

    side: str
    partition: int

    @property
    def name(self) -> str:
        """The place as the room's keys and causes name it."""
        return f"{self.side}{self.partition}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of one place in their order.

    ``first`` and ``second`` are request id and join key of predictions, join id and label id of labels; ``third``
    is what ``join.lua`` says. ``offsets`` rise; ``event_times`` are in microseconds.
    """

    first: Sequence[str]
    second: Sequence[str]
    third: Sequence[bytes]
    offsets: NDArray[np.int64]
    event_times: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Outcomes in the order in which they were claimed: the waiting record of each and what its label says."""

    records: list[bytes]
    label: NDArray[np.float64]
    known_at_us: NDArray[np.int64]
    previous: NDArray[np.float64]
    kind: NDArray[np.int64]
    label_ids: list[str]

    @classmethod
    def together(cls, parts: Sequence[Claims]) -> Claims:
        """Return claims one after the other."""
        return cls(
            records=[record for part in parts for record in part.records],
            label=np.concatenate([part.label for part in parts]),
            known_at_us=np.concatenate([part.known_at_us for part in parts]),
            previous=np.concatenate([part.previous for part in parts]),
            kind=np.concatenate([part.kind for part in parts]),
            label_ids=[label_id for part in parts for label_id in part.label_ids],
        )


#: A claim's fixed part, as join.lua packs it, and a waiting prediction's header.
_CLAIM = np.dtype([("label", ">f8"), ("known", ">f8"), ("previous", ">f8"), ("kind", ">f8")])
HEADER = np.dtype([("offset", ">f8"), ("event_time", ">f8"), ("horizon", ">f8")])


class LostRoomError(UnavailableError):
    """The room does not hold what was applied to it: Redis was emptied, or an older copy came back."""


class WaitingRoom:
    """The room of one project. All its keys share a hash tag, so they stay together in a cluster."""

    def __init__(
        self, redis_url: str, *, prefix: str, places: int, ttl_seconds: int, timeout: float = 10.0
    ) -> None:
        self._servers = RedisServers(redis_url, timeout=timeout)
        self._script = Script(None, _SCRIPT.encode())  # type: ignore[arg-type]  # each call names its client
        self._prefix = f"dl:{{{prefix}.outcomes}}:"
        self._places = places
        self._ttl = ttl_seconds
        self._applied: dict[Place, int] = {}
        self._state = _WHOLE

    def take(self, place: Place, position: int | None) -> bool:
        """Begin with a partition at its committed offset; False where the room must be built anew first."""
        committed = position or 0
        with self._guarded():
            whole, applied = self._client.get(self._key("ready")) == _WHOLE, self._offset(place)
            if whole and applied is None and not committed:
                self._client.hsetnx(self._key("o"), place.name, 0)
                applied = 0
        if not whole or applied is None or applied < committed:
            return False
        self._applied[place] = committed
        return True

    def apply(self, place: Place, rows: Rows, next_offset: int) -> Claims:
        """Apply rows and return what they claim, the first time and every time that they come again.

        Raises
        ------
        LostRoomError
            Redis was emptied meanwhile: nothing was applied that counts.
        """
        found: list[bytes] = []
        for low in range(0, max(1, len(rows.first)), _CHUNK):
            high = min(low + _CHUNK, len(rows.first))
            last = next_offset if high == len(rows.first) else int(rows.offsets[high - 1]) + 1
            found += self._apply(place, rows, slice(low, high), last)
        return _claims(found)

    def _apply(self, place: Place, rows: Rows, part: slice, next_offset: int) -> list[bytes]:
        times = rows.event_times[part]
        arguments: list[Any] = [
            *(self._prefix, place.side, place.name, self._applied[place], self._ttl, self._places),
            *(int(times.max()) if len(times) else 0, next_offset, self._state),
        ]
        for row in zip(rows.first[part], rows.second[part], rows.third[part], strict=True):
            arguments += row
        try:
            with self._guarded():
                found: list[bytes] = self._script(keys=[self._key("o")], args=arguments, client=self._client)
        except ResponseError as error:
            if str(error).startswith(_LOST):
                raise LostRoomError(str(error)) from error
            raise
        self._applied[place] = next_offset
        return found

    def counts(self) -> dict[str, int]:
        """Return what became of predictions and labels since the room was made."""
        with self._guarded():
            found = self._client.hgetall(self._key("n"))
        return {name.decode(): int(number) for name, number in found.items()}

    def begin_rebuild(self, owner: str) -> bool:
        """Empty the room for a rebuild; False where another member is at it already.

        One that this member began in an earlier life is begun anew.
        """
        with self._guarded():
            lock = self._key("lock")
            if not self._client.set(lock, owner, nx=True, ex=_LOCK_SECONDS):
                if self._client.get(lock) != owner.encode():
                    return False
                self._client.expire(lock, _LOCK_SECONDS)
            doomed = [key for key in self._client.scan_iter(self._prefix + "*") if not key.endswith(b":lock")]
            for low in range(0, len(doomed), _DELETE):
                self._client.unlink(*doomed[low : low + _DELETE])
            # Until the room is whole, only this rebuild's rows count in it.
            self._state = f"{owner} {new_id()}".encode()
            self._client.set(self._key("ready"), self._state)
        return True

    def extend_rebuild(self, places: Sequence[Place]) -> None:
        """Say that the rebuild goes on; partitions that are new to it begin at their beginning."""
        with self._guarded():
            self._client.expire(self._key("lock"), _LOCK_SECONDS)
            for place in places:
                self._client.hsetnx(self._key("o"), place.name, 0)
                self._applied.setdefault(place, 0)

    def end_rebuild(self, *, whole: bool) -> None:
        """Open the room to all members; or, where the rebuild failed, leave it to the next one."""
        self._applied.clear()
        self._state = _WHOLE
        with self._guarded():
            if whole:
                self._client.set(self._key("ready"), _WHOLE)
            self._client.delete(self._key("lock"))

    def close(self) -> None:
        """Close the connection."""
        self._servers.close()

    @property
    def _client(self) -> Any:
        """The server that holds the room."""
        return self._servers.of(self._prefix)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn Redis's failures into UnavailableError; a script's own errors pass."""
        try:
            yield
        except OutOfMemoryError as error:
            raise UnavailableError("the joiner's Redis is full: raise its maxmemory") from error
        except ERRORS as error:
            moved = isinstance(error, (ReadOnlyError, ClusterError, MovedError))
            if isinstance(error, ResponseError) and not moved:
                raise
            self._servers.moved()
            raise UnavailableError(f"the joiner's Redis does not answer: {error}") from error

    def _offset(self, place: Place) -> int | None:
        found = self._client.hget(self._key("o"), place.name)
        return None if found is None else int(found)

    def _key(self, name: str) -> str:
        return self._prefix + name


def _claims(found: list[bytes]) -> Claims:
    entries = found[2::3]
    fixed = np.frombuffer(b"".join([entry[: _CLAIM.itemsize] for entry in entries]), _CLAIM)
    at = _CLAIM.itemsize
    return Claims(
        records=[value[HEADER.itemsize :] for value in found[1::3]],
        label=fixed["label"].astype(np.float64),
        known_at_us=fixed["known"].astype(np.int64),
        previous=fixed["previous"].astype(np.float64),
        kind=fixed["kind"].astype(np.int64),
        label_ids=[entry[at + 1 : at + 1 + entry[at]].decode() for entry in entries],
    )
