"""Bad data stop a training with the reason; the seasons do not."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.features import Entity
from driftline.models.data_profile import DataProfile, profile_rows
from driftline.models.screening import Bounds, ScreeningReport, Severity, screen, screen_types
from driftline.models.training_set import Rows
from driftline.project import DecisionRule, InputField, InputType, ModelDeclaration, ScreeningRule

NUMERIC, CATEGORICAL = ("total", "temperature"), ("shop",)


def made(seed: int = 1, rows: int = 2000) -> Rows:
    rng = np.random.default_rng(seed)
    total = rng.gamma(2, 10, rows)
    total[rng.random(rows) < 0.1] = np.nan
    return Rows(
        numeric=np.stack([total, rng.normal(15, 8, rows)], axis=1).astype(np.float32),
        categorical={"shop": rng.choice(["north", "south", "east"], rows).tolist()},
        labels=rng.random(rows) < 0.2,
        as_of_us=np.arange(rows, dtype=np.int64),
        label_known_us=np.arange(rows, dtype=np.int64) + 1,
    )


def changed(rows: Rows, *, column: int | None = None, values: object = None, **more: object) -> Rows:
    numeric = rows.numeric.copy()
    if column is not None:
        numeric[:, column] = values
    parts = {
        "numeric": numeric,
        "categorical": rows.categorical,
        "labels": rows.labels,
        "as_of_us": rows.as_of_us,
        "label_known_us": rows.label_known_us,
        **more,
    }
    return Rows(**parts)  # type: ignore[arg-type]


BEFORE = profile_rows(made(), NUMERIC, CATEGORICAL)


def screened(rows: Rows, before: DataProfile | None = BEFORE, **more: object) -> ScreeningReport:
    return screen(rows, NUMERIC, CATEGORICAL, before=before, before_name="v1", **more)  # type: ignore[arg-type]


def checks(report: ScreeningReport, severity: Severity = Severity.REFUSED) -> set[tuple[str, str]]:
    return {(one.check, one.column) for one in report.findings if one.severity is severity}


def test_good_data_are_accepted() -> None:
    for before in (BEFORE, None):
        report = screened(made(2), before)
        assert report.refused == ()
        assert report.warnings == ()


def test_minus_one_in_a_total_is_refused() -> None:
    rows = made(2)
    total = rows.numeric[:, 0].copy()
    total[:3] = -1
    report = screened(changed(rows, column=0, values=total))
    assert checks(report) == {("impossible", "total")}
    assert "total is -1 in 3 rows" in report.refused[0]


def test_the_first_frost_is_no_stand_in() -> None:
    """Values that fall below zero for the first time differ from each other."""
    rows = made(2)
    warm = changed(rows, column=1, values=np.abs(rows.numeric[:, 1]))
    before = profile_rows(warm, NUMERIC, CATEGORICAL)
    report = screened(rows, before)
    assert report.refused == ()
    assert ("range", "temperature") in checks(report, Severity.WARNING)


def test_declared_bounds_hold_without_a_profile() -> None:
    rows = made(2)
    total = rows.numeric[:, 0].copy()
    total[7] = -1
    report = screened(changed(rows, column=0, values=total), None, bounds={"total": Bounds(least=0)})
    assert checks(report) == {("impossible", "total")}
    hot = screened(rows, None, bounds={"temperature": Bounds(most=20)})
    assert checks(hot) == {("impossible", "temperature")}


def test_a_column_that_loses_its_values_is_refused() -> None:
    rows = made(2)
    half = np.where(np.arange(len(rows)) % 2, rows.numeric[:, 1], np.nan)
    assert checks(screened(changed(rows, column=1, values=half))) == {("missing", "temperature")}
    assert checks(screened(changed(rows, column=1, values=np.nan))) == {("missing", "temperature")}
    nothing_before = screened(changed(rows, column=1, values=np.nan), None)
    assert checks(nothing_before) == set()
    assert checks(nothing_before, Severity.WARNING) == {("missing", "temperature")}
    shops = changed(rows, categorical={"shop": [None] * len(rows)})
    assert checks(screened(shops)) == {("missing", "shop")}


def test_a_column_that_stops_varying_is_refused() -> None:
    rows = made(2)
    assert ("constant", "temperature") in checks(screened(changed(rows, column=1, values=15.0)))
    assert ("constant", "shop") in checks(
        screened(changed(rows, categorical={"shop": ["north"] * len(rows)}))
    )
    unknown = screened(changed(rows, column=1, values=15.0), None)
    assert checks(unknown) == set()
    assert checks(unknown, Severity.WARNING) == {("constant", "temperature")}


def test_infinities_are_refused() -> None:
    rows = made(2)
    total = rows.numeric[:, 0].copy()
    total[0] = np.inf
    assert checks(screened(changed(rows, column=0, values=total))) == {("type", "total")}


def test_labels_that_make_no_sense_are_refused() -> None:
    rows = made(2)
    for labels in (np.zeros(len(rows), bool), np.ones(len(rows), bool)):
        assert checks(screened(changed(rows, labels=labels))) == {("label_rate", "")}
    many = np.random.default_rng(1).random(len(rows)) < 0.6
    report = screened(changed(rows, labels=many))
    assert checks(report) == {("label_rate", "")}
    assert "it was in" in report.refused[0]


def test_repeated_requests() -> None:
    rows = made(2)
    ids = [str(number) for number in range(len(rows))]
    assert screened(rows, request_ids=ids).findings == ()
    few = screened(rows, request_ids=["0", *ids[:-1]])
    assert checks(few, Severity.WARNING) == {("duplicates", "")}
    assert few.refused == ()
    many = screened(rows, request_ids=ids[: len(ids) // 2] * 2)
    assert checks(many) == {("duplicates", "")}


def test_too_few_rows_are_refused() -> None:
    assert checks(screened(made(2, rows=100))) == {("rows", "")}


def test_drift_is_a_warning_unless_a_limit_is_set() -> None:
    rows = made(2)
    moved = changed(rows, column=1, values=rows.numeric[:, 1] + 8)
    report = screened(moved)
    assert report.refused == ()
    assert ("drift", "temperature") in checks(report, Severity.WARNING)
    strict = screened(moved, rule=ScreeningRule(psi_refused=0.3))
    assert checks(strict) == {("drift", "temperature")}
    shops = changed(rows, categorical={"shop": ["west", *["north"] * (len(rows) - 1)]})
    assert ("drift", "shop") in checks(screened(shops), Severity.WARNING)


def test_types_that_are_not_the_declared_ones() -> None:
    model = ModelDeclaration(
        name="m",
        description="",
        owner="",
        entities=(Entity("shop"),),
        views=(),
        inputs=(
            InputField(name="total", type=InputType.DOUBLE),
            InputField(name="colour", type=InputType.STRING),
        ),
        decision=DecisionRule(threshold=0.5, above="a", below="b"),
        module=None,  # type: ignore[arg-type]
    )
    good = pa.table({"shop": ["a"], "total": [1], "colour": pa.nulls(1)})
    assert screen_types(model, good) == []
    bad = pa.table({"shop": [1], "total": ["1"], "colour": [True]})
    found = screen_types(model, bad)
    assert [one.column for one in found] == ["shop", "total", "colour"]
    assert screened(made(2), types=found).refused[1] == "total is declared as double, the data have string"


def test_the_report_as_text_and_json() -> None:
    rows = changed(made(2), column=1, values=15.0)
    report = screened(rows)
    lines = report.text().splitlines()
    assert lines[0] == "Training data refused: 2,000 rows, 3 columns, against v1."
    assert lines[1].startswith("  refused: temperature has the same value in every row")
    assert json.loads(json.dumps(report.as_json()))["refused"] == list(report.refused)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)),
            st.sampled_from([None, "a", "b"]),
            st.booleans(),
        ),
        min_size=1,
    )
)
def test_data_never_contradict_their_own_profile(found: list[tuple[float | None, str | None, bool]]) -> None:
    """Screened against themselves there is nothing to say but what one sees without a profile."""
    values, shops, labels = zip(*found, strict=True)
    rows = Rows(
        numeric=np.array([[np.nan if value is None else value] for value in values], np.float32),
        categorical={"shop": list(shops)},
        labels=np.array(labels),
        as_of_us=np.arange(len(found)),
        label_known_us=np.arange(len(found)),
    )
    profile = profile_rows(rows, ("total",), ("shop",))
    assert DataProfile.from_bytes(profile.to_bytes()) == profile
    assert sum(profile.numeric["total"].counts) == profile.numeric["total"].values
    rule = ScreeningRule(least_rows=0)
    report = screen(rows, ("total",), ("shop",), before=profile, rule=rule)
    alone = screen(rows, ("total",), ("shop",), rule=rule)
    assert set(report.refused) <= set(alone.refused)
    assert not {one.check for one in report.findings} & {"drift", "range", "impossible"}


@pytest.mark.parametrize("value", [-1.0, -9999.0])
def test_a_stand_in_of_a_long_known_kind_is_no_news(value: float) -> None:
    rows = made(2)
    total = rows.numeric[:, 0].copy()
    total[:50] = value
    used_to = profile_rows(changed(rows, column=0, values=total), NUMERIC, CATEGORICAL)
    assert screened(changed(rows, column=0, values=total), used_to).refused == ()
