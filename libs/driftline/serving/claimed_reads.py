"""Features and claims, read in one exchange."""

from collections.abc import Sequence

from driftline.serving.claims import Claim, Claims, claims_of


class ClaimsFoundError(Exception):
    """Some requests of those whose features were read have been claimed before; ``claims`` by request id."""

    def __init__(self, claims: dict[str, Claim]) -> None:
        super().__init__(f"{len(claims)} requests were asked before")
        self.claims = claims


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
