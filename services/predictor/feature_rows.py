"""`POST /v1/features`: several views of many entities, read together as of one instant."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from driftline.features import FeatureView
from driftline.features.entity_keys import join_key
from driftline.project import Project
from driftline.runtime.errors import RefusedError
from driftline.runtime.problem import field_errors, problem_responses
from driftline.serving.request_values import MAX_KEY, WrongValueError, read_instant_us
from services.predictor.answers import instant_text
from services.predictor.api import PredictorState

MOST_ROWS = 1_000
#: Rows times views: what one call may hold up others' reads with.
MOST_VALUES = 10_000

_Key = Annotated[str, Field(max_length=MAX_KEY)]


class FeaturesAsked(BaseModel):
    """Which views, of which entities, as of when."""

    model_config = ConfigDict(extra="forbid")

    views: list[str] = Field(
        min_length=1, max_length=100, examples=[["origin_departures", "carrier_departures"]]
    )
    entities: list[dict[str, _Key]] = Field(
        min_length=1, max_length=MOST_ROWS, examples=[[{"origin": "JFK", "carrier": "UA"}]]
    )
    as_of: str | None = Field(default=None, examples=["2013-04-01T12:00:00Z"])


def feature_rows_routes(state: PredictorState) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post(
        "/v1/features",
        tags=["features"],
        summary="Read several views of many entities",
        description=(
            "Each of `entities` names the keys that the views need. All is read in one round trip to the store, as of one "
            f"instant. At most {MOST_ROWS:,} entities, and {MOST_VALUES:,} times entities and views."
        ),
        responses=problem_responses(404, 422, 503),
        response_class=Response,
    )
    async def features_of_many(asked: FeaturesAsked) -> Response:
        views = _views(state.project, asked.views)
        if len(views) * len(asked.entities) > MOST_VALUES:
            raise RefusedError(
                f"{len(views)} views of {len(asked.entities)} entities are more than {MOST_VALUES:,} to read at once; ask in parts"
            )
        mistakes = list(_mistakes(views, asked.entities))
        if mistakes:
            return field_errors(mistakes)
        try:
            instant_us = state.clock.now_us() if asked.as_of is None else read_instant_us(asked.as_of)
        except WrongValueError as error:
            return field_errors([(("body", "as_of"), str(error))])
        rows = await state.features.read_rows(views, _keys(views, asked.entities), instant_us)
        told = [
            {"entities": entities, "views": served}
            for entities, served in zip(asked.entities, rows, strict=True)
        ]
        body = orjson.dumps({"as_of": instant_text(instant_us), "rows": told})
        return Response(body, media_type="application/json")

    return router


def _views(project: Project, names: Sequence[str]) -> list[FeatureView]:
    for name in names:
        if name not in project.views:
            known = ", ".join(sorted(project.views))
            raise RefusedError(
                f"no feature view is named {name[:100]!r}; known are: {known}",
                status=404,
                title="Unknown feature view",
            )
    return [project.views[name] for name in dict.fromkeys(names)]


def _mistakes(
    views: Sequence[FeatureView], entities: Sequence[Mapping[str, str]]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    needed = dict.fromkeys(key for view in views for key in view.entity.keys)
    for row, given in enumerate(entities):
        for key in needed:
            if key not in given:
                yield ("body", "entities", row, key), "is missing; the views need it"
        for key in given:
            if key not in needed:
                yield ("body", "entities", row, key), f"no view needs it; they need {', '.join(needed)}"


def _keys(views: Sequence[FeatureView], entities: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Return the rows' keys by entity."""
    keys: dict[str, list[str]] = {}
    for entity in {view.entity.name: view.entity for view in views}.values():
        parts = [[given[key] for key in entity.keys] for given in entities]
        keys[entity.name] = [join_key(one) if entity.composite else one[0] for one in parts]
    return keys
