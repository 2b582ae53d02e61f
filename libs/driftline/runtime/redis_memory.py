"""What a Redis does when its memory is full: it must refuse, not forget."""

from typing import Any

from redis.exceptions import RedisError

from driftline.runtime.errors import UnavailableError
from driftline.runtime.redis_servers import RedisServers


def any_eviction(servers: RedisServers) -> str | None:
    """Say what the first of the servers that would throw keys away would (``eviction``); None where none would."""
    return next(filter(None, map(eviction, servers.every())), None)


def eviction(client: Any) -> str | None:
    """Say what a Redis would throw away at ``maxmemory`` and how to change that; None where it refuses writes instead.

    ``client`` is a redis-py client. A Redis without a limit throws nothing away, whatever its policy.

    Raises
    ------
    UnavailableError
        It does not answer.
    """
    try:
        found = client.info("memory")
    except RedisError as error:
        raise UnavailableError(f"Redis does not answer: {error}") from error
    policy = found.get("maxmemory_policy", "noeviction")
    if not found.get("maxmemory") or policy == "noeviction":
        return None
    return (
        f"Redis throws keys away when it is full (maxmemory-policy {policy}), and features or labels with them: "
        "set maxmemory-policy to noeviction"
    )
