"""The key of a composite entity as one text, made of its parts.

The parts are joined by commas. Within a part ``~`` is written ``~0`` and a comma ``~1`` (the escapes of JSON
Pointer, RFC 6901), so different parts never give the same key, whatever they hold.
"""

import re
from collections.abc import Sequence

from driftline.features.declarations import Entity
from driftline.runtime.errors import RefusedError

SEPARATOR = ","
#: What is replaced in a part, in this order; undone in the reverse one.
ESCAPES = (("~", "~0"), (SEPARATOR, "~1"))
_WRONG_ESCAPE = re.compile(r"~(?![01])")


def join_key(parts: Sequence[str]) -> str:
    """Return the key of a composite entity.

    >>> join_key(["JFK", "UA"])
    'JFK,UA'
    >>> join_key(["a,b", "c"]), join_key(["a", "b,c"])
    ('a~1b,c', 'a,b~1c')
    """
    joined = list(parts)
    for plain, escape in ESCAPES:
        joined = [part.replace(plain, escape) for part in joined]
    return SEPARATOR.join(joined)


def split_key(entity: Entity, key: str) -> tuple[str, ...]:
    """Return the parts of an entity's key; the key itself where it is not composite.

    Raises
    ------
    RefusedError
        Where the text is no key of the entity.

    >>> split_key(Entity("route", keys=("origin", "carrier")), "a~1b,c")
    ('a,b', 'c')
    """
    if not entity.composite:
        return (key,)
    parts = key.split(SEPARATOR)
    if len(parts) != len(entity.keys) or _WRONG_ESCAPE.search(key):
        msg = (
            f"{key[:200]!r} is no key of {entity.name}: join {', '.join(entity.keys)} with commas, and within "
            "them write ~0 for ~ and ~1 for a comma"
        )
        raise RefusedError(msg)
    for plain, escape in reversed(ESCAPES):
        parts = [part.replace(escape, plain) for part in parts]
    return tuple(parts)
