"""What `driftline models ab analyse` tells: the log of an A/B test, read, measured and put into sentences."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from driftline.archive.tables import Archive
from driftline.cli.model_desk import Desk, open_desk, shown_time
from driftline.cli.options import echo_json
from driftline.contracts.json_values import to_json
from driftline.contracts.topics import OUTCOMES, PREDICTIONS
from driftline.models.experiments import (
    LEAST_RATIO_P,
    Contrast,
    Interval,
    Mean,
    Verdict,
    contrast,
    sample_ratio_p,
    unit_of,
)
from driftline.models.lifecycle import ModelHistory
from driftline.models.trial import Metric, TestPlan, Trial, TrialKind
from driftline.replay.ab_outcomes import AbOutcomes, Assigned
from driftline.replay.records import ArchiveRecords, Records, Tell, TopicRecords
from driftline.replay.selection import Selection
from driftline.runtime.errors import RefusedError
from driftline.serving.log_reading import LogReader


def analyse(model: str, name: str, project: Path, archive: str, *, as_json: bool) -> None:
    """Read the newest A/B test of a model, or the one that is named, and tell who won."""
    console = Console(stderr=True)
    with console.status("Reading the log") as status, open_desk(project) as desk:
        history = desk.history(desk.model(model))
        trial = _test(history, name)
        found = AbOutcomes(desk.project.models[history.model], trial)
        selection = Selection(start_us=trial.began_at_us, model=history.model)
        with _records(desk, archive, status.update) as records:
            for table in records.read(PREDICTIONS, selection):
                found.add_predictions(table)
            for table in records.read(OUTCOMES, selection):
                found.add_outcomes(table)
            notes = records.notes
    told = told_test(history.model, trial, found, notes)
    if as_json:
        echo_json(told)
    else:
        print_test(Console(), told)


def told_test(model: str, trial: Trial, found: AbOutcomes, notes: list[str]) -> dict[str, Any]:
    """Return an A/B test's result as JSON holds it."""
    plan = trial.plan or TestPlan()
    assigned = found.assigned()
    shares = _shares(trial)
    ratio_p = sample_ratio_p([one.units for one in assigned.values()], list(shares.values()))
    sound = ratio_p >= LEAST_RATIO_P
    declared = [Metric.LOG_LOSS, Metric.LABEL, *([Metric.VALUE] if found.model.value else [])]
    means = {metric: found.means(metric) for metric in dict.fromkeys([plan.metric, *declared])}
    contrasts = {
        metric: _contrasts(trial, by_arm, shares, replace(plan, metric=metric), sound=sound)
        for metric, by_arm in means.items()
    }
    return {
        "model": model,
        "trial": trial.name,
        "began": shown_time(trial.began_us),
        "until": None if trial.until_us is None else shown_time(trial.until_us),
        "ended": trial.ended or None,
        "sticky": trial.sticky or None,
        "plan": {**asdict(plan), "metric": plan.metric.value},
        "sample_ratio": {"p": ratio_p, "sound": sound},
        "arms": [
            _told_arm(name, version, shares[name], assigned[name], means)
            for name, version in found.arms.items()
        ],
        "result": [one.as_json() for one in contrasts[plan.metric]],
        "beside": {
            metric.value: [one.as_json() for one in found_]
            for metric, found_ in contrasts.items()
            if metric is not plan.metric
        },
        "conclusion": conclusion(trial, plan, contrasts[plan.metric], ratio_p),
        "notes": notes,
    }


def conclusion(trial: Trial, plan: TestPlan, contrasts: list[Contrast], ratio_p: float) -> list[str]:
    """Return who won, in sentences."""
    if ratio_p < LEAST_RATIO_P:
        return [
            f"no winner is named: the arms do not have the shares that were declared (p {ratio_p:.2g}), so something beside "
            "the versions tells them apart. Look for requests of an arm that are lost, or sent again"
        ]
    return [sentence for one in contrasts for sentence in _sentences(trial, plan, one)]


