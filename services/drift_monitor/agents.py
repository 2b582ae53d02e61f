"""The deciding half of drift detection: merge profiles, close windows by watermark, judge, signal.

| record | handler |
|---|---|
| profile | ``on_profile``: merge into its window, move the watermark, judge the windows that are over |
| mark of a quiet partition | ``on_profile``: it holds no windows open until it brings rows again |

Keys of the table: ``m|<model>|<kind>`` marks of the sources and open windows; ``w|...`` an open window's merged profile;
``p|<model>|<version>|<segment>`` the problem.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from typing import Any

import orjson

from driftline.control import Context, TableView, deterministic_id
from driftline.models.model_reference import EVERYTHING, ModelReferences
from driftline.monitoring.damage import Damage, estimated_damage
from driftline.monitoring.levels import Level
from driftline.monitoring.outcome_profile import OutcomeProfile
from driftline.monitoring.profile import Profile
from driftline.project import ModelDeclaration, Project
from driftline.runtime import metrics
from driftline.runtime.clock import instant_us
from driftline.runtime.logging import get_logger
from services.drift_monitor.problems import Problem, worst_first, worst_level

_log = get_logger(__name__)
PREDICTIONS, OUTCOMES = "PREDICTIONS", "OUTCOMES"
_MEASUREMENTS_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class _Closed:
    """A window that was judged: what a report and a signal of it have in common. Times are in microseconds."""

    model: ModelDeclaration
    version: str
    segment: str
    kind: str
    start: int
    end: int
    rows: int
    damage: Damage | None
    shown: Any

    def _identity(self, what: str, *more: str) -> str:
        return deterministic_id(
            what, self.model.name, self.version, self.kind, self.segment, self.start, *more
        )

    def _common(self) -> dict[str, Any]:
        damage = self.damage
        return {
            "model": self.model.name,
            "model_version": self.version,
            "segment": self.segment,
            "window_start": self.start,
            "window_end": self.end,
            "rows": self.rows,
            "damage_log_loss": None if damage is None else damage.log_loss,
            "damage_value": None if damage is None else damage.value,
            "damage_measured": damage is not None and damage.measured,
        }

    def report(self, level: Level) -> dict[str, Any]:
        """Return the window's report."""
        return {
            **self._common(),
            "report_id": self._identity("report"),
            "kind": self.kind,
            "level": level.name,
            "measurements": orjson.dumps(self.shown).decode(),
        }

    def signal(self, level: Level, problem: Problem, *, raised_at_us: int) -> dict[str, Any]:
        """Return the signal of a level; NONE resolves."""
        check, column, value, threshold = _cause(problem, self.damage, self.model)
        return {
            **self._common(),
            "signal_id": self._identity("signal", level.name),
            "level": "RESOLVED" if level is Level.NONE else level.name,
            "check": check,
            "column": column,
            "since": problem.since,
            "value": value,
            "threshold": threshold,
            "reference": f"held-out data of {self.version}",
            "details": orjson.dumps(self.shown).decode(),
            "explanation": _explained(
                level, self.segment, problem, self.damage, check, column, value, threshold
            ),
            "raised_at": raised_at_us,
        }


