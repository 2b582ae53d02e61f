"""Structured logs: one line per happening, as JSON for machines or in colour for people, on standard error."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

#: Libraries that talk too much at our level.
_QUIET = ("uvicorn.error", "uvicorn.access", "httpx", "httpx2", "httpcore", "asyncio")


def configure_logging(service: str, instance: str, fmt: str, level: str) -> None:
    """Send structlog's and the standard library's records to standard error, in one form.

    Every line carries the service, the instance and whatever ``log_context`` bound.
    """

    def add_identity(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"], event["instance"] = service, instance
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_identity,
    ]
    rendering: list[Processor]
    if fmt == "json":
        # The traceback as text and without local variables: they hold callers' data and secrets.
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_to_json)]
    else:
        rendering = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger; ``log.info("batch applied", rows=10)``."""
    return structlog.stdlib.get_logger(name)


@contextmanager
def log_context(**values: Any) -> Iterator[None]:
    """Put values, such as a request's UUID, into every line that is logged inside.

    Works across ``await``; each request or task has its own.
    """
    with structlog.contextvars.bound_contextvars(**values):
        yield


def _to_json(event: EventDict, **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
