"""Score rows with a bundle: the same row gives the same bits, alone or among ten thousand."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnxruntime
import pyarrow as pa
from numpy.typing import NDArray

from driftline.features.code_lists import CodedField, read_codes
from driftline.models.bundle import Bundle, BundleError, BundleManifest

#: Names of the ONNX model's inputs and of the output that is read.
NUMERIC_INPUT = "numeric"
CATEGORICAL_INPUT = "categorical"
PROBABILITIES = "probabilities"

#: How a missing category looks inside the model (ONNX strings cannot be null).
MISSING_CATEGORY = ""

#: What a model is fed, by the name of its input.
Feed = dict[str, NDArray[np.float32] | NDArray[np.object_]]
#: Runs a model on what it is fed; ``run``, or with a time limit around it.
Runner = Callable[[onnxruntime.InferenceSession, Feed], NDArray[np.float64]]


class Scorer:
    """A bundle that is ready to score.

    One thread and no spinning: rows are scored in batches, and the cores belong to other processes too.
    One thread also fixes the order of the additions, so that a batch's size never changes a bit.

    ``codes`` are the inputs of code lists: what the model is given of them is in the version that it learned from.
    """

    def __init__(
        self, bundle: Bundle, codes: Iterable[CodedField] = (), runner: Runner | None = None
    ) -> None:
        self.manifest: BundleManifest = bundle.manifest
        self._codes = [one for one in codes if one.field in bundle.manifest.categorical]
        self._run = run if runner is None else runner
        try:
            self._session = open_session(bundle.model)
        except Exception as error:  # ONNX Runtime raises bare exceptions of a dozen private types
            raise BundleError(f"{bundle.path}: ONNX Runtime cannot load the model: {error}") from error
        self._inputs = self._checked_inputs(bundle)

    def score(
        self, numeric: NDArray[np.floating], categorical: Mapping[str, Sequence[str | None]]
    ) -> NDArray[np.float64]:
        """Return the probability of the label for each row.

        Parameters
        ----------
        numeric
            Shape [n, K], columns as in ``manifest.numeric``; NaN is missing. Cast to float32, as in training; what is
            too large for that is infinite.
        categorical
            Per name of ``manifest.categorical`` n values; None is missing.
        """
        rows = len(numeric)
        if numeric.shape != (rows, len(self.manifest.numeric)):
            msg = f"{self.manifest.ref} takes {len(self.manifest.numeric)} numeric columns, got shape {numeric.shape}"
            raise ValueError(msg)
        if rows == 0:
            return np.empty(0, dtype=np.float64)
        feed: Feed = {}
        if NUMERIC_INPUT in self._inputs:
            feed[NUMERIC_INPUT] = _single_precision(numeric)
        if CATEGORICAL_INPUT in self._inputs:
            feed[CATEGORICAL_INPUT] = category_matrix(self.manifest.categorical, categorical, rows)
        return self._run(self._session, feed)

    @property
    def reads_codes(self) -> bool:
        """Whether ``categories`` changes anything."""
        return bool(self._codes)

    def categories(
        self, given: Mapping[str, list[str | None]], times_us: NDArray[np.int64]
    ) -> tuple[Mapping[str, list[str | None]], dict[str, int]]:
        """Return the categories of requests as the model knows them, and how many codes of each list it does not know.

        ``given`` has the requests' values for each of ``manifest.categorical``, ``times_us`` their event times.
        """
        if not self._codes:
            return given, {}
        texts = pa.table({name: pa.array(values, pa.string()) for name, values in given.items()})
        read, unmapped = read_codes(texts, times_us, self._codes, self.manifest.codes)
        return {name: read.column(name).to_pylist() for name in given}, unmapped

    def _checked_inputs(self, bundle: Bundle) -> frozenset[str]:
        widths = {
            NUMERIC_INPUT: len(self.manifest.numeric),
            CATEGORICAL_INPUT: len(self.manifest.categorical),
        }
        found = {item.name: item.shape[-1] for item in self._session.get_inputs()}
        if found != {name: width for name, width in widths.items() if width}:
            raise BundleError(f"{bundle.path}: the model's inputs {found} are not the manifest's {widths}")
        if PROBABILITIES not in {item.name for item in self._session.get_outputs()}:
            raise BundleError(f"{bundle.path}: the model has no output {PROBABILITIES!r}")
        return frozenset(found)


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Open an ONNX model from memory (so that it cannot reach for other files)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(
    session: onnxruntime.InferenceSession, feed: Feed, options: onnxruntime.RunOptions | None = None
) -> NDArray[np.float64]:
    """Run a binary classifier and return the probability of its second class, as float64."""
    (probabilities,) = session.run([PROBABILITIES], feed, options)
    positive: NDArray[np.float64] = probabilities[:, 1].astype(np.float64)
    return positive


@np.errstate(over="ignore")  # once, not at every call, where it takes longer than the conversion
def _single_precision(numeric: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.ascontiguousarray(numeric, dtype=np.float32)


def category_matrix(
    names: Sequence[str], columns: Mapping[str, Sequence[str | None]], rows: int
) -> NDArray[np.object_]:
    """Return text columns as one [rows, columns] array in the given order, missing values marked."""
    matrix = np.empty((rows, len(names)), dtype=object)
    for position, name in enumerate(names):
        values = columns[name]
        if len(values) != rows:
            msg = f"column {name!r} has {len(values)} values for {rows} rows"
            raise ValueError(msg)
        if rows == 1:  # one place is written in half the time of a column
            matrix[0, position] = MISSING_CATEGORY if values[0] is None else values[0]
            continue
        matrix[:, position] = [MISSING_CATEGORY if value is None else value for value in values]
    return matrix
