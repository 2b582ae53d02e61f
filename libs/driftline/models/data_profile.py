"""What a training set looked like, column by column: what the next one is screened against."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from driftline.features.code_lists import CodedField, CodeList
from driftline.models.training_set import Rows

#: The profile in a bundle, for the next training to be screened against.
DATA_PROFILE_FILE = "training_data.json"
_BINS = 10
_CATEGORIES_KEPT = 200


class NumericProfile(BaseModel):
    """A numeric column of a training set: ``edges`` are inner deciles, ``counts`` of the bins between them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    missing: float
    values: int
    least: float | None
    most: float | None
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    negative: int

    @property
    def constant(self) -> bool:
        """Whether all its values are one."""
        return self.values > 0 and self.least == self.most


class CategoryProfile(BaseModel):
    """A category of a training set: its most frequent values with their counts; the others are ``rest``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    missing: float
    values: int
    counts: dict[str, int]
    rest: int

    @property
    def constant(self) -> bool:
        """Whether all its values are one."""
        return len(self.counts) == 1 and self.rest == 0


class DataProfile(BaseModel):
    """What a training set looked like; shares are of all rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    label_rate: float
    numeric: dict[str, NumericProfile]
    categorical: dict[str, CategoryProfile]

    def to_bytes(self) -> bytes:
        """Return it as a bundle carries it."""
        return (self.model_dump_json() + "\n").encode()

    def spoken(self, coded: Iterable[CodedField], versions: Mapping[str, int]) -> "DataProfile":
        """Return it with its codes in the versions that lists read; ``versions`` says by column in which they are."""
        categorical = dict(self.categorical)
        for one in coded:
            if one.field in categorical:
                kept = categorical[one.field]
                counts = _spoken(kept.counts, one.codes, versions.get(one.field, 1))
                categorical[one.field] = kept.model_copy(update={"counts": counts})
        return self.model_copy(update={"categorical": categorical})

    @classmethod
    def from_bytes(cls, content: bytes) -> "DataProfile":
        """Return what ``to_bytes`` wrote."""
        return cls.model_validate_json(content)


def profile_rows(rows: Rows, numeric: Sequence[str], categorical: Sequence[str]) -> DataProfile:
    """Return the profile of a training set whose numeric columns have these names, in order."""
    return DataProfile(
        rows=len(rows),
        label_rate=float(rows.labels.mean()) if len(rows) else math.nan,
        numeric={name: numeric_profile(rows.numeric[:, at]) for at, name in enumerate(numeric)},
        categorical={name: category_profile(rows.categorical[name]) for name in categorical},
    )


def numeric_profile(values: NDArray[np.float32]) -> NumericProfile:
    """Return the profile of a numeric column; NaN is missing."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if len(finite) == 0:
        return NumericProfile(missing=1.0, values=0, least=None, most=None, edges=(), counts=(0,), negative=0)
    edges = np.unique(np.quantile(finite, np.arange(1, _BINS) / _BINS))
    counts = np.bincount(np.searchsorted(edges, finite, side="right"), minlength=len(edges) + 1)
    return NumericProfile(
        missing=float(np.isnan(values).mean()),
        values=len(finite),
        least=float(finite.min()),
        most=float(finite.max()),
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        negative=int((finite < 0).sum()),
    )


def category_profile(values: Sequence[str | None]) -> CategoryProfile:
    """Return the profile of a category; None is missing."""
    found = counted(values)
    kept = dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))[:_CATEGORIES_KEPT])
    present = found.total()
    return CategoryProfile(
        missing=1 - present / len(values) if values else 1.0,
        values=present,
        counts=kept,
        rest=present - sum(kept.values()),
    )


def counted(values: Sequence[str | None]) -> Counter[str]:
    """Count the values that are there."""
    return Counter(value for value in values if value is not None)


def _spoken(counts: Mapping[str, int], codes: CodeList, written: int) -> dict[str, int]:
    texts = codes.between(
        pa.array(list(counts), pa.string()), np.full(len(counts), written), codes.reads
    ).texts
    found: Counter[str] = Counter()
    for code, number in zip(texts.to_pylist(), counts.values(), strict=True):
        found[code] += number
    return dict(found)
