"""The gates that a new version passes before it may challenge the champion, measured on rows it has not learnt from.

Measuring is here, reacting is the services': a baseline that wins blocks the version, and is a reason for an alert.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.models.bundle import Quality
from driftline.models.comparison import measure, paired_blocks

#: Name of the model itself among its metrics; the others are baselines.
MODEL = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One gate: whether it was passed, why, and what was measured. ``alert``: a person must know at once."""

    name: str
    passed: bool
    reason: str
    alert: bool = False
    measured: Mapping[str, float | None] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack:
    """Rows that a candidate has not learnt from: instants, labels, and its scores there, shape [n]."""

    as_of_us: NDArray[np.int64]
    labels: NDArray[np.bool_]
    scores: NDArray[np.float64]


def baseline_gate(metrics: Mapping[str, Quality], *, margin: float = 0.0) -> Gate:
    """Pass where the model's log loss is below that of every baseline in ``metrics``, by more than ``margin`` nats.

    >>> worse, better = (Quality(auc=0.5, log_loss=loss, brier=0.2) for loss in (0.5, 0.4))
    >>> gate = baseline_gate({"model": worse, "moving_average": better})
    >>> gate.passed, gate.alert
    (False, True)
    """
    own = metrics[MODEL].log_loss
    baselines = {name: found.log_loss for name, found in metrics.items() if name != MODEL}
    measured: dict[str, float | None] = {MODEL: own, **baselines}
    winners = sorted((loss, name) for name, loss in baselines.items() if not own + margin < loss)
    if winners:
        loss, name = winners[0]
        verdict = f"not beaten by more than {margin:g}" if own < loss else "as good or better"
        reason = f"the baseline {name.replace('_', ' ')} is {verdict}: log loss {loss:.4f} against {own:.4f}"
        return Gate(name="baselines", passed=False, reason=reason, alert=True, measured=measured)
    shown = ", ".join(f"{name.replace('_', ' ')} {loss:.4f}" for name, loss in baselines.items())
    return Gate(
        name="baselines",
        passed=True,
        reason=f"log loss {own:.4f} beats {shown or 'nothing'}",
        measured=measured,
    )


def champion_gate(
    held_back: HeldBack,
    champion_scores: NDArray[np.float64] | None,
    *,
    champion_until_us: int | None = None,
    candidate_until_us: int | None = None,
    least_rows: int,
    margin: float = 0.0,
) -> Gate:
    """Pass where the candidate's log loss is below the champion's, by more than ``margin`` nats, on the same rows.

    Rows before ``champion_until_us``, which the champion may have learnt from, do not count. ``candidate_until_us`` is
    where the measured candidate's learning ended, before it learns from all rows. Where that is no later than the
    champion's, the rows only say how much the newest of them are worth, not what the new version will be. Then, and
    where fewer than ``least_rows`` are left, or there is no champion that can score them (None), the gate is open:
    the live comparison decides.
    """
    name = "champion"
    if champion_scores is None:
        return Gate(name=name, passed=True, reason="there is no champion that could score these rows")
    fair = np.ones(len(held_back.labels), dtype=np.bool_)
    if champion_until_us is not None:
        fair = held_back.as_of_us >= champion_until_us
        if candidate_until_us is not None and candidate_until_us <= champion_until_us:
            reason = "what is newer than the champion was all held back, so there is nothing to compare yet"
            return Gate(name=name, passed=True, reason=reason)
    rows = int(fair.sum())
    if rows < least_rows:
        reason = f"only {rows:,} held-back rows are new to the champion, too few to compare on"
        return Gate(name=name, passed=True, reason=reason, measured={"rows": rows})
    blocks = paired_blocks(
        held_back.as_of_us[fair], held_back.labels[fair], champion_scores[fair], held_back.scores[fair]
    )
    found = measure(blocks)
    passed = found.mean > margin
    least = f" by more than {margin:g}" if margin else ""
    reason = (
        f"log loss {found.challenger_log_loss:.4f} against the champion's {found.champion_log_loss:.4f} on "
        f"{rows:,} held-back rows"
    )
    return Gate(
        name=name,
        passed=passed,
        reason=("better: " if passed else f"not better{least}: ") + reason,
        measured=found.as_json(),
    )
