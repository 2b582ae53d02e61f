"""The log of an A/B test, by arm and unit: each request once, for the arm that it was assigned to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from driftline.archive.columns import OFFSET
from driftline.models.experiments import mean_of
from driftline.models.trial import Metric, TestPlan, Trial, TrialArm, TrialKind
from driftline.project import ModelDeclaration, load_project
from driftline.replay.ab_outcomes import AbOutcomes, Assigned
from driftline.runtime.errors import ConfigurationError

SHOP = Path(__file__).parents[2] / "e2e" / "shop"
TRIAL = Trial(
    kind=TrialKind.AB,
    name="ab",
    arms=(TrialArm(name="2", version="2", share=0.5),),
    sticky="customer",
    plan=TestPlan(),
)
SCHEMA = pa.schema(
    [
        *(
            (name, pa.string())
            for name in ("request_id", "model", "model_version", "arm", "status", "customer")
        ),
        *((name, pa.float64()) for name in ("log_loss", "value", "label")),
        (OFFSET, pa.int64()),
    ]
)


@pytest.fixture(scope="module")
def model() -> ModelDeclaration:
    return load_project(SHOP).models["fraud"]


def outcome(
    request: str, arm: str, customer: str, loss: float | None, offset: int = 0, **more: Any
) -> dict[str, Any]:
    return {
        "request_id": request,
        "model": "fraud",
        "model_version": "2",
        "arm": f"ab/{arm}",
        "status": "ANSWERED",
        "customer": customer,
        "log_loss": loss,
        "value": None if loss is None else -10 * loss,
        "label": None if loss is None else 1.0,
        OFFSET: offset,
        **more,
    }


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def test_outcomes_are_summed_by_the_units_of_each_arm(model: ModelDeclaration) -> None:
    found = AbOutcomes(model, TRIAL)
    found.add_outcomes(
        table(outcome("a", "2", "ann", 0.2), outcome("b", "2", "ann", 0.4), outcome("c", "2", "bob", 0.6))
    )
    found.add_outcomes(table(outcome("d", "champion", "cid", 0.5), outcome("e", "2", "dan", None)))
    found.add_outcomes(
        table(
            outcome("f", "2", "x", 9.0, model="other"),
            {**outcome("g", "2", "x", 9.0), "arm": "ab.2/2"},
            {**outcome("h", "2", "x", 9.0), "arm": None},
        )
    )
    losses = found.means(Metric.LOG_LOSS)
    assert losses["2"] == mean_of(np.array([0.2 + 0.4, 0.6]), np.array([2.0, 1.0]))
    assert (losses["2"].units, losses["2"].outcomes) == (2, 3)
    assert losses["champion"].mean == 0.5
    assert found.means(Metric.VALUE)["2"].mean == pytest.approx(-4.0)


def test_the_last_word_on_a_request_counts(model: ModelDeclaration) -> None:
    found = AbOutcomes(model, TRIAL)
    found.add_outcomes(table(outcome("A", "2", "ann", 0.9, 7), outcome("b", "2", "bob", 0.3, 8)))
    found.add_outcomes(table(outcome("a", "2", "ann", 0.1, 9), outcome("a", "2", "ann", 0.5, 3)))
    assert found.means(Metric.LOG_LOSS)["2"].mean == pytest.approx((0.1 + 0.3) / 2)


def test_a_correction_to_nothing_takes_the_outcome_away(model: ModelDeclaration) -> None:
    found = AbOutcomes(model, TRIAL)
    found.add_outcomes(table(outcome("a", "2", "ann", 0.9, 1), outcome("a", "2", "ann", None, 2)))
    assert found.means(Metric.LOG_LOSS)["2"].outcomes == 0


def test_who_was_assigned_is_counted_from_all_predictions(model: ModelDeclaration) -> None:
    found = AbOutcomes(model, TRIAL)
    for start in range(0, 3_000, 30):  # more batches than are kept apart
        rows = [
            outcome(f"r{n}", "2" if n % 3 else "champion", f"c{n % 50}-{n % 3}", None)
            for n in range(start, start + 30)
        ]
        found.add_predictions(table(*rows))
    found.add_predictions(
        table(
            outcome("x", "2", "c1-1", None, model_version="1"),
            outcome("y", "2", "c1-1", None, model_version=None, status="FAILED"),
        )
    )
    assert found.assigned() == {
        "champion": Assigned(requests=1_000, units=50, fallbacks=0),
        "2": Assigned(requests=2_002, units=100, fallbacks=1),
    }


def test_without_an_entity_each_request_is_a_unit(model: ModelDeclaration) -> None:
    found = AbOutcomes(model, replace(TRIAL, sticky=""))
    found.add_outcomes(table(outcome("a", "2", "ann", 0.2), outcome("b", "2", "ann", 0.4)))
    assert found.means(Metric.LOG_LOSS)["2"].units == 2


def test_records_of_before_there_were_arms_are_passed_over(model: ModelDeclaration) -> None:
    found = AbOutcomes(model, TRIAL)
    old = table(outcome("a", "2", "ann", 0.2)).drop_columns(["arm"])
    found.add_outcomes(old)
    found.add_predictions(old)
    assert found.means(Metric.LOG_LOSS)["2"].outcomes == 0
    assert found.assigned()["2"].requests == 0


def test_an_entity_that_is_declared_no_more_is_told(model: ModelDeclaration) -> None:
    with pytest.raises(ConfigurationError, match="assigned by entity 'courier'"):
        AbOutcomes(model, replace(TRIAL, sticky="courier"))