class DriftAgents:
    """The handlers of the drift monitor."""

    def __init__(self, project: Project, references: ModelReferences, *, signals: str, reports: str) -> None:
        self._project = project
        self._references = references
        self._signals = signals
        self._reports = reports

    async def on_profile(self, record: dict[str, Any], context: Context) -> None:
        """Merge a profile into its window, then judge the windows that every source has passed."""
        model = self._project.models.get(record["model"])
        if model is None:
            return
        if record["quiet"]:
            _take_mark(model, record, context)
        else:
            self._take(model, record, context)
        for kind in (PREDICTIONS, OUTCOMES):
            await self._close_passed(model, kind, context)

    def _take(self, model: ModelDeclaration, record: dict[str, Any], context: Context) -> None:
        """Merge a profile into its window, if that is still open, and move its source's watermark."""
        marks_key = f"m|{model.name}|{record['kind']}"
        marks = _marks(context.table, marks_key)
        start, end = (instant_us(record[name]) for name in ("window_start", "window_end"))
        if end <= marks["closed"]:
            metrics.ROWS_TOO_LATE.labels(model.name).inc(record["rows"])
        else:
            key = f"w|{record['kind']}|{model.name}|{record['model_version']}|{record['segment']}|{start}"
            _merge(context.table, key, record)
            marks["open"].setdefault(str(end), [])
            if key not in marks["open"][str(end)]:
                marks["open"][str(end)].append(key)
        if len(marks["quiet"]) == record["sources"]:
            marks["quiet"] = []  # it begins again: whether the others stay quiet they must say anew
        marks["quiet"] = [one for one in marks["quiet"] if one != record["source"]]
        _move(marks, record)
        context.table.put(marks_key, marks)

    async def _close_passed(self, model: ModelDeclaration, kind: str, context: Context) -> None:
        """Judge the windows of a kind that are over.

        Outcomes of a span are judged after its predictions: whichever profile comes first, signals are the same.
        """
        table, key = context.table, f"m|{model.name}|{kind}"
        marks = table.get(key)
        if marks is None:
            return
        watermark = _watermark(marks)
        predictions = table.get(f"m|{model.name}|{PREDICTIONS}") if kind == OUTCOMES else None
        if predictions is not None and _holding(predictions):
            watermark = min(watermark, _watermark(predictions))
        over = sorted(int(end) for end in marks["open"] if int(end) + model.monitor.grace_us <= watermark)
        if not over:
            return
        for end in over:
            marks["closed"] = max(end, marks["closed"])
            for window in sorted(marks["open"].pop(str(end))):
                await self._close(model, window, end, context)
                table.delete(window)
        table.put(key, marks)

    async def _close(self, model: ModelDeclaration, key: str, end: int, context: Context) -> None:
        """Judge one window of one version and segment."""
        kind, _, version, segment, start = key[2:].split("|")
        held = context.table.get(key)
        reference = self._references.find(model.name, version)
        if reference is None or segment not in reference.references or not held["rows"]:
            return
        problem_key = f"p|{model.name}|{version}|{segment}"
        problem = Problem.from_json(context.table.get(problem_key))
        if kind == PREDICTIONS:
            profile = Profile.from_bytes(b64decode(held["data"]))
            judged = [
                one
                for one in reference.judge(segment, profile)
                if one.measurement.column not in model.monitor.ignore
            ]
            shown: Any = worst_first(judged)
            problem.drift, problem.worst_check = worst_level(judged), (shown[0] if shown else {})
            estimate = estimated_damage(reference.references[segment], profile)
            problem.estimated = None if estimate is None else _damage_json(estimate)
            shown = shown[:_MEASUREMENTS_SHOWN]
        else:
            outcomes = OutcomeProfile.from_bytes(b64decode(held["data"]))
            problem.see_outcomes(outcomes, model.monitor.damage_windows)
            shown = {**outcomes.accuracy().as_json(), "detected": problem.detected}
        damage = problem.damage(reference.references[segment], model.monitor)
        level = problem.judge(segment, damage, model.monitor)
        closed = _Closed(
            model=model,
            version=version,
            segment=segment,
            kind=kind,
            start=int(start),
            end=end,
            rows=held["rows"],
            damage=damage,
            shown=shown,
        )
        await context.send(self._reports, model.name, closed.report(level))
        signal = problem.step(level, closed.start, model.monitor)
        if signal is not None:
            await self._signal(closed, signal, problem, context)
        context.table.put(problem_key, problem.as_json())
        if segment == EVERYTHING and kind == PREDICTIONS:
            await self._retire_others(closed, context)

    async def _retire_others(self, closed: _Closed, context: Context) -> None:
        """Resolve the problems of versions that no longer score: another one does."""
        prefix = f"p|{closed.model.name}|"
        for key, state in context.table.items():
            if not key.startswith(prefix) or key.startswith(f"{prefix}{closed.version}|"):
                continue
            problem = Problem.from_json(state)
            if problem.last_window >= closed.start or problem.level is Level.NONE:
                continue
            other, segment = key.removeprefix(prefix).split("|")
            problem.level = Level.NONE
            over = replace(closed, version=other, segment=segment, rows=0, damage=None, shown=[])
            await self._signal(over, Level.NONE, problem, context)
            context.table.put(key, problem.as_json())

    async def _signal(self, closed: _Closed, level: Level, problem: Problem, context: Context) -> None:
        record = closed.signal(level, problem, raised_at_us=context.timestamp_us)
        metrics.DRIFT_SIGNALS.labels(closed.model.name, record["level"]).inc()
        _log.info(
            "signal",
            model=closed.model.name,
            level=record["level"],
            segment=closed.segment,
            explanation=record["explanation"],
        )
        await context.send(self._signals, closed.model.name, record)


