"""`driftline year`: months of real data through the whole loop, and what each month came to."""

import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from driftline.cli.options import JsonOption, echo_json
from driftline.cli.stage import fresh_folder, playing, stage
from driftline.models.retraining import RetrainRequest
from driftline.playback.demonstration import WARM_UP
from driftline.playback.season import plan_season, play_watched
from driftline.playback.year import Year, tell_year, three_months_before
from driftline.playback.year_report import year_markdown
from driftline.project import ModelDeclaration, load_project
from driftline.runtime.errors import ConfigurationError

#: The first version learns from January to March.
TRAINING_DAYS = 90
_HTTP_EVERY = 1_000


def year(
    *,
    days: Annotated[int, typer.Option(envvar="DAYS", min=2, max=366, help="How many days to play.")] = 275,
    start: Annotated[
        datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day to play, UTC.")
    ] = datetime(2013, 4, 1),
    offer: Annotated[
        datetime,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="The day on which a model of the three months before it is offered as a challenger.",
        ),
    ] = datetime(2013, 10, 1),
    step_minutes: Annotated[
        int, typer.Option(min=1, max=60, help="Event time between two looks at the clock.")
    ] = 60,
    project: Annotated[Path, typer.Option(help="A project with a history.")] = Path("examples/flights"),
    state: Annotated[
        Path, typer.Option(envvar="DRIFTLINE_STATE", help="Folder for this machine's state.")
    ] = Path(".driftline"),
    report: Annotated[
        Path | None, typer.Option(help="Where the report goes; report.md beside the summary if left out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Play months through the whole loop: signals, retrains, refusals, promotions, and what they were worth.

    Trains on the 90 days before the first, plays the rest in event time, and holds what served beside the version that
    never changed and a plain monthly retrain. Ends what it started.

    Example: driftline year --from 2013-09-20 --days 40
    """
    console = Console(stderr=True) if as_json else Console()
    loaded = load_project(project)
    if not loaded.labelled_models:
        raise ConfigurationError(
            f"project {loaded.name!r} has no model with a label, so there is no loop to watch"
        )
    model = loaded.labelled_models[0]
    folder = fresh_folder(state, "year")
    first, end = start.date(), start.date() + timedelta(days=days)
    since = first - timedelta(days=TRAINING_DAYS)
    offers = _offers(model, offer.date(), first, end)
    with stage(loaded, model.name, folder, console, act="year", since=since, until=first) as running:
        with console.status("Planning the play"):
            # Events of the training's last days fill the features' windows.
            plan = plan_season(loaded, since=first - WARM_UP, start=first, end=end, step_minutes=step_minutes)
        with playing(console, plan) as stepped:
            chronicle = play_watched(
                loaded,
                model,
                running.topics,
                running.platform,
                plan=plan,
                offers=offers,
                http_every=_HTTP_EVERY,
                progress=stepped,
            )
    began = time.monotonic()
    with console.status("Comparing") as status:
        found = tell_year(
            loaded,
            model,
            running.settings.models,
            chronicle,
            first_version=running.first_version,
            trained_from=since,
            start=first,
            end=end,
            step_minutes=step_minutes,
            offers=offers,
            seconds={"start": running.started, "train": running.trained.seconds},
            progress=lambda step: status.update(f"Comparing: {step}"),
        )
    found = found.with_seconds("compare", time.monotonic() - began)
    found.write(folder / "summary.json")
    path = report or folder / "report.md"
    text = year_markdown(found, _command(first, days, step_minutes, offer.date()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    _show(console, found, text, [folder / "summary.json", path], as_json=as_json)


def _offers(model: ModelDeclaration, offer: date, first: date, end: date) -> list[RetrainRequest]:
    return [three_months_before(model, offer)] if first < offer < end else []


def _command(first: date, days: int, step_minutes: int, offer: date) -> str:
    return f"driftline year --from {first} --days {days} --step-minutes {step_minutes} --offer {offer}"


def _show(console: Console, found: Year, text: str, paths: list[Path], *, as_json: bool) -> None:
    if as_json:
        echo_json(found.as_dict())
        return
    console.print(Markdown(text))
    console.print(f"Written to {' and '.join(map(str, paths))}", highlight=False)
