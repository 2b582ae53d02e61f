"""Turn a trained scikit-learn pipeline into ONNX, and prove that it is the same model.

Its last step may be a classifier of scikit-learn, LightGBM, XGBoost or, through ``river.compat``, of river.
"""

import copy
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from driftline.models.bundle import Conversion
from driftline.models.converters import (
    NoExactFormError,
    check_exact,
    package_of,
    register_converters,
    target_opset,
)
from driftline.models.scoring import (
    CATEGORICAL_INPUT,
    MISSING_CATEGORY,
    NUMERIC_INPUT,
    category_matrix,
    open_session,
    run,
)
from driftline.runtime.errors import ConfigurationError

#: A converted model may differ from its pipeline by no more than this on any row.
TOLERANCE = 1e-5
#: A category that no training set holds, to prove that unseen ones convert too.
_UNSEEN = "\N{REPLACEMENT CHARACTER}unseen"


class ConversionError(ConfigurationError):
    """A pipeline cannot be served as ONNX: the message says why and what to do instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The model's inputs as the pipeline sees them: float32 numbers, then text."""

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]

    def frame(
        self, numeric: NDArray[np.float32], categorical: Mapping[str, Sequence[str | None]]
    ) -> pd.DataFrame:
        """Return the DataFrame that candidates learn from and predict on."""
        frame = pd.DataFrame(numeric, columns=list(self.numeric))
        text = category_matrix(self.categorical, categorical, len(numeric))
        for position, name in enumerate(self.categorical):
            frame[name] = pd.Series(text[:, position], dtype=object)
        return frame


def convert(pipeline: BaseEstimator, columns: Columns, frame: pd.DataFrame) -> tuple[bytes, Conversion]:
    """Convert a fitted binary classifier and prove it equal on the rows of ``frame``.

    The proof runs over these rows, over the same with values and categories missing, and with
    categories that were never seen.

    Raises
    ------
    ConversionError
        Where the conversion fails, is known to be silently wrong, or differs by more than ``TOLERANCE``.
    """
    for estimator in parts_of(pipeline):
        _refuse_native_categories(estimator)
        try:
            check_exact(estimator)
        except NoExactFormError as error:
            raise ConversionError(str(error)) from error
    model = _to_onnx(pipeline, columns)
    return model, prove(pipeline, model, columns, frame)


def prove(pipeline: Any, model: bytes, columns: Columns, frame: pd.DataFrame) -> Conversion:
    """Compare ONNX with the pipeline; raise ConversionError where any row differs too much."""
    session = open_session(model)
    rows, worst = 0, 0.0
    for name, variant in _variants(columns, frame):
        expected = pipeline.predict_proba(variant)[:, 1]
        feed: dict[str, Any] = {}
        if columns.numeric:
            feed[NUMERIC_INPUT] = np.ascontiguousarray(variant[list(columns.numeric)], dtype=np.float32)
        if columns.categorical:
            feed[CATEGORICAL_INPUT] = np.ascontiguousarray(variant[list(columns.categorical)], dtype=object)
        scores = run(session, feed)
        difference = float(np.max(np.abs(scores - expected)))
        if not difference <= TOLERANCE:
            msg = (
                f"the ONNX model differs from the pipeline by {difference:.3g} on rows {name}, allowed is "
                f"{TOLERANCE:g}: encode categories inside the pipeline (OrdinalEncoder or OneHotEncoder in a "
                "ColumnTransformer) and use ages, never epochs, as numbers (the model computes in float32); XGBoost takes "
                "the zeros of a sparse matrix for missing (OneHotEncoder(sparse_output=False))"
            )
            raise ConversionError(msg)
        _refuse_if_batches_matter(session, feed, scores)
        rows, worst = rows + len(variant), max(worst, difference)
    return Conversion(rows=rows, max_difference=worst, tolerance=TOLERANCE)


def _refuse_if_batches_matter(session: Any, feed: Mapping[str, Any], scores: NDArray[np.float64]) -> None:
    """A row must get the same bits alone and among others, or a replay could not be exact."""
    for row in range(0, len(scores), max(1, len(scores) // 200)):
        alone = run(session, {name: values[row : row + 1] for name, values in feed.items()})
        if alone[0] != scores[row]:
            msg = (
                f"the ONNX model scores row {row} {float(alone[0])!r} alone and {float(scores[row])!r} in a batch: "
                "trees and logistic regressions are the same at any batch size, multiplications of float32 matrices are not"
            )
            raise ConversionError(msg)


def _variants(columns: Columns, frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    frame = frame.reset_index(drop=True)
    yield "as they are", frame
    sample = frame.iloc[:: max(1, len(frame) // 2000)]
    yield "with every number missing", sample.assign(**dict.fromkeys(columns.numeric, np.float32("nan")))
    holes = sample.copy()
    for position, name in enumerate(columns.numeric):
        holes.iloc[position % 7 :: 7, holes.columns.get_loc(name)] = np.float32("nan")
    yield "with holes", holes
    for name in columns.categorical:
        yield f"with {name!r} missing", sample.assign(**{name: MISSING_CATEGORY})
        yield f"with {name!r} never seen", sample.assign(**{name: _UNSEEN})


def _to_onnx(pipeline: BaseEstimator, columns: Columns) -> bytes:
    # skl2onnx looks for columns by the names of the inputs. There are two inputs, so names become positions.
    positional = copy.deepcopy(pipeline)
    for part in parts_of(positional):
        if isinstance(part, ColumnTransformer):
            names = list(part.feature_names_in_)
            part.transformers_ = [
                (name, transformer, [names.index(item) if isinstance(item, str) else item for item in chosen])
                for name, transformer, chosen in part.transformers_
            ]
    inputs: list[tuple[str, Any]] = []
    if columns.numeric:
        inputs.append((NUMERIC_INPUT, FloatTensorType([None, len(columns.numeric)])))
    if columns.categorical:
        inputs.append((CATEGORICAL_INPUT, StringTensorType([None, len(columns.categorical)])))
    packages = {package_of(part) for part in parts_of(pipeline)}
    register_converters(packages)
    try:
        with warnings.catch_warnings():
            # protobuf deprecates the numpy integers that skl2onnx hands it; nothing here depends on it.
            warnings.simplefilter("ignore")
            converted = to_onnx(
                positional,
                initial_types=inputs,
                options={id(positional): {"zipmap": False}},
                target_opset=target_opset(packages),
            )
    except Exception as error:  # skl2onnx raises anything: its own, ValueError, protobuf's, onnx's
        reason = textwrap.shorten(str(error), 300)
        raise ConversionError(f"{type(pipeline).__name__} cannot be converted to ONNX: {reason}") from error
    content: bytes = converted.SerializeToString()
    return content


def parts_of(estimator: Any) -> Iterator[Any]:
    """Yield an estimator and everything inside it, as fitted where it is."""
    yield estimator
    if isinstance(estimator, Pipeline):
        for _, step in estimator.steps:
            yield from parts_of(step)
    elif isinstance(estimator, ColumnTransformer):
        for _, transformer, _ in getattr(estimator, "transformers_", estimator.transformers):
            yield from parts_of(transformer)


def _refuse_native_categories(estimator: Any) -> None:
    """Boosting with native categories converts without an error, and wrongly."""
    native = getattr(estimator, "is_categorical_", None)
    if native is not None and np.any(native):
        msg = (
            f"{type(estimator).__name__} uses native categorical features, which convert to a wrong ONNX model "
            "without an error: encode them with OrdinalEncoder in a ColumnTransformer and leave "
            "categorical_features=None"
        )
        raise ConversionError(msg)
