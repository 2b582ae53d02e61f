"""What is served equals what was trained, or it is not served."""

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from driftline.models.conversion import TOLERANCE, Columns, ConversionError, convert, prove

from .conftest import COLUMNS, Converted, Sample, boosting


def test_boosting_converts_and_the_proof_covers_what_is_missing_and_unseen(
    converted: Converted, sample: Sample
) -> None:
    assert converted.conversion.max_difference <= TOLERANCE
    assert converted.conversion.rows >= 7 * len(sample.labels)


def test_native_categories_are_refused(sample: Sample) -> None:
    pipeline = boosting(categorical_features=[0, 1]).fit(sample.frame, sample.labels)
    with pytest.raises(ConversionError, match=r"native categorical features.*OrdinalEncoder"):
        convert(pipeline, COLUMNS, sample.frame)


def one_hot(classifier: object) -> Pipeline:
    encode = ColumnTransformer(
        [
            ("codes", OneHotEncoder(handle_unknown="ignore", sparse_output=False), list(COLUMNS.categorical)),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), list(COLUMNS.numeric)),
        ]
    )
    return Pipeline([("encode", encode), ("classify", classifier)])


def test_one_hot_and_a_tree_convert(sample: Sample) -> None:
    encode = ColumnTransformer(
        [("codes", OneHotEncoder(handle_unknown="ignore", sparse_output=False), list(COLUMNS.categorical))],
        remainder=SimpleImputer(),
    )
    pipeline = Pipeline(
        [("encode", encode), ("classify", DecisionTreeClassifier(max_depth=5, random_state=0))]
    )
    _, proof = convert(pipeline.fit(sample.frame, sample.labels), COLUMNS, sample.frame)
    assert proof.max_difference <= TOLERANCE


def test_a_model_whose_bits_depend_on_the_batch_is_refused(sample: Sample) -> None:
    pipeline = one_hot(CalibratedClassifierCV(LinearSVC())).fit(sample.frame, sample.labels)
    with pytest.raises(ConversionError, match=r"alone and .* in a batch"):
        convert(pipeline, COLUMNS, sample.frame)


def test_a_model_of_numbers_alone_converts(sample: Sample) -> None:
    columns = Columns(numeric=COLUMNS.numeric, categorical=())
    frame = columns.frame(sample.numeric, {})
    pipeline = HistGradientBoostingClassifier(max_iter=5, early_stopping=False).fit(frame, sample.labels)
    _, proof = convert(pipeline, columns, frame)
    assert proof.max_difference <= TOLERANCE


def test_another_model_than_the_pipeline_is_refused(converted: Converted, sample: Sample) -> None:
    other = boosting(learning_rate=0.2).fit(sample.frame, sample.labels)
    with pytest.raises(ConversionError, match=r"differs from the pipeline by .* on rows as they are"):
        prove(other, converted.model, COLUMNS, sample.frame)


def test_an_epoch_as_a_feature_is_refused(sample: Sample) -> None:
    # Microsecond-like magnitudes do not survive float32: the pipeline sees what ONNX cannot.
    columns = Columns(numeric=("epoch",), categorical=())
    rng = np.random.default_rng(1)
    frame = columns.frame(np.zeros((2000, 1), dtype=np.float32), {})
    frame["epoch"] = 1.36e9 + rng.uniform(0, 500, 2000)
    labels = (frame["epoch"] % 100 > 50).to_numpy()
    pipeline = HistGradientBoostingClassifier(max_iter=20, early_stopping=False).fit(frame, labels)
    with pytest.raises(ConversionError, match="use ages, never epochs"):
        convert(pipeline, columns, frame)


def test_what_onnx_does_not_know_is_refused(sample: Sample) -> None:
    columns = Columns(numeric=COLUMNS.numeric, categorical=())
    frame = columns.frame(np.nan_to_num(sample.numeric), {})
    with pytest.raises(ConversionError, match="LocalOutlierFactor cannot be converted"):
        convert(LocalOutlierFactor(novelty=True).fit(frame), columns, frame)
