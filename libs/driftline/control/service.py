"""The frame of a control-plane process: the data plane's, with a crash that cannot be held up by Faust's threads."""

import logging
import os
import sys
import threading
from collections.abc import Callable

from fastapi import FastAPI

from driftline.control.app import ControlApp
from driftline.control.settings import ControlSettings
from driftline.runtime.health import Health
from driftline.runtime.http import create_app
from driftline.runtime.logging import get_logger
from driftline.streaming.service import run_service

_log = get_logger(__name__)

#: Faust is loud, and says little that the guard does not.
_QUIET = ("faust", "mode", "aiokafka", "driftline.control.faust_app")
EXIT_CRASH = 1


def run_control_service(
    service: str,
    settings: ControlSettings,
    build: Callable[[Health], ControlApp],
    *,
    health: Health | None = None,
    app: FastAPI | None = None,
) -> int:
    """Run a control-plane process until SIGTERM or SIGINT, or until its app crashes.

    Logs, health over HTTP, instance file and exit codes are those of ``driftline.streaming.service``. ``build``
    makes the app; nothing connects before. ``app`` is an HTTP application of the service's own, made with
    ``health``. Returns 0 after a clean end; after anything else it ends the process with the code, because Faust's
    threads would keep it. A handler that takes longer than ``stall_seconds`` counts as standing still.
    """
    health = health or Health(service, settings.instance)
    # The app says when: until then other components alone make nothing ready.
    health.set("stream", ready=False)
    app = app or create_app(title=service.replace("_", " ").capitalize(), service=service, health=health)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        code = run_service(
            service, settings, health=health, app=app, loop=lambda stop: build(health).run(stop)
        )
    except BaseException:  # noqa: BLE001  it ends the process below
        _log.exception("crashed")
        code = EXIT_CRASH
    if code != 0 or _threads_left():
        sys.stderr.flush()
        os._exit(code)
    return code


def _threads_left() -> bool:
    others = set(threading.enumerate()) - {threading.main_thread()}
    return any(not thread.daemon and not thread.name.startswith("asyncio_") for thread in others)
