"""The predictor over HTTP: predictions, features, models."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from driftline.contracts import prediction_fields as fields
from driftline.project import ModelDeclaration, Project
from driftline.runtime.clock import Clock
from driftline.runtime.errors import DriftlineError, RefusedError, UnavailableError
from driftline.runtime.http import read_json
from driftline.runtime.logging import get_logger, log_context
from driftline.runtime.problem import field_errors, problem, problem_of, problem_responses
from driftline.serving.kept_answers import RepeatedRecord
from driftline.serving.rack import ModelRack
from driftline.serving.request_values import WrongValueError, read_instant_us
from services.predictor.answers import REPEATED_HEADER, Answers, models_of
from services.predictor.batching import HttpBatches
from services.predictor.bulk import JSON_LINES, RowReader, answer_lines, split_rows
from services.predictor.documentation import (
    BULK_DESCRIPTION,
    TIMEOUT_PARAMETER,
    answer_response,
    bulk_content,
    bulk_response,
    request_schema,
)
from services.predictor.feature_reads import FeatureReads
from services.predictor.requests import (
    TIMEOUT_HEADER,
    ReadRequest,
    read_request,
    read_timeout_ms,
)
from services.predictor.waiting import Record

_log = get_logger(__name__)

ANSWERED, _REFUSED, _ = fields.STATUSES
#: A key may hold slashes.
FEATURES_PATH = "/v1/features/{view}/{entity:path}"


class PredictorState:
    """What the routes need; the batches appear once the registry has answered, for without it nothing is logged."""

    def __init__(self, project: Project, features: FeatureReads, rack: ModelRack, clock: Clock) -> None:
        self.project = project
        self.features = features
        self.rack = rack
        self.clock = clock
        self.answers = {name: Answers(declaration) for name, declaration in project.models.items()}
        self.batches: HttpBatches | None = None

    def logging(self) -> HttpBatches:
        """Return what predicts and logs; raise UnavailableError while it is not there yet."""
        if self.batches is None:
            raise UnavailableError("the predictor is starting: the schema registry has not answered yet")
        return self.batches


def predictor_routes(state: PredictorState) -> APIRouter:
    """Return the routes. Each model is documented with its own entities and inputs."""
    router = APIRouter()

    async def predict(model: str, request: Request) -> Response:
        batches = state.logging()
        shed = batches.sheds(model)
        if shed is not None:
            raise shed
        try:
            body, unreadable = await read_json(request), None
        except RefusedError as error:
            body, unreadable = {}, error
        read = read_request(state.project, model, body, state.clock.now_us())
        timeout_ms: int | None = None
        try:
            timeout_ms = read_timeout_ms(request.headers.get(TIMEOUT_HEADER))
        except WrongValueError as error:
            read = read._replace(mistakes=((("header", TIMEOUT_HEADER), str(error)), *read.mistakes))
        return await _settled(batches, read, unreadable, timeout_ms, state.answers.get(model))

    async def predict_rows(model: str, request: Request) -> Response:
        batches, reader, answers = state.logging(), readers[model], state.answers[model]
        try:
            rows = split_rows(request.headers.get("content-type", ""), await request.body())
        except RefusedError as error:
            read = read_request(state.project, model, {}, state.clock.now_us())
            return await _settled(batches, read, error, None, answers)

        async def answer(row: bytes) -> Response:
            read, unreadable = reader.read(row, state.clock.now_us())
            return await _settled(batches, read, unreadable, None, answers, in_bulk=True)

        return StreamingResponse(answer_lines(rows, answer), media_type=JSON_LINES)

    readers = {
        name: RowReader(state.project, declaration) for name, declaration in state.project.models.items()
    }
    for declaration in state.project.models.values():
        _document(router, declaration, predict)
        _document_bulk(router, declaration, predict_rows)
    router.add_api_route(
        "/v1/models/{model}/predictions",
        predict,
        methods=["POST"],
        include_in_schema=False,  # the models are listed one by one; this one answers 404 with their names
    )

    @router.get(
        FEATURES_PATH,
        tags=["features"],
        summary="Read an entity's features",
        description="The values of a feature view as they would be served, with their age; 503 while it is being filled.",
        responses=problem_responses(404, 422, 429, 503),
        response_class=Response,
    )
    async def features(
        view: str,
        entity: str,
        as_of: Annotated[
            str | None,
            Query(description="ISO 8601 with an offset; now if absent.", examples=["2013-04-01T12:00:00Z"]),
        ] = None,
    ) -> Response:
        declared = state.project.views.get(view)
        if declared is None:
            known = ", ".join(sorted(state.project.views))
            msg = f"no feature view is named {view[:100]!r}; known are: {known}"
            raise RefusedError(msg, status=404, title="Unknown feature view")
        try:
            instant_us = state.clock.now_us() if as_of is None else read_instant_us(as_of)
        except WrongValueError as error:
            return field_errors([(("query", "as_of"), str(error))])
        body = await state.features.read(declared, entity, instant_us)
        return Response(body, media_type="application/json")

    @router.get(
        "/v1/models",
        tags=["predictions"],
        summary="List the models and their active versions",
        response_class=Response,
    )
    async def models() -> Response:
        return _json(models_of(state.project.models, state.rack))

    return router


async def _settled(
    batches: HttpBatches,
    read: ReadRequest,
    unreadable: RefusedError | None,
    timeout_ms: int | None,
    answers: Answers | None,
    *,
    in_bulk: bool = False,
) -> Response:
    """Predict a request, or refuse it; either way it is in the log when this returns."""
    with log_context(request_id=read.id):
        if unreadable is not None or read.mistakes:
            return await _refuse(batches, read, unreadable)
        return await _predicted(batches, read, timeout_ms, answers, in_bulk=in_bulk)


async def _predicted(
    batches: HttpBatches,
    read: ReadRequest,
    timeout_ms: int | None,
    answers: Answers | None,
    *,
    in_bulk: bool,
) -> Response:
    """Predict a request and return its answer; ``answers`` is None where there is no such model."""
    try:
        logged = await batches.predict(read.record, timeout_ms, brought=read.brought, in_bulk=in_bulk)
    except DriftlineError as error:
        return problem_of(error, {"request_id": read.id})
    if logged[fields.STATUS] == ANSWERED and answers is not None:
        return Response(answers.json(logged), headers=_told(logged), media_type="application/json")
    return unanswered(logged, known=answers is not None)


def unanswered(logged: Record, *, known: bool) -> Response:
    """Return the problem that a logged prediction without a score is to its caller."""
    error_text, extensions = logged[fields.ERROR], {"request_id": logged[fields.REQUEST_ID]}
    if logged[fields.STATUS] == _REFUSED:
        status, title = (422, "Request refused") if known else (404, "Unknown model")
        return problem(status, error_text, title=title, headers=_told(logged), extensions=extensions)
    _log.warning("prediction failed", error=error_text)
    return problem(503, error_text, title="Prediction failed", retry_after=1, extensions=extensions)


def _told(logged: Record) -> dict[str, str]:
    """Return the headers that tell of an answer of before."""
    return {REPEATED_HEADER: "true"} if isinstance(logged, RepeatedRecord) else {}


async def _refuse(batches: HttpBatches, read: ReadRequest, unreadable: RefusedError | None) -> Response:
    """Log a wrong request, then say what is wrong."""
    extensions: dict[str, Any] = {"request_id": read.id}
    mistakes = [(".".join(path), reason) for path, reason in read.mistakes]
    detail = (
        str(unreadable) if unreadable else "; ".join(f"{name}: {reason}" for name, reason in mistakes[:5])
    )
    try:
        extensions["request_id"] = await batches.refuse(read.record, detail, brought=read.brought)
    except DriftlineError as error:
        return problem_of(error, extensions)
    if unreadable is not None:
        return problem_of(unreadable, extensions)
    extensions["errors"] = [{"field": name, "detail": reason} for name, reason in mistakes[:100]]
    return problem(422, detail, title="Invalid request", extensions=extensions)


def _document(router: APIRouter, declaration: ModelDeclaration, handler: Any) -> None:
    async def predict_with_one_model(request: Request) -> Response:
        return await handler(declaration.name, request)  # type: ignore[no-any-return]

    router.add_api_route(
        f"/v1/models/{declaration.name}/predictions",
        predict_with_one_model,
        methods=["POST"],
        tags=["predictions"],
        operation_id=f"predict_{declaration.name}",
        summary=f"Ask {declaration.name}",
        description=f"{declaration.description} The answer is sent after its record is in the log.".strip(),
        response_class=Response,
        responses={200: answer_response(declaration), **problem_responses(415, 422, 429)},
        openapi_extra={
            "parameters": [TIMEOUT_PARAMETER],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": request_schema(declaration)}},
            },
        },
    )


def _document_bulk(router: APIRouter, declaration: ModelDeclaration, handler: Any) -> None:
    async def predict_rows_with_one_model(request: Request) -> Response:
        return await handler(declaration.name, request)  # type: ignore[no-any-return]

    router.add_api_route(
        f"/v1/models/{declaration.name}/predictions/bulk",
        predict_rows_with_one_model,
        methods=["POST"],
        tags=["predictions"],
        operation_id=f"predict_{declaration.name}_in_bulk",
        summary=f"Ask {declaration.name} many times",
        description=BULK_DESCRIPTION,
        response_class=Response,
        responses={200: bulk_response(), **problem_responses(415)},
        openapi_extra={"requestBody": {"required": True, "content": bulk_content(declaration)}},
    )


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
