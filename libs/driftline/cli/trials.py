"""`driftline models canary`, `stop-canary` and `ab`: versions on trial with a share of the live traffic."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from driftline.cli.model_asking import ANSWER_SECONDS, ReasonOption, WaitOption, ask_registry
from driftline.cli.model_desk import Desk, ModelArgument, VersionArgument
from driftline.cli.options import JsonOption, ProjectOption
from driftline.models.lifecycle import ModelHistory
from driftline.models.model_event import Kind
from driftline.models.trial import (
    Metric,
    TestPlan,
    Trial,
    TrialArm,
    TrialKind,
    free_name,
    steps_of,
    trial_json,
)
from driftline.models.trial import canary as canary_of
from driftline.project import CanaryRule, ModelDeclaration
from driftline.runtime.durations import parse_duration_us
from driftline.runtime.errors import ConfigurationError

StickyOption = Annotated[
    str,
    typer.Option(
        "--sticky", help="Entity whose requests all go to one arm; each request for itself if left out."
    ),
]
NameOption = Annotated[
    str, typer.Option("--name", help="Name of the trial; made of the version if left out.")
]
_USUAL_EFFECT = 0.01
_Made = TypeVar("_Made")

ab = typer.Typer(
    help="A/B tests: versions side by side on live traffic, and which is better.", no_args_is_help=True
)


def canary(
    version: VersionArgument,
    model: ModelArgument = "",
    *,
    shares: Annotated[
        str, typer.Option(help="Its share in each step, like 0.01,0.05,0.25; the project's rule if left out.")
    ] = "",
    hold: Annotated[str, typer.Option(help="Event time of each step at least, like 1h.")] = "",
    least_requests: Annotated[int, typer.Option(min=0, help="Requests of each step at least.")] = 0,
    sticky: StickyOption = "",
    name: NameOption = "",
    reason: ReasonOption = "",
    wait: WaitOption = ANSWER_SECONDS,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Give a version a small share of the requests that grows while all goes well; then it is promoted.

    It goes back to the champion at once where the version fails.

    Example: driftline models canary 20130601T000000Z-1a2b3c lateness --shares 0.01,0.1,0.5 --hold 6h
    """

    def evidence(desk: Desk, history: ModelHistory) -> str:
        declared = desk.project.models[history.model]
        rule = _rule(declared, shares, hold, least_requests, sticky)
        _check_sticky(declared, rule.sticky)
        named = name or free_name(f"canary-{version}", history.trials)
        steps = steps_of(rule, declared.service_levels)
        return _checked(lambda: trial_json(canary_of(version, named, steps, rule.sticky)))

    ask_registry(Kind.START_CANARY, version, model, reason, wait, project, as_json=as_json, evidence=evidence)


