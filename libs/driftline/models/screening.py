"""Screen training data before a model learns from them: what is wrong is a reason to stop, what is odd a warning.

Rows are held against declared bounds, against themselves (duplicates, infinities, one class only) and against the
profile of the training set before: a column that loses its values, stops varying, or suddenly holds a stand-in for
"unknown" such as -1 in what was never negative. That the seasons move the inputs is no mistake, so drift is a warning
unless a limit for it is set.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.models.data_profile import (
    CategoryProfile,
    DataProfile,
    NumericProfile,
    category_profile,
    counted,
    numeric_profile,
)
from driftline.models.training_set import Rows
from driftline.monitoring.statistics import aligned, psi
from driftline.project.declaration import InputType, ModelDeclaration
from driftline.project.life_rules import ScreeningRule

#: A bound that was learnt from fewer values says little.
_LEARNT_FROM = 200


class Severity(StrEnum):
    """What a finding means for the training."""

    WARNING = "warning"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a column can hold at all; None is open."""

    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something odd or wrong: which check, in which column ("" is the whole set), what was measured, the limit."""

    severity: Severity
    check: str
    column: str
    reason: str
    measured: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreeningReport:
    """Everything that the screening found; a training set with a refused finding must not be learnt from."""

    rows: int
    columns: int
    label_rate: float | None
    compared_to: str | None
    findings: tuple[Finding, ...] = field(default=())

    @property
    def refused(self) -> tuple[str, ...]:
        """The reasons to stop; empty where the data may be learnt from."""
        return tuple(one.reason for one in self.findings if one.severity is Severity.REFUSED)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd but no reason to stop."""
        return tuple(one.reason for one in self.findings if one.severity is Severity.WARNING)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {**asdict(self), "refused": list(self.refused)}

    def text(self) -> str:
        """Return it for a person, the reasons to stop first."""
        against = f", against {self.compared_to}" if self.compared_to else ""
        verdict = "refused" if self.refused else "accepted"
        lines = [f"Training data {verdict}: {self.rows:,} rows, {self.columns} columns{against}."]
        ordered = sorted(self.findings, key=lambda one: one.severity is not Severity.REFUSED)
        return "\n".join([*lines, *(f"  {one.severity.value}: {one.reason}" for one in ordered)])


def screen_types(model: ModelDeclaration, requests: pa.Table) -> list[Finding]:
    """Return the request columns whose type is not the declared one: a number that comes as text, and so on."""
    findings = []
    for name in (*model.entity_keys, *(one.name for one in model.inputs)):
        declared = next((one.type for one in model.inputs if one.name == name), InputType.STRING)
        found = requests.schema.field(name).type
        text = pa.types.is_string(found) or pa.types.is_large_string(found)
        number = pa.types.is_floating(found) or pa.types.is_integer(found)
        if not (text if declared is InputType.STRING else number) and not pa.types.is_null(found):
            reason = f"{name} is declared as {declared.value}, the data have {found}"
            findings.append(Finding(severity=Severity.REFUSED, check="type", column=name, reason=reason))
    return findings


def screen(
    rows: Rows,
    numeric: Sequence[str],
    categorical: Sequence[str],
    *,
    request_ids: Sequence[str] = (),
    before: DataProfile | None = None,
    before_name: str | None = None,
    bounds: Mapping[str, Bounds] | None = None,
    rule: ScreeningRule | None = None,
    types: Sequence[Finding] = (),
) -> ScreeningReport:
    """Screen rows whose numeric columns have these names, in order.

    Parameters
    ----------
    request_ids
        One per row, to find duplicates.
    before, before_name
        Profile of the last training set, and what to call it.
    bounds
        What columns can hold at all, by name.
    types
        What ``screen_types`` found.
    """
    rule = rule or ScreeningRule()
    findings = [*types, *_whole(rows, request_ids, before, rule)]
    for at, name in enumerate(numeric):
        values = rows.numeric[:, at]
        known = before.numeric.get(name) if before is not None else None
        findings += _numeric(name, values, known, (bounds or {}).get(name), rule)
    for name in categorical:
        kept = before.categorical.get(name) if before is not None else None
        findings += _category(name, rows.categorical[name], kept, rule)
    return ScreeningReport(
        rows=len(rows),
        columns=len(numeric) + len(categorical),
        label_rate=float(rows.labels.mean()) if len(rows) else None,
        compared_to=before_name if before is not None else None,
        findings=tuple(findings),
    )


def _whole(
    rows: Rows, request_ids: Sequence[str], before: DataProfile | None, rule: ScreeningRule
) -> Iterator[Finding]:
    if len(rows) < rule.least_rows:
        reason = f"there are {len(rows):,} rows, {rule.least_rows:,} are needed"
        yield _refused("rows", "", reason, len(rows), rule.least_rows)
    repeated = len(request_ids) - len(set(request_ids))
    if repeated:
        share = repeated / len(request_ids)
        reason = f"{repeated:,} requests ({share:.1%}) are there twice"
        yield _by(share > rule.duplicate_share, "duplicates", "", reason, share, rule.duplicate_share)
    if not len(rows):
        return
    rate = float(rows.labels.mean())
    if rate in {0.0, 1.0}:
        yield _refused("label_rate", "", f"every label is {bool(rate)}", rate, None)
    elif before is not None and 0 < before.label_rate < 1:
        change = (rate / (1 - rate)) / (before.label_rate / (1 - before.label_rate))
        if not 1 / rule.label_odds <= change <= rule.label_odds:
            reason = f"the label is true in {rate:.1%} of the rows, it was in {before.label_rate:.1%}"
            yield _refused("label_rate", "", reason, rate, before.label_rate)


