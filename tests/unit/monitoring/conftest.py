"""A population to draw rows from, with the kinds of columns that models have, and a reference of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from driftline.monitoring.profile import Profile
from driftline.monitoring.reference import Reference, build_reference

_SHARES = 1 / np.arange(1, 31) ** 1.3


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Rows:
    ids: list[str]
    numeric: dict[str, NDArray[np.float64]]
    categorical: dict[str, list[str | None]]
    score: NDArray[np.float64]
    labels: NDArray[np.bool_]

    def part(self, chosen: NDArray[Any]) -> Rows:
        return Rows(
            ids=[self.ids[place] for place in chosen],
            numeric={name: column[chosen] for name, column in self.numeric.items()},
            categorical={
                name: [column[place] for place in chosen] for name, column in self.categorical.items()
            },
            score=self.score[chosen],
            labels=self.labels[chosen],
        )

    def profile(self, reference: Reference, *, sample_rows: int = 500) -> Profile:
        return Profile.of(
            reference, self.ids, self.numeric, self.categorical, self.score, sample_rows=sample_rows
        )


def draw(seed: int, rows: int, *, shift: float = 0.0) -> Rows:
    """Correlated, skewed, heavy-tailed, rounded, binary and missing columns; one category with a long tail."""
    g = np.random.default_rng(seed)
    z = g.normal(size=(7, rows))
    numeric = {
        "delay": z[0] + shift,
        "wind": 0.8 * z[0] + 0.6 * z[1],
        "income": np.exp(z[2]),
        "age": np.clip(np.round(40 + 12 * z[3]), 18, 90),
        "weekend": (z[4] > 0.6).astype(np.float64),
        "visibility": np.where(g.random(rows) < 0.1, np.nan, z[5]),
        "return": g.standard_t(3, rows),
    }
    names = np.array([f"c{number:02}" for number in range(30)])
    carrier: list[str | None] = names[g.choice(30, rows, p=_SHARES / _SHARES.sum())].tolist()
    score = 1 / (1 + np.exp(-(0.8 * numeric["delay"] - 0.5 * numeric["wind"] - 1)))
    return Rows(
        ids=[f"{seed:08x}-{number:08x}" for number in range(rows)],
        numeric=numeric,
        categorical={"carrier": carrier, "tail": [f"N{number}" for number in g.geometric(0.02, rows)]},
        score=score,
        labels=g.random(rows) < score,
    )


def reference_of(rows: Rows, **settings: Any) -> Reference:
    return build_reference(rows.numeric, rows.categorical, rows.score, rows.labels, **settings)


@pytest.fixture(scope="session")
def training() -> Rows:
    return draw(1, 20_000)


@pytest.fixture(scope="session")
def reference(training: Rows) -> Reference:
    return reference_of(training)


@pytest.fixture(scope="session")
def drawn() -> Callable[..., Rows]:
    return draw


@pytest.fixture(scope="session")
def build() -> Callable[..., Reference]:
    return reference_of


@pytest.fixture(scope="session")
def convention_pair() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The pair of samples on which the conventions state their values."""
    g = np.random.default_rng(7)
    return g.normal(0, 1, 5000), g.normal(0.3, 1.2, 4000)


@pytest.fixture(scope="session")
def plain() -> Callable[..., tuple[Reference, Profile]]:
    """Make a reference of one column and the profile of other values of it."""

    def make(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[Reference, Profile]:
        reference = build_reference(
            {"x": before}, {}, np.full(len(before), 0.5), None, sample_rows=len(before)
        )
        ids = pa.array([str(number) for number in range(len(after))])
        profile = Profile.of(
            reference, ids, {"x": after}, {}, np.full(len(after), 0.5), sample_rows=len(after)
        )
        return reference, profile

    return make
