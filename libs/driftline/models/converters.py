"""How estimators that skl2onnx does not convert, or not exactly, become ONNX; and those that cannot.

- LightGBM and XGBoost: onnxmltools' converters. LightGBM compares with 64-bit thresholds, ONNX with 32-bit ones: each is
  rounded down, so that the same 32-bit numbers lie on either side.
- What is linear in the log odds, scikit-learn's and river's: a weighted sum in 64 bits, row by row. (skl2onnx multiplies matrices in 32
  bits, which differ in the last bit between one row and a batch.)
- river's standard scaler, alone or before the regression inside one river pipeline.
"""

import importlib.util
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from river import compose, linear_model, optim, preprocessing
from river.compat import River2SKLClassifier, River2SKLTransformer
from skl2onnx import get_latest_tested_opset_version, update_registered_converter
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, SGDClassifier

_EXTRAS = {"lightgbm", "xgboost"}
_Converter = Callable[[Any, Any, Any], None]


class NoExactFormError(ValueError):
    """An estimator has no form in ONNX that is equal to it; the text says which and what to do instead."""


def register_converters(packages: Collection[str]) -> None:
    """Make skl2onnx know this module's converters for estimators of some packages, in this process."""
    for package in sorted(set(packages) & _REGISTRATIONS.keys()):
        _REGISTRATIONS[package]()


def target_opset(packages: Collection[str]) -> dict[str, int] | None:
    """Return the versions of ONNX to write for estimators of some packages; None: the newest that skl2onnx knows."""
    if not set(packages) & _EXTRAS:
        return None
    # onnxmltools writes the trees of version 3.
    return {"": get_latest_tested_opset_version(), "ai.onnx.ml": 3}


def package_of(estimator: Any) -> str:
    """Return the package that an estimator comes from, like ``sklearn``."""
    return type(estimator).__module__.partition(".")[0]


def check_exact(estimator: Any) -> None:
    """Raise NoExactFormError for a fitted estimator that is known to have no equal form in ONNX."""
    package = package_of(estimator)
    if package in _EXTRAS and importlib.util.find_spec("onnxmltools") is None:
        raise NoExactFormError(f"onnxmltools is not installed: install driftline[{package}]")
    check = _CHECKS.get((package, type(estimator).__name__))
    if check is not None:
        check(estimator)


def _register(kind: type, convert: _Converter, shapes: Any = None) -> None:
    update_registered_converter(
        kind,
        f"Driftline{kind.__name__}",
        shapes or calculate_linear_classifier_output_shapes,
        convert,
        overwrite=True,
        options=None if shapes else {"zipmap": [True, False, "columns"], "nocl": [True, False]},
    )


@cache
def _register_linear() -> None:
    for kind in (LogisticRegression, LogisticRegressionCV, LinearDiscriminantAnalysis, SGDClassifier):
        _register(kind, _convert_linear)


@cache
def _register_river() -> None:
    _register(River2SKLClassifier, _convert_linear)
    _register(River2SKLTransformer, _convert_scaler, _same_shape)


@cache
def _register_lightgbm() -> None:
    from lightgbm import LGBMClassifier
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

    def convert(scope: Any, operator: Any, container: Any) -> None:
        convert_lightgbm(scope, operator, _RoundingDown(container))

    _register(LGBMClassifier, convert)


@cache
def _register_xgboost() -> None:
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from xgboost import XGBClassifier

    _register(XGBClassifier, convert_xgboost)


class _RoundingDown:
    """A container of ONNX nodes whose trees compare 32-bit numbers with thresholds as 64-bit ones would."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, op_type: str, *arguments: Any, **attributes: Any) -> None:
        if "nodes_values" in attributes:
            attributes["nodes_values"] = rounded_down(np.array(attributes["nodes_values"], float)).tolist()
        self._container.add_node(op_type, *arguments, **attributes)


def rounded_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest 32-bit number that is not above each threshold: ``x <= t`` is the same for 32-bit ``x``.

    >>> [float(one) for one in rounded_down(np.array([0.1, 0.5, -0.1]))]
    [0.09999999403953552, 0.5, -0.10000000149011612]
    """
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
    down: NDArray[np.float32] = np.where(
        nearest.astype(np.float64) > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest
    )
    return down


