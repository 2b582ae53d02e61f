"""What entities, views and features may be called: their names become columns, fields and keys."""

import re

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def check_name(kind: str, name: str) -> None:
    """Raise ValueError where a name is none.

    >>> check_name("feature", "Mean delay")
    Traceback (most recent call last):
    ValueError: feature name 'Mean delay': use lower-case letters, digits and single underscores, starting with a letter
    """
    if not _NAME.fullmatch(name) or "__" in name:
        msg = f"{kind} name {name!r}: use lower-case letters, digits and single underscores, starting with a letter"
        raise ValueError(msg)
