"""What a replay came to, in numbers that add up batch by batch."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(slots=True, kw_only=True)
class Pairing:
    """Requests that one version answered and one version (the same, or another) scored again.

    ``unscored`` counts those that could not be scored, ``equal`` the scores of the same bits, ``decisions_changed``
    the decisions that would be others. Differences are absolute. Losses are logarithmic, in nats, summed over the
    ``labelled`` requests.
    """

    model: str
    logged_version: str
    version: str
    scored: int = 0
    unscored: int = 0
    equal: int = 0
    decisions_changed: int = 0
    max_difference: float = 0.0
    total_difference: float = 0.0
    labelled: int = 0
    logged_loss: float = 0.0
    replayed_loss: float = 0.0

    @property
    def same_version(self) -> bool:
        """Whether the version that answered scored again."""
        return self.logged_version == self.version

    @property
    def all_equal(self) -> bool:
        """Whether every request was scored again, to the same bits."""
        return self.equal == self.scored and not self.unscored

    def add(self, equal: Flags, differences: Floats, changed: Flags) -> None:
        """Add scored requests."""
        self.scored += len(equal)
        self.equal += int(equal.sum())
        self.decisions_changed += int(changed.sum())
        if len(differences):
            self.max_difference = max(self.max_difference, float(differences.max()))
            self.total_difference += float(differences.sum())

    def add_losses(self, count: int, logged: float, replayed: float) -> None:
        """Add outcomes; a corrected one adds what it changes."""
        self.labelled += count
        self.logged_loss += logged
        self.replayed_loss += replayed

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values, shares and means worked out; null where there is nothing to take them of."""
        return {
            "model": self.model,
            "logged_version": self.logged_version,
            "version": self.version,
            "scored": self.scored,
            "unscored": self.unscored,
            "equal": self.equal,
            "equal_share": self.equal / self.scored if self.scored else None,
            "max_difference": self.max_difference if self.scored else None,
            "mean_difference": self.total_difference / self.scored if self.scored else None,
            "decisions_changed": self.decisions_changed,
            "labelled": self.labelled,
            "log_loss_logged": self.logged_loss / self.labelled if self.labelled else None,
            "log_loss_replayed": self.replayed_loss / self.labelled if self.labelled else None,
        }


@dataclass(slots=True, kw_only=True)
class FeatureCheck:
    """Served feature values beside those computed again: how many, how many equal, and the others by column."""

    values: int = 0
    equal: int = 0
    different: Counter[str] = field(default_factory=Counter)

    def add(self, column: str, same: Flags) -> None:
        """Add the values of a column."""
        equal = int(same.sum())
        self.values += len(same)
        self.equal += equal
        if equal < len(same):
            self.different[column] += len(same) - equal

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"values": self.values, "equal": self.equal, "different": dict(self.different.most_common())}


@dataclass(slots=True, kw_only=True)
class Summary:
    """All of a replay.

    ``records`` counts what was read from the log, ``missing`` whether some of it may not have been (records that
    could not be decoded, offsets that nothing holds any more), ``not_answered`` those of it that have no model's score (by why),
    ``reasons`` those that could not be scored (by why).
    """

    records: int = 0
    missing: bool = False
    not_answered: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    pairings: dict[tuple[str, str, str], Pairing] = field(default_factory=dict)
    features: FeatureCheck | None = None

    def pairing(self, model: str, logged_version: str, version: str) -> Pairing:
        """Return the numbers of a pair of versions."""
        key = (model, logged_version, version)
        if key not in self.pairings:
            self.pairings[key] = Pairing(model=model, logged_version=logged_version, version=version)
        return self.pairings[key]

    @property
    def proven(self) -> bool:
        """Whether everything that must be bit-equal was read and is: the same version with the features as they were served."""
        if self.features is not None:
            return True
        same = [one for one in self.pairings.values() if one.same_version]
        return not same or (not self.missing and all(one.all_equal for one in same))

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        total = Pairing(model="", logged_version="", version="")
        for one in self.pairings.values():
            total.scored += one.scored
            total.unscored += one.unscored
            total.equal += one.equal
            total.decisions_changed += one.decisions_changed
            total.max_difference = max(total.max_difference, one.max_difference)
            total.total_difference += one.total_difference
            total.add_losses(one.labelled, one.logged_loss, one.replayed_loss)
        sums = {name: value for name, value in total.as_json().items() if name not in _NAMES}
        return {
            "records": self.records,
            "not_answered": dict(self.not_answered.most_common()),
            "reasons": dict(self.reasons.most_common()),
            "proven": self.proven,
            **sums,
            "versions": [one.as_json() for one in self.pairings.values()],
            "features": None if self.features is None else self.features.as_json(),
        }


_NAMES = frozenset({"model", "logged_version", "version"})