def stop_canary(
    model: ModelArgument = "",
    *,
    reason: ReasonOption = "",
    wait: WaitOption = ANSWER_SECONDS,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """End the canary that runs: the champion answers everything again."""
    ask_registry(Kind.STOP_CANARY, "", model, reason, wait, project, as_json=as_json)


@ab.command("start")
def start_ab(
    model: ModelArgument = "",
    *,
    arm: Annotated[
        list[str],
        typer.Option(
            "--arm", help="VERSION=SHARE; several times for several arms. The champion has the rest."
        ),
    ],
    sticky: StickyOption = "",
    name: NameOption = "",
    metric: Annotated[Metric, typer.Option(help="What it is judged by.")] = Metric.LOG_LOSS,
    effect: Annotated[
        float,
        typer.Option(min=0, help="Smallest difference per outcome that matters; 0.01 but for the value."),
    ] = 0.0,
    alpha: Annotated[float, typer.Option(help="Probability of a winner where there is none.")] = 0.05,
    power: Annotated[float, typer.Option(help="Probability of finding a difference of that size.")] = 0.8,
    reason: ReasonOption = "",
    wait: WaitOption = ANSWER_SECONDS,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Begin an A/B test. What is to be found is fixed here, before anything is seen.

    Example: driftline models ab start lateness --arm 20130601T000000Z-1a2b3c=0.5 --sticky origin --effect 0.005
    """
    arms = _arms(arm)

    def evidence(desk: Desk, history: ModelHistory) -> str:
        declared = desk.project.models[history.model]
        _check_sticky(declared, sticky)
        trial = _checked(
            lambda: Trial(
                kind=TrialKind.AB,
                name=name or free_name(f"ab-{arms[0].version}", history.trials),
                arms=arms,
                sticky=sticky,
                plan=_plan(declared, metric, effect, alpha, power),
            )
        )
        return trial_json(trial)

    ask_registry(
        Kind.START_AB, arms[0].version, model, reason, wait, project, as_json=as_json, evidence=evidence
    )


@ab.command("stop")
def stop_ab(
    model: ModelArgument = "",
    *,
    reason: ReasonOption = "",
    wait: WaitOption = ANSWER_SECONDS,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """End the A/B test that runs: the champion answers everything again. `ab analyse` says who won."""
    ask_registry(Kind.STOP_AB, "", model, reason, wait, project, as_json=as_json)


@ab.command("analyse")
def analyse_ab(
    model: ModelArgument = "",
    *,
    name: Annotated[str, typer.Option("--name", help="Name of the test; the newest if left out.")] = "",
    project: ProjectOption = Path(),
    archive: Annotated[
        str,
        typer.Option(
            envvar="DRIFTLINE_ARCHIVE",
            help="Folder or URL of the archive, for what the topics no longer hold.",
        ),
    ] = ".driftline/archive",
    as_json: JsonOption = False,
) -> None:
    """Say who won, with what confidence and on how many outcomes; or that it is too early to say.

    The always-valid result may be looked at as often as one likes. The fixed-horizon one is for one look, at the planned
    sample.

    Example: driftline models ab analyse lateness --json
    """
    from driftline.cli.ab_analysis import analyse

    analyse(model, name, project, archive, as_json=as_json)


def _rule(model: ModelDeclaration, shares: str, hold: str, least_requests: int, sticky: str) -> CanaryRule:
    rule = model.promotion.canary or CanaryRule()
    if shares:
        rule = replace(rule, shares=tuple(_number("--shares", text) for text in shares.split(",")))
    if hold:
        try:
            rule = replace(rule, hold_us=parse_duration_us(hold))
        except ValueError as error:
            raise ConfigurationError(f"--hold {error}") from error
    if least_requests:
        rule = replace(rule, least_requests=least_requests)
    return replace(rule, sticky=sticky or rule.sticky)


def _plan(model: ModelDeclaration, metric: Metric, effect: float, alpha: float, power: float) -> TestPlan:
    if model.label is None:
        raise ConfigurationError(
            f"model {model.name!r} declares no label, so nothing comes back to judge an A/B test by; declare its `label:`"
        )
    if metric is Metric.VALUE and not model.value:
        raise ConfigurationError(f"model {model.name!r} declares no `value:` to judge an A/B test by")
    if metric is Metric.VALUE and not effect:
        raise ConfigurationError(
            "say with --effect which difference of value per outcome matters, in the project's unit"
        )
    return TestPlan(metric=metric, effect=effect or _USUAL_EFFECT, alpha=alpha, power=power)


def _arms(given: list[str]) -> tuple[TrialArm, ...]:
    arms = []
    for text in given:
        version, equals, share = text.partition("=")
        if not (version and equals):
            raise ConfigurationError(f"--arm {text}: write VERSION=SHARE")
        arms.append(TrialArm(name=version, version=version, share=_number("--arm", share)))
    return tuple(arms)


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: {text!r} is no share, like 0.05") from error


def _check_sticky(model: ModelDeclaration, sticky: str) -> None:
    names = [one.name for one in model.entities]
    if sticky and sticky not in names:
        raise ConfigurationError(
            f"--sticky {sticky}: model {model.name!r} has no such entity; its entities: {', '.join(names)}"
        )


def _checked(make: Callable[[], _Made]) -> _Made:
    try:
        return make()
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
