"""Accuracy from merged sums is scikit-learn's on the same rows; the binned AUC is within its stated bound."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss, roc_auc_score

from driftline.monitoring.accuracy import Accuracy, exact_auc
from driftline.monitoring.outcome_profile import OutcomeProfile, merge_outcomes
from driftline.runtime.errors import BadMessageError


def outcomes(seed, rows):
    g = np.random.default_rng(seed)
    score = g.beta(1, 3, rows)
    # A model that is too sure of itself by a third.
    labels = g.random(rows) < 0.5 + (score - 0.5) / 1.5
    value = np.where(g.random(rows) < 0.1, np.nan, g.normal(3, 20, rows).round(2))
    moving = np.where(g.random(rows) < 0.2, np.nan, g.uniform(0.2, 0.3, rows))
    return labels, score, value, moving


def profile(labels, score, value, moving):
    baselines = {"constant": np.full(len(score), 0.25), "moving_average": moving}
    return OutcomeProfile.of(labels, score, decision_threshold=0.4, value=value, baselines=baselines)


@pytest.mark.parametrize("rows", [40, 5000])
def test_accuracy_is_scikit_learns(rows):
    labels, score, value, moving = outcomes(3, rows)
    accuracy = profile(labels, score, value, moving).accuracy()
    assert accuracy.rows == rows
    assert accuracy.log_loss == pytest.approx(log_loss(labels, score), rel=1e-9)
    assert accuracy.brier == pytest.approx(brier_score_loss(labels, score), rel=1e-9)
    (tn, fp), (fn, tp) = confusion_matrix(labels, score >= 0.4)
    assert accuracy.false_positive_rate == fp / (fp + tn)
    assert accuracy.false_negative_rate == fn / (fn + tp)
    assert accuracy.value_per_prediction == pytest.approx(np.nanmean(value), abs=1e-6)


def test_the_binned_auc_keeps_its_bound():
    labels, score, *_ = outcomes(3, 5000)
    accuracy = OutcomeProfile.of(labels, score, decision_threshold=0.5).accuracy()
    exact = roc_auc_score(labels, score)
    assert exact_auc(labels, score) == pytest.approx(exact, abs=1e-12)
    assert abs(accuracy.auc - exact) <= accuracy.auc_error
    assert accuracy.auc_error < 0.002


@given(st.lists(st.tuples(st.booleans(), st.floats(0.4, 0.41)), min_size=2, max_size=40))
def test_the_auc_bound_holds_where_scores_are_close(rows):
    labels, score = np.array([label for label, _ in rows]), np.array([p for _, p in rows])
    accuracy = OutcomeProfile.of(labels, score, decision_threshold=0.5).accuracy()
    if labels.all() or not labels.any():
        assert np.isnan(accuracy.auc)
        assert np.isnan(exact_auc(labels, score))
        return
    assert abs(accuracy.auc - roc_auc_score(labels, score)) <= accuracy.auc_error + 1e-12


def test_scores_of_zero_and_one_are_clipped_as_in_scikit_learn():
    labels, score = np.array([True, False, True]), np.array([0.0, 0.0, 1.0])
    accuracy = OutcomeProfile.of(labels, score, decision_threshold=0.5).accuracy()
    assert accuracy.log_loss == pytest.approx(log_loss(labels, score), rel=1e-9)


def test_calibration_error_is_that_of_ten_bins():
    labels, score, *_ = outcomes(5, 20_000)
    cells = np.minimum((score * 10).astype(int), 9)
    expected = sum(
        (cells == cell).mean() * abs(score[cells == cell].mean() - labels[cells == cell].mean())
        for cell in np.unique(cells)
    )
    accuracy = OutcomeProfile.of(labels, score, decision_threshold=0.5).accuracy()
    assert accuracy.calibration_error == pytest.approx(expected, abs=1e-9)
    assert accuracy.calibration_error > 0.05


def test_standard_errors_are_those_of_means():
    labels, score, value, moving = outcomes(3, 5000)
    accuracy = profile(labels, score, value, moving).accuracy()
    losses = -np.log(np.where(labels, score, 1 - score))
    assert accuracy.log_loss_standard_error == pytest.approx(losses.std() / np.sqrt(5000), rel=1e-6)
    known = value[~np.isnan(value)]
    assert accuracy.value_standard_error == pytest.approx(known.std() / np.sqrt(len(known)), rel=1e-6)


def test_baselines_are_scored_on_the_rows_that_they_have():
    labels, score, value, moving = outcomes(3, 5000)
    baselines = profile(labels, score, value, moving).accuracy().baselines
    held = ~np.isnan(moving)
    assert baselines["moving_average"].rows == held.sum()
    assert baselines["moving_average"].log_loss == pytest.approx(
        log_loss(labels[held], moving[held]), rel=1e-9
    )
    assert baselines["constant"].brier == pytest.approx(
        brier_score_loss(labels, np.full(5000, 0.25)), rel=1e-9
    )


@given(seed=st.integers(0, 2**32), parts=st.integers(1, 7))
def test_any_split_in_any_order_is_the_whole(seed, parts):
    labels, score, value, moving = columns = outcomes(4, 300)
    g = np.random.default_rng(seed)
    owner = g.integers(0, parts, 300)
    profiles = [profile(*(column[owner == part] for column in columns)) for part in g.permutation(parts)]
    assert merge_outcomes(profiles).to_bytes() == profile(labels, score, value, moving).to_bytes()


def test_a_baseline_that_came_later_merges():
    labels, score, value, moving = outcomes(4, 100)
    before = OutcomeProfile.of(labels[:40], score[:40], decision_threshold=0.4, value=value[:40])
    after = profile(labels[40:], score[40:], value[40:], moving[40:])
    assert before.merge(after).accuracy().baselines["constant"].rows == 60
    assert before.merge(after).rows == 100


def test_bytes_and_json_round_trip():
    made = profile(*outcomes(4, 300))
    assert OutcomeProfile.from_bytes(made.to_bytes()).accuracy() == made.accuracy()
    with pytest.raises(BadMessageError):
        OutcomeProfile.from_bytes(made.to_bytes()[:-3])
    read = Accuracy.from_json(json.loads(json.dumps(made.accuracy().as_json(), allow_nan=False)))
    assert read == made.accuracy()


def test_no_outcomes_have_no_accuracy():
    accuracy = OutcomeProfile.of(np.array([], bool), np.array([]), decision_threshold=0.5).accuracy()
    assert accuracy.rows == 0
    assert np.isnan([accuracy.log_loss, accuracy.auc, accuracy.false_positive_rate]).all()
    assert np.isnan(accuracy.value_per_prediction)


@pytest.mark.parametrize("score", [[0.5, 1.2], [0.5, np.nan], [-0.1, 0.5]])
def test_what_is_no_probability_is_refused(score):
    with pytest.raises(ValueError, match="no probability"):
        OutcomeProfile.of(np.array([True, False]), np.array(score), decision_threshold=0.5)


def test_decisions_at_two_thresholds_do_not_merge():
    labels, score, *_ = outcomes(4, 10)
    with pytest.raises(ValueError, match="do not merge"):
        OutcomeProfile.of(labels, score, decision_threshold=0.5).merge(
            OutcomeProfile.of(labels, score, decision_threshold=0.4)
        )
