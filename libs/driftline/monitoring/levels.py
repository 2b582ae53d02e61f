"""How bad something is: nothing, a warning, an alert, a reason to retrain."""

from collections.abc import Iterable
from enum import StrEnum


class Level(StrEnum):
    """A level of alarm. The values are what messages carry; ``rank`` orders them."""

    NONE = "none"
    WARNING = "warning"
    ALERT = "alert"
    RETRAIN = "retrain"

    @property
    def rank(self) -> int:
        """Zero for nothing, then one more for each step."""
        return _RANKS[self]


_RANKS = {level: rank for rank, level in enumerate(Level)}


def worst(levels: Iterable[Level]) -> Level:
    """Return the highest of some levels; NONE where there are none.

    >>> worst([Level.WARNING, Level.ALERT, Level.NONE])
    <Level.ALERT: 'alert'>
    """
    return max(levels, key=lambda level: level.rank, default=Level.NONE)
