"""What a leak check looks at, and what it says."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.models.training_set import Join, Rows

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that must not be: ``rows`` of ``of`` that were looked at."""

    kind: str
    column: str
    text: str
    rows: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakReport:
    """What a check found.

    Attributes
    ----------
    rows, sampled, values
        Rows of the set, those of which the features were computed again, and the values that were compared.
    by_kernels
        Feature columns that were read by the kernels from the events known by then, not in plain Python.
    unjudged
        What could not be looked at, and why.
    accepted
        Findings on columns of which a person said that they are known when they are asked for.
    """

    rows: int
    sampled: int
    values: int
    findings: tuple[Finding, ...]
    by_kernels: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()
    accepted: tuple[Finding, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "clean": self.clean,
            "rows": self.rows,
            "sampled": self.sampled,
            "values": self.values,
            "findings": [asdict(one) for one in self.findings],
            "accepted": [asdict(one) for one in self.accepted],
            "by_kernels": list(self.by_kernels),
            "unjudged": list(self.unjudged),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a training set is held against.

    Attributes
    ----------
    events
        By event type, with ``known_at``.
    requests
        The set's requests, in the order of its rows: their keys and inputs.
    answered_us
        Up to which instant each request knew events, on the clock of ``known_at``.
    join
        How the set's features were joined.
    future_skew_us
        How far ahead of its being known an event may lie.
    """

    events: Mapping[str, pa.Table]
    requests: pa.Table
    answered_us: Ints
    join: Join
    future_skew_us: int

    def until_us(self, rows: Rows) -> Ints:
        """Return when each row's label was known, on the clock of ``known_at``."""
        until: Ints = self.answered_us + np.maximum(rows.label_known_us - rows.as_of_us, 0)
        return until


@dataclass(slots=True)
class Notes:
    """What the steps of a check write down."""

    findings: list[Finding] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    by_kernels: list[str] = field(default_factory=list)
    values: int = 0
