"""Kafka to Redis, exactly once: state and offset move in one atomic step that only the owner can take.

Each partition has an owner key, ``epoch|next offset``. All keys of a partition share a hash tag. The
protocol, whose numbers return as comments beside the code:

Taking a partition (on assignment, and anew after any failure):

1. WATCH and GET the owner key. The new epoch is larger than the old one and than the clock in
   microseconds, so that an epoch never returns, even after Redis was emptied.
2. MULTI, SET the owner key to the new epoch and the offset found, EXEC. Another taker in between makes EXEC
   fail: again from 1. From here on every write of an earlier owner is refused by 6.
3. No owner key (Redis is new, was emptied, or an operator deleted the key), or a clearing that was not
   finished: the offset is CLEARING. Whatever keys the partition has are deleted, each lot in a step
   like 5 to 8, then the owner key gets the partition's oldest offset, and with it whatever the caller wants to
   begin with. Everything is applied again from there.
4. The consumer is started at that offset. The state in memory begins empty; blobs are read when they are
   needed, and nobody else can have changed them since 2.

Writing a batch:

5. WATCH and GET the owner key.
6. Anything but our epoch and the offset that the batch starts from is LostOwnershipError: another owner, an
   older snapshot, an emptied Redis. Nothing is written.
7. MULTI: the blobs, the ids seen, the log's clock, and the owner key with the batch's next offset.
8. EXEC. All or nothing, and nothing if the owner key was touched since 5.
9. No answer: the step may or may not have happened. UnavailableError makes the loop take the partition
   anew, and the offset found in 1 tells which.

Changing something else of a partition (a backfill's steps, which leave the offset where it is):

10. 5 to 9, with a new epoch as in 1. So a store that went back in time by such a step alone is told by its owner key
    too, as one that went back by a batch is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import redis
from redis.exceptions import OutOfMemoryError, WatchError

from driftline.features.keys import (
    blob_key,
    builds_key,
    fill_key,
    format_owner,
    hash_tag,
    owner_key,
    parse_owner,
    seen_key,
    views_key,
)
from driftline.runtime import metrics
from driftline.runtime.clock import Clock
from driftline.runtime.errors import LostOwnershipError, UnavailableError
from driftline.runtime.logging import get_logger
from driftline.runtime.redis_servers import ERRORS, RedisServers
from services.feature_store.resident_views import BlobWrites
from services.feature_store.seen_index import KEPT_HOURS

_log = get_logger(__name__)

#: The offset in an owner key while the partition's keys are deleted.
CLEARING = -1
_MSET_KEYS = 1_000
_MGET_KEYS = 1_000
_SCANNED_KEYS = 5_000
#: Seen hours are deleted when the log's clock has passed them; this only sweeps up after abandoned partitions.
_SEEN_EXPIRE_SECONDS = 8 * 86_400


_NOTHING: Mapping[str, bytes] = {}


class Lane(StrEnum):
    """Whose log clock and seen ids: those of the live stream, or of a backfill, which reads the log a second time."""

    LIVE = ""
    FILL = "fill:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """A partition of an event type that this process writes, and the offset that comes next."""

    event_type: str
    partition: int
    epoch: int
    next_offset: int

    @property
    def value(self) -> bytes:
        """What the owner key holds as long as nobody else has written."""
        return format_owner(self.epoch, self.next_offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreWrite:
    """What a batch changes: blobs, ids seen by hour (in the log's order), hours to forget, the log's clock."""

    blobs: Sequence[BlobWrites]
    seen: Mapping[int, bytes]
    forgotten_hours: Sequence[int]
    clock: bytes


class FencedStore:
    """The online store as its writer sees it."""

    def __init__(self, redis_url: str, *, prefix: str, clock: Clock, timeout: float = 5.0) -> None:
        self._servers = RedisServers(redis_url, timeout=timeout)
        self._prefix = prefix
        self._clock = clock

    def take(
        self,
        event_type: str,
        partition: int,
        *,
        oldest: Callable[[], int],
        beginning: Callable[[int], Mapping[str, bytes]] = lambda _: _NOTHING,
    ) -> Ownership:
        """Become the owner of a partition.

        ``oldest`` says where one begins that was never written, ``beginning`` which keys it has there, from that offset.
        """
        key = owner_key(self._prefix, event_type, partition)
        with self._guarded("take"):
            taken = None
            while taken is None:
                taken = self._try_take(event_type, partition, key)
        if taken.next_offset == CLEARING:
            offset = oldest()
            taken = self._clear(taken, offset, beginning(offset))  # (3)
        return taken

    def _try_take(self, event_type: str, partition: int, key: str) -> Ownership | None:
        with self._servers.of(key).pipeline(transaction=True) as pipeline:
            pipeline.watch(key)  # (1)
            found: Any = pipeline.get(key)
            epoch, offset = parse_owner(found) if found is not None else (0, CLEARING)
            taken = Ownership(
                event_type=event_type,
                partition=partition,
                epoch=self._later(epoch),
                next_offset=offset,
            )
            pipeline.multi()
            pipeline.set(key, taken.value)
            try:
                pipeline.execute()  # (2)
            except WatchError:
                return None
            return taken

    def write(self, ownership: Ownership, write: StoreWrite, next_offset: int) -> Ownership:
        """Write a batch and move the offset, in one step; return the ownership with the new offset."""
        return self._step(ownership, self._written(ownership, write, Lane.LIVE), next_offset)

    def fill(self, ownership: Ownership, write: StoreWrite, values: Mapping[str, bytes]) -> Ownership:
        """Write a batch of a backfill and set keys beside it, in one step; return the ownership with its new epoch."""
        commands = self._written(ownership, write, Lane.FILL)
        return self._change(ownership, [*commands, *_sets(values)])

    def complete(
        self, ownership: Ownership, values: Mapping[str, bytes], gone: Sequence[str], last: StoreWrite | None
    ) -> Ownership:
        """Write the blobs of a backfill's last batch, set and delete keys, in one step; return the new ownership."""
        blobs = [] if last is None else [*_msets(last.blobs)]
        return self.change(ownership, values, gone, blobs)

    def change(
        self,
        ownership: Ownership,
        values: Mapping[str, bytes],
        gone: Sequence[str | bytes] = (),
        before: Sequence[bytes] = (),
    ) -> Ownership:
        """Set and delete keys of a partition in one step; return the ownership with its new epoch."""
        deleted = [one.encode() if isinstance(one, str) else one for one in gone]
        unlink = [_command(b"UNLINK", *deleted)] if deleted else []
        return self._change(ownership, [*before, *_sets(values), *unlink])

    def _change(self, ownership: Ownership, commands: list[bytes]) -> Ownership:
        renewed = replace(ownership, epoch=self._later(ownership.epoch))  # (10)
        return self._step(ownership, commands, ownership.next_offset, epoch=renewed.epoch)

    def _written(self, ownership: Ownership, write: StoreWrite, lane: Lane) -> list[bytes]:
        commands = [*_msets(write.blobs)]
        for hour, hashes in write.seen.items():
            key = self._seen_key(ownership, hour, lane)
            commands.append(_command(b"APPEND", key, hashes))
            commands.append(_command(b"EXPIRE", key, b"%d" % _SEEN_EXPIRE_SECONDS))
        if write.forgotten_hours:
            gone = [self._seen_key(ownership, hour, lane) for hour in write.forgotten_hours]
            commands.append(_command(b"UNLINK", *gone))
        commands.append(_command(b"SET", self._clock_key(ownership, lane).encode(), write.clock))
        return commands

    def _later(self, epoch: int) -> int:
        return max(epoch + 1, self._clock.now_us())

    def load(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read blobs."""
        found: list[bytes | None] = []
        with self._guarded("load"):
            for start in range(0, len(keys), _MGET_KEYS):
                found += self._servers.mget(keys[start : start + _MGET_KEYS])
        return found

    def load_key(self, key: str) -> bytes | None:
        """Read one key."""
        with self._guarded("load"):
            found: bytes | None = self._servers.of(key).get(key)
            return found

    def load_clock(self, ownership: Ownership, lane: Lane = Lane.LIVE) -> bytes | None:
        """Read the partition's log clock."""
        return self.load_key(self._clock_key(ownership, lane))

    def lane_keys(self, ownership: Ownership, lane: Lane, hour: int) -> list[str]:
        """Return the keys of a lane at an hour of its clock: the clock's, and those of the hours that still count."""
        seen = [self._seen_key(ownership, one, lane).decode() for one in range(hour - KEPT_HOURS, hour + 1)]
        return [self._clock_key(ownership, lane), *seen]

    def load_seen(
        self, ownership: Ownership, hour: int, lane: Lane = Lane.LIVE
    ) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        """Read the ids seen in the hours that still count at ``hour``, in log order each."""
        for kept in range(hour - KEPT_HOURS, hour + 1):
            key = self._seen_key(ownership, kept, lane)
            with self._guarded("load"):
                found = self._servers.of(key).get(key)
            if found:
                yield kept, np.frombuffer(found, "<u8")

    def views_key(self, ownership: Ownership) -> str:
        """Return the key of the partition's complete views."""
        return views_key(self._prefix, ownership.event_type, ownership.partition)

    def fill_key(self, ownership: Ownership) -> str:
        """Return the key of the partition's backfill."""
        return fill_key(self._prefix, ownership.event_type, ownership.partition)

    def builds_key(self, ownership: Ownership) -> str:
        """Return the key of the partition's last builds."""
        return builds_key(self._prefix, ownership.event_type, ownership.partition)

    def held_views(self, ownership: Ownership, refs: Sequence[str]) -> set[str]:
        """Return the views of which the partition has any blob; looks through the server's keys until it knows."""
        place = self._prefix, ownership.event_type, ownership.partition
        stems = {blob_key(*place, ref, "").encode(): ref for ref in refs}
        held: set[str] = set()
        cursor = 0
        while len(held) < len(stems):
            cursor, keys = self._scan(ownership, "", cursor)
            for stem, ref in stems.items():
                if ref not in held and any(key.startswith(stem) for key in keys):
                    held.add(ref)
            if cursor == 0:
                break
        return held

    def unlink_blobs(self, ownership: Ownership, ref: str, cursor: int) -> tuple[Ownership, int]:
        """Delete a lot of a view's blobs; return the ownership and the next cursor, 0 where none are left."""
        cursor, keys = self._scan(ownership, f"{ref}:", cursor)
        return (self.change(ownership, {}, keys) if keys else ownership), cursor

    def _scan(self, ownership: Ownership, stem: str, cursor: int) -> tuple[int, list[bytes]]:
        tag = self._tag(ownership)
        owner = owner_key(self._prefix, ownership.event_type, ownership.partition)
        with self._guarded("clear"):
            after, found = self._servers.of(owner).scan(
                cursor, match=f"dl:{tag}:{stem}*", count=_SCANNED_KEYS
            )
        return after, found

    def lost(self, owned: Sequence[Ownership]) -> list[tuple[Ownership, int | None]]:
        """Return the partitions whose owner key is not what we wrote, with the epoch found there."""
        if not owned:
            return []
        keys = [owner_key(self._prefix, one.event_type, one.partition) for one in owned]
        with self._guarded("check"):
            found = self._servers.mget(keys)
        return [
            (one, None if value is None else parse_owner(value)[0])
            for one, value in zip(owned, found, strict=True)
            if value != one.value
        ]

    def close(self) -> None:
        """Close the connections."""
        self._servers.close()

    def _clear(self, ownership: Ownership, oldest: int, beginning: Mapping[str, bytes]) -> Ownership:
        owner = owner_key(self._prefix, ownership.event_type, ownership.partition).encode()
        cursor, deleted = 0, 0
        while True:
            cursor, found = self._scan(ownership, "", cursor)
            keys = [key for key in found if key != owner]
            if keys:
                self._step(ownership, [_command(b"UNLINK", *keys)], CLEARING)
                deleted += len(keys)
            if cursor == 0:
                break
        _log.warning(
            "the store has no offset of this partition: building it from the beginning",
            event_type=ownership.event_type,
            partition=ownership.partition,
            offset=oldest,
            keys_deleted=deleted,
        )
        return self._step(ownership, _sets(beginning), oldest)

    def _step(
        self, ownership: Ownership, commands: list[bytes], next_offset: int, *, epoch: int | None = None
    ) -> Ownership:
        """Run commands and move the offset, if the partition is still ours."""
        moved = replace(ownership, epoch=epoch or ownership.epoch, next_offset=next_offset)
        owner = owner_key(self._prefix, ownership.event_type, ownership.partition).encode()
        commands = [*commands, _command(b"SET", owner, moved.value)]
        # One joined buffer: packing 8,000 arguments through the client's pipeline takes three times as long.
        payload = b"".join([_command(b"MULTI"), *commands, _command(b"EXEC")])
        with self._guarded("write"), self._connection(owner) as connection:
            connection.send_packed_command([_command(b"WATCH", owner) + _command(b"GET", owner)])  # (5)
            connection.read_response()
            found = connection.read_response()
            if found != ownership.value:  # (6)
                connection.disconnect()  # which also ends the WATCH
                raise LostOwnershipError(self._loss(ownership, found))
            connection.send_packed_command([payload])  # (7)
            replies = [_reply(connection) for _ in range(len(commands) + 2)]  # (8), (9)
        for reply in replies:
            if isinstance(reply, Exception):
                raise _unavailable(reply, "refused a write") from reply
        if replies[-1] is None:
            raise LostOwnershipError(self._loss(ownership, None))
        for reply in replies[-1]:
            if isinstance(reply, Exception):  # a key of another type: EXEC has applied the rest
                raise reply
        return moved

    def _loss(self, ownership: Ownership, found: bytes | None) -> str:
        metrics.STORE_OWNERSHIP_LOST.labels(ownership.event_type).inc()
        return (
            f"partition {ownership.event_type}/{ownership.partition} is no longer ours: its owner key was "
            f"{ownership.value.decode()}, now {found.decode() if found else 'changed or gone'}"
        )

    def _tag(self, ownership: Ownership) -> str:
        return hash_tag(self._prefix, ownership.event_type, ownership.partition)

    def _seen_key(self, ownership: Ownership, hour: int, lane: Lane) -> bytes:
        if lane is Lane.LIVE:
            return seen_key(self._prefix, ownership.event_type, ownership.partition, hour).encode()
        return f"dl:{self._tag(ownership)}:{lane}seen:{hour}".encode()

    def _clock_key(self, ownership: Ownership, lane: Lane) -> str:
        return f"dl:{self._tag(ownership)}:{lane}clock"

    @contextmanager
    def _connection(self, key: bytes) -> Iterator[Any]:
        pool = self._servers.of(key).connection_pool
        connection = pool.get_connection()
        try:
            yield connection
        except BaseException:
            connection.disconnect()  # never return one to the pool that watches or waits for replies
            raise
        finally:
            pool.release(connection)

    @contextmanager
    def _guarded(self, operation: str) -> Iterator[None]:
        with metrics.STORE_SECONDS.labels(operation).time():
            try:
                yield
            except ERRORS as error:
                if not isinstance(error, OutOfMemoryError):
                    self._servers.moved()
                raise _unavailable(error, "does not answer") from error


def _unavailable(error: Exception, what: str) -> UnavailableError:
    if isinstance(error, OutOfMemoryError):
        return UnavailableError("the online store is full: raise its maxmemory; nothing is lost meanwhile")
    return UnavailableError(f"the online store {what}: {error}")


def _command(*arguments: bytes) -> bytes:
    parts = [b"*%d\r\n" % len(arguments)]
    parts += [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments]
    return b"".join(parts)


def _sets(values: Mapping[str, bytes]) -> list[bytes]:
    return [_command(b"SET", key.encode(), value) for key, value in values.items()]


def _msets(writes: Iterable[BlobWrites]) -> Iterator[bytes]:
    for write in writes:
        blobs, size = write.blobs.data, write.size
        for start in range(0, len(write.heads), _MSET_KEYS):
            heads = write.heads[start : start + _MSET_KEYS]
            parts: list[bytes | memoryview] = [b"*%d\r\n$4\r\nMSET" % (2 * len(heads) + 1)]
            for position, head in enumerate(heads, start):
                parts.append(head)
                parts.append(blobs[position * size : (position + 1) * size])
            parts.append(b"\r\n")
            yield b"".join(parts)


def _reply(connection: Any) -> Any:
    """Return a reply; one that is an error as the error, so that the replies after it are read as well."""
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error
