"""The model `lateness`: which estimators are tried. The best one on the validation weeks is kept.

Candidates learn from a DataFrame with the numeric columns in float32 (NaN = missing) and the categorical
columns as text ("" = missing). Categories are encoded inside the pipeline: boosting's native categories
do not survive the conversion to ONNX.
"""

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder


def candidates(numeric: tuple[str, ...], categorical: tuple[str, ...]) -> dict[str, Pipeline]:
    """Return the estimators to try, by name."""
    return {
        "boosting": _pipeline(
            categorical,
            HistGradientBoostingClassifier(
                max_iter=120,
                learning_rate=0.06,
                max_leaf_nodes=20,
                min_samples_leaf=200,
                l2_regularization=5.0,
                max_features=0.2,
                early_stopping=False,
                random_state=0,
            ),
        ),
        "boosting_small": _pipeline(
            categorical,
            HistGradientBoostingClassifier(
                max_iter=60,
                learning_rate=0.08,
                max_leaf_nodes=8,
                min_samples_leaf=300,
                early_stopping=False,
                random_state=0,
            ),
        ),
    }


def _pipeline(categorical: tuple[str, ...], classifier: HistGradientBoostingClassifier) -> Pipeline:
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    encode = ColumnTransformer([("categories", codes, list(categorical))], remainder="passthrough")
    return Pipeline([("encode", encode), ("classify", classifier)])
