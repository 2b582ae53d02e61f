"""What a drift signal is about, in words."""

from collections.abc import Mapping
from typing import Any

from driftline.alerts.alert import to_iso
from driftline.alerts.kinds import ACCURACY, DRIFT, QUALITY
from driftline.runtime.clock import instant_us

_INPUT_CHECKS = frozenset(
    {
        *("psi", "jensen_shannon", "wasserstein", "ks", "chi_squared_per_df", "hellinger", "mmd"),
        *("domain_classifier", "score_psi", "score_jensen_shannon", "confidence_drop"),
    }
)
_QUALITY_CHECKS = frozenset(
    {"out_of_range_share", "unseen_share", "missing_change", "missing_share", "out_of_range"}
)


def kind_of_check(check: str) -> str:
    """Return the kind of problem that a monitor's check is about.

    >>> kind_of_check("psi"), kind_of_check("missing_change"), kind_of_check("log_loss")
    ('drift', 'quality', 'accuracy')
    """
    if check in _QUALITY_CHECKS:
        return QUALITY
    return DRIFT if check in _INPUT_CHECKS else ACCURACY


def signal_subject(signal: Mapping[str, Any]) -> str:
    """Return what was measured: the check, of which column, where."""
    what = f"{signal['check']} of {signal['column']}" if signal["column"] else signal["check"]
    return what + (f" where {signal['segment']}" if signal["segment"] else "")


def signal_text(signal: Mapping[str, Any]) -> str:
    """Return a signal in full: the explanation, the figures, the damage."""
    lines = [
        signal["explanation"],
        f"{signal_subject(signal)}: {signal['value']:.4g}, threshold {signal['threshold']:.4g}, "
        f"{signal['rows']:,} rows until {to_iso(instant_us(signal['window_end']))}, since {to_iso(instant_us(signal['since']))}, "
        f"against {signal['reference']}.",
    ]
    how = "measured" if signal["damage_measured"] else "estimated"
    if signal["damage_log_loss"] is not None:
        lines.append(f"Damage ({how}): {signal['damage_log_loss']:+.4f} nats of log loss.")
    if signal["damage_value"] is not None:
        lines.append(f"Value per prediction ({how}): {signal['damage_value']:+.4f}.")
    if signal["level"] == "RETRAIN":
        lines.append("This is a reason to retrain.")
    return "\n".join(lines)
