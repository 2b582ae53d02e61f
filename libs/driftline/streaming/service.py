"""The frame of a data-plane process: logs, health over HTTP, the loop on the main thread, a clean end."""

import signal
import threading
from collections.abc import Callable

from fastapi import FastAPI

from driftline.runtime.errors import (
    EXIT_CEILING,
    EXIT_CONFIGURATION,
    EXIT_GAP,
    ConfigurationError,
    DeadLetterCeilingError,
    OffsetGapError,
)
from driftline.runtime.health import Health
from driftline.runtime.http import BackgroundServer
from driftline.runtime.instance_file import instance_file
from driftline.runtime.logging import configure_logging, get_logger
from driftline.runtime.settings import PlatformSettings

_log = get_logger(__name__)


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
