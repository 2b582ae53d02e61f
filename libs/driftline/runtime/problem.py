"""Errors over HTTP as RFC 9457 problem details: one form for whatever goes wrong."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from driftline.runtime.errors import (
    BackpressureError,
    BadMessageError,
    DriftlineError,
    RefusedError,
    UnavailableError,
)
from driftline.runtime.logging import get_logger

PROBLEM_JSON = "application/problem+json"

#: The schema of every error's body, for OpenAPI.
PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "What went wrong, as RFC 9457 problem details.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {
            "type": "string",
            "description": "The kind of problem, stable; compare this one.",
            "examples": ["urn:driftline:problem:unknown-event-type"],
        },
        "title": {"type": "string", "description": "The kind of problem, for people."},
        "status": {"type": "integer", "description": "The HTTP status, once more."},
        "detail": {"type": "string", "description": "What is wrong this time, and what to do."},
        "errors": {
            "type": "array",
            "description": "One entry per wrong field, where fields are wrong.",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {
                    "field": {"type": "string", "examples": ["body.entities.origin"]},
                    "detail": {"type": "string", "examples": ["Input should be a valid string"]},
                },
            },
        },
    },
}

#: What each status means here; the documentation of a route's errors.
PROBLEM_STATUSES: Mapping[int, str] = {
    400: "The body is not JSON, or nested too deeply.",
    404: "There is no such thing; the detail lists what there is.",
    405: "This path exists, but not with this method.",
    408: "The request's body did not arrive in time.",
    413: "The body is larger than this service takes.",
    415: "The body is not declared as `application/json`.",
    422: "The request was understood and is wrong; `errors` says where.",
    429: "Too much at once. Come again after the seconds in `Retry-After`, with the same ids.",
    500: "A fault of ours. It is in the service's log.",
    503: "Something behind this service does not answer. Come again after the seconds in `Retry-After`, "
    "with the same ids.",
}

_RETRY_HEADER = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
}
_log = get_logger(__name__)


def problem_responses(*statuses: int, **descriptions: str) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI responses for a route's errors; ``s404="..."`` words one differently."""
    answer: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        answer[status] = {
            "description": descriptions.get(f"s{status}", PROBLEM_STATUSES[status]),
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        if status in {429, 503}:
            answer[status]["headers"] = _RETRY_HEADER
    return answer


def problem_body(
    status: int, detail: str, *, title: str = "", extensions: Mapping[str, Any] | None = None
) -> bytes:
    """Return a problem's body; its type is made from its title."""
    title = title or HTTPStatus(status).phrase
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    body = {
        **(extensions or {}),
        "type": f"urn:driftline:problem:{slug}",
        "title": title,
        "status": status,
        "detail": detail,
    }
    return orjson.dumps(body, default=str)


def problem(
    status: int,
    detail: str,
    *,
    title: str = "",
    retry_after: float | None = None,
    headers: Mapping[str, str] | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> Response:
    """Return a problem as a response."""
    shown = dict(headers or {})
    if retry_after is not None:
        shown["Retry-After"] = retry_after_header(retry_after)
    body = problem_body(status, detail, title=title, extensions=extensions)
    return Response(body, status_code=status, headers=shown, media_type=PROBLEM_JSON)


def retry_after_header(seconds: float) -> str:
    """Return whole seconds, at least one: the header knows no fractions."""
    return str(max(1, round(seconds + 0.499)))


def problem_of(error: DriftlineError, extensions: Mapping[str, Any] | None = None) -> Response:
    """Return the response that an error of our vocabulary becomes."""
    match error:
        case RefusedError():
            return problem(error.status, str(error), title=error.title, extensions=extensions)
        case BadMessageError():
            return problem(422, error.reason, title="Bad message", extensions=extensions)
        case BackpressureError():
            return problem(
                429, str(error), title="Queue full", retry_after=error.retry_after, extensions=extensions
            )
        case UnavailableError():
            _log.warning("unavailable", detail=str(error))
            return problem(503, str(error), title="Unavailable", retry_after=1, extensions=extensions)
        case _:
            _log.error("request failed", error=type(error).__name__, detail=str(error))
            return problem(500, str(error), title="Internal error", extensions=extensions)


def add_problem_handlers(app: FastAPI) -> None:
    """Make every error of an application a problem."""
    app.add_exception_handler(DriftlineError, _driftline_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _unexpected)


async def _driftline_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, DriftlineError)  # noqa: S101  (what it is registered for)
    return problem_of(error)


async def _validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        reason = found[0].get("ctx", {}).get("error", "syntax error")
        return problem(400, f"the body is not JSON: {reason} at byte {found[0]['loc'][-1]}", title="Not JSON")
    return field_errors([(tuple(item["loc"]), str(item["msg"])) for item in found])


def field_errors(errors: Sequence[tuple[Sequence[str | int], str]]) -> Response:
    """Return the problem for wrong fields: each with its path and what is wrong."""
    named = [(".".join(str(part) for part in path), reason) for path, reason in errors]
    detail = "; ".join(f"{field}: {reason}" for field, reason in named[:5])
    if len(named) > 5:
        detail += f"; and {len(named) - 5} more"
    shown = [{"field": field, "detail": reason} for field, reason in named[:100]]
    return problem(422, detail, title="Invalid request", extensions={"errors": shown})


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    detail, title = str(error.detail), ""
    if error.status_code == 404 and detail == HTTPStatus.NOT_FOUND.phrase:
        detail, title = f"there is nothing at {request.url.path}; /docs lists the routes", "No such route"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        detail = f"{request.url.path} takes {allowed}, not {request.method}"
    return problem(error.status_code, detail, title=title, headers=error.headers)


async def _unexpected(_request: Request, error: Exception) -> Response:
    # Starlette raises the error again after this answer: uvicorn logs it with its traceback and closes the connection,
    # which the client had better know.
    return problem(500, fault_detail(error), title="Internal error", headers={"Connection": "close"})


def fault_detail(error: Exception) -> str:
    """Say that a fault of ours has happened."""
    return f"a fault of ours ({type(error).__name__}); it is in the log"
