"""An outcome has the arm that its prediction was assigned to, also where that was logged before there were arms."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.batch_codec import BatchDecoder, BatchEncoder
from driftline.contracts.project_schemas import prediction_schema
from driftline.project import load_project
from services.outcome_joiner.outcomes import OutcomeColumns
from services.outcome_joiner.waiting_room import Claims

SHOP = Path(__file__).parents[2] / "e2e" / "shop"
ARM = "canary-2/canary"


def test_the_arm_goes_along() -> None:
    project = load_project(SHOP)
    schema = prediction_schema(project)
    older = {**schema, "fields": [one for one in schema["fields"] if one["name"] != "arm"]}
    framed = [encoded(older, 1, arm=None), encoded(schema, 2, arm=ARM)]
    decoder = BatchDecoder(schema, {1: older, 2: schema}.__getitem__)
    predictions = pa.concat_batches([decoder.decode([one]).table for one in framed])
    claims = Claims(
        records=framed,
        label=np.array([1.0, 0.0]),
        known_at_us=np.array([5, 6]),
        previous=np.array([np.nan, np.nan]),
        kind=np.array([0, 0]),
        label_ids=["a", "b"],
    )
    found = OutcomeColumns(project).outcomes(predictions, claims)
    assert found.column("arm").to_pylist() == [None, ARM]
    assert found.column("log_loss").null_count == 0


def encoded(schema: dict[str, object], schema_id: int, *, arm: str | None) -> bytes:
    """A logged prediction."""
    fields = arrow_schema(schema)
    blank = {one.name: None if one.nullable else 0 for one in fields}
    row = {
        **blank,
        "request_id": "0190a6c5-7b2e-7c11-8000-0123456789ab",
        "model": "fraud",
        "model_version": "2",
        "channel": "HTTP",
        "status": "ANSWERED",
        "score": 0.25,
        "decision": "accept",
        "feature_views": [],
        **({"arm": arm} if arm else {}),
    }
    (value,) = BatchEncoder(schema, schema_id).encode(pa.RecordBatch.from_pylist([row], schema=fields))
    return value
