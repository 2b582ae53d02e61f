"""All rows of a file through the prediction engine into the log, each once, however often the job is killed.

1. The job is named by project, environment, model, the file's SHA-256 and the name of the run: the same command finds
   the same job.
2. Its log says through which row it is done. Rows up to there are read and not scored.
3. A batch is scored, its scores are put beside the file's rows (where that is wanted), then predictions and progress
   are written to the log as one. A batch whose scores are there and whose predictions are not is scored again.
4. What the store or the broker does not answer is tried again for a while; then the job ends, and may be run again.
"""

import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from driftline.batch.event_files import Row, read_events
from driftline.batch.prediction_log import PredictionLog
from driftline.batch.requests import FileRequests, RequestReader
from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchEncoder
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.serving.predict import PredictionEngine

BATCH = fields.CHANNELS[2]
ROW = "row"
#: Said of a row whose UUID an earlier row has: it is not in the log again.
REPEATED = "REPEATED"
#: Said of a row that is only looked at, and is right.
READABLE = "READABLE"
#: What is told of a row beside the row itself.
RESULT = pa.schema(
    [
        (ROW, pa.int64()),
        (fields.REQUEST_ID, pa.string()),
        (fields.MODEL_VERSION, pa.string()),
        (fields.STATUS, pa.string()),
        (fields.SCORE, pa.float64()),
        (fields.DECISION, pa.string()),
        (fields.ERROR, pa.string()),
    ]
)
#: So many rows that went wrong are told one by one.
TOLD = 1_000
_NAMESPACE = uuid.UUID("5f0c9a52-3c1e-5b6e-9d3a-6d1f0c1b7a52")
_CHUNK_BYTES = 1 << 20
_LONGEST_PAUSE_SECONDS = 5.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobIdentity:
    """What makes two runs the same job."""

    prefix: str
    model: str
    sha256: str
    run: str = ""

    @property
    def name(self) -> str:
        """A short name, good for a consumer group."""
        return self.namespace.hex[:16]

    @property
    def namespace(self) -> uuid.UUID:
        """What the UUIDs of rows are made from, with the rows' numbers."""
        return uuid.uuid5(_NAMESPACE, "\n".join((self.prefix, self.model, self.sha256, self.run)))


