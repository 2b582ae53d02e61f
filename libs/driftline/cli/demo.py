"""`driftline demo`: everything once, on real data, from an empty folder to a summary that reconciles."""

import time
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from driftline.cli.options import JsonOption, echo_json
from driftline.cli.reading import print_trace
from driftline.cli.stage import fresh_folder, playing, stage
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.playback.demonstration import Findings, demonstrate, plan_days
from driftline.playback.platform import Platform
from driftline.playback.printing import print_summary
from driftline.playback.season import Season, plan_season, play_season
from driftline.playback.summary import Seconds, Summary
from driftline.project import Project, load_project
from driftline.runtime.settings import PlatformSettings
from driftline.serving.tracing import Trace, trace_request

TRAINING_DAYS = 90
#: The span in which the model of January to March visibly suffers.
SEASON = (date(2013, 6, 1), date(2013, 7, 15))


def demo(
    *,
    days: Annotated[int, typer.Option(envvar="DAYS", min=1, max=300, help="How many days to play.")] = 14,
    start: Annotated[
        datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day to play, UTC.")
    ] = datetime(2013, 4, 1),
    project: Annotated[Path, typer.Option(help="A project with a history.")] = Path("examples/flights"),
    state: Annotated[
        Path, typer.Option(envvar="DRIFTLINE_STATE", help="Folder for this machine's state.")
    ] = Path(".driftline"),
    season: Annotated[
        bool,
        typer.Option(
            help="Play on from June to the middle of July, where the model suffers, with the whole loop."
        ),
    ] = True,
    keep_running: Annotated[bool, typer.Option(help="Leave everything running until Ctrl-C.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of what goes wrong on purpose.")] = 0,
    install_seconds: Annotated[float, typer.Option(envvar="DRIFTLINE_INSTALL_SECONDS", hidden=True)] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Start everything, train, play real events in event time, and show that it all adds up.

    Ends what it started. Fails where a count or a served value does not reconcile.

    Example: driftline demo --days 2
    """
    console = Console(stderr=True) if as_json else Console()
    folder = fresh_folder(state, "demo")
    loaded = load_project(project)
    model = next(iter(loaded.models))
    first = start.date()
    with stage(
        loaded, model, folder, console, act="demo", since=first - timedelta(days=TRAINING_DAYS), until=first
    ) as running:
        findings = _play(
            loaded,
            model,
            running.topics,
            running.platform,
            console,
            start=first,
            days=days,
            seed=seed,
            base_rate=running.trained.bundle.manifest.training.positive_share,
        )
        summary = Summary(
            counts=findings.counts,
            http=findings.http,
            freshness=findings.freshness,
            parity=findings.parity,
            quality=findings.quality,
            seconds=Seconds(
                install=install_seconds,
                start=running.started,
                train=running.trained.seconds,
                play=findings.seconds,
            ),
        )
        if season:
            summary = replace(
                summary,
                season=_play_season(
                    loaded,
                    model,
                    running.topics,
                    running.platform,
                    console,
                    models=running.settings.models,
                    since=first + timedelta(days=days),
                    first_version=running.first_version,
                ),
            )
        path = folder / "summary.json"
        summary.write(path)
        if as_json:
            echo_json(summary.as_dict())
        else:
            print_summary(console, summary)
            console.print(f"Written to {path}", highlight=False)
        if findings.example:
            trace = _show_trace(console, loaded, running.topics, running.settings, findings.example)
            _print_next(console, loaded, folder, trace)
        if keep_running:
            _wait(console)
    if summary.problems:
        raise typer.Exit(1)


def _play(
    project: Project,
    model: str,
    topics: Topics,
    platform: Platform,
    console: Console,
    *,
    start: date,
    days: int,
    seed: int,
    base_rate: float,
) -> Findings:
    """Play with a progress bar in event time."""
    with console.status("Planning the play"):
        plan, requests = plan_days(project, start=start, days=days, seed=seed)
    with playing(console, plan) as stepped:
        return demonstrate(
            project,
            model,
            topics,
            platform,
            plan=plan,
            requests=requests,
            base_rate=base_rate,
            progress=stepped,
        )


def _play_season(
    project: Project,
    model: str,
    topics: Topics,
    platform: Platform,
    console: Console,
    *,
    models: Path,
    since: date,
    first_version: str,
) -> Season | None:
    """Play the summer with a progress bar; nothing where the first act went that far already."""
    start, end = SEASON
    if since > start or len(project.labelled_models) == 0:
        return None
    with console.status("Planning the summer"):
        plan = plan_season(project, since=since, start=start, end=end)
    with playing(console, plan) as stepped:
        return play_season(
            project,
            project.models[model],
            topics,
            platform,
            models,
            plan=plan,
            first_version=first_version,
            progress=stepped,
        )


def _show_trace(
    console: Console, project: Project, topics: Topics, settings: PlatformSettings, request_id: str
) -> Trace:
    """Tell the story of one request of the play."""
    with console.status("Tracing a request"), SchemaRegistry(settings.schema_registry_url) as registry:
        trace = trace_request(project, topics, settings.kafka_config(), registry, request_id)
    console.print()
    print_trace(console, trace)
    return trace


def _print_next(console: Console, project: Project, folder: Path, trace: Trace) -> None:
    """Show what to try next."""
    console.print("\nWhat to try next", style="bold")
    view = trace.views[0]
    for line in (
        f"export DRIFTLINE_PROJECT={_short(project.folder)} DRIFTLINE_STATE={_short(folder)} "
        f"DRIFTLINE_ARCHIVE={_short(folder / 'archive')}",
        "driftline up",
        f"driftline trace {trace.request_id}",
        f"driftline replay --request {trace.request_id} --features recomputed",
        f"driftline features get {view.view} {view.key} --as-of {trace.prediction['event_time']}",
        "driftline tail predictions --lines 3",
        "driftline dead-letters list",
        "driftline drift history",
        "driftline archive query 'SELECT model_version, avg(log_loss) FROM outcomes GROUP BY ALL'",
    ):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _short(path: Path) -> Path:
    """Return a path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _wait(console: Console) -> None:
    console.print("\nEverything goes on running; Ctrl-C ends it.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
