"""A project's platform on this machine: servers, topics, schemas, services; the body of `driftline up`.

1. Servers that no variable names are started (embedded); the others are used as they are.
2. Topics are created and schemas registered. An incompatible schema stops here.
3. The services start, and are waited for until they do their work.
4. Whatever ends without being asked to is started again, until `stop`.
"""

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from driftline.contracts.admin import create_topics
from driftline.contracts.registry import SchemaRegistry
from driftline.embedded import EmbeddedStack
from driftline.models.standing import active_version
from driftline.project import Project, load_project
from driftline.runtime.errors import DriftlineError
from driftline.runtime.processes import is_alive
from driftline.runtime.settings import PlatformSettings
from driftline.runtime.supervisor import Supervisor

#: Which embedded server stands in for which variable.
SERVERS = {"KAFKA_BOOTSTRAP_SERVERS": "kafka", "SCHEMA_REGISTRY_URL": "registry", "REDIS_URL": "valkey"}
_SECURITY = ("KAFKA_SECURITY_", "KAFKA_SASL_", "KAFKA_SSL_", "KAFKA_ENABLE_SSL_")
_WATCH_SECONDS = 0.5
_READY_SECONDS = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformStatus:
    """``<state>/run/platform.json``: how far the process that runs the platform has come.

    ``phase`` is starting, ready, failed or stopped; ``detail`` says what it is at, or why it failed.
    """

    pid: int
    created: float
    phase: str
    detail: str
    project: str
    services: list[str]

    @property
    def alive(self) -> bool:
        """Whether that process still runs."""
        return is_alive(self.pid, self.created)


def missing_servers(environment: Mapping[str, str]) -> list[str]:
    """Return the embedded parts that stand in for servers which the environment does not name.

    >>> missing_servers({"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"})
    ['registry', 'valkey']
    """
    return [part for variable, part in SERVERS.items() if not environment.get(variable)]


def models_without_version(project: Project, models: Path) -> list[str]:
    """Return the project's models that have not been trained yet."""
    return [name for name in project.models if active_version(models, name) is None]


def models_folder(state: Path) -> Path:
    """Return where bundles are: ``DRIFTLINE_MODELS``, or ``models`` in the state folder."""
    return Path(os.environ.get("DRIFTLINE_MODELS") or state / "models").resolve()


class LocalPlatform:
    """Runs a project's platform in this process and its children."""

    def __init__(self, project: Path, state: Path, services: Sequence[str]) -> None:
        self._folder = project.resolve()
        self._state = state.resolve()
        self._services = tuple(services)
        self._stack: EmbeddedStack | None = None
        self._supervisor: Supervisor | None = None

    def start(self, say: Callable[[str], None] = lambda _text: None) -> None:
        """Start everything and return when it is ready; ``say`` hears what is being done."""
        self._report("starting", "loading the project", say)
        try:
            project = load_project(self._folder)
            environment = self._start_servers(say)
            os.environ.update(environment)
            settings = PlatformSettings.from_environment()
            topics = settings.topics(project)
            self._report("starting", "creating topics and registering schemas", say)
            create_topics(settings.kafka_config(), project, topics)
            SchemaRegistry(settings.schema_registry_url).register_project(project, topics)
            self._report("starting", f"starting {', '.join(self._services)}", say)
            self._supervisor = Supervisor(self._state, self._services, environment)
            self._supervisor.start()
            untrained = models_without_version(project, settings.models)
            self._supervisor.wait_ready(_READY_SECONDS, but=["predictor"] if untrained else [])
        except DriftlineError as error:
            self._report("failed", str(error), say)
            self.stop()
            raise
        except BaseException:
            self.stop()
            raise
        self._report("ready", "", say)

    def run_until(self, stop: threading.Event) -> None:
        """Keep the servers running until told to stop; the supervisor does so for the services."""
        while not stop.wait(_WATCH_SECONDS):
            for part in self._stack.ended() if self._stack is not None else ():
                try:
                    self._stack_restart(part)
                except DriftlineError as error:  # said, and tried again
                    self._report("ready", f"{part} does not start again: {error}")

    def stop(self) -> None:
        """Stop the services, then the servers."""
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None
        if self._stack is not None:
            self._stack.stop()
            self._stack = None
        status = read_platform(self._state)
        if status is None or status.phase != "failed":
            self._report("stopped", "")

    def _start_servers(self, say: Callable[[str], None]) -> dict[str, str]:
        """Return the whole of what the services need to know; embedded servers take no TLS or SASL settings."""
        environment = {name: os.environ[name] for name in SERVERS if os.environ.get(name)}
        parts = missing_servers(environment)
        if parts:
            self._report("starting", f"starting {', '.join(parts)}", say)
            self._stack = EmbeddedStack(self._state)
            self._stack.start(parts)
            environment |= self._stack.environment
        if "kafka" in parts:
            environment |= {name: "" for name in os.environ if name.startswith(_SECURITY)}
        return environment | {
            "DRIFTLINE_PROJECT": str(self._folder),
            "DRIFTLINE_STATE": str(self._state),
            "DRIFTLINE_MODELS": str(models_folder(self._state)),
            "DRIFTLINE_ARCHIVE": os.environ.get("DRIFTLINE_ARCHIVE") or str(self._state / "archive"),
        }

    def _stack_restart(self, part: str) -> None:
        if self._stack is not None:
            self._stack.restart(part)

    def _report(self, phase: str, detail: str, say: Callable[[str], None] = lambda _text: None) -> None:
        status = PlatformStatus(
            pid=os.getpid(),
            created=psutil.Process().create_time(),
            phase=phase,
            detail=detail,
            project=str(self._folder),
            services=list(self._services),
        )
        path = platform_path(self._state)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(status)) + "\n")
        draft.replace(path)
        if phase == "starting":
            say(detail)


def platform_path(state: Path) -> Path:
    """Return where the platform's process writes how far it has come."""
    return state / "run" / "platform.json"


def read_platform(state: Path) -> PlatformStatus | None:
    """Return what the platform's process last wrote; None where there was none."""
    try:
        return PlatformStatus(**json.loads(platform_path(state).read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None
