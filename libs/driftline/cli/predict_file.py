"""`driftline predict MODEL --file FILE`: every row of a file scored and logged, once."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from driftline.batch.job import (
    REPEATED,
    BatchJob,
    JobIdentity,
    JobSummary,
    NoScores,
    ScoreSink,
    file_sha256,
    look_through,
)
from driftline.batch.prediction_log import KafkaPredictionLog
from driftline.batch.requests import RequestReader
from driftline.batch.score_files import ScoreFile
from driftline.cli.options import echo_json, settings_for
from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchEncoder
from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics, event_partitions
from driftline.features.online import OnlineStore
from driftline.project import Project, load_project
from driftline.runtime.clock import SystemClock
from driftline.runtime.errors import ConfigurationError
from driftline.runtime.logging import configure_logging
from driftline.runtime.settings import PlatformSettings
from driftline.serving.predict import PredictionEngine
from driftline.serving.rack import ModelRack
from driftline.serving.request_values import MAX_CALLER, WrongValueError, read_instant_us
from driftline.serving.view_watch import ViewWatch

_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRequest:
    """What the command was asked for.

    Attributes
    ----------
    run
        The name of a further run: the same file is scored and logged once more.
    event_time
        The instant that features are read as of, for rows that name none: ISO 8601 with an offset.
    """

    model: str
    file: Path
    out: Path | None = None
    run: str = ""
    event_time: str | None = None
    batch_rows: int = 10_000
    as_json: bool = False


def predict_file(asked: FileRequest, project: Path, state: Path) -> None:
    """Score and log every row of a file; exit with 1 where a row has no score."""
    settings, loaded = settings_for(project, state)
    configure_logging("predict", settings.instance, settings.log_format, "warning")
    topics = settings.topics(loaded)
    identity, reader = _job(asked, loaded, topics.prefix)
    began = time.monotonic()
    scores = _scores(asked, identity)
    with ExitStack() as stack:
        registry = stack.enter_context(SchemaRegistry(settings.schema_registry_url))
        schema = prediction_schema(loaded)
        log = KafkaPredictionLog(settings.kafka_config(), topics, job=identity.name)
        stack.callback(log.close)
        job = BatchJob(
            asked.file,
            reader,
            _engine(settings, loaded, topics, asked.model),
            BatchEncoder(schema, registry.schema_id(topics.subject(topics.predictions), schema)),
            log,
            scores,
            batch_rows=asked.batch_rows,
            tell=stack.enter_context(_progress(asked, f"Predicting {asked.model}")),
        )
        summary = job.run()
    _report(asked, identity, reader, summary, time.monotonic() - began, logged=True)
    if summary.unanswered:
        raise typer.Exit(1)


def check_file(asked: FileRequest, project: Path) -> None:
    """Say which rows of a file are wrong, without any server; exit with 1 where there are such rows."""
    loaded = load_project(project)
    identity, reader = _job(asked, loaded, loaded.name)
    _scores(asked, identity)
    began = time.monotonic()
    with _progress(asked, f"Reading {asked.file.name}") as tell:
        summary = look_through(asked.file, reader, asked.batch_rows, tell)
    _report(asked, identity, reader, summary, time.monotonic() - began, logged=False)
    if summary.wrong:
        raise typer.Exit(1)


def _job(asked: FileRequest, project: Project, prefix: str) -> tuple[JobIdentity, RequestReader]:
    model = project.models.get(asked.model)
    if model is None:
        known = ", ".join(sorted(project.models)) or "none"
        raise ConfigurationError(
            f"project {project.name!r} has no model {asked.model!r}; its models: {known}"
        )
    identity = JobIdentity(prefix=prefix, model=model.name, sha256=file_sha256(asked.file), run=asked.run)
    try:
        event_time_us = None if asked.event_time is None else read_instant_us(asked.event_time)
    except WrongValueError as error:
        raise ConfigurationError(f"--event-time {asked.event_time}: {error}") from None
    reader = RequestReader(
        project,
        model,
        namespace=identity.namespace,
        clock=SystemClock(),
        texts=asked.file.suffix.lower() == ".csv",
        caller=f"file {asked.file.name}"[:MAX_CALLER],
        event_time_us=event_time_us,
    )
    return identity, reader


def _scores(asked: FileRequest, identity: JobIdentity) -> ScoreSink:
    return NoScores() if asked.out is None else ScoreFile(asked.file, asked.out, job=identity.name)


def _engine(settings: PlatformSettings, project: Project, topics: Topics, model: str) -> PredictionEngine:
    """Return the engine over the store and the active models, as the predictor has it."""
    partitions = event_partitions(topics, project)
    with closing(
        ViewWatch(settings.redis_url, prefix=topics.prefix, project=project, partitions=partitions)
    ) as watch:
        watch.refresh()
        rack = ModelRack(settings.models, project, incomplete=watch.incomplete)
    if model in rack.missing:
        raise ConfigurationError(f"model {model!r} cannot be asked: {rack.missing[model]}")
    store = OnlineStore(
        settings.redis_url,
        prefix=topics.prefix,
        project=project,
        partitions=partitions,
    )
    return PredictionEngine(project, store, rack)


@contextmanager
def _progress(asked: FileRequest, title: str) -> Iterator[Any]:
    """Show how many rows were read, of how many where the file says."""
    console = Console(stderr=True, quiet=asked.as_json)
    total = None
    if asked.file.suffix.lower() == ".parquet":
        try:
            total = pq.read_metadata(asked.file).num_rows
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{asked.file}: cannot be read as Parquet: {error}") from error
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not sys.stderr.isatty() or asked.as_json,
    ) as progress:
        task = progress.add_task(title, total=total)
        yield lambda rows: progress.advance(task, rows)


def _report(
    asked: FileRequest,
    identity: JobIdentity,
    reader: RequestReader,
    summary: JobSummary,
    seconds: float,
    *,
    logged: bool,
) -> None:
    if not summary.columns:
        raise ConfigurationError(f"{asked.file}: has no rows")
    columns = set(summary.columns)
    told = {
        "model": asked.model,
        "file": str(asked.file),
        "sha256": identity.sha256,
        "run": asked.run,
        "job": identity.name,
        "request_ids": "the column request_id"
        if fields.REQUEST_ID in columns
        else "made from the file and the row",
        "rows": summary.rows,
        "rows_of_earlier_runs": summary.earlier,
        **{status.lower(): count for status, count in summary.statuses.items() if count},
        "versions": dict(summary.versions),
        "columns_without_meaning": [name for name in summary.columns if name not in reader.wanted],
        "inputs_that_no_row_has": sorted(reader.inputs - columns),
        "seconds": round(seconds, 3),
        "out": str(asked.out) if logged and asked.out is not None else None,
        "wrong": [{"row": number, "error": text} for number, text in summary.wrong],
    }
    if asked.as_json:
        echo_json(told)
    else:
        _print(told, summary, seconds, logged=logged)


def _print(told: dict[str, Any], summary: JobSummary, seconds: float, *, logged: bool) -> None:
    console = Console(stderr=True, highlight=False)
    for number, text in summary.wrong[:_SHOWN]:
        console.print(f"row {number}: {text}", style="red", markup=False)
    hidden = min(summary.rows, len(summary.wrong)) - _SHOWN
    if hidden > 0:
        console.print(f"and {hidden:,} more; --json lists them")
    if told["inputs_that_no_row_has"]:
        console.print(f"missing in every row: {', '.join(told['inputs_that_no_row_has'])}", markup=False)
    if told["columns_without_meaning"]:
        console.print(f"not used: {', '.join(told['columns_without_meaning'])}", markup=False)
    counts = ", ".join(f"{count:,} {status.lower()}" for status, count in summary.statuses.items() if count)
    done = f"{summary.rows:,} rows in {seconds:.1f} s: {counts}" if summary.rows else "no row was left to do"
    if summary.earlier:
        done += f"; {summary.earlier:,} rows were done by an earlier run"
    console.print(done)
    if logged:
        versions = ", ".join(summary.versions) or "none"
        again = f" ({summary.statuses[REPEATED]:,} not again)" if summary.statuses[REPEATED] else ""
        console.print(
            f"logged{again}; versions: {versions}; request ids: {told['request_ids']}", markup=False
        )
        if told["out"]:
            console.print(f"scores: {told['out']}", markup=False)
