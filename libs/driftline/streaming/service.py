"""The frame of a data-plane process: logs, health over HTTP, the loop on the main thread, a clean end."""

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Any, Protocol, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from fastapi import FastAPI

from driftline.contracts.registry import SchemaRegistry
from driftline.project import Project, load_project
from driftline.runtime.errors import (
    EXIT_CEILING,
    EXIT_CONFIGURATION,
    EXIT_GAP,
    ConfigurationError,
    DeadLetterCeilingError,
    OffsetGapError,
    UnavailableError,
)
from driftline.runtime.health import Health
from driftline.runtime.http import BackgroundServer, create_app
from driftline.runtime.instance_file import instance_file
from driftline.runtime.logging import configure_logging, get_logger
from driftline.runtime.redis_memory import any_eviction
from driftline.runtime.redis_servers import RedisServers
from driftline.runtime.settings import PlatformSettings
from driftline.streaming.settings import StreamSettings

_log = get_logger(__name__)
_RETRY_SECONDS = 1.0

S = TypeVar("S", bound=StreamSettings)
S_contra = TypeVar("S_contra", bound=StreamSettings, contravariant=True)


class Run(Protocol[S_contra]):
    """What a stream service does between its start and its end; it returns soon after ``stop`` is set."""

    def __call__(
        self, settings: S_contra, project: Project, *, health: Health, stop: threading.Event
    ) -> None:
        """Run."""
        ...


def main_of(service: str, kind: type[S], run: Run[S]) -> int:
    """Be a stream service's process: read the settings, load the project, ``run`` until told to stop.

    Returns the process's exit code. Wrong settings or a wrong project are said on standard error.
    """
    try:
        settings = kind.from_environment()
        project = load_project(settings.project)
    except ConfigurationError as error:
        sys.stderr.write(f"{service}: {error}\n")
        return EXIT_CONFIGURATION
    health = Health(service, settings.instance)
    # The loop says when: until then other components alone make nothing ready.
    health.set("stream", ready=False)
    app = create_app(title=service.replace("_", " ").capitalize(), service=service, health=health)
    return run_service(
        service,
        settings,
        health=health,
        app=app,
        loop=lambda stop: run(settings, project, health=health, stop=stop),
    )


def run_service(
    service: str,
    settings: PlatformSettings,
    *,
    health: Health,
    app: FastAPI,
    loop: Callable[[threading.Event], None],
) -> int:
    """Run a data-plane process until SIGTERM or SIGINT, or until its loop fails; return its exit code.

    ``app`` (with /healthz, /readyz, /metrics) is served by a thread before ``loop`` starts, so that the
    process can be asked what it waits for. ``loop`` runs on the main thread and returns soon after the event
    that it is given is set: the batch in hand is finished, none is begun.
    """
    configure_logging(service, settings.instance, settings.log_format, settings.log_level)
    stop = threading.Event()

    def drain(number: int, _frame: object) -> None:
        _log.info("draining", signal=signal.Signals(number).name)
        health.stop()
        stop.set()

    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, drain)
    server = BackgroundServer(app, settings.host, settings.port)
    port = server.start()
    try:
        with instance_file(settings.state, settings.instance, service=service, port=port):
            _log.info("started", port=port)
            code = _run(loop, stop)
    finally:
        server.stop()
    _log.info("stopped", code=code)
    return code


def wait_for_topics(
    config: Mapping[str, Any],
    wanted: Iterable[str],
    *,
    health: Health,
    stop: threading.Event,
    meanwhile: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Return each topic's number of partitions once all topics exist: services start in any order.

    Health's component ``topics`` says what is missing; ``meanwhile`` runs about once a second. Where ``stop`` is
    set first, the answer is empty.
    """
    admin = AdminClient(dict(config))
    names = sorted(wanted)
    while not stop.is_set():
        try:
            found = admin.list_topics(timeout=5.0).topics
        except KafkaException as error:
            missing = f"the broker does not answer: {error}"
        else:
            absent = [topic for topic in names if topic not in found or found[topic].error]
            if not absent:
                health.set("topics", ready=True)
                return {topic: len(found[topic].partitions) for topic in names}
            missing = f"no topic {', '.join(absent)} yet; `driftline topics create` makes them"
        health.set("topics", ready=False, detail=missing)
        _log.warning("waiting", what="topics", error=missing)
        meanwhile()
        stop.wait(_RETRY_SECONDS)
    return {}


def wait_for_redis(url: str, *, health: Health, stop: threading.Event) -> bool:
    """Wait until a Redis answers and throws nothing away when it is full; False where ``stop`` is set first."""
    with closing(RedisServers(url, timeout=5.0)) as servers:
        while not stop.is_set():
            try:
                wrong = any_eviction(servers)
            except UnavailableError as error:
                servers.moved()
                wrong = str(error)
            if wrong is None:
                health.set("redis", ready=True)
                return True
            health.set("redis", ready=False, detail=wrong)
            _log.warning("waiting", what="redis", error=wrong)
            stop.wait(_RETRY_SECONDS)
    return False


def wait_for_schema(
    registry: SchemaRegistry,
    subject: str,
    schema: Mapping[str, Any],
    *,
    health: Health,
    stop: threading.Event,
    meanwhile: Callable[[], None] = lambda: None,
) -> int | None:
    """Return a schema's id once it is registered; None where ``stop`` is set first. See ``wait_for_topics``."""
    while not stop.is_set():
        try:
            found = registry.schema_id(subject, schema)
        except (UnavailableError, ConfigurationError) as error:
            health.set("registry", ready=False, detail=str(error))
            _log.warning("waiting", what="registry", error=str(error))
        else:
            health.set("registry", ready=True)
            return found
        meanwhile()
        stop.wait(_RETRY_SECONDS)
    return None


def _run(loop: Callable[[threading.Event], None], stop: threading.Event) -> int:
    """Run the loop; the errors that a restart does not mend have exit codes that the supervisor knows."""
    try:
        loop(stop)
    except ConfigurationError as error:
        _log.error("configuration", error=str(error))
        return EXIT_CONFIGURATION
    except DeadLetterCeilingError as error:
        _log.error("dead-letter ceiling", error=str(error))
        return EXIT_CEILING
    except OffsetGapError as error:
        _log.error("records were lost", error=str(error))
        return EXIT_GAP
    return 0
