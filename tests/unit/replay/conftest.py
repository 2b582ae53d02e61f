"""A log of the shop's predictions, made by the engine that serves, and written as the archiver writes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from driftline.archive.columns import fitted, placed, storage_schema
from driftline.archive.sink import Span, TopicTable
from driftline.archive.tables import TOPICS, Archive
from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.project_schemas import prediction_request_schema
from driftline.features import FeatureView
from driftline.features.read import FRESH, ViewValues
from driftline.models.standing import activate
from driftline.project import Project, load_project
from driftline.runtime.clock import ManualClock
from driftline.runtime.ids import new_id
from driftline.serving.predict import PredictionEngine
from driftline.serving.rack import ModelRack
from driftline.streaming.partitions import Partition
from tests.small_model import write_model

SHOP = Path(__file__).parents[2] / "e2e" / "shop"
NOW_US = 1_750_000_000_000_000
MINUTE_US = 60_000_000
ROWS = 200


class Store:
    """Serves made-up values: a few are missing, the others differ from row to row."""

    def read(
        self,
        requests: Sequence[tuple[FeatureView, Sequence[str | None] | pa.StringArray]],
        as_of_us: NDArray[np.int64],
    ) -> list[ViewValues]:
        random = np.random.default_rng(1)
        found = []
        for view, _ in requests:
            values = random.normal(50, 30, (len(as_of_us), len(view.features)))
            values[random.random(values.shape) < 0.1] = np.nan
            fresh = np.full(len(as_of_us), FRESH, np.uint8)
            found.append(ViewValues(values=values, age_us=np.full(len(as_of_us), 1_500), status=fresh))
        return found


@pytest.fixture(scope="session")
def project() -> Project:
    return load_project(SHOP)


@pytest.fixture(scope="session")
def trained(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles: version 1, which is active, and version 2, which is another model."""
    folder = tmp_path_factory.mktemp("bundles")
    write_model(project, folder, "1")
    write_model(project, folder, "2", seed=8)
    activate(folder, "fraud", "1")
    return folder


@pytest.fixture(scope="session")
def log(project: Project, trained: Path) -> pa.Table:
    """Predictions, a minute apart, all answered but for every tenth, as the archive holds them."""
    return log_of(project, trained)


def log_of(project: Project, models: Path) -> pa.Table:
    """Return what the engine logs with the versions that some models' folder names to serve."""
    engine_clock = ManualClock(NOW_US)
    engine = PredictionEngine(project, Store(), ModelRack(models, project), engine_clock)
    schema = arrow_schema(prediction_request_schema(project))
    tables = []
    for number in range(0, ROWS, 20):
        asked = [_request(row) for row in range(number, number + 20)]
        tables.append(engine.predict(pa.RecordBatch.from_pylist(asked, schema=schema), "TOPIC"))
        engine_clock.advance(20 * MINUTE_US)
    whole = pa.Table.from_batches(tables)
    stored = fitted(whole, storage_schema(whole.schema))
    times = stored["predicted_at"].cast(pa.int64()).to_numpy() // 1_000
    return placed(
        stored, partition=0, offsets=range(ROWS), timestamps_ms=times, event_times=("event_time",)
    ).combine_chunks()


def _request(row: int) -> dict[str, Any]:
    return {
        "request_id": new_id(),
        "model": "fraud",
        "requested_at": NOW_US,
        "event_time": NOW_US - row * MINUTE_US,
        "caller": None,
        "customer": None if row % 10 == 9 else f"c{row % 7}",
        "merchant": f"merchant-{row % 20}",
        "amount": None if row % 13 == 0 else row / 3,
        "order_id": f"o{row}",
    }


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.at(str(tmp_path / "archive"), "shop")


def store(archive: Archive, stream: str, rows: pa.Table) -> None:
    """Commit rows of partition 0 to a stream's table, as the archiver does."""
    table = TopicTable(archive.table(TOPICS, stream), group=archive.group("archiver"))
    partition = Partition(f"{archive.prefix}.{stream}", 0)
    start = table.positions([partition])[partition]
    stop = rows["_offset"][-1].as_py() + 1
    table.append(rows, [Span(partition=partition, start=start, stop=stop)])
