"""Claims: the answer of each request of late, under the request's UUID, in Redis, so that it is given once.

A claim is a byte, ``C`` claimed or ``L`` logged, and the framed record of the log. Of several processes with one UUID one
claims it; the others find its record. A claim lives for a while, from when it was claimed or logged last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from driftline.features.store_connection import StoreConnection
from driftline.runtime.errors import UnavailableError
from driftline.runtime.redis_script import Commands, OneOfSeveral, RedisScript
from driftline.runtime.redis_servers import ERRORS, RedisServers, names_cluster

_CLAIMED, _LOGGED = b"C", b"L"

_CLAIM = RedisScript("""
local told = {}
for i, key in ipairs(KEYS) do
  told[i] = redis.call('SET', key, ARGV[i + 1], 'NX', 'GET', 'EX', ARGV[1])
end
return told
""")
_KEEP = RedisScript("""
for i, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1])
end
""")
_TAKE_OVER = RedisScript("""
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > tonumber(ARGV[1]) then return 0 end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
""")


@dataclass(frozen=True, slots=True)
class Claim:
    """An answer that was claimed: the framed record, and whether the log is known to have it."""

    value: bytes
    logged: bool


class ClaimsFoundError(Exception):
    """Some requests of those whose features were read have been claimed before; ``claims`` by request id."""

    def __init__(self, claims: dict[str, Claim]) -> None:
        super().__init__(f"{len(claims)} requests were asked before")
        self.claims = claims


class Claims:
    """The claims of a project. For one thread at a time.

    Parameters
    ----------
    url
        Of the Redis, or the cluster.
    prefix
        The topics' prefix, ``[environment.]project``.
    seconds
        How long a claim is kept.
    """

    def __init__(self, url: str, *, prefix: str, seconds: int, timeout_seconds: float) -> None:
        self._stem = f"dl:{prefix}:answer:"
        self._seconds = seconds
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
        """Claim framed records for requests; return the claims that others had made.

        Raises
        ------
        UnavailableError
            It is not known what was claimed: who asks again finds it.
        """
        keys = [self.key(one) for one in request_ids]
        marked = [_CLAIMED + value for value in values]
        found = self._asked(lambda: self._claim(keys, marked))
        others = [None if old == new else old for old, new in zip(found, marked, strict=True)]
        return claims_of(request_ids, others)

    def keep(self, request_ids: Sequence[str], values: Sequence[bytes]) -> None:
        """Note that the log has these framed records; raise UnavailableError where that is not certain."""
        keys = [self.key(one) for one in request_ids]
        marked = [_LOGGED + value for value in values]
        self._asked(lambda: self._keep(keys, marked))

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
        run = partial(_TAKE_OVER.run, self._server(key), [key], [left_ms, self._seconds])
        return bool(self._asked(run))

    def close(self) -> None:
        """Close the connections."""
        for connection in (self._one, self._several):
            if connection is not None:
                connection.close()

    def _claim(self, keys: Sequence[str], values: Sequence[bytes]) -> list[bytes | None]:
        if self._one is not None:
            return cast("list[bytes | None]", _CLAIM.run(self._one, keys, [self._seconds, *values]))
        assert self._several is not None  # noqa: S101
        pipeline = self._several.pipeline()
        for key, value in zip(keys, values, strict=True):
            pipeline.set(key, value, nx=True, get=True, ex=self._seconds)
        return cast("list[bytes | None]", pipeline.execute())

    def _keep(self, keys: Sequence[str], values: Sequence[bytes]) -> None:
        if self._one is not None:
            _KEEP.run(self._one, keys, [self._seconds, *values])
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
            raise UnavailableError(f"the Redis of the answers given does not answer: {error}") from error


class ReadsBesideClaims:
    """Reads features, and in the same exchange the claims that were asked for before (a ``ReadConnection``).

    Where there are claims, reading ends in ClaimsFoundError: what was asked before is not to be scored.
    """

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._wanted: Sequence[str] = ()

    def want(self, request_ids: Sequence[str]) -> None:
        """Have the claims of requests read with the next features."""
        self._wanted = request_ids

    def look(self) -> dict[str, Claim]:
        """Return the claims that are still wanted, for where no features were read."""
        wanted, self._wanted = self._wanted, ()
        return self._claims.look(wanted) if wanted else {}

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of keys.

        Raises
        ------
        ClaimsFoundError
            Some of the requests were asked before.
        redis.RedisError, UnavailableError
            A server does not answer.
        """
        wanted = self._wanted
        if not wanted:
            return self._claims.mget(keys)
        found = self._claims.mget([*keys, *[self._claims.key(one) for one in wanted]])
        self._wanted = ()
        claims = claims_of(wanted, found[len(keys) :])
        if claims:
            raise ClaimsFoundError(claims)
        return found[: len(keys)]


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
