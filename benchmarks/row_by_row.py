"""Predictions one record at a time with scikit-learn, over the requests that the stream predictor answers."""

import io
import time
from collections.abc import Callable
from typing import Any

import fastavro
import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
from confluent_kafka import TopicPartition
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks import peers
from benchmarks.comparison import Comparison
from benchmarks.data_plane import Bench, predicted_per_second
from driftline.contracts.project_schemas import prediction_request_schema

ROWS = 1_000


def comparisons(bench: Bench) -> list[Comparison]:
    """Return the line."""
    return [
        Comparison(
            name="stream predictor / row-by-row scikit-learn",
            unit="requests/s",
            ours=lambda: predicted_per_second(bench),
            theirs=lambda: scored_per_second(bench),
            aim=100,
            note="theirs decodes and calls predict_proba of the same pipeline, a data frame of one row each; it reads no features and writes nothing",
        )
    ]


def scored_per_second(bench: Bench) -> float:
    """Consume, decode and score the first requests, one by one."""
    schema = fastavro.parse_schema(prediction_request_schema(bench.project))
    score = scorer(bench)
    reader = peers.consumer(bench.bootstrap, "bench-row-by-row")
    reader.assign([TopicPartition(bench.topics.prediction_requests, 0, 0)])
    seen, begun = 0, 0.0
    with threadpool_limits(1):  # a row is no work to share: threads only wait for one another
        while seen < ROWS:
            messages = reader.consume(ROWS - seen, 1.0)
            begun = begun or time.perf_counter()
            for message in messages:
                value = message.value()
                assert value is not None
                record: Any = fastavro.schemaless_reader(io.BytesIO(value[peers.HEADER :]), schema)
                score(record)
            seen += len(messages)
    seconds = time.perf_counter() - begun
    reader.close()
    return seen / seconds


def scorer(bench: Bench) -> Callable[[dict[str, Any]], float]:
    """Return what scores a record with the pipeline; a column that it does not have is missing."""
    pipeline = joblib.load(bench.pipeline)
    (model,) = bench.project.models.values()
    numeric, texts = model.numeric_columns, model.categorical_columns

    def score(record: dict[str, Any]) -> float:
        row = {name: record.get(name, np.nan) for name in numeric} | {name: record[name] for name in texts}
        return float(pipeline.predict_proba(pd.DataFrame([row]))[0, 1])

    return score
