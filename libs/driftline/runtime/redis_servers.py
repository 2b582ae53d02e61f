"""One Redis (or Valkey), or the nodes of a cluster: which server holds what.

``redis://``, ``rediss://`` and ``unix://`` name one server, ``redis+cluster://`` and ``rediss+cluster://`` any node of a
cluster. Atomic steps go to the one server that holds all keys of a hash tag; only reads go over several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from driftline.runtime.errors import UnavailableError

#: What redis-py raises where a server, or the cluster, does not answer as it should.
ERRORS = (RedisError, RedisClusterException)
_CLUSTER = "+cluster://"
#: A node that is asked before a failover is over: once more, with the slots read anew.
_CLUSTER_ATTEMPTS = 3


def names_cluster(url: str) -> bool:
    """Tell whether a URL names a cluster.

    >>> names_cluster("rediss+cluster://store-0:6379")
    True
    """
    return _CLUSTER in url


class RedisServers:
    """The servers of a URL. Commands are not repeated here: who calls begins anew from what the store says.

    Parameters
    ----------
    url
        See the module.
    timeout
        Of an answer, in seconds.
    connect_timeout
        Of a connection, in seconds.
    """

    def __init__(self, url: str, *, timeout: float, connect_timeout: float = 2.0) -> None:
        self._url = url
        self._options: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": connect_timeout,
            "retry": Retry(NoBackoff(), 0),
        }
        self._cluster: RedisCluster | None = None
        self._single: redis.Redis | None = None
        if not names_cluster(url):
            self._single = redis.Redis.from_url(url, **self._options)

    def of(self, key: str | bytes) -> Any:
        """Return the client of the server that holds a key (a redis-py client; its replies are bytes).

        Raises
        ------
        UnavailableError
            The cluster does not say which.
        """
        if self._single is not None:
            return self._single
        return self._clients(lambda cluster: [cluster.get_node_from_key(key)])[0]  # type: ignore[no-untyped-call]

    def every(self) -> list[Any]:
        """Return the clients of all servers that take writes.

        Raises
        ------
        UnavailableError
            The cluster does not say which those are.
        """
        if self._single is not None:
            return [self._single]
        return self._clients(RedisCluster.get_primaries)

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read keys, whichever servers hold them; not one atomic step in a cluster.

        Raises
        ------
        RedisError, RedisClusterException
            A server does not answer (``ERRORS``).
        """
        if self._single is not None:
            return cast("list[bytes | None]", self._single.mget(list(keys)))
        return cast("list[bytes | None]", self._connected().mget_nonatomic(list(keys)))

    def pipeline(self) -> Any:
        """Return a redis-py pipeline whose commands go to the servers that hold their keys; no atomic step.

        Raises
        ------
        RedisError, RedisClusterException
            The cluster does not say which those are (``ERRORS``); its ``execute`` does too.
        """
        if self._single is not None:
            return self._single.pipeline(transaction=False)
        return self._connected().pipeline()  # type: ignore[no-untyped-call]

    def moved(self) -> None:
        """Forget which node holds what: after an error it may be another one."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.close()

    def close(self) -> None:
        """Close the connections."""
        if self._single is not None:
            self._single.close()
        self.moved()

    def _clients(self, nodes: Callable[[RedisCluster], list[Any]]) -> list[Any]:
        try:
            cluster = self._connected()
            return [cluster.get_redis_connection(node) for node in nodes(cluster)]
        except ERRORS as error:
            raise UnavailableError(f"the Redis cluster does not answer: {error}") from error

    def _connected(self) -> RedisCluster:
        if self._cluster is None:
            options = {**self._options, "retry": Retry(NoBackoff(), _CLUSTER_ATTEMPTS)}
            self._cluster = RedisCluster.from_url(self._url.replace("+cluster", ""), **options)
        return self._cluster
