"""What a play needs around it: servers, topics, services, a progress bar. `driftline demo` and `year` share it."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from driftline.cli.training import train_span
from driftline.contracts.admin import create_topics
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.embedded import EmbeddedStack
from driftline.models.training import Trained
from driftline.playback.errors import PlaybackError
from driftline.playback.plan import Plan, Step
from driftline.playback.platform import Platform
from driftline.project import Project
from driftline.project.services import services_of
from driftline.runtime.errors import ConfigurationError
from driftline.runtime.instance_file import read_instance_file, read_instance_files
from driftline.runtime.settings import PlatformSettings
from driftline.runtime.supervisor import Supervisor

_READY_SECONDS = 120.0
_SERVERS = ("KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL", "REDIS_URL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A project whose services run with a model that was just trained; ``started`` is what that took, in seconds."""

    settings: PlatformSettings
    topics: Topics
    platform: Platform
    trained: Trained
    started: float

    @property
    def first_version(self) -> str:
        """The version that was trained."""
        return self.trained.bundle.manifest.version


@contextmanager
def stage(
    project: Project, model: str, folder: Path, console: Console, *, act: str, since: date, until: date
) -> Iterator[Stage]:
    """Start servers, train on ``[since, until)``, start the services; end all of it behind the block.

    ``act`` names the environment on real servers, where a play must meet nobody's data.
    """
    began = time.monotonic()
    with _servers(folder, console, act) as servers:
        environment = {
            **servers,
            "DRIFTLINE_PROJECT": str(project.folder),
            "DRIFTLINE_STATE": str(folder),
            "DRIFTLINE_MODELS": str(folder / "models"),
            "DRIFTLINE_ARCHIVE": str(folder / "archive"),
            "DRIFTLINE_PROFILER_FLUSH_SECONDS": "0.3",
        }
        os.environ.update(environment)
        settings = PlatformSettings.from_environment()
        topics = settings.topics(project)
        create_topics(settings.kafka_config(), project, topics)
        with SchemaRegistry(settings.schema_registry_url) as registry:
            registry.register_project(project, topics)
        started = time.monotonic() - began
        trained = train_span(project, model, settings.models, start=since, end=until)
        supervisor = Supervisor(
            state=folder, services=services_of(project), environment={**os.environ, **environment}
        )
        began = time.monotonic()
        supervisor.start()
        try:
            with console.status("Starting the services"):
                supervisor.wait_ready(_READY_SECONDS)
            yield Stage(
                settings=settings,
                topics=topics,
                platform=_platform(settings, supervisor),
                trained=trained,
                started=started + time.monotonic() - began,
            )
        finally:
            supervisor.stop()


def fresh_folder(state: Path, act: str) -> Path:
    """Return an empty folder for this play; what the last one left goes."""
    folder = state.resolve() / act
    alive = [item.instance for item in read_instance_files(folder) if psutil.pid_exists(item.pid)]
    if alive:
        raise ConfigurationError(f"a play is still running in {folder} ({', '.join(alive)}); end it first")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@contextmanager
def playing(console: Console, plan: Plan) -> Iterator[Callable[[Step], None]]:
    """Show a bar in event time; yield what is to be called after each step.

    Where nobody watches (the output is no terminal) each day is a line.
    """
    with Progress(
        TextColumn("Playing {task.fields[at]}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[asked]:,} predictions"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("play", total=len(plan.steps), at=_when(plan.steps[0]), asked=0)
        asked, day = 0, plan.steps[0].at.date()

        def stepped(step: Step) -> None:
            nonlocal asked, day
            asked += len(step.requests)
            progress.update(task, advance=1, at=_when(step), asked=asked)
            if not console.is_terminal and step.at.date() > day:
                day = step.at.date()
                console.print(f"{day:%d %B}: {asked:,} predictions", highlight=False)

        yield stepped


def _when(step: Step) -> str:
    return f"{step.at:%d %B %H:%M}"


@contextmanager
def _servers(folder: Path, console: Console, act: str) -> Iterator[dict[str, str]]:
    """Yield the environment that names the servers: real ones where all are set, else embedded ones."""
    named = {name: os.environ[name] for name in _SERVERS if os.environ.get(name)}
    if len(named) == len(_SERVERS):
        yield {**named, "DRIFTLINE_ENVIRONMENT": f"{act}-{datetime.now(UTC):%Y%m%d-%H%M%S}"}
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
