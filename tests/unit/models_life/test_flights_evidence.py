"""On the real flights: June's retrain is promoted on evidence, October's retrain on three months alone is refused."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone

from driftline.models.comparison import Decision, compare, paired_blocks
from driftline.models.fitting import Gathered, candidates_of, columns_of, gather, midnight_us
from driftline.models.gates import HeldBack, champion_gate
from driftline.models.training_set import Rows
from driftline.project import ComparisonRule, load_project

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"
PROJECT = load_project(FLIGHTS)
MODEL = PROJECT.models["lateness"]
RULE = ComparisonRule()


def us(month: int, day: int = 1) -> int:
    return midnight_us(date(2013, month, day))


@pytest.fixture(scope="module")
def flights() -> Gathered:
    until = us(11, 5)
    return gather(PROJECT, MODEL, start=date(2013, 1, 1), until_us=until, known_by_us=until)


class Version:
    """A version that learnt from what was known between two instants."""

    def __init__(self, rows: Rows, start_us: int, until_us: int) -> None:
        self.columns = columns_of(MODEL)
        learnt = rows.take((rows.as_of_us >= start_us) & (rows.label_known_us < until_us))
        # The quick one of the project's candidates.
        estimator: Any = clone(candidates_of(MODEL)["boosting_small"])
        self.pipeline = estimator.fit(self.columns.frame(learnt.numeric, learnt.categorical), learnt.labels)

    def scores(self, rows: Rows) -> NDArray[np.float64]:
        frame = self.columns.frame(rows.numeric, rows.categorical)
        scores: NDArray[np.float64] = self.pipeline.predict_proba(frame)[:, 1]
        return scores


def decided(rows: Rows, champion: Version, challenger: Version, start_us: int, days: int) -> Decision:
    span = rows.take((rows.as_of_us >= start_us) & (rows.as_of_us < start_us + days * 86_400_000_000))
    blocks = paired_blocks(span.as_of_us, span.labels, champion.scores(span), challenger.scores(span))
    return compare(blocks, RULE).decision


def test_evidence_decides_on_real_flights(flights: Gathered) -> None:
    rows = flights.rows
    spring = Version(rows, us(1), us(4))
    june = Version(rows, us(1), us(6, 11))
    assert decided(rows, spring, june, us(6, 11), 28) is Decision.PROMOTE
    assert decided(rows, june, spring, us(6, 11), 28) is Decision.REJECT

    three_months = Version(rows, us(7), us(10))
    assert decided(rows, june, three_months, us(10), 28) is Decision.REJECT
    assert decided(rows, spring, three_months, us(10), 28) is Decision.REJECT

    # Already on its held-back rows, trained without them, it does not beat the champion.
    split = us(9, 13)
    candidate = Version(rows, us(7), split)
    held = rows.take((rows.as_of_us >= split) & (rows.label_known_us < us(10)))
    part = HeldBack(as_of_us=held.as_of_us, labels=held.labels, scores=candidate.scores(held))
    gate = champion_gate(part, june.scores(held), champion_until_us=us(6, 11), least_rows=500)
    assert not gate.passed, gate.reason
