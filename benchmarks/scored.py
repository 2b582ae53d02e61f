"""The predictions and labels of the project `monitored`, and the reference that its profiles need."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from confluent_kafka import Producer

from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchEncoder
from driftline.contracts.project_schemas import label_schema, prediction_schema
from driftline.models.model_reference import REFERENCE_FILE, build_model_reference
from driftline.project import Project
from driftline.runtime.ids import new_id

PROJECT = Path(__file__).parent / "monitored"
MODEL, VERSION = "risk", "1"
SITES = ("north", "south", "west", "east")
START_US = 1_700_006_400_000_000  # a midnight
SPACING_US = 4_000_000  # 21,600 predictions a day
#: Labels come one to four hours after their predictions, so about every second pair of them is out of order.
_DELAYS_US = (3_600_000_000, 14_400_000_000)
_CHUNK, _REFERENCE_ROWS = 20_000, 10_000


def prediction_batches(project: Project, rows: int, *, seed: int = 21) -> Iterator[pa.RecordBatch]:
    """Yield answered predictions in event-time order."""
    rng = np.random.default_rng(seed)
    model = project.models[MODEL]
    schema = BatchEncoder(prediction_schema(project), 0).schema
    for low in range(0, rows, _CHUNK):
        count = min(_CHUNK, rows - low)
        times = pa.array(_times(low, count), pa.timestamp("us"))
        score = rng.random(count)
        given = {
            fields.REQUEST_ID: [new_id() for _ in range(count)],
            fields.MODEL: [MODEL] * count,
            fields.MODEL_VERSION: [VERSION] * count,
            fields.CHANNEL: ["HTTP"] * count,
            fields.STATUS: ["ANSWERED"] * count,
            fields.SCORE: score,
            fields.DECISION: np.where(score >= model.decision.threshold, "check", "send"),
            fields.REQUESTED_AT: times,
            fields.EVENT_TIME: times,
            fields.PREDICTED_AT: times,
            fields.DURATION_US: np.full(count, 900),
            fields.CALLER: ["bench"] * count,
            fields.FEATURE_VIEWS: [[]] * count,
            "order_id": [order_id(row) for row in range(low, low + count)],
            "site": rng.choice(SITES, count),
            **{name: rng.normal(0, 1, count) for name in model.numeric_columns},
        }
        columns = [pa.array(given.get(one.name, [None] * count), one.type) for one in schema]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def label_batches(rows: int, *, seed: int = 22) -> Iterator[pa.RecordBatch]:
    """Yield one label for each of the first predictions, in the order in which they became known."""
    rng = np.random.default_rng(seed)
    schema = BatchEncoder(label_schema(), 0).schema
    known = _times(0, rows) + rng.integers(*_DELAYS_US, rows)
    order = np.argsort(known, kind="stable")
    for low in range(0, rows, _CHUNK):
        chosen = order[low : low + _CHUNK]
        given = {
            "label_id": [new_id() for _ in chosen],
            "model": [MODEL] * len(chosen),
            "request_id": [None] * len(chosen),
            "key": [order_id(row) for row in chosen.tolist()],
            "label": (rng.random(len(chosen)) < 0.3).astype(np.float64),
            "known_at": known[chosen],
        }
        columns = [pa.array(given[one.name], one.type) for one in schema]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def load(bootstrap: str, topic: str, encoder: BatchEncoder, batches: Iterator[pa.RecordBatch]) -> None:
    """Produce batches to partition 0 of a topic, keyed by their first column."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 2_000_000}
    )
    for batch in batches:
        for key, value in zip(batch.column(0).to_pylist(), encoder.encode(batch), strict=True):
            producer.produce(topic, value, key.encode(), partition=0)
        producer.poll(0)
    producer.flush()


def write_reference(project: Project, models: Path) -> None:
    """Write the reference of the only version, as its bundle has it: all rows, and each site."""
    rng = np.random.default_rng(23)
    model = project.models[MODEL]
    numeric = rng.normal(0, 1, (_REFERENCE_ROWS, len(model.numeric_columns)))
    score = rng.random(_REFERENCE_ROWS)
    found = build_model_reference(
        model,
        numeric,
        {"site": rng.choice(SITES, _REFERENCE_ROWS).tolist()},
        score,
        rng.random(_REFERENCE_ROWS) < 0.3,
    )
    bundle = models / MODEL / VERSION
    bundle.mkdir(parents=True)
    (bundle / REFERENCE_FILE).write_bytes(found.to_bytes())


def order_id(row: int) -> str:
    """Return the business key of a row."""
    return f"order-{row:09d}"


def _times(low: int, count: int) -> np.ndarray:  # type: ignore[type-arg]
    return START_US + np.arange(low, low + count, dtype=np.int64) * SPACING_US
