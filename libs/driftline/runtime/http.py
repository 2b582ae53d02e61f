"""The HTTP face of a service: health, metrics, limits, problems, and the server that carries it."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response
from starlette.types import ASGIApp, Lifespan

from driftline import __version__
from driftline.runtime.direct import DirectRoutes
from driftline.runtime.errors import ConfigurationError, RefusedError, UnavailableError
from driftline.runtime.health import Health
from driftline.runtime.http_protocol import DirectProtocol, GatheringProtocol
from driftline.runtime.limits import Limits, LimitsMiddleware, RequestMeter
from driftline.runtime.problem import PROBLEM_SCHEMA, add_problem_handlers, problem_responses

_START_SECONDS = 30.0
_DRAIN_SECONDS = 15
#: Longer than load balancers hold idle connections.
_KEEP_ALIVE_SECONDS = 75


class Application(FastAPI):
    """A FastAPI application whose OpenAPI describes errors as problems, on every route.

    ``direct`` holds routes that the server answers without it.
    """

    direct: DirectRoutes

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, made once."""
        if self.openapi_schema is None:
            document = get_openapi(
                title=self.title,
                version=self.version,
                description=self.description,
                routes=self.routes,
                tags=self.openapi_tags,
            )
            _describe_problems(document)
            self.openapi_schema = document
        return self.openapi_schema


def _describe_problems(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for generated in ("HTTPValidationError", "ValidationError"):
        schemas.pop(generated, None)
    schemas["Problem"] = PROBLEM_SCHEMA
    for path in document["paths"].values():
        for operation in path.values():
            responses = operation["responses"]
            usual = [503] if "requestBody" not in operation else [400, 408, 413, 503]
            if "422" in responses:
                usual.append(422)
            for status, response in problem_responses(*usual).items():
                shown = responses.get(str(status))
                if shown is None or "HTTPValidationError" in str(shown):
                    responses[str(status)] = response
            operation["responses"] = dict(sorted(responses.items()))


def create_app(
    *,
    title: str,
    service: str,
    health: Health,
    description: str = "",
    max_body_bytes: int = 1_000_000,
    max_depth: int = 32,
    deadline_seconds: float = 10.0,
    max_in_flight: int = 2_000,
    lifespan: Lifespan[Any] | None = None,
    tags: list[dict[str, Any]] | None = None,
) -> Application:
    """Return an application with ``/healthz``, ``/readyz`` and ``/metrics``, limits and problem details.

    The deadline holds for ``async`` routes; a route in a thread cannot be interrupted.
    """
    health.service = health.service or service
    app = Application(
        title=title,
        version=__version__,
        description=description,
        lifespan=lifespan,
        redoc_url=None,
        openapi_tags=[
            *(tags or []),
            {"name": "process", "description": "Health and metrics of this process."},
        ],
    )
    add_problem_handlers(app)
    _add_process_routes(app, health)
    limits = Limits(
        max_body_bytes=max_body_bytes,
        max_depth=max_depth,
        deadline_seconds=deadline_seconds,
        max_in_flight=max_in_flight,
    )
    app.direct = DirectRoutes(limits, RequestMeter(limits))
    app.add_middleware(LimitsMiddleware, limits=limits, meter=app.direct.meter)
    return app


def _add_process_routes(app: FastAPI, health: Health) -> None:
    report_schema = {"application/json": {"schema": {"type": "object"}}}
    unready = {"description": "Not now: the body names the component.", "content": report_schema}

    @app.get(
        "/healthz",
        tags=["process"],
        summary="Is the process alive?",
        description="503 asks for a restart: a vital part of the process stands still.",
        responses={200: {"description": "Alive.", "content": report_schema}, 503: unready},
        response_class=Response,
    )
    async def healthz() -> Response:
        return _json(health.report(), 200 if health.alive else 503)

    @app.get(
        "/readyz",
        tags=["process"],
        summary="Does it do its work now?",
        description="503 while something that it needs is missing, or while it drains before a stop.",
        responses={200: {"description": "Ready.", "content": report_schema}, 503: unready},
        response_class=Response,
    )
    async def readyz() -> Response:
        return _json(health.report(), 200 if health.ready else 503)

    @app.get(
        "/metrics",
        tags=["process"],
        summary="Metrics in Prometheus's text format",
        responses={
            200: {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
        },
        response_class=Response,
    )
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


async def read_json(request: Request) -> Any:
    """Return a request's body, parsed strictly: no NaN, no lone surrogates, no second document.

    Raises
    ------
    RefusedError
        400 where the body is not JSON, 415 where it is declared as something else.
    """
    declared = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if declared != "application/json" and not declared.endswith("+json"):
        raise RefusedError(
            f"send application/json, not {declared}", status=415, title="Unsupported media type"
        )
    try:
        return orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise RefusedError(f"the body is not JSON: {error}", status=400, title="Not JSON") from error


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port} (DRIFTLINE_HOST, DRIFTLINE_PORT): {error}"
        ) from error
    return listening


def _server(app: ASGIApp, log_level: str) -> uvicorn.Server:
    protocol: Any = GatheringProtocol
    if isinstance(app, Application) and app.direct.finders:
        protocol = partial(DirectProtocol, direct=app.direct)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=protocol,
        log_config=None,  # ours is set up by configure_logging
        log_level=log_level,
        access_log=False,  # requests are metrics; lines are for what went wrong
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    return uvicorn.Server(config)


def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    log_level: str = "warning",
    on_bound: Callable[[int], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish the running requests and return. For the main thread.

    ``on_bound`` is told the port before the first request.
    """
    listening = _bind(host, port)
    # uvicorn raises the signal again once it has drained; without a handler that would end the process before its
    # clean-up.
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if on_bound is not None:
            on_bound(int(listening.getsockname()[1]))
        server = _server(app, log_level)
        server.run(sockets=[listening])
        if not server.started:
            raise UnavailableError("the HTTP server did not start; the log says why")
    finally:
        listening.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(_number: int, _frame: object) -> None:
    return


class BackgroundServer:
    """The same server in a thread of its own, beside a consumer loop on the main thread."""

    def __init__(
        self, app: ASGIApp, host: str = "127.0.0.1", port: int = 0, *, log_level: str = "warning"
    ) -> None:
        self._host, self._port = host, port
        self._server = _server(app, log_level)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._listening: socket.socket | None = None

    def start(self) -> int:
        """Start, wait until requests are answered, return the bound port."""
        self._listening = _bind(self._host, self._port)
        port = int(self._listening.getsockname()[1])
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise UnavailableError("the HTTP server did not start; the log says why")
            time.sleep(0.005)
        return port

    def _run(self) -> None:
        if self._listening is not None:
            self._server.run(sockets=[self._listening])

    def stop(self) -> None:
        """Finish the running requests and stop. Harmless if it never started."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_DRAIN_SECONDS + 5)
        if self._listening is not None:
            with contextlib.suppress(OSError):
                self._listening.close()