@dataclass(slots=True, kw_only=True)
class JobSummary:
    """What this run of a job did; ``earlier`` rows had been done before it. ``columns`` are the file's, in order."""

    earlier: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[int, str]] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows this run has done."""
        return self.statuses.total()

    @property
    def unanswered(self) -> int:
        """How many of them have no score."""
        return self.rows - self.statuses[fields.STATUSES[0]]

    def add(self, result: pa.RecordBatch) -> None:
        """Count a batch of ``RESULT``."""
        self.statuses.update(result.column(fields.STATUS).to_pylist())
        self.versions.update(result.column(fields.MODEL_VERSION).drop_null().to_pylist())
        if len(self.wrong) < TOLD:
            unanswered = pc.not_equal(result.column(fields.STATUS), fields.STATUSES[0])
            told = result.filter(unanswered).slice(0, TOLD - len(self.wrong))
            self.wrong += zip(
                told.column(ROW).to_pylist(), told.column(fields.ERROR).to_pylist(), strict=True
            )


class ScoreSink(Protocol):
    """Where scores go beside the log."""

    def begin(self, *, done: int) -> None:
        """Keep what there is of the rows up to ``done``, and nothing after; raise ConfigurationError if that lacks."""
        ...

    def write(self, result: pa.RecordBatch, *, after: int) -> None:
        """Take a batch of ``RESULT``, which follows row ``after``, durably, before the log has it.

        What comes again was not logged before, and takes the place of what came then.
        """
        ...

    def finish(self) -> None:
        """Every row is done: make of it what was wanted."""
        ...


class NoScores:
    """Scores are in the log alone."""

    def begin(self, *, done: int) -> None:
        """Nothing is kept."""

    def write(self, result: pa.RecordBatch, *, after: int) -> None:
        """Nothing is written."""

    def finish(self) -> None:
        """Nothing is left to do."""


class BatchJob:
    """One file, one model, one log.

    Parameters
    ----------
    patience_seconds
        For how long what does not answer is asked again.
    tell
        Called with the number of rows that were read, after each batch.
    """

    def __init__(
        self,
        path: Path,
        reader: RequestReader,
        engine: PredictionEngine,
        encoder: BatchEncoder,
        log: PredictionLog,
        scores: ScoreSink,
        *,
        batch_rows: int = 10_000,
        patience_seconds: float = 60.0,
        tell: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._path = path
        self._reader = reader
        self._engine = engine
        self._encoder = encoder
        self._log = log
        self._scores = scores
        self._batch_rows = batch_rows
        self._patience = patience_seconds
        self._tell = tell
        self._stamp = file_stamp(path)

    def run(self) -> JobSummary:
        """Predict and log every row that is not done; return what was done.

        Raises
        ------
        ConfigurationError
            The file cannot be read, was changed meanwhile, or lacks a column without which no row can be scored.
        UnavailableError
            The store or the broker did not answer for too long; the job goes on where it was if it is run again.
        """
        summary = JobSummary()
        done = self._patiently(self._log.start)  # 2.
        self._scores.begin(done=done)
        for rows in batches(self._path, self._batch_rows):
            if not summary.columns:
                self._reader.check_columns(self._path, columns_of(rows))
            summary.columns.update(dict.fromkeys(columns_of(rows)))
            asked = self._reader.read(rows)
            earlier = int(np.searchsorted(asked.numbers, done, side="right"))
            summary.earlier += earlier
            if earlier < len(rows):
                summary.add(self._predict(_from(asked, earlier), after=done))
                done = rows[-1].number
            self._tell(len(rows))
        self._scores.finish()
        return summary

    def _predict(self, asked: FileRequests, *, after: int) -> pa.RecordBatch:
        """Score a batch and log it; return what is told of its rows."""
        through = int(asked.numbers[-1])
        while True:
            predictions = self._patiently(lambda: score(self._engine, asked))
            result = results(asked, predictions)
            logged = np.ones(len(asked.numbers), np.bool_)
            logged[list(asked.repeated)] = False
            written = predictions.filter(pa.array(logged))
            values = self._encoder.encode(written)
            self._scores.write(result, after=after)  # 3.
            if file_stamp(self._path) != self._stamp:
                raise ConfigurationError(f"{self._path}: was changed while it was read; run it again")
            try:
                self._log.write(written.column(fields.REQUEST_ID).to_pylist(), values, through=through)
            except UnavailableError:
                if self._patiently(self._log.start) < through:
                    continue
            return result

    def _patiently(self, ask: Callable[[], T]) -> T:
        until = time.monotonic() + self._patience
        pause = 0.1
        while True:
            try:
                return ask()
            except UnavailableError as error:  # 4.
                if time.monotonic() + pause > until:
                    msg = f"{error}. Run the same command again: it goes on where it was, and logs nothing twice"
                    raise UnavailableError(msg) from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def score(engine: PredictionEngine, asked: FileRequests) -> pa.RecordBatch:
    """Return the predictions of requests, in their order; those with mistakes are REFUSED, and are not tried."""
    wrong = np.zeros(len(asked.numbers), np.bool_)
    wrong[list(asked.mistakes)] = True
    if not wrong.any():
        return engine.predict(asked.requests, BATCH)
    refused = engine.refused(asked.requests.filter(pa.array(wrong)), BATCH, "")
    place = refused.schema.get_field_index(fields.ERROR)
    refused = refused.set_column(
        place, refused.schema.field(place), pa.array([asked.mistakes[at] for at in sorted(asked.mistakes)])
    )
    if wrong.all():
        return refused
    good = engine.predict(asked.requests.filter(pa.array(~wrong)), BATCH)
    order = np.argsort(np.concatenate([np.flatnonzero(~wrong), np.flatnonzero(wrong)]))
    return pa.concat_batches([good, refused]).take(pa.array(order))


def results(asked: FileRequests, predictions: pa.RecordBatch) -> pa.RecordBatch:
    """Return what is told of rows: columns of ``RESULT``."""
    statuses = predictions.column(fields.STATUS).to_pylist()
    for at in asked.repeated:
        statuses[at] = REPEATED
    made = {ROW: pa.array(asked.numbers), fields.STATUS: pa.array(statuses, pa.string())}
    columns = [made.get(one.name) for one in RESULT]
    found = [
        predictions.column(one.name) if column is None else column
        for one, column in zip(RESULT, columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(found, schema=RESULT)


def look_through(
    path: Path, reader: RequestReader, batch_rows: int, tell: Callable[[int], None] = lambda _: None
) -> JobSummary:
    """Read a file without scoring it, and return which rows would be refused, all of them.

    Raises
    ------
    ConfigurationError
        As ``BatchJob.run``.
    """
    summary = JobSummary()
    for rows in batches(path, batch_rows):
        if not summary.columns:
            reader.check_columns(path, columns_of(rows))
        summary.columns.update(dict.fromkeys(columns_of(rows)))
        asked = reader.read(rows)
        summary.statuses[READABLE] += len(rows) - len(asked.mistakes)
        summary.statuses[REPEATED] += len(asked.repeated)
        summary.statuses[fields.STATUSES[1]] += len(asked.mistakes) - len(asked.repeated)
        summary.wrong += [(int(asked.numbers[at]), text) for at, text in asked.mistakes.items()]
        tell(len(rows))
    return summary


def batches(path: Path, size: int) -> Iterator[list[Row]]:
    """Yield the rows of a file in lists of up to ``size``. CSV's cells are texts."""
    rows = read_events(path, {"fields": []})
    while found := list(islice(rows, size)):
        yield found


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Return the names of the columns that rows have, in the order in which they come."""
    return list(dict.fromkeys(name for row in rows for name in row.event or ()))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; ConfigurationError where it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                found.update(chunk)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    return found.hexdigest()


def file_stamp(path: Path) -> tuple[int, int]:
    """Return what changes with a file: its time and its size."""
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    return found.st_mtime_ns, found.st_size


def _from(asked: FileRequests, start: int) -> FileRequests:
    """Return the rows from a position on."""
    if not start:
        return asked
    return FileRequests(
        numbers=asked.numbers[start:],
        requests=asked.requests.slice(start),
        mistakes={at - start: text for at, text in asked.mistakes.items() if at >= start},
        repeated=frozenset(at - start for at in asked.repeated if at >= start),
    )
