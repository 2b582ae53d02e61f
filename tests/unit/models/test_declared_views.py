"""Filtered, derived and composite features in a training set, and in the check of what was served against it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from driftline.features import Entity, FeatureView, Source, count, derived, feature, field, mean
from driftline.models.training_set import assemble
from driftline.playback.parity import PUBLISHED_AT, check_parity
from driftline.project import ModelDeclaration, Project, load_project
from driftline.project.history import KNOWN_AT, LABEL, LABEL_KNOWN_AT, History

NOW_US = 1_750_000_000_000_000
MINUTE_US = 60_000_000
PAIR = Entity("pair", keys=("customer", "merchant"))
VIEW = FeatureView(
    "pair_payments",
    1,
    Source("payments", PAIR, "paid_at"),
    [
        count().over("1h"),
        mean("amount").where(field("refunded").is_true()).over("1h").named("refunds"),
        derived("share", feature("refunds") / feature("count_1h")).or_default(-1),
    ],
    where=field("amount") > 5,
)


@pytest.fixture(scope="module")
def model() -> ModelDeclaration:
    fraud = load_project(Path(__file__).parents[2] / "e2e" / "shop").models["fraud"]
    return replace(fraud, entities=(PAIR,), views=(VIEW,))


@pytest.fixture
def payments() -> pa.Table:
    at = pa.array([NOW_US - minutes * MINUTE_US for minutes in (50, 40, 30, 20, 10)], pa.timestamp("us"))
    return pa.table(
        {
            "customer": ["ann", "ann", "ann", "bob", "ann"],
            "merchant": ["x,y", "x,y", "x,y", "x,y", "z"],
            "paid_at": at,
            "amount": [10.0, 20.0, 1.0, 30.0, None],
            "refunded": [True, None, True, True, True],
            KNOWN_AT: at,
        }
    )


@pytest.fixture
def requests() -> pa.Table:
    now = pa.array([NOW_US] * 3, pa.timestamp("us"))
    return pa.table(
        {
            "request_id": ["0", "1", "2"],
            "event_time": now,
            "customer": ["ann", "bob", "ann"],
            "merchant": ["x,y", "x,y", "z"],
            "amount": [1.0, 2.0, 3.0],
            LABEL: [True, False, True],
            LABEL_KNOWN_AT: now,
        }
    )


def test_a_training_set_has_their_columns(
    model: ModelDeclaration, payments: pa.Table, requests: pa.Table
) -> None:
    rows = assemble(model, History(events={"payments": payments}, requests=requests), requests)
    assert model.numeric_columns == (
        "amount",
        "pair_payments__count_1h",
        "pair_payments__refunds",
        "pair_payments__share",
    )
    np.testing.assert_array_equal(
        rows.numeric, np.array([[1, 2, 10, 5], [2, 1, 30, 30], [3, 0, np.nan, -1]], np.float32)
    )
    assert rows.categorical == {"customer": ["ann", "bob", "ann"], "merchant": ["x,y", "x,y", "z"]}


@pytest.mark.parametrize("served", [5.0, 4.0])
def test_served_values_are_compared_with_them(
    model: ModelDeclaration, payments: pa.Table, requests: pa.Table, served: float
) -> None:
    shop = load_project(Path(__file__).parents[2] / "e2e" / "shop")
    project: Project = replace(shop, models={"fraud": model}, views={VIEW.name: VIEW})
    logged = requests.slice(0, 1).select(["request_id", "event_time", "customer", "merchant"])
    values = {"count_1h": 2.0, "refunds": 10.0, "share": served}
    for name, value in values.items():
        logged = logged.append_column(f"pair_payments__{name}", pa.array([value]))
    logged = logged.append_column(VIEW.age_column, pa.array([40 * 60_000]))
    logged = logged.append_column("feature_views", pa.array([[VIEW.ref]]))
    events = payments.rename_columns(
        [PUBLISHED_AT if name == KNOWN_AT else name for name in payments.column_names]
    )

    found = check_parity(project, {"payments": events}, logged)

    assert (found.compared, found.equal) == (4, 4 if served == 5.0 else 3)
