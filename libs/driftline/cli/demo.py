"""`driftline demo`: everything once, on real data, from an empty folder to a summary that reconciles."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import orjson
import psutil
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from driftline.cli.options import JsonOption
from driftline.cli.reading import print_trace
from driftline.cli.training import train_span
from driftline.contracts.admin import create_topics
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.embedded import EmbeddedStack
from driftline.playback.demonstration import Findings, demonstrate, plan_days
from driftline.playback.errors import PlaybackError
from driftline.playback.plan import Plan, Step
from driftline.playback.platform import Platform
from driftline.playback.printing import print_summary
from driftline.playback.season import Season, plan_season, play_season
from driftline.playback.summary import Seconds, Summary
from driftline.project import Project, load_project
from driftline.project.services import services_of
from driftline.runtime.errors import ConfigurationError
from driftline.runtime.instance_file import read_instance_file, read_instance_files
from driftline.runtime.settings import PlatformSettings
from driftline.runtime.supervisor import Supervisor
from driftline.serving.tracing import Trace, trace_request

TRAINING_DAYS = 90
#: The span in which the model of January to March visibly suffers.
SEASON = (date(2013, 6, 1), date(2013, 7, 21))

_READY_SECONDS = 120.0
_SERVERS = ("KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL", "REDIS_URL")


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
        typer.Option(help="Play on through June and July, where the model suffers, with the whole loop."),
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
    folder = _fresh_folder(state)
    loaded = load_project(project)
    model = next(iter(loaded.models))
    began = time.monotonic()
    with _servers(folder, console) as servers:
        environment = {
            **servers,
            "DRIFTLINE_PROJECT": str(loaded.folder),
            "DRIFTLINE_STATE": str(folder),
            "DRIFTLINE_MODELS": str(folder / "models"),
            "DRIFTLINE_ARCHIVE": str(folder / "archive"),
            "DRIFTLINE_PROFILER_FLUSH_SECONDS": "0.3",
        }
        os.environ.update(environment)
        settings = PlatformSettings.from_environment()
        topics = settings.topics(loaded)
        create_topics(settings.kafka_config(), loaded, topics)
        with SchemaRegistry(settings.schema_registry_url) as registry:
            registry.register_project(loaded, topics)
        started = time.monotonic() - began
        first = start.date()
        trained = train_span(
            loaded, model, settings.models, start=first - timedelta(days=TRAINING_DAYS), end=first
        )
        supervisor = Supervisor(
            state=folder, services=services_of(loaded), environment={**os.environ, **environment}
        )
        began = time.monotonic()
        supervisor.start()
        try:
            with console.status("Starting the services"):
                supervisor.wait_ready(_READY_SECONDS)
            started += time.monotonic() - began
            findings = _play(
                loaded,
                model,
                topics,
                _platform(settings, supervisor),
                console,
                start=first,
                days=days,
                seed=seed,
                base_rate=trained.bundle.manifest.training.positive_share,
            )
            summary = Summary(
                counts=findings.counts,
                http=findings.http,
                freshness=findings.freshness,
                parity=findings.parity,
                quality=findings.quality,
                seconds=Seconds(
                    install=install_seconds, start=started, train=trained.seconds, play=findings.seconds
                ),
            )
            if season:
                summary = replace(
                    summary,
                    season=_play_season(
                        loaded,
                        model,
                        topics,
                        _platform(settings, supervisor),
                        console,
                        models=settings.models,
                        since=first + timedelta(days=days),
                        first_version=trained.bundle.manifest.version,
                    ),
                )
            path = folder / "summary.json"
            summary.write(path)
            if as_json:
                typer.echo(orjson.dumps(summary.as_dict(), option=orjson.OPT_INDENT_2).decode())
            else:
                print_summary(console, summary)
                console.print(f"Written to {path}", highlight=False)
            if findings.example:
                trace = _show_trace(console, loaded, topics, settings, findings.example)
                _print_next(console, loaded, folder, trace)
            if keep_running:
                _wait(console)
        finally:
            supervisor.stop()
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
    with _progress(console, plan) as stepped:
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
    with _progress(console, plan) as stepped:
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


@contextmanager
def _progress(console: Console, plan: Plan) -> Iterator[Callable[[Step], None]]:
    """Show a bar in event time; yield what is to be called after each step."""
    with Progress(
        TextColumn("Playing {task.fields[at]}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[asked]:,} predictions"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("play", total=len(plan.steps), at=_when(plan.steps[0]), asked=0)
        asked = 0

        def stepped(step: Step) -> None:
            nonlocal asked
            asked += len(step.requests)
            progress.update(task, advance=1, at=_when(step), asked=asked)

        yield stepped


def _when(step: Step) -> str:
    return f"{step.at:%d %B %H:%M}"


@contextmanager
def _servers(folder: Path, console: Console) -> Iterator[dict[str, str]]:
    """Yield the environment that names the servers: real ones where all are set, else embedded ones.

    On real servers a demo plays in an environment of its own, so that it meets nobody's data.
    """
    named = {name: os.environ[name] for name in _SERVERS if os.environ.get(name)}
    if len(named) == len(_SERVERS):
        yield {**named, "DRIFTLINE_ENVIRONMENT": f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"}
        return
    if named:
        missing = ", ".join(name for name in _SERVERS if name not in named)
        raise ConfigurationError(f"{', '.join(named)} is set, but {missing} is not; set all of them, or none")
    console.print("Starting Kafka, the schema registry and the store")
    with EmbeddedStack(folder) as stack:
        yield {**stack.environment, "DRIFTLINE_ENVIRONMENT": ""}


def _platform(settings: PlatformSettings, supervisor: Supervisor) -> Platform:
    urls = {}
    for status in supervisor.statuses():
        service = status.instance.rsplit("-", 1)[0]
        instance = read_instance_file(settings.state, status.instance)
        if instance is None:
            raise PlaybackError(f"{service} did not say where it listens; see {settings.state / 'logs'}")
        urls[service] = f"http://127.0.0.1:{instance.port}"
    return Platform(
        kafka=settings.kafka_config(),
        registry_url=settings.schema_registry_url,
        redis_url=settings.redis_url,
        ingest_url=urls["ingest"],
        predictor_url=urls["predictor"],
        urls=list(urls.values()),
        watchdog=lambda: _watch(supervisor),
    )


def _watch(supervisor: Supervisor) -> None:
    """Raise where a service ended: its counters are lost, or it will not come back."""
    for status in supervisor.statuses():
        if status.state != "running" or status.restarts:
            raise PlaybackError(
                f"{status.instance} ended while it played: {status.reason or 'started again'}"
            )


def _fresh_folder(state: Path) -> Path:
    """Return an empty folder for this demo; what the last one left goes."""
    folder = state.resolve() / "demo"
    alive = [item.instance for item in read_instance_files(folder) if psutil.pid_exists(item.pid)]
    if alive:
        raise ConfigurationError(f"a demo is still running in {folder} ({', '.join(alive)}); end it first")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


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
