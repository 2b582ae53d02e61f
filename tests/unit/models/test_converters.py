"""LightGBM, XGBoost, river and linear models: equal to what was trained within the bound, or refused with the reason."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightgbm import LGBMClassifier
from river import linear_model, naive_bayes, optim, preprocessing, tree
from river.compat import River2SKLClassifier, convert_river_to_sklearn
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from xgboost import XGBClassifier

from driftline.models.conversion import TOLERANCE, Columns, ConversionError, convert
from driftline.models.converters import rounded_down
from driftline.models.fitting import environment
from driftline.models.scoring import CATEGORICAL_INPUT, NUMERIC_INPUT, open_session, run

from .conftest import COLUMNS, Sample

CATEGORIES, NUMBERS = list(COLUMNS.categorical), list(COLUMNS.numeric)


def codes(classifier: Any) -> Pipeline:
    """Categories as numbers, missing values left to the trees."""
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return Pipeline(
        [
            ("encode", ColumnTransformer([("codes", encoder, CATEGORIES)], remainder="passthrough")),
            ("classify", classifier),
        ]
    )


def one_hot(*steps: Any, sparse: bool = False) -> Pipeline:
    """A column for each category, missing numbers filled."""
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=sparse)
    encode = ColumnTransformer([("codes", encoder, CATEGORIES), ("numbers", SimpleImputer(), NUMBERS)])
    return make_pipeline(encode, *steps)


def lightgbm(**options: Any) -> LGBMClassifier:
    return LGBMClassifier(**{"n_estimators": 40, "n_jobs": 1, "verbose": -1, **options})


def xgboost(**options: Any) -> XGBClassifier:
    return XGBClassifier(**{"n_estimators": 40, "n_jobs": 1, **options})


def river_pipeline() -> Any:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.05), l2=1e-3)


EQUAL = {
    "lightgbm": lambda: codes(lightgbm()),
    "lightgbm, dart": lambda: codes(lightgbm(boosting_type="dart")),
    "lightgbm, unbalanced": lambda: codes(lightgbm(is_unbalance=True, max_depth=4)),
    "lightgbm, one-hot": lambda: one_hot(lightgbm()),
    "xgboost": lambda: codes(xgboost()),
    "xgboost, base score": lambda: codes(xgboost(base_score=0.2, tree_method="exact", max_depth=3)),
    "xgboost, one-hot": lambda: one_hot(xgboost()),
    "logistic": lambda: one_hot(StandardScaler(), LogisticRegression()),
    "logistic, no intercept": lambda: one_hot(StandardScaler(), LogisticRegression(fit_intercept=False)),
    "stochastic gradient": lambda: one_hot(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)),
    "discriminant": lambda: one_hot(StandardScaler(), LinearDiscriminantAnalysis()),
    "river, step by step": lambda: one_hot(*convert_river_to_sklearn(river_pipeline()).named_steps.values()),
    "river, as one": lambda: one_hot(River2SKLClassifier(river_pipeline())),
    "river, no scaler": lambda: one_hot(
        StandardScaler(), convert_river_to_sklearn(linear_model.LogisticRegression())
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_it_is_the_same_model(sample: Sample, name: str) -> None:
    pipeline = EQUAL[name]().fit(sample.frame, sample.labels)
    model, proof = convert(pipeline, COLUMNS, sample.frame)
    assert proof.max_difference <= TOLERANCE
    assert proof.rows >= 7 * len(sample.labels)
    scores = run(open_session(model), feed(sample.frame))
    assert scores.std() > 0.05  # a constant would be equal to itself


@pytest.mark.parametrize("name", ["logistic", "river, as one", "lightgbm", "xgboost"])
def test_a_row_has_the_same_bits_in_any_batch(sample: Sample, name: str) -> None:
    pipeline = EQUAL[name]().fit(sample.frame, sample.labels)
    session = open_session(convert(pipeline, COLUMNS, sample.frame)[0])
    everything = run(session, feed(sample.frame))
    for size in (1, 3, 64, 300):
        parts = [run(session, feed(sample.frame[at : at + size])) for at in range(0, 300, size)]
        assert np.array_equal(np.concatenate(parts)[:300], everything[:300])


def feed(frame: pd.DataFrame) -> dict[str, Any]:
    return {
        NUMERIC_INPUT: np.ascontiguousarray(frame[NUMBERS], np.float32),
        CATEGORICAL_INPUT: np.ascontiguousarray(frame[CATEGORIES], object),
    }


REFUSED = {
    "lightgbm, zeros missing": (lambda: codes(lightgbm(zero_as_missing=True)), "zero_as_missing"),
    "lightgbm, linear": (lambda: codes(lightgbm(linear_tree=True)), "linear_tree"),
    "xgboost, own categories": (
        lambda: codes(xgboost(enable_categorical=True, feature_types=["c", "c", "q", "q", "q"])),
        "own categories",
    ),
    "xgboost, dart": (lambda: codes(xgboost(booster="dart")), "booster 'dart'.*take 'gbtree'"),
    "xgboost, other missing": (lambda: codes(xgboost(missing=-1.0)), "missing=-1 .*leave NaN"),
    "sgd, huber": (
        lambda: one_hot(StandardScaler(), SGDClassifier(loss="modified_huber")),
        "take 'log_loss'",
    ),
    "river's trees": (
        lambda: one_hot(convert_river_to_sklearn(tree.HoeffdingTreeClassifier())),
        "HoeffdingTreeClassifier has no exact form in ONNX; river's LogisticRegression",
    ),
    "river, another scaler": (
        lambda: one_hot(
            River2SKLClassifier(preprocessing.MinMaxScaler() | linear_model.LogisticRegression())
        ),
        "MinMaxScaler has no exact form.*StandardScaler has",
    ),
    "river, another loss": (
        lambda: one_hot(River2SKLClassifier(linear_model.LogisticRegression(loss=optim.losses.Hinge()))),
        "LogisticRegression with the log loss",
    ),
    "river's bayes": (
        lambda: one_hot(River2SKLClassifier(naive_bayes.GaussianNB())),
        "GaussianNB has no exact",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_equal_form_is_refused_with_the_reason(sample: Sample, name: str) -> None:
    make, told = REFUSED[name]
    pipeline = make().fit(sample.frame[:600], sample.labels[:600])
    with pytest.raises(ConversionError, match=told):
        convert(pipeline, COLUMNS, sample.frame[:600])


def test_categories_of_lightgbm_itself_are_refused(sample: Sample) -> None:
    pipeline = codes(lightgbm(min_data_per_group=5, cat_smooth=1))
    pipeline.fit(sample.frame, sample.labels, classify__categorical_feature=[0, 1])
    with pytest.raises(ConversionError, match="LightGBM's own categories"):
        convert(pipeline, COLUMNS, sample.frame)


def test_zeros_that_a_sparse_matrix_lost_are_found_by_the_proof(sample: Sample) -> None:
    # XGBoost takes the zeros of a sparse matrix for missing; ONNX has no sparse matrix.
    pipeline = one_hot(xgboost(), sparse=True)
    encode = pipeline[0].set_params(sparse_threshold=1.0)
    assert encode is pipeline[0]
    pipeline.fit(sample.frame, sample.labels)
    with pytest.raises(
        ConversionError, match=r"differs from the pipeline.*OneHotEncoder\(sparse_output=False\)"
    ):
        convert(pipeline, COLUMNS, sample.frame)


def test_thresholds_between_neighbouring_numbers_part_them_alike() -> None:
    # Between 2**24 and 2**24 + 2 lies nothing in 32 bits, and LightGBM's threshold in 64 bits does: rounded to the nearest
    # it is 2**24, or the even neighbour above it.
    columns = Columns(numeric=("count",), categorical=())
    start = np.float32(2**24 + 2)
    values = np.repeat([start, np.nextafter(start, np.float32(np.inf))], 300).astype(np.float32)
    frame = columns.frame(values[:, None], {})
    pipeline = make_pipeline(lightgbm(min_child_samples=5)).fit(frame, values > start)
    threshold = pipeline[-1].booster_.dump_model()["tree_info"][0]["tree_structure"]["threshold"]
    assert float(start) < threshold < float(values[-1]) and np.float32(threshold) == values[-1]
    _, proof = convert(pipeline, columns, frame)
    assert proof.max_difference <= TOLERANCE


@given(st.floats(-(2.0**99), 2.0**99), st.floats(-(2.0**99), 2.0**99, width=32))
def test_rounding_down_keeps_every_comparison(threshold: float, value: float) -> None:
    down = float(rounded_down(np.array([threshold]))[0])
    assert (value <= threshold) == (value <= down)


def test_the_environment_names_the_libraries_of_the_pipeline(sample: Sample) -> None:
    assert {"lightgbm", "onnxmltools"} <= environment(codes(lightgbm())).keys()
    assert "xgboost-cpu" in environment(codes(xgboost()))
    assert "river" in environment(one_hot(River2SKLClassifier(river_pipeline())))
    assert not {"river", "lightgbm", "xgboost-cpu"} & environment().keys()
