"""Who answers a request, over HTTP and over the topic, and what it was answered: in Redis, for a while.

*Claims* are the answers over HTTP. A claim is a byte, ``C`` claimed or ``L`` logged, and the framed record of the log. Of
several processes with one UUID one claims it; the others find its record.

*Askers* say for each UUID where it was asked first: at a place of the request topic, or over HTTP. Who was first answers.
A message of the topic that comes again, because its batch was not committed, finds its own place. They are kept in
hashes, one for each span as long as a claim is kept; the newest two are read, so they are known for one to two spans.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import redis

from driftline.features.store_connection import StoreConnection
from driftline.runtime.clock import Clock, SystemClock
from driftline.runtime.errors import UnavailableError
from driftline.runtime.ids import id_time_ms, is_uuid
from driftline.runtime.pipelined_redis import PipelinedRedis, Reply
from driftline.runtime.redis_script import Commands, OneOfSeveral
from driftline.runtime.redis_servers import ERRORS, RedisServers, names_cluster
from driftline.serving.claim_scripts import CLAIM, FIRST, KEEP, TAKE_OVER

_CLAIMED, _LOGGED, _ON_TOPIC = b"C", b"L", b"T"
#: Requests of one script call: other readers of this Redis wait for a few milliseconds at most.
_CHUNK = 1_000
#: Clocks of processes differ by less than this, in seconds.
_SLACK_SECONDS = 60
#: Where the first asker of a request is: a partition and an offset of the request topic, or HTTP.
_PLACE = struct.Struct(">IQ")
PLACE_BYTES = _PLACE.size
OVER_HTTP = b"\xff" * PLACE_BYTES
_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Claim:
    """An answer that was claimed: the framed record, and whether the log is known to have it.

    Of a request that was asked over the topic first there is no record, but in the log.
    """

    value: bytes
    logged: bool

    @property
    def on_topic(self) -> bool:
        """Whether the topic answers."""
        return not self.value


class Claims:
    """The claims and askers of a project. For one thread at a time.

    Parameters
    ----------
    url
        Of the Redis, or the cluster.
    prefix
        The topics' prefix, ``[environment.]project``.
    seconds
        How long a claim is kept.
    """

    def __init__(
        self, url: str, *, prefix: str, seconds: int, timeout_seconds: float, clock: Clock | None = None
    ) -> None:
        self._stem = f"dl:{prefix}:answer:"
        self._spans = f"dl:{{{prefix}.asked}}:"
        self._seconds = seconds
        self._clock = clock or SystemClock()
        self._one: StoreConnection | None = None
        self._several: RedisServers | None = None
        if names_cluster(url):
            self._several = RedisServers(url, timeout=timeout_seconds)
        else:
            self._one = StoreConnection(url, timeout_seconds=timeout_seconds)

    def key(self, request_id: str) -> str:
        """Return the key of a request's claim."""
        return self._stem + request_id

    def look(self, request_ids: Sequence[str]) -> dict[str, Claim]:
        """Return the claims that there are of some requests; raise UnavailableError where Redis does not say."""
        keys = [self.key(one) for one in request_ids]
        found = self._asked(lambda: self.mget(keys)) if keys else []
        return claims_of(request_ids, found)

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of any keys; raise redis.RedisError, or UnavailableError, where that is not possible."""
        if self._one is not None:
            return self._one.mget(keys)
        assert self._several is not None  # noqa: S101
        try:
            return self._several.mget(keys)
        except ERRORS as error:
            self._several.moved()
            raise UnavailableError(f"the Redis cluster does not answer: {error}") from error

    def claim(self, request_ids: Sequence[str], values: Sequence[bytes]) -> dict[str, Claim]:
        """Claim framed records for requests over HTTP; return the claims that others had made.

        Raises
        ------
        UnavailableError
            It is not known what was claimed: who asks again finds it.
        """
        marked = [_CLAIMED + value for value in values]
        return _of_others(request_ids, marked, self._asked(lambda: self._claim(request_ids, marked)))

    def claim_by(
        self,
        server: PipelinedRedis,
        request_ids: Sequence[str],
        values: Sequence[bytes],
        tell: Callable[[dict[str, Claim] | UnavailableError], None],
    ) -> None:
        """Do as ``claim``, from an event loop that has a connection of its own; ``tell`` is told what it returns or raises."""
        marked = [_CLAIMED + value for value in values]

        def told(found: Reply) -> None:
            if isinstance(found, redis.RedisError):
                tell(UnavailableError(_silent(found)))
            else:
                tell(_of_others(request_ids, marked, found))

        CLAIM.ask(server, *self._claim_step(request_ids, marked), told)

    def keep(self, request_ids: Sequence[str], values: Sequence[bytes]) -> None:
        """Note that the log has these framed records; raise UnavailableError where that is not certain.

        That they were asked over HTTP is not noted: ``claim`` has done so, or ``note`` does.
        """
        keys = [self.key(one) for one in request_ids]
        marked = [_LOGGED + value for value in values]
        self._asked(lambda: self._keep(keys, marked))

    def note(self, request_ids: Sequence[str]) -> None:
        """Note that requests were asked over HTTP, where the topic was not first; UnavailableError as ``first``."""
        self.first(_raw_ids(request_ids), OVER_HTTP * len(request_ids))

    def first(self, raw_ids: bytes, places: bytes) -> dict[int, bytes]:
        """Note where requests are asked; return the places of those asked elsewhere first, by number.

        Ids of 16 bytes and their places lie side by side. Raises UnavailableError where Redis does not say: who asks again
        finds it.
        """
        others: dict[int, bytes] = {}
        for start in range(0, len(raw_ids) // _ID_BYTES, _CHUNK):
            ids = raw_ids[start * _ID_BYTES : (start + _CHUNK) * _ID_BYTES]
            told = self._asked(
                partial(self._first, ids, places[start * PLACE_BYTES : (start + _CHUNK) * PLACE_BYTES])
            )
            others.update(
                (start + number, place) for number, place in zip(told[::2], told[1::2], strict=True)
            )
        return others

    def take(self, raw_ids: Sequence[bytes], places: Sequence[bytes]) -> None:
        """Make places the first askers of requests; raise UnavailableError where that is not certain."""
        keys, left = self._span_keys()
        server = self._server(keys[0])
        pairs = [part for pair in zip(raw_ids, places, strict=True) for part in pair]
        self._asked(partial(server.command, "HSET", keys[0], *pairs))
        self._asked(partial(server.command, "EXPIRE", keys[0], left))

    def release(self, raw_ids: Sequence[bytes]) -> None:
        """Forget where requests were asked first; raise UnavailableError where that is not certain."""
        for key in self._span_keys()[0]:
            self._asked(partial(self._server(key).command, "HDEL", key, *raw_ids))

    def drop(self, request_ids: Sequence[str]) -> None:
        """Forget claims whose records were never sent; raise UnavailableError where that is not certain."""
        for key in map(self.key, request_ids):
            self._asked(partial(self._server(key).command, "DEL", key))

    def take_over(self, request_id: str, *, older_than_seconds: float) -> bool:
        """Make a claim of that age one's own, as if it were new; False where it is younger, or gone.

        Of several that try, one succeeds. Raises UnavailableError where Redis does not say.
        """
        key = self.key(request_id)
        left_ms = round((self._seconds - older_than_seconds) * 1_000)
        run = partial(TAKE_OVER.run, self._server(key), [key], [left_ms, self._seconds])
        return bool(self._asked(run))

    def asked_since_ms(self, request_id: str) -> int:
        """Return an instant before which a request whose asker is known was not answered."""
        now_ms = self._clock.now_us() // 1_000
        made_ms = id_time_ms(request_id)
        oldest_ms = now_ms - 2 * self._seconds * 1_000
        return oldest_ms if made_ms is None or made_ms > now_ms else max(made_ms, oldest_ms)

    def close(self) -> None:
        """Close the connections."""
        for connection in (self._one, self._several):
            if connection is not None:
                connection.close()

    def _span_keys(self) -> tuple[list[str], int]:
        """Return the keys of the hashes to read, the one to write first, and for how many seconds that one is read."""
        now = self._clock.now_us() // 1_000_000
        spans = dict.fromkeys(
            when // self._seconds for when in (now, now - self._seconds, now + _SLACK_SECONDS)
        )
        left = (now // self._seconds + 2) * self._seconds - now + 2 * _SLACK_SECONDS
        return [f"{self._spans}{span}" for span in spans], left

    def _first(self, raw_ids: bytes, places: bytes) -> list[Any]:
        keys, left = self._span_keys()
        arguments = [left, raw_ids, len(keys), places]
        return cast("list[Any]", FIRST.run(self._server(keys[0]), keys, arguments))

    def _claim(self, request_ids: Sequence[str], values: Sequence[bytes]) -> list[bytes | None]:
        if self._one is not None:
            return cast("list[bytes | None]", CLAIM.run(self._one, *self._claim_step(request_ids, values)))
        keys = [self.key(one) for one in request_ids]
        # Claims first, then askers: a message of the topic that finds HTTP among these finds its claim too.
        assert self._several is not None  # noqa: S101
        pipeline = self._several.pipeline()
        for key, value in zip(keys, values, strict=True):
            pipeline.set(key, value, nx=True, get=True, ex=self._seconds)
        found: list[bytes | None] = pipeline.execute()
        for number in self.first(_raw_ids(request_ids), OVER_HTTP * len(keys)):
            if found[number] is None:
                self.drop([request_ids[number]])
                found[number] = _ON_TOPIC
        return found

    def _claim_step(self, request_ids: Sequence[str], values: Sequence[bytes]) -> tuple[list[str], list[Any]]:
        """Return the keys and the arguments of ``CLAIM``."""
        spans, left = self._span_keys()
        keys = [*spans, *[self.key(one) for one in request_ids]]
        return keys, [left, _raw_ids(request_ids), len(spans), OVER_HTTP, self._seconds, *values]

    def _keep(self, keys: Sequence[str], values: Sequence[bytes]) -> None:
        if self._one is not None:
            KEEP.run(self._one, keys, [self._seconds, *values])
            return
        assert self._several is not None  # noqa: S101
        pipeline = self._several.pipeline()
        for key, value in zip(keys, values, strict=True):
            pipeline.set(key, value, ex=self._seconds)
        pipeline.execute()

    def _server(self, key: str) -> Commands:
        if self._one is not None:
            return self._one
        assert self._several is not None  # noqa: S101
        return OneOfSeveral(self._several, key)

    def _asked(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except ERRORS as error:
            if self._several is not None:
                self._several.moved()
            raise UnavailableError(_silent(error)) from error


def _silent(error: Exception) -> str:
    return f"the Redis of the answers given does not answer: {error}"


def _of_others(
    request_ids: Sequence[str], made: Sequence[bytes], found: Sequence[bytes | None]
) -> dict[str, Claim]:
    """Return the claims that were found and are not those that were just made."""
    others = [None if old == new else old for old, new in zip(found, made, strict=True)]
    return claims_of(request_ids, others)


def raw_id(request_id: str) -> bytes | None:
    """Return a UUID in 16 bytes; None for what is none.

    >>> raw_id("0190A6C5-7b2e-7c11-8000-0123456789ab").hex(), raw_id("0190a6c57b2e7c1180000123456789ab")
    ('0190a6c57b2e7c1180000123456789ab', None)
    """
    return bytes.fromhex(request_id.replace("-", "")) if is_uuid(request_id) else None


def _raw_ids(request_ids: Sequence[str]) -> bytes:
    """Return UUIDs side by side, as scripts take them."""
    return b"".join([raw_id(one) or b"" for one in request_ids])


def place_of(partition: int, offset: int) -> bytes:
    """Return a place of the request topic as askers are told."""
    return _PLACE.pack(partition, offset)


def claims_of(request_ids: Sequence[str], found: Sequence[bytes | None]) -> dict[str, Claim]:
    """Return the claims among the values that were found.

    >>> claims_of(["a", "b", "c"], [b"Lx", None, b"Cy"])
    {'a': Claim(value=b'x', logged=True), 'c': Claim(value=b'y', logged=False)}
    """
    return {
        request_id: Claim(value[1:], value[:1] == _LOGGED)
        for request_id, value in zip(request_ids, found, strict=True)
        if value is not None
    }
