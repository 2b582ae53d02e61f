"""Drift is ranked by what it costs; noise costs nothing."""

import numpy as np
import pytest

from driftline.monitoring.damage import (
    Damage,
    DamageTargets,
    damage_level,
    estimated_damage,
    measured_damage,
    severity,
)
from driftline.monitoring.levels import Level
from driftline.monitoring.outcome_profile import OutcomeProfile
from driftline.monitoring.profile import Profile
from driftline.monitoring.reference import build_reference
from driftline.runtime.errors import ConfigurationError

TARGETS = DamageTargets(alert_log_loss=0.05, retrain_log_loss=0.15, alert_value=1.0, retrain_value=5.0)


def outcomes(rows):
    return OutcomeProfile.of(rows.labels, rows.score, decision_threshold=0.5)


def harm(log_loss, *, error=0.001, value=None, value_error=None):
    return Damage(
        log_loss=log_loss,
        value=value,
        measured=True,
        standard_error=error,
        value_standard_error=value_error,
    )


def test_no_drift_is_no_measured_damage(reference, drawn):
    for seed in range(20):
        damage = measured_damage(reference, outcomes(drawn(100 + seed, 500)))
        assert abs(damage.log_loss) < 4 * damage.standard_error
        assert damage.measured


def test_standard_errors_cover_the_noise(reference, drawn):
    """Over windows without drift the damage in standard errors is a standard normal, nearly."""
    scaled = [
        damage.log_loss / damage.standard_error
        for damage in (measured_damage(reference, outcomes(drawn(200 + seed, 300))) for seed in range(200))
    ]
    assert np.std(scaled) == pytest.approx(1, abs=0.2)
    assert np.mean(scaled) == pytest.approx(0, abs=0.4)


def test_labels_that_stopped_following_are_measured(reference, drawn):
    window = drawn(7, 2000)
    turned = OutcomeProfile.of(~window.labels, window.score, decision_threshold=0.5)
    damage = measured_damage(reference, turned)
    assert damage.log_loss > 0.3
    assert damage_level(damage, TARGETS) is Level.RETRAIN


def test_value_is_compared_where_both_know_it(drawn):
    before, after = drawn(1, 3000), drawn(2, 1000)
    reference = build_reference(
        before.numeric, {}, before.score, before.labels, value=np.where(before.labels, 10.0, 0.0)
    )
    value = np.where(after.labels, 4.0, 0.0)
    profile = OutcomeProfile.of(after.labels, after.score, decision_threshold=0.5, value=value)
    damage = measured_damage(reference, profile)
    expected = 10 * before.labels.mean() - 4 * after.labels.mean()
    assert damage.value == pytest.approx(expected, abs=1e-6)
    assert damage.value_standard_error == pytest.approx(
        np.hypot(10 * before.labels.std() / np.sqrt(3000), 4 * after.labels.std() / np.sqrt(1000)), rel=1e-3
    )
    assert measured_damage(reference, outcomes(after)).value is None


def test_estimated_damage_is_what_labels_will_show(reference, drawn):
    """Scores move to where the model is less sure; labels still follow them, as CBPE assumes."""
    window = drawn(8, 20_000, shift=1.5)
    estimated = estimated_damage(reference, window.profile(reference))
    measured = measured_damage(reference, outcomes(window))
    assert not estimated.measured
    assert estimated.value is None
    assert measured.log_loss > 0.05
    assert estimated.log_loss == pytest.approx(measured.log_loss, abs=3 * measured.standard_error + 0.01)


def test_estimates_correct_scores_that_were_too_sure(drawn):
    """Scores twice as far out in log-odds as they should be: the map from the labels takes it back."""
    before, after = drawn(1, 20_000), drawn(2, 20_000, shift=2.0)

    def sure(rows):
        odds = (rows.score / (1 - rows.score)) ** 2
        return odds / (1 + odds)

    reference = build_reference({}, {}, sure(before), before.labels)
    profile = Profile.of(reference, after.ids, {}, {}, sure(after))
    measured = measured_damage(
        reference, OutcomeProfile.of(after.labels, sure(after), decision_threshold=0.5)
    )
    plain = build_reference({}, {}, sure(before), None)
    blind = estimated_damage(plain, Profile.of(plain, after.ids, {}, {}, sure(after)))
    missed = abs(estimated_damage(reference, profile).log_loss - measured.log_loss)
    assert missed < 0.3 * abs(blind.log_loss - measured.log_loss)


def test_no_drift_is_no_estimated_damage(reference, drawn):
    damages = [estimated_damage(reference, drawn(300 + seed, 500).profile(reference)) for seed in range(30)]
    assert all(abs(damage.log_loss) < 4 * damage.standard_error for damage in damages)


def test_nothing_scored_has_no_damage(reference, drawn):
    window = drawn(3, 5)
    window.score[:] = np.nan
    assert estimated_damage(reference, window.profile(reference)) is None
    assert measured_damage(reference, outcomes(drawn(3, 0))) is None


def test_without_labels_damage_cannot_be_measured(drawn):
    reference = build_reference({}, {}, np.array([0.5]), None)
    with pytest.raises(ConfigurationError, match="no labels"):
        measured_damage(reference, outcomes(drawn(3, 5)))


@pytest.mark.parametrize(
    ("levels", "damage", "expected"),
    [
        ([], None, Level.NONE),
        ([Level.NONE], harm(0.01), Level.NONE),
        ([Level.ALERT], None, Level.WARNING),
        ([Level.ALERT, Level.NONE], harm(0.01), Level.WARNING),
        ([Level.ALERT], harm(-0.4), Level.WARNING),
        ([Level.WARNING], harm(0.06), Level.ALERT),
        ([Level.WARNING], harm(0.16), Level.RETRAIN),
        ([Level.ALERT], harm(0.16, error=0.1), Level.WARNING),
        ([Level.NONE], harm(0.16), Level.WARNING),
        ([Level.WARNING], harm(0.0, value=2.0, value_error=0.1), Level.ALERT),
        ([Level.WARNING], harm(0.06, value=6.0, value_error=0.1), Level.RETRAIN),
        ([Level.WARNING], harm(0.0, value=6.0, value_error=4.0), Level.WARNING),
    ],
)
def test_severity(levels, damage, expected):
    assert severity(levels, damage, TARGETS) is expected


def test_damage_without_targets_does_not_count():
    assert severity([Level.ALERT], harm(9.0), DamageTargets()) is Level.WARNING