def _sentences(trial: Trial, plan: TestPlan, one: Contrast) -> Iterator[str]:
    size = f"{one.difference:+.4g} {unit_of(plan.metric)}"
    always, fixed = _bounds(one.always), _bounds(one.fixed)
    held = f"{one.arm} against {trial.control}"
    sure = f"{1 - plan.alpha:.4g} confidence" + (
        f" over {len(trial.arms)} arms" if len(trial.arms) > 1 else ""
    )
    if one.verdict_always is Verdict.UNDECIDED:
        yield f"{held}: no difference is shown so far: {size} (always valid: {always} with {sure})"
    else:
        yield (
            f"{held}: {one.verdict_always.value}, {size} (always valid: {always} with {sure}, p {one.always.p:.2g}); "
            "the test may be stopped"
        )
    if one.reached:
        yield f"at the planned sample: {one.verdict_fixed.value} (p {one.fixed.p:.2g}, {fixed}), if this is the only look"
    else:
        needed = " and ".join(f"{count:,}" for count in one.needed)
        yield f"the planned sample is not reached ({needed} units needed): the fixed-horizon result is none yet"


def print_test(console: Console, told: dict[str, Any]) -> None:
    """Print an A/B test's result for a person."""
    metric = told["plan"]["metric"]
    title = f"{told['trial']} of {told['model']}, since {told['began']}" + (
        f", ended {told['until']}" if told["until"] else ""
    )
    table = Table(title=escape(title))
    for heading in ("arm", "share", "requests", "units", "answered by others", "outcomes", metric, "error"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    for one in told["arms"]:
        mean = one["metrics"][metric]
        table.add_row(
            one["arm"] + (f" ({one['version']})" if one["version"] not in {"", one["arm"]} else ""),
            f"{one['share']:.2%}",
            f"{one['requests']:,}",
            f"{one['units']:,}",
            f"{one['fallbacks']:,}",
            f"{mean['outcomes']:,}",
            "none" if mean["mean"] is None else f"{mean['mean']:.5g}",
            "none" if mean["standard_error"] is None else f"{mean['standard_error']:.2g}",
        )
    console.print(table)
    for sentence in told["conclusion"]:
        console.print(f"{sentence}.", markup=False, highlight=False, soft_wrap=True)
    for note in told["notes"]:
        console.print(f"[yellow]note:[/yellow] {escape(note)}", highlight=False, soft_wrap=True)


def _told_arm(
    name: str, version: str, share: float, assigned: Assigned, means: dict[Metric, dict[str, Mean]]
) -> dict[str, Any]:
    metrics = {
        metric.value: {
            "units": by_arm[name].units,
            "outcomes": by_arm[name].outcomes,
            "mean": to_json(by_arm[name].mean),
            "standard_error": to_json(by_arm[name].error),
        }
        for metric, by_arm in means.items()
    }
    return {"arm": name, "version": version, "share": share, **asdict(assigned), "metrics": metrics}


def _contrasts(
    trial: Trial, means: dict[str, Mean], shares: dict[str, float], plan: TestPlan, *, sound: bool
) -> list[Contrast]:
    control = means[trial.control]
    return [
        contrast(
            one.name,
            means[one.name],
            control,
            (shares[one.name], shares[trial.control]),
            plan,
            comparisons=len(trial.arms),
            sound=sound,
        )
        for one in trial.arms
    ]


def _shares(trial: Trial) -> dict[str, float]:
    """Return each arm's share, the control's first."""
    arms = {one.name: one.share for one in trial.arms}
    return {trial.control: 1 - math.fsum(arms.values()), **arms}


def _test(history: ModelHistory, name: str) -> Trial:
    tests = [one for one in history.trials if one.kind is TrialKind.AB]
    found = [one for one in tests if name in {"", one.name}]
    if not found:
        known = ", ".join(one.name for one in tests) or "none"
        what = f"no A/B test {name!r}" if name else "no A/B test"
        raise RefusedError(f"model {history.model!r} had {what}; its tests: {known}")
    return found[-1]


@contextmanager
def _records(desk: Desk, location: str, tell: Tell) -> Iterator[Records]:
    tables = ArchiveRecords(Archive.at(location, desk.topics.prefix), tell)
    with LogReader(desk.settings.kafka_config()) as reader:
        yield Records(TopicRecords(reader, desk.topics, desk.registry, tell), tables)


def _bounds(found: Interval) -> str:
    return f"{_shown(found.lower)} to {_shown(found.upper)}"


def _shown(value: float) -> str:
    return f"{value:+.4g}" if math.isfinite(value) else "any"
