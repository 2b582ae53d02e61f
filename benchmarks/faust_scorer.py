"""A Faust agent that does the stream predictor's work message by message: fastavro, our store and kernel, ONNX, a topic.

At least once. Prints its rate as JSON.

Run as a process of its own: python -m benchmarks.faust_scorer BOOTSTRAP TOPIC ROWS DATA_FOLDER
"""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import fastavro
import numpy as np

from benchmarks import peers
from benchmarks.faust_worker import counter, make_app, run
from benchmarks.feature_store_path import PROJECT
from driftline.contracts.project_schemas import prediction_request_schema
from driftline.features.online import OnlineStore
from driftline.models.scoring import Scorer
from driftline.models.standing import load_active
from driftline.project import load_project

ANSWERS = "faust-answers"


def main() -> None:
    """Answer ROWS requests and print {"rate": requests a second}."""
    bootstrap, topic_name, rows_text, folder = sys.argv[1:5]
    rows = int(rows_text)
    project = load_project(PROJECT)
    (model,) = project.models.values()
    (view,) = model.views
    store = OnlineStore(
        os.environ["REDIS_URL"], prefix=project.name, project=project, partitions={"readings": 1}
    )
    bundle = load_active(Path(os.environ["DRIFTLINE_MODELS"]), model.name)
    if bundle is None:
        raise SystemExit("the model has no active version")
    scorer = Scorer(bundle)
    schema = fastavro.parse_schema(prediction_request_schema(project))
    app = make_app("bench-faust-scorer", bootstrap, folder)
    count = counter(rows)
    requests = app.topic(topic_name, value_serializer="raw", key_serializer="raw")
    answers = app.topic(ANSWERS, value_serializer="raw", key_serializer="raw", partitions=1)

    @app.agent(requests)
    async def answer(stream: Any) -> None:
        async for value in stream:
            request: Any = fastavro.schemaless_reader(io.BytesIO(value[peers.HEADER :]), schema)
            sensor, as_of = request["sensor"], request["event_time"]
            as_of_us = as_of if isinstance(as_of, int) else round(as_of.timestamp() * 1e6)
            (read,) = store.read([(view, [sensor])], np.array([as_of_us], np.int64))
            numeric = np.array([[*(request[one.name] for one in model.inputs), *read.values[0]]])
            score = float(scorer.score(numeric, {"sensor": [sensor]})[0])
            told = {"request_id": request["request_id"], "score": score, "values": read.values[0].tolist()}
            await answers.send(key=request["request_id"].encode(), value=json.dumps(told).encode())
            count()

    run(app)


if __name__ == "__main__":
    main()
