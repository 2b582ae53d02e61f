"""The shop's model, a store whose values follow from the entity's name, and a log that can be killed."""

import hashlib
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from driftline.batch.event_files import Row
from driftline.batch.job import BatchJob, JobSummary, NoScores, ScoreSink
from driftline.batch.requests import RequestReader
from driftline.contracts.batch_codec import BatchDecoder, BatchEncoder
from driftline.contracts.project_schemas import prediction_schema
from driftline.features import FeatureView
from driftline.features.read import FRESH, ViewValues
from driftline.project import Project, load_project
from driftline.runtime.clock import ManualClock
from driftline.serving.predict import PredictionEngine
from driftline.serving.rack import ModelRack
from tests.small_model import write_model

SHOP = Path(__file__).parents[2] / "e2e" / "shop"
NOW_US = 1_750_000_000_000_000
NAMESPACE = uuid.UUID(int=7)
SCHEMA_ID = 3


class Killed(BaseException):
    """The process ends here."""


class Store:
    """Values that follow from the entity's key alone."""

    def read(
        self,
        requests: Sequence[tuple[FeatureView, Sequence[str | None] | pa.StringArray]],
        as_of_us: NDArray[np.int64],
    ) -> list[ViewValues]:
        return [self._view(view, pa.array(entities, pa.string()).to_pylist()) for view, entities in requests]

    @staticmethod
    def _view(view: FeatureView, entities: list[str]) -> ViewValues:
        seeds = [int.from_bytes(hashlib.sha256(entity.encode()).digest()[:2]) for entity in entities]
        values = np.array(seeds, float)[:, None] / 500 + np.arange(len(view.features))
        count = len(entities)
        return ViewValues(values=values, age_us=np.full(count, 1_500), status=np.full(count, FRESH, np.uint8))


class Log:
    """What was logged, in memory. ``events`` are raised by the next writes, before or after they are done."""

    def __init__(self, project: Project) -> None:
        self.decoder = BatchDecoder(prediction_schema(project), lambda _: prediction_schema(project))
        self.records: list[dict[str, Any]] = []
        self.through = 0
        self.writes = 0
        self.events: list[BaseException | None] = []
        self.after_writing = False

    def start(self) -> int:
        return self.through

    def write(self, keys: Sequence[str], values: Sequence[bytes], *, through: int) -> None:
        event = self.events.pop(0) if self.events else None
        self.writes += 1
        if event is not None and not self.after_writing:
            raise event
        records = self.decoder.decode(list(values)).table.to_pylist()
        assert [record["request_id"] for record in records] == list(keys)
        self.records += records
        self.through = through
        if event is not None:
            raise event

    def close(self) -> None: ...

    @property
    def scores(self) -> dict[str, float | None]:
        return {record["request_id"]: record["score"] for record in self.records}


@pytest.fixture(scope="session")
def project() -> Project:
    return load_project(SHOP)


@pytest.fixture(scope="session")
def models(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_model(project, folder)
    return folder


@pytest.fixture(scope="session")
def engine(project: Project, models: Path) -> PredictionEngine:
    return PredictionEngine(project, Store(), ModelRack(models, project), ManualClock(NOW_US))


@pytest.fixture
def log(project: Project) -> Log:
    return Log(project)


def reader_of(project: Project, **changes: Any) -> RequestReader:
    given: dict[str, Any] = {"namespace": NAMESPACE, "clock": ManualClock(NOW_US), "texts": False}
    return RequestReader(project, project.models["fraud"], **{**given, **changes})


Run = Callable[..., JobSummary]


@pytest.fixture
def run(project: Project, engine: PredictionEngine, log: Log) -> Run:
    """Run a file's job, as a process would that starts."""

    def run(path: Path, scores: ScoreSink | None = None, **changes: Any) -> JobSummary:
        job = BatchJob(
            path,
            reader_of(project, texts=path.suffix == ".csv"),
            engine,
            BatchEncoder(prediction_schema(project), SCHEMA_ID),
            log,
            scores or NoScores(),
            **{"batch_rows": 10, "patience_seconds": 0.0, **changes},
        )
        return job.run()

    return run


def payments(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Rows that are right."""
    return [
        {"customer": f"c{number % 7}", "merchant": f"m{number % 5}", "amount": 2.5 * number, **changes}
        for number in range(count)
    ]


def as_rows(events: Sequence[dict[str, Any]]) -> list[Row]:
    return [Row(number=number, event=event) for number, event in enumerate(events, 1)]
