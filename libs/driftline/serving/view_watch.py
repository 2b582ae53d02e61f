"""Which views must not be served yet, as the store says about once a second: never asked on a request's way."""

from collections.abc import Mapping

from driftline.features.filling import incomplete_views, read_standings
from driftline.features.online import TIMEOUT_SECONDS
from driftline.project import Project
from driftline.runtime.errors import UnavailableError
from driftline.runtime.logging import get_logger
from driftline.runtime.redis_servers import ERRORS, RedisServers

_log = get_logger(__name__)


class ViewWatch:
    """Looks which views lack a part of their history.

    ``partitions`` is how many each event type's topic has, ``prefix`` what the topics begin with.
    """

    def __init__(
        self, redis_url: str, *, prefix: str, project: Project, partitions: Mapping[str, int]
    ) -> None:
        self._servers = RedisServers(redis_url, timeout=TIMEOUT_SECONDS)
        self._prefix = prefix
        self._project = project
        self._partitions = partitions
        self._incomplete: Mapping[str, str] = {}

    def incomplete(self) -> Mapping[str, str]:
        """Return why views must not be served, by reference, as it was at the last look."""
        return self._incomplete

    def refresh(self) -> None:
        """Look again; what was known stays where the store does not answer."""
        try:
            standings = read_standings(
                self._servers.mget, prefix=self._prefix, project=self._project, partitions=self._partitions
            )
        except (*ERRORS, UnavailableError):
            self._servers.moved()
            return
        stored = incomplete_views(standings)
        found: dict[str, str] = {}
        for view in self._project.views.values():
            for part in view.stored:
                if part.ref in stored:
                    found.setdefault(view.ref, stored[part.ref])
        if found.keys() != self._incomplete.keys():
            _log.info("views that are not whole", views=list(found.values()))
        self._incomplete = found

    def close(self) -> None:
        """Close the connections."""
        self._servers.close()
