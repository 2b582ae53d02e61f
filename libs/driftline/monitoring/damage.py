"""What drift costs: the loss of accuracy and value in a window, measured or estimated, and how severe that is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from driftline.monitoring.accuracy import Accuracy
from driftline.monitoring.levels import Level, worst
from driftline.monitoring.outcome_profile import OutcomeProfile
from driftline.monitoring.profile import Profile
from driftline.monitoring.reference import Reference
from driftline.runtime.errors import ConfigurationError

#: Damage counts where it is so many standard errors above zero (one window in forty without damage).
STANDARD_ERRORS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """How much worse a window is than the reference. Positive is worse.

    Attributes
    ----------
    log_loss
        Rise of the mean log loss, in nats.
    value
        Loss of value per prediction, in the project's unit; None where it is not known.
    measured
        Whether it is from labels (then it is certain but for noise) or estimated without.
    standard_error
        Of ``log_loss``: the window's and the reference's, combined.
    value_standard_error
        Of ``value``.
    """

    log_loss: float
    value: float | None
    measured: bool
    standard_error: float
    value_standard_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DamageTargets:
    """How much damage is an alert, and how much a reason to retrain. None: that kind does not count."""

    alert_log_loss: float | None = None
    retrain_log_loss: float | None = None
    alert_value: float | None = None
    retrain_value: float | None = None


def measured_damage(reference: Reference, outcomes: OutcomeProfile) -> Damage | None:
    """Return the damage that the labels show; None where there are no outcomes.

    Raises
    ------
    ConfigurationError
        Where the reference was built without labels.
    """
    before = _quality(reference)
    if not outcomes.rows:
        return None
    after = outcomes.accuracy()
    value: float | None = before.value_per_prediction - after.value_per_prediction
    value_error: float | None = math.hypot(before.value_standard_error, after.value_standard_error)
    if value is None or math.isnan(value):
        value = value_error = None
    return Damage(
        log_loss=after.log_loss - before.log_loss,
        value=value,
        measured=True,
        standard_error=math.hypot(before.log_loss_standard_error, after.log_loss_standard_error),
        value_standard_error=value_error,
    )


def estimated_damage(reference: Reference, profile: Profile) -> Damage | None:
    """Return the damage to expect from the scores alone (CBPE); None where no row has a score.

    The window's expected log loss minus the reference's, both under the reference's map from score to
    probability, so that a model that is a little off its own labels is not damage. Blind to labels that stopped
    following the scores; its standard error is that of the window's rows, not of the map.
    """
    rows = profile.scored
    if not rows:
        return None
    expected = profile.expected_loss_sum / rows
    variance = max(profile.expected_loss_squares / rows - expected**2, 0.0)
    return Damage(
        log_loss=expected - reference.expected_loss,
        value=None,
        measured=False,
        standard_error=math.sqrt(variance / rows + reference.expected_loss_std**2 / reference.rows),
    )


def severity(levels: Iterable[Level], damage: Damage | None, targets: DamageTargets) -> Level:
    """Return how severe a window is: what drifted, ranked by the damage that it does.

    Drift without damage is a warning at most. Damage beyond the alert target makes drift an alert, beyond the retrain
    target a reason to retrain. Damage alone, with no check and no detector (those on the errors are among ``levels``)
    that saw drift, is a warning: one noisy window must not retrain a model. Damage within ``STANDARD_ERRORS`` of
    zero is noise.

    >>> harm = Damage(log_loss=0.1, value=None, measured=True, standard_error=0.01)
    >>> severity([Level.WARNING], harm, DamageTargets(alert_log_loss=0.05, retrain_log_loss=0.2))
    <Level.ALERT: 'alert'>
    """
    drifted = worst(levels) is not Level.NONE
    harm = Level.NONE if damage is None else damage_level(damage, targets)
    if not drifted and harm is Level.NONE:
        return Level.NONE
    return harm if drifted and harm is not Level.NONE else Level.WARNING


def damage_level(damage: Damage, targets: DamageTargets) -> Level:
    """Return the target that some damage is beyond: RETRAIN, ALERT or NONE."""
    loss = (damage.log_loss, damage.standard_error)
    value = (damage.value, damage.value_standard_error)
    if _beyond(*loss, targets.retrain_log_loss) or _beyond(*value, targets.retrain_value):
        return Level.RETRAIN
    if _beyond(*loss, targets.alert_log_loss) or _beyond(*value, targets.alert_value):
        return Level.ALERT
    return Level.NONE


def _beyond(damage: float | None, standard_error: float | None, target: float | None) -> bool:
    if damage is None or target is None:
        return False
    return damage > target and damage > STANDARD_ERRORS * (standard_error or 0.0)


def _quality(reference: Reference) -> Accuracy:
    if reference.quality is None:
        raise ConfigurationError(
            "the model's reference has no labels, so damage cannot be measured: build it from validation rows "
            "with their labels, or estimate the damage"
        )
    return reference.quality