def _check_lightgbm(model: Any) -> None:
    for node in _nodes(tree["tree_structure"] for tree in model.booster_.dump_model()["tree_info"]):
        if node.get("decision_type") == "==":
            raise NoExactFormError(
                "LightGBM's own categories have no exact form in ONNX: encode them in the pipeline (OrdinalEncoder or "
                "OneHotEncoder in a ColumnTransformer), and leave categorical_feature away"
            )
        if node.get("missing_type") == "Zero":
            raise NoExactFormError("LightGBM with zero_as_missing has no form in ONNX: leave it away")
        if "leaf_coeff" in node:
            raise NoExactFormError("LightGBM with linear_tree has no form in ONNX: leave it away")


def _nodes(trees: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    waiting = list(trees)
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [node[side] for side in ("left_child", "right_child") if side in node]


def _check_xgboost(model: Any) -> None:
    if model.booster not in {None, "gbtree"}:
        raise NoExactFormError(f"XGBoost's booster {model.booster!r} has no form in ONNX: take 'gbtree'")
    if not np.isnan(model.missing):
        raise NoExactFormError(
            f"XGBoost with missing={model.missing:g} has no form in ONNX: leave NaN as what is missing"
        )
    if "c" in (model.get_booster().feature_types or ()):
        raise NoExactFormError(
            "XGBoost's own categories have no exact form in ONNX: encode them in the pipeline (OrdinalEncoder or "
            "OneHotEncoder in a ColumnTransformer), and leave enable_categorical away"
        )


def _check_sgd(model: Any) -> None:
    if model.loss != "log_loss":
        raise NoExactFormError(f"SGDClassifier's loss {model.loss!r} gives no probability: take 'log_loss'")


def _check_two_classes(model: Any) -> None:
    if len(model.classes_) != 2:
        raise NoExactFormError("only classifiers of two classes are served")


def _check_river_classifier(model: Any) -> None:
    *before, last = _river_steps(model.instance_)
    for step in before:
        _check_river_scaler(step)
    if type(last) is not linear_model.LogisticRegression or not isinstance(last.loss, optim.losses.Log):
        raise NoExactFormError(
            f"river's {type(last).__name__} has no exact form in ONNX; river's LogisticRegression with the log loss has, "
            "alone or after its StandardScaler"
        )


def _check_river_transformer(model: Any) -> None:
    _check_river_scaler(model.instance_)


def _check_river_scaler(step: Any) -> None:
    if type(step) is not preprocessing.StandardScaler or not step.with_std:
        raise NoExactFormError(
            f"river's {type(step).__name__} has no exact form in ONNX; its StandardScaler has, with its deviations. Other "
            "preprocessing belongs before it, in scikit-learn's ColumnTransformer"
        )


def _river_steps(model: Any) -> list[Any]:
    return list(model.steps.values()) if isinstance(model, compose.Pipeline) else [model]


_REGISTRATIONS: Mapping[str, Callable[[], None]] = {
    "sklearn": _register_linear,
    "river": _register_river,
    "lightgbm": _register_lightgbm,
    "xgboost": _register_xgboost,
}
_CHECKS: Mapping[tuple[str, str], Callable[[Any], None]] = {
    ("lightgbm", "LGBMClassifier"): _check_lightgbm,
    ("xgboost", "XGBClassifier"): _check_xgboost,
    ("sklearn", "SGDClassifier"): _check_sgd,
    ("sklearn", "LogisticRegression"): _check_two_classes,
    ("sklearn", "LogisticRegressionCV"): _check_two_classes,
    ("sklearn", "LinearDiscriminantAnalysis"): _check_two_classes,
    ("river", "River2SKLClassifier"): _check_river_classifier,
    ("river", "River2SKLTransformer"): _check_river_transformer,
}


def _convert_linear(scope: Any, operator: Any, container: Any) -> None:
    """Write what is linear in the log odds: the positive class's probability is the sigmoid of a weighted sum."""
    model = operator.raw_operator
    graph = _Graph(scope, container)
    columns = operator.inputs[0].type.shape[1]
    values = graph.add("Cast", operator.inputs[0].full_name, to=TensorProto.DOUBLE)
    if isinstance(model, River2SKLClassifier):
        *before, last = _river_steps(model.instance_)
        for step in before:
            values = _scaled(graph, values, step, columns or model.n_features_in_)
        weights = np.array([last.weights.get(at, 0.0) for at in range(columns or model.n_features_in_)])
        intercept = float(last.intercept)
    else:
        weights, intercept = model.coef_[0].astype(np.float64), float(model.intercept_[0])
    products = graph.add("Mul", values, graph.constant(weights[None, :]))
    axes = graph.constant(np.array([1], np.int64), TensorProto.INT64)
    logit = graph.add(
        "Add", graph.add("ReduceSum", products, axes, keepdims=1), graph.constant([[intercept]])
    )
    # The sigmoid of -z, not 1 - sigmoid(z): the smaller one keeps its digits.
    sides = graph.add("Concat", graph.add("Neg", logit), logit, axis=1)
    probabilities = graph.add("Sigmoid", sides)
    positive = graph.add("Greater", logit, graph.constant([[0.0]]))
    flat = graph.add("Reshape", positive, graph.constant(np.array([-1], np.int64), TensorProto.INT64))
    graph.add("Cast", flat, to=TensorProto.INT64, output=operator.outputs[0].full_name)
    graph.add("Cast", probabilities, to=TensorProto.FLOAT, output=operator.outputs[1].full_name)


def _convert_scaler(scope: Any, operator: Any, container: Any) -> None:
    graph = _Graph(scope, container)
    values = graph.add("Cast", operator.inputs[0].full_name, to=TensorProto.DOUBLE)
    model = operator.raw_operator
    scaled = _scaled(graph, values, model.instance_, model.n_features_in_)
    graph.add("Cast", scaled, to=TensorProto.FLOAT, output=operator.outputs[0].full_name)


def _scaled(graph: "_Graph", values: str, scaler: preprocessing.StandardScaler, columns: int) -> str:
    """Write ``(x - mean) / deviation``, and 0 where the deviation is 0, as river does."""
    means = np.array([scaler.means[at] for at in range(columns)], float)
    deviations = np.sqrt(np.array([scaler.vars[at] for at in range(columns)], float))
    constant = deviations == 0
    centred = graph.add("Sub", values, graph.constant(means[None, :]))
    divided = graph.add("Div", centred, graph.constant(np.where(constant, 1.0, deviations)[None, :]))
    return graph.add("Mul", divided, graph.constant(np.where(constant, 0.0, 1.0)[None, :]))


def _same_shape(operator: Any) -> None:
    operator.outputs[0].type = FloatTensorType(list(operator.inputs[0].type.shape))


class _Graph:
    """Adds nodes to an ONNX graph, naming what they give."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope = scope
        self._container = container

    def constant(self, values: Any, kind: int = TensorProto.DOUBLE) -> str:
        array = np.asarray(values)
        name: str = self._scope.get_unique_variable_name("constant")
        self._container.add_initializer(name, kind, list(array.shape), array.ravel().tolist())
        return name

    def add(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or self._scope.get_unique_variable_name(op_type.lower())
        self._container.add_node(
            op_type, list(inputs), [name], name=self._scope.get_unique_operator_name(op_type), **attributes
        )
        return name
