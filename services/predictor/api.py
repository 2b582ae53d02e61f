"""The predictor over HTTP: predictions, features, models."""

import asyncio
import math
from datetime import UTC, datetime
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Path, Query
from starlette.responses import JSONResponse

from driftline.contracts import prediction_fields as fields
from driftline.features.online import OnlineStore
from driftline.project import Project
from driftline.runtime.clock import Clock
from driftline.runtime.errors import RefusedError, UnavailableError
from driftline.runtime.problem import problem_responses
from driftline.serving.rack import ModelRack
from services.predictor.answers import PredictionAnswer, PredictionBody, add_inputs, answer_of, request_record
from services.predictor.batching import HttpBatches

_VIEW_STATUS = ("fresh", "stale", "missing")


def add_routes(
    app: FastAPI, project: Project, *, batches: HttpBatches, store: OnlineStore, rack: ModelRack, clock: Clock
) -> None:
    """Add the predictor's routes to an application."""

    @app.post(
        "/v1/models/{model}/predictions",
        tags=["predictions"],
        summary="Ask for a prediction",
        description="The answer is sent after its record is in the log. Refusals and failures are logged too.",
        response_model=PredictionAnswer,
        responses=problem_responses(404, 422, 429),
    )
    async def predict(
        model: Annotated[str, Path(max_length=100, description="Name of the model.")], body: PredictionBody
    ) -> JSONResponse:
        record = request_record(project, model, body, clock.now_us())
        declaration = project.models.get(model)
        wrong = add_inputs(record, declaration, body) if declaration is not None else None
        if wrong is not None:
            await batches.refuse(record, wrong)
            raise RefusedError(f"{wrong} (request {record[fields.REQUEST_ID]})")
        logged = await batches.predict(record)
        if logged[fields.STATUS] == "REFUSED":
            status = 404 if declaration is None else 422
            raise RefusedError(f"{logged[fields.ERROR]} (request {logged[fields.REQUEST_ID]})", status=status)
        if logged[fields.STATUS] == "FAILED" or declaration is None:
            raise UnavailableError(f"{logged[fields.ERROR]} (request {logged[fields.REQUEST_ID]})")
        return JSONResponse(answer_of(declaration, logged))

    @app.get(
        "/v1/features/{view}/{entity}",
        tags=["features"],
        summary="Read an entity's features",
        description="The values of a feature view as they would be served, with their age.",
        responses=problem_responses(404, 422),
    )
    async def features(
        view: Annotated[str, Path(description="Name of the feature view.")],
        entity: Annotated[str, Path(description="The entity's key.")],
        as_of: Annotated[
            datetime | None, Query(description="ISO 8601 with an offset; now if absent.")
        ] = None,
    ) -> dict[str, Any]:
        declared = project.views.get(view)
        if declared is None:
            known = ", ".join(sorted(project.views))
            raise RefusedError(f"no feature view is named {view!r}; known are: {known}", status=404)
        if as_of is not None and as_of.tzinfo is None:
            raise RefusedError("as_of: give the offset too (end it with Z for UTC)")
        instant = clock.now_us() if as_of is None else int(as_of.timestamp() * 1_000_000)
        (read,) = await asyncio.to_thread(store.read, [(declared, [entity])], np.array([instant], np.int64))
        age_us = int(read.age_us[0])
        return {
            "view": declared.name,
            "version": declared.version,
            "entity": entity,
            "as_of": datetime.fromtimestamp(instant / 1e6, UTC).isoformat().replace("+00:00", "Z"),
            "age_ms": None if age_us < 0 else age_us // 1_000,
            "status": _VIEW_STATUS[int(read.status[0])],
            "values": {
                one.name: None if math.isnan(value) else value
                for one, value in zip(declared.features, read.values[0].tolist(), strict=True)
            },
        }

    @app.get("/v1/models", tags=["predictions"], summary="List the models and their active versions")
    async def models() -> dict[str, Any]:
        listed = []
        for name, declaration in project.models.items():
            loaded = rack.get(name)
            listed.append(
                {
                    "name": name,
                    "description": declaration.description,
                    "version": loaded.version if loaded else None,
                    "problem": rack.missing.get(name),
                    "entities": [entity.name for entity in declaration.entities],
                    "inputs": {one.name: one.type.value for one in declaration.inputs},
                    "views": [view.ref for view in declaration.views],
                }
            )
        return {"models": listed}
