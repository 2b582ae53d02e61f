"""The HTTP peer that does the predictor's work one request at a time: pydantic, redis-py, our kernel, ONNX; no log.

Reading and scoring block the event loop: for one local store that is the fastest of the plain ways.
"""

import os
from pathlib import Path

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from benchmarks.feature_store_path import PROJECT
from benchmarks.route_server import serve
from driftline.features.online import OnlineStore
from driftline.models.scoring import Scorer
from driftline.models.standing import load_active
from driftline.project import load_project

app = FastAPI()
_project = load_project(PROJECT)
_model = _project.models["failure"]
(_view,) = _model.views
_store = OnlineStore(
    os.environ["REDIS_URL"], prefix=_project.name, project=_project, partitions={"readings": 1}
)
_bundle = load_active(Path(os.environ["DRIFTLINE_MODELS"]), _model.name)
if _bundle is None:
    raise SystemExit("the model has no active version")
_scorer = Scorer(_bundle)


class Asked(BaseModel):
    """The predictor's body."""

    model_config = ConfigDict(extra="forbid")
    entities: dict[str, str]
    inputs: dict[str, float]
    event_time: int


class Answered(BaseModel):
    """A score, the decision, and the features that it came from."""

    score: float
    decision: str
    age_ms: int
    values: dict[str, float | None]


@app.post("/v1/models/failure/predictions")
async def predict(asked: Asked) -> Answered:
    """Read the features as of the request's time, score, answer."""
    sensor = asked.entities["sensor"]
    (read,) = _store.read([(_view, [sensor])], np.array([asked.event_time], np.int64))
    inputs = [asked.inputs.get(one.name, np.nan) for one in _model.inputs]
    numeric = np.array([[*inputs, *read.values[0]]])
    score = float(_scorer.score(numeric, {"sensor": [sensor]})[0])
    decision = _model.decision
    return Answered(
        score=score,
        decision=decision.above if score >= decision.threshold else decision.below,
        age_ms=int(read.age_us[0]) // 1_000,
        values={
            one.name: None if np.isnan(value) else value
            for one, value in zip(_view.features, read.values[0].tolist(), strict=True)
        },
    )


if __name__ == "__main__":
    serve(app, "sequential_route")
