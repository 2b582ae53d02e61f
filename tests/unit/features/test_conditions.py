"""Conditions: evaluated by columns as by the book, and mistakes told where they are written."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.features import Condition, FeatureView, count, field, mean
from driftline.features.matching import matches
from tests.unit.features.oracle import SOURCE, Trip, table, trips, truth

LIBS = Path(__file__).parents[3] / "libs"

number_fields = st.sampled_from(["delay", "fare"]).map(field)
numbers = st.sampled_from([0.0, 1.0, -3.0, 0.1, 12.75])
comparisons = st.one_of(
    st.builds(lambda f, v: f > v, number_fields, numbers),
    st.builds(lambda f, v: f >= v, number_fields, numbers),
    st.builds(lambda f, v: f < v, number_fields, numbers),
    st.builds(lambda f, v: f <= v, number_fields, numbers),
    st.builds(lambda f, v: f == v, number_fields, numbers),
    st.builds(lambda f, v: f != v, number_fields, numbers),
    st.sampled_from(
        [
            field("late").is_true(),
            field("late").is_false(),
            field("late") != True,  # noqa: E712
            field("kind") == "cab",
            field("kind") != "cab",
            field("kind").is_in("bus", "tram"),
            field("kind").present(),
            field("delay").missing(),
        ]
    ),
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        inner.map(lambda a: ~a),
    ),
    max_leaves=6,
)


@given(conditions, trips)
def test_columns_decide_as_each_event_by_the_book(condition: Condition, events: list[Trip]) -> None:
    assert matches(condition, table(events)).tolist() == [truth(condition, event) is True for event in events]


@given(conditions, trips)
def test_a_table_of_other_types_decides_alike(condition: Condition, events: list[Trip]) -> None:
    """An archive or a data frame has other Arrow types than the stream's decoder."""
    plain = table(events)
    other = plain.set_column(
        plain.schema.get_field_index("kind"), "kind", plain["kind"].combine_chunks().dictionary_encode()
    ).set_column(
        plain.schema.get_field_index("fare"), "fare", pa.array(plain["fare"].to_pandas(), from_pandas=False)
    )
    assert matches(condition, other).tolist() == matches(condition, plain).tolist()


@pytest.mark.parametrize(
    "condition", [field("x") > 1, ~(field("x") > 1), field("x") != 1, ~(field("x") != 1)]
)
def test_nulls_never_match_negated_or_not(condition: Condition) -> None:
    events = pa.table({"x": pa.array([None, float("nan")], pa.float64())})
    assert matches(condition, events).tolist() == [False, False]


def test_a_null_leaves_a_conjunction_open_but_not_a_disjunction_that_holds() -> None:
    events = pa.table({"x": pa.array([None], pa.float64()), "y": [1.0]})
    assert matches((field("x") > 0) | (field("y") > 0), events).tolist() == [True]
    assert matches((field("x") > 0) & (field("y") > 0), events).tolist() == [False]
    assert matches(~((field("x") > 0) & (field("y") > 0)), events).tolist() == [False]


def test_integers_are_compared_as_the_numbers_that_features_see() -> None:
    events = pa.table({"n": pa.array([1, 2, None], pa.int32())})
    assert matches(field("n") == 2, events).tolist() == [False, True, False]
    assert matches(field("n") < 1.5, events).tolist() == [True, False, False]


def test_equal_conditions_are_equal_whatever_the_order_of_their_texts() -> None:
    assert field("kind").is_in("b", "a", "b") == field("kind").is_in("a", "b")
    assert (field("late") == False) == field("late").is_false()  # noqa: E712
    assert (field("late") == True) != (field("late") == 1)  # noqa: E712
    assert str(~((field("a") >= 2) | field("b").missing())) == "not ((a >= 2.0 or not (b is present)))"


def test_where_on_a_feature_adds_up() -> None:
    late, far = field("late").is_true(), field("distance") > 500
    assert count().where(late).where(far) == count().where(late & far)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda: field("x") > math.nan, "compare with a finite number"),  # noqa: PLW0177
        (lambda: field("x") == None, "nulls are asked for with .present"),  # noqa: E711
        (lambda: field("x") > True, "compare with a finite number"),
        (lambda: field("x") == math.inf, "finite"),
        (lambda: field("not a name"), "no name of an event's field"),
        (lambda: field("x").is_in(), "is_in takes texts"),
        (lambda: field("x").is_in(1), "is_in takes texts"),
    ],
)
def test_values_that_nothing_can_be_compared_with_are_refused(wrong: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        wrong()  # type: ignore[operator]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: (field("x") > 1) and (field("y") > 1),
        lambda: not field("x").is_true(),
        lambda: 1 < field("x") < 3,
        lambda: mean("x").where(True),
        lambda: FeatureView("v", 1, SOURCE, [count().over("1h")], where="late"),
    ],
)
def test_what_python_would_silently_cut_short_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="condition"):
        wrong()  # type: ignore[operator]


def test_mypy_tells_wrong_conditions_and_formulas(tmp_path: Path) -> None:
    declared = tmp_path / "features.py"
    declared.write_text(
        "from driftline.features import count, decayed_mean, derived, feature, field, most_frequent, share\n"
        'good = count().where((field("late") == False) & (field("delay") > 3) | field("kind").is_in("a"))\n'
        'count().where(field("delay") > "3")\n'
        'count().where(field("late"))\n'
        'count().where(field("late") == None)\n'
        'field("kind").is_in(1)\n'
        'derived("x", 2 * feature("a") / feature("b"))\n'
        'feature("a") + "b"\n'
        'derived("x", count())\n'
        'decayed_mean("delay")\n'
        'decayed_mean("delay", "6h")\n'
        'most_frequent("kind", among=[1, 2])\n'
        'share("kind", 1)\n'
        'share("kind", "a").where(field("late").is_true()).over("1h").named("x")\n'
    )
    environment = {**os.environ, "MYPYPATH": str(LIBS)}
    options = [
        "--strict",
        "--explicit-package-bases",
        "--config-file",
        os.devnull,
        "--cache-dir",
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(declared)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.split(":")[1] for line in done.stdout.splitlines() if "error:" in line]
    assert lines == ["3", "4", "5", "6", "8", "9", "10", "11", "12", "12", "13"], done.stdout + done.stderr
