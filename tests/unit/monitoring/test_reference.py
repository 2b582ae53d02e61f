"""A reference says of its columns what numpy says, survives JSON, and refuses what cannot be compared with."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from driftline.monitoring.checks import evaluate
from driftline.monitoring.reference import Reference, build_reference
from driftline.monitoring.reference_columns import CategoryColumn
from driftline.runtime.errors import ConfigurationError


def test_a_numeric_column_is_its_deciles_and_moments(reference, training):
    column, values = reference.numeric[0], training.numeric["delay"]
    assert column.edges == pytest.approx(np.quantile(values, np.linspace(0.1, 0.9, 9)))
    assert column.shares == pytest.approx([0.1] * 10, abs=1e-3)
    assert (column.mean, column.std) == pytest.approx((values.mean(), values.std()))
    assert (column.minimum, column.maximum) == (values.min(), values.max())


def test_equal_edges_collapse(reference):
    weekend = reference.numeric[reference.numeric_names.index("weekend")]
    assert weekend.edges == (0.0, 1.0)
    assert weekend.shares == pytest.approx((0.7257, 0.2743, 0.0), abs=0.01)


def test_missing_values_have_a_share_and_no_bin(reference, training):
    visibility = reference.numeric[reference.numeric_names.index("visibility")]
    assert visibility.missing == np.isnan(training.numeric["visibility"]).sum()
    assert visibility.missing_share == pytest.approx(0.1, abs=0.01)
    assert visibility.present + visibility.missing == reference.rows


def test_the_most_frequent_categories_are_kept_the_rest_are_known():
    column = CategoryColumn.of("c", ["a"] * 5 + ["b"] * 3 + ["d", "c", None], 2)
    assert (column.kept, column.counts) == (("a", "b"), (5, 3))
    assert (column.others, column.other_count, column.singletons, column.missing) == (("c", "d"), 2, 2, 1)


def test_quality_is_that_of_the_rows(reference, training):
    quality = reference.quality
    assert quality.auc == pytest.approx(roc_auc_score(training.labels, training.score), abs=1e-12)
    assert quality.auc_error == 0
    assert quality.positive_share == training.labels.mean()


def test_calibrated_scores_keep_their_probability(reference, training):
    """The labels were drawn from the scores, so the map is nearly the identity and the expected loss is met."""
    scores = np.array([0.1, 0.3, 0.6, 0.95])
    assert reference.probability.probability(scores) == pytest.approx(scores, abs=0.05)
    assert reference.expected_loss == pytest.approx(reference.quality.log_loss, rel=0.01)


def test_json_round_trip(reference, training, drawn):
    read = Reference.from_json(json.loads(json.dumps(reference.as_json(), allow_nan=False)))
    assert read.fingerprint == reference.fingerprint
    assert read.quality == reference.quality
    window = drawn(5, 300)
    assert evaluate(read, window.profile(read)) == evaluate(reference, window.profile(reference))


def test_json_keeps_what_is_undefined():
    reference = build_reference({}, {}, np.array([0.2, 0.4]), np.array([False, False]))
    read = Reference.from_json(json.loads(json.dumps(reference.as_json(), allow_nan=False)))
    assert np.isnan(read.quality.auc)
    assert read.fingerprint == reference.fingerprint


def test_another_version_is_refused(reference):
    with pytest.raises(ConfigurationError, match="train the model again"):
        Reference.from_json({**reference.as_json(), "version": 99})


def test_the_seed_decides_the_sample(training, build, reference):
    assert build(training).fingerprint == reference.fingerprint
    assert build(training, seed=1).fingerprint != reference.fingerprint
    assert reference.sample.shape == (2000, 8)


@pytest.mark.parametrize(
    ("numeric", "categorical", "score", "labels", "message"),
    [
        ({"x": [1.0]}, {}, [0.5, 0.5], None, "'x' has 1 rows"),
        ({}, {"c": ["a"]}, [0.5, 0.5], None, "'c' has 1 rows"),
        ({}, {}, [0.5, 0.5], [True], "'labels' has 1 rows"),
        ({"x": [np.nan, np.inf]}, {}, [0.5, 0.5], None, "'x' holds no number"),
        ({}, {"c": [None, None]}, [0.5, 0.5], None, "'c' holds no category"),
        ({"x": [1, 2]}, {"x": ["a", "b"]}, [0.5, 0.5], None, "not both: x"),
        ({"score": [1, 2]}, {}, [0.5, 0.5], None, "rename"),
        ({}, {}, [0.5, 1.5], None, "probabilities"),
        ({}, {}, [0.5, np.nan], None, "probabilities"),
        ({}, {}, [], None, "needs rows"),
    ],
)
def test_what_cannot_be_a_reference_is_refused(numeric, categorical, score, labels, message):
    columns = {name: np.array(column, float) for name, column in numeric.items()}
    with pytest.raises(ConfigurationError, match=message):
        build_reference(columns, categorical, np.array(score), None if labels is None else np.array(labels))
