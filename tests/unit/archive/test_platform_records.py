"""Every record of the platform can stand in a Delta table."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from driftline.archive.columns import fitted, placed, storage_schema
from driftline.archive.sink import TopicTable
from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame

from .conftest import span

SCHEMAS = Path(__file__).parents[3] / "schemas"


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.avsc")), ids=lambda path: path.stem)
def test_its_example_comes_back(path: Path, table: TopicTable) -> None:
    schema = json.loads(path.read_text())
    codec = RecordCodec(schema)
    record = codec.from_json(json.loads((SCHEMAS / "examples" / f"{path.stem}.json").read_text()))
    decoded = BatchDecoder(schema, lambda _: schema).decode([frame(1, codec.encode(record))])
    assert decoded.bad == ()
    stored = fitted(pa.Table.from_batches([decoded.table]), storage_schema(decoded.table.schema))
    rows = placed(stored, partition=0, offsets=[0], timestamps_ms=np.zeros(1, np.int64))
    table.append(rows, [span(None, 1)])
    found = DeltaTable(table.uri).to_pyarrow_dataset().to_table()
    assert found.select(rows.column_names).to_pylist() == rows.to_pylist()
    for field in schema["fields"]:
        if isinstance(record[field["name"]], str | int | bool):
            assert found[field["name"]].to_pylist() == [record[field["name"]]]