def _numeric(
    name: str,
    values: NDArray[np.float32],
    before: NumericProfile | None,
    bounds: Bounds | None,
    rule: ScreeningRule,
) -> Iterator[Finding]:
    infinite = int(np.isinf(values).sum())
    if infinite:
        yield _refused("type", name, f"{name} is infinite in {infinite:,} rows", infinite, 0)
    profile = numeric_profile(values)
    yield from _missing(name, profile.missing, before.missing if before else None, rule)
    if not profile.values:
        return
    yield from _constant(name, constant=profile.constant, varied=before is not None and not before.constant)
    finite = values[np.isfinite(values)]
    yield from _declared(name, finite, bounds)
    if before is None or before.least is None or before.most is None:
        return
    stand_in = _stand_in(finite, before)
    if stand_in is not None:
        value, count = stand_in
        reason = (
            f"{name} is {value:g} in {count:,} rows; it was never negative, so that stands for something else"
        )
        yield _refused("impossible", name, reason, value, before.least)
    outside = float(np.mean((finite < before.least) | (finite > before.most)))
    if outside > rule.outside_share:
        reason = f"{name} is outside of its last range, {before.least:g} to {before.most:g}, in {outside:.1%}"
        yield _by(False, "range", name, reason, outside, rule.outside_share)
    if len(before.counts) > 1:
        counts = np.bincount(
            np.searchsorted(before.edges, finite, side="right"), minlength=len(before.counts)
        )
        yield from _drift(name, float(psi(before.counts, counts)), rule)


def _category(
    name: str, values: Sequence[str | None], before: CategoryProfile | None, rule: ScreeningRule
) -> Iterator[Finding]:
    profile = category_profile(values)
    yield from _missing(name, profile.missing, before.missing if before else None, rule)
    if not profile.values:
        return
    yield from _constant(name, constant=profile.constant, varied=before is not None and not before.constant)
    if before is None or not before.values:
        return
    kept = Counter({key: count for key, count in counted(values).items() if key in before.counts})
    rest = profile.values - kept.total()
    expected, observed = aligned({**before.counts, "": before.rest}, {**kept, "": rest})
    yield from _drift(name, float(psi(expected, observed)), rule)


def _missing(name: str, share: float, before: float | None, rule: ScreeningRule) -> Iterator[Finding]:
    if share == 1 and before != 1:
        yield _by(before is not None, "missing", name, f"{name} has no value at all", share, before)
    elif before is not None and share - before > rule.missing_rise:
        reason = f"{name} is missing in {share:.1%} of the rows, it was in {before:.1%}"
        yield _refused("missing", name, reason, share, before + rule.missing_rise)


def _constant(name: str, *, constant: bool, varied: bool) -> Iterator[Finding]:
    if constant:
        since = "; it varied before" if varied else ""
        yield _by(varied, "constant", name, f"{name} has the same value in every row{since}", None, None)


def _declared(name: str, finite: NDArray[np.float32], bounds: Bounds | None) -> Iterator[Finding]:
    if bounds is None:
        return
    for limit, beyond in ((bounds.least, np.less), (bounds.most, np.greater)):
        if limit is not None and (count := int(beyond(finite, limit).sum())):
            worst = float(finite.min() if limit == bounds.least else finite.max())
            word = "below" if beyond is np.less else "above"
            reason = f"{name} is {word} {limit:g}, which is impossible, in {count:,} rows (like {worst:g})"
            yield _refused("impossible", name, reason, worst, limit)


def _stand_in(finite: NDArray[np.float32], before: NumericProfile) -> tuple[float, int] | None:
    """Return the one negative value, and how often, of a column that had none before; None where there is no such.

    Measurements that fall below zero for the first time differ from each other; a stand-in is always the same.
    """
    if before.negative or before.values < _LEARNT_FROM:
        return None
    negative = finite[finite < 0]
    if len(negative) == 0 or not (negative == negative[0]).all():
        return None
    return float(negative[0]), len(negative)


def _drift(name: str, found: float, rule: ScreeningRule) -> Iterator[Finding]:
    if found > rule.psi_warning:
        stop = rule.psi_refused is not None and found > rule.psi_refused
        limit = rule.psi_refused if stop else rule.psi_warning
        yield _by(
            stop,
            "drift",
            name,
            f"{name} has moved since the last training set (PSI {found:.2f})",
            found,
            limit,
        )


def _refused(check: str, column: str, reason: str, measured: float | None, limit: float | None) -> Finding:
    return _by(True, check, column, reason, measured, limit)


def _by(
    stop: bool, check: str, column: str, reason: str, measured: float | None, limit: float | None
) -> Finding:
    severity = Severity.REFUSED if stop else Severity.WARNING
    return Finding(
        severity=severity, check=check, column=column, reason=reason, measured=measured, limit=limit
    )
