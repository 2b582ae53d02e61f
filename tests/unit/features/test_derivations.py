"""Derived features: formulas over what is served, without a byte in the store."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.features import Feature, FeatureView, count, derived, feature, mean
from driftline.features.derivations import Expression, evaluate
from driftline.features.layout import ViewLayout
from tests.unit.features.oracle import DERIVED, SOURCE, formula

values = st.one_of(
    st.sampled_from([math.nan, 0.0, -0.0, 1.0, 1e308, -1e308, 1e-308]), st.floats(-1e6, 1e6, allow_nan=False)
)
numbers = st.sampled_from([0.0, 1, -2.5, 1e300])
expressions = st.recursive(
    st.sampled_from(["a", "b"]).map(feature),
    lambda inner: st.one_of(
        st.builds(lambda x, y: x + y, inner, inner),
        st.builds(lambda x, y: x - y, inner, inner),
        st.builds(lambda x, y: x * y, inner, inner),
        st.builds(lambda x, y: x / y, inner, inner),
        st.builds(lambda x, n: n - x, inner, numbers),
        st.builds(lambda x, n: n / x, inner, numbers),
        st.builds(lambda x, n: n * x, inner, numbers),
        inner.map(lambda x: -x),
        inner.map(lambda x: x.clip(-1, 2)),
        inner.map(lambda x: x.clip(high=0.5)),
    ),
    max_leaves=6,
)


@given(expressions, st.lists(st.tuples(values, values), max_size=8))
def test_columns_are_computed_as_each_row_by_the_book(
    expression: Expression, rows: list[tuple[float, float]]
) -> None:
    columns = {name: np.array([row[place] for row in rows]) for place, name in enumerate("ab")}
    found = evaluate(expression, columns.__getitem__)
    expected = [formula(expression, dict(zip("ab", row, strict=True))) for row in rows]
    np.testing.assert_array_equal(found, np.array(expected, np.float64))


@pytest.mark.parametrize(
    "expression", [feature("a") / feature("b"), (feature("a") / feature("b")).clip(0, 1)]
)
def test_a_division_by_zero_is_missing_not_endless(expression: Expression) -> None:
    columns = {"a": np.array([1.0, 0.0, -1.0]), "b": np.zeros(3)}
    assert np.isnan(evaluate(expression, columns.__getitem__)).all()


def test_derived_features_cost_the_store_nothing() -> None:
    plain = replace(DERIVED, features=[each for each in DERIVED.features if isinstance(each, Feature)])
    with_them, without = ViewLayout.of(DERIVED), ViewLayout.of(plain)
    assert with_them.fingerprint == without.fingerprint
    assert with_them.dtype == without.dtype
    assert with_them.inputs == without.inputs


def test_derived_features_are_columns_where_they_stand() -> None:
    view = FeatureView("v", 1, SOURCE, [derived("double", 2 * feature("count_1h")), count().over("1h")])
    assert view.columns == ("v__double", "v__count_1h")


@pytest.mark.parametrize(
    ("features", "complaint"),
    [
        (
            [count().over("1h"), derived("x", feature("count_2h") / 2)],
            "'v': x is derived from 'count_2h', which is no feature that stands before it; those are count_1h",
        ),
        (
            [count().over("1h"), derived("x", feature("x") / 2)],
            "'x', which is no feature that stands before it",
        ),
        (
            [derived("x", feature("y")), derived("y", feature("count_1h")), count().over("1h")],
            "'y', which is no feature that stands before it",
        ),
        (
            [count().over("1h"), derived("count_1h", -feature("count_1h"))],
            "two features are named 'count_1h'",
        ),
        ([derived("x", feature("y"))], "derived from 'y'"),
    ],
)
def test_a_formula_over_what_is_not_there_is_refused(features: list[object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        FeatureView("v", 1, SOURCE, features)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: feature("a") + "b",
        lambda: feature("a") / mean("x"),
        lambda: feature("a") * math.inf,
        lambda: derived("x", 3),
        lambda: derived("x", "a / b"),
    ],
)
def test_what_is_no_formula_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="formula"):
        wrong()  # type: ignore[operator]


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_default_that_is_no_number_is_refused(value: float) -> None:
    for declared in (mean("x").over("1h"), derived("y", feature("x") + 1)):
        with pytest.raises(ValueError, match="default"):
            declared.or_default(value)


@pytest.mark.parametrize(
    "limits", [{}, {"low": 2, "high": 1}, {"low": math.nan, "high": 1}, {"high": math.inf}]
)
def test_limits_that_limit_nothing_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="clip"):
        feature("a").clip(**limits)


def test_a_formula_reads_like_one() -> None:
    trend = derived("trend", (feature("a") - feature("b")) / feature("b").clip(low=1)).or_default(0)
    assert str(trend.expression) == "((a - b) / clip(b, 1, None))"
    assert trend.default == 0.0