def _merge(table: TableView, key: str, record: dict[str, Any]) -> None:
    held = table.get(key)
    kind = Profile if record["kind"] == PREDICTIONS else OutcomeProfile
    data: bytes = record["data"]
    rows = record["rows"]
    if held is not None:
        data = kind.from_bytes(b64decode(held["data"])).merge(kind.from_bytes(data)).to_bytes()  # type: ignore[arg-type]
        rows += held["rows"]
    table.put(key, {"data": b64encode(data).decode(), "rows": rows})


def _take_mark(model: ModelDeclaration, record: dict[str, Any], context: Context) -> None:
    """Note that a source is quiet: it was read to its end and brings nothing."""
    key = f"m|{model.name}|{record['kind']}"
    marks = _marks(context.table, key)
    if record["source"] not in marks["quiet"]:
        marks["quiet"].append(record["source"])
    _move(marks, record)
    context.table.put(key, marks)


def _marks(table: TableView, key: str) -> dict[str, Any]:
    found: dict[str, Any] = table.get(key, {"sources": {}, "quiet": [], "open": {}, "closed": 0})
    return found


def _move(marks: dict[str, Any], record: dict[str, Any]) -> None:
    """Move a source's watermark on."""
    source = record["source"]
    marks["sources"][source] = max(marks["sources"].get(source, 0), instant_us(record["watermark"]))
    marks["expected"] = record["sources"]


def _watermark(marks: dict[str, Any]) -> int:
    """Return the instant that every source has passed: those never heard of hold it at 0, quiet ones do not count.

    Where all are quiet everything was read: it is the newest instant of any.
    """
    if len(marks["sources"]) < marks["expected"]:
        return 0
    return min(_holding(marks), default=max(marks["sources"].values()))


def _holding(marks: dict[str, Any]) -> list[int]:
    """Return the watermarks of the sources that hold windows open: those that are not quiet."""
    return [mark for source, mark in marks["sources"].items() if source not in marks["quiet"]]


def _damage_json(damage: Damage) -> dict[str, Any]:
    return {"log_loss": damage.log_loss, "standard_error": damage.standard_error}


def _cause(
    problem: Problem, damage: Damage | None, model: ModelDeclaration
) -> tuple[str, str | None, float, float]:
    """Return check, column, value and threshold of what is worst: the damage where it is beyond a target."""
    rule = model.monitor
    if damage is not None and rule.alert_log_loss is not None and damage.log_loss > rule.alert_log_loss:
        return (
            ("log_loss" if damage.measured else "expected_log_loss"),
            None,
            damage.log_loss,
            rule.alert_log_loss,
        )
    if problem.worst_check:
        worst = problem.worst_check
        return worst["check"], worst["column"], worst["value"], worst["threshold"]
    if problem.detected:
        return problem.detected.split(", ")[0], None, 1.0, 0.0
    loss = 0.0 if damage is None else damage.log_loss
    return "log_loss", None, loss, rule.alert_log_loss or 0.0


def _explained(
    level: Level,
    segment: str,
    problem: Problem,
    damage: Damage | None,
    check: str,
    column: str | None,
    value: float,
    threshold: float,
) -> str:
    where = f" in {segment}" if segment else ""
    if level is Level.NONE:
        return f"what was signalled{where} is over"
    worst = problem.worst_check
    moved = (
        f"{worst['column'] or 'the score'} moved most ({worst['check']} {worst['value']:.3g})"
        if worst
        else ""
    )
    if damage is None:
        return f"{check} of {column or 'the score'}{where} is {value:.3g}, above {threshold:.3g}"
    how = "measured on labels" if damage.measured else "estimated from the scores"
    loss = f"log loss {'rose' if damage.log_loss > 0 else 'fell'} by {abs(damage.log_loss):.3f}{where}, {how}"
    found = f"; {problem.detected} fired" if problem.detected else ""
    return loss + (f"; {moved}" if moved else "") + found
