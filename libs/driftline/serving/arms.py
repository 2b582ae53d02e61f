"""Which arm of a trial answers a request: the same one for the same key, in every process, for as long as the trial runs.

A key's point in [0, 1) is a hash of the key and the trial's name: 53 bits of BLAKE2b, salted with the trial. Arms hold
stretches of [0, 1) from 0 on, in their declared order, the champion all that is left. So an arm that is alone and grows
takes requests from the champion and from nobody else, and the assignments of two trials have nothing to do with each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.features import Entity
from driftline.models.standing import Split
from driftline.serving.succession import ServedVersion

_PERSON = b"driftline arm"
_BYTES = 8
_UNUSED_BITS = 11
_STEP = 2.0**-53

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Keys: TypeAlias = Sequence[str | None] | pa.StringArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedArm:
    """An arm with its versions in the order in which they are asked: its own, the champion, those before it.

    ``label`` is the arm as the log names it, ``version`` the one that should answer, ``unusable`` why it is not in the
    line; empty where it is.
    """

    label: str
    version: str | None
    line: tuple[ServedVersion, ...]
    unusable: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedSplit:
    """A trial that is loaded; the champion's arm is the last. ``entity`` is the sticky one; None: requests are."""

    model: str
    split: Split
    entity: Entity | None
    arms: tuple[LoadedArm, ...]

    @cached_property
    def _salt(self) -> bytes:
        return salt_of(self.model, self.split.trial)

    @cached_property
    def _ends(self) -> Floats:
        return np.cumsum([one.share for one in self.split.arms])

    def assign(self, keys: Keys) -> Sequence[tuple[LoadedArm, Rows]]:
        """Return each arm that has any of some requests, with the places of its requests."""
        at = np.searchsorted(self._ends, points(keys, self._salt), side="right")
        found = ((arm, np.flatnonzero(at == number)) for number, arm in enumerate(self.arms))
        return [(arm, rows) for arm, rows in found if len(rows)]


def salt_of(model: str, trial: str) -> bytes:
    """Return what keeps the assignments of a trial apart from those of any other."""
    return blake2b(f"{model}/{trial}".encode(), digest_size=blake2b.SALT_SIZE).digest()


def points(keys: Keys, salt: bytes) -> Floats:
    """Return each key's point in [0, 1). A column is hashed by its distinct keys.

    >>> salt = salt_of("fraud", "canary-2")
    >>> points(["ann", "bob", "ann"], salt).round(3).tolist() == points(pa.array(["ann", "bob", "ann"]), salt).round(3).tolist()
    True
    """
    if isinstance(keys, pa.Array):
        coded = keys.dictionary_encode()
        found: Floats = points(coded.dictionary.to_pylist(), salt)[
            coded.indices.to_numpy(zero_copy_only=False)
        ]
        return found
    digests = [
        blake2b((key or "").encode(), digest_size=_BYTES, salt=salt, person=_PERSON).digest() for key in keys
    ]
    numbers = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)
    return (numbers >> np.uint64(_UNUSED_BITS)).astype(np.float64) * _STEP
