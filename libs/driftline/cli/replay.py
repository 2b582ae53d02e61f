"""`driftline replay`: score logged requests again, bit for bit, or with another version."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from driftline.archive.tables import Archive
from driftline.cli.options import JsonOption, ProjectOption, settings_for
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import MODEL_EVENTS, OUTCOMES, PREDICTIONS, Topics
from driftline.project import Project, load_project
from driftline.replay.bundles import Bundles, registered_hashes
from driftline.replay.recomputing import ArchivedFeatures
from driftline.replay.records import ArchiveRecords, Records, Tell, TopicRecords, batched
from driftline.replay.replaying import DIFFERENT, RESULT, Replay
from driftline.replay.selection import SPAN_COLUMNS, Selection
from driftline.replay.writing import ResultFile
from driftline.runtime.clock import instant_us, text_us
from driftline.runtime.errors import ConfigurationError, RefusedError
from driftline.runtime.ids import parse_id
from driftline.serving.log_reading import LogReader

_SHOWN = 10


class Source(StrEnum):
    """Where logged records are read."""

    AUTO = "auto"
    TOPIC = "topic"
    ARCHIVE = "archive"


class FeaturesOf(StrEnum):
    """What a request is scored with."""

    LOGGED = "logged"
    RECOMPUTED = "recomputed"


class By(StrEnum):
    """The time that a span is of."""

    PREDICTED_AT, EVENT_TIME = SPAN_COLUMNS


def replay(
    *,
    start: Annotated[
        str, typer.Option("--from", help="First instant, ISO 8601 (UTC if it says no other).")
    ] = "",
    stop: Annotated[str, typer.Option("--to", help="Instant after the last one; now if left out.")] = "",
    request: Annotated[str, typer.Option(help="UUID of one request, instead of a span.")] = "",
    model: Annotated[
        str, typer.Option(help="NAME: only this model's requests. NAME@VERSION: ask this version instead.")
    ] = "",
    by: Annotated[By, typer.Option(help="The column of the log that the span is of.")] = By.PREDICTED_AT,
    source: Annotated[
        Source, typer.Option(help="Auto: the topic, and the archive for what the topic no longer holds.")
    ] = Source.AUTO,
    features: Annotated[
        FeaturesOf, typer.Option(help="As they were served, or computed again from the archive's events.")
    ] = FeaturesOf.LOGGED,
    output: Annotated[Path | None, typer.Option(help="File for the rows: .parquet, .csv or .jsonl.")] = None,
    outcomes: Annotated[bool, typer.Option(help="Add the log loss, where outcomes are known.")] = True,
    batch_rows: Annotated[int, typer.Option(min=1, help="Requests scored at a time.")] = 10_000,
    project: ProjectOption = Path(),
    models: Annotated[Path, typer.Option(envvar="DRIFTLINE_MODELS", help="Folder of the bundles.")] = Path(
        ".driftline/models"
    ),
    archive: Annotated[
        str, typer.Option(envvar="DRIFTLINE_ARCHIVE", help="Folder or URL of the archive.")
    ] = ".driftline/archive",
    environment: Annotated[
        str, typer.Option(envvar="DRIFTLINE_ENVIRONMENT", help="Prefix of all topics.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Score logged requests again, and hold each score against the logged one, bit by bit.

    With the version that answered, everything has to be equal: the exit code is 1 if anything is not. With another
    version it tells what that one would have said.

    Example: driftline replay --from 2026-06-01 --to 2026-06-08 --model lateness
    """
    loaded = load_project(project)
    name, version = _model(model)
    selection = _selection(start, stop, request, name, by)
    console = Console(stderr=True)
    with ExitStack() as stack:
        tell: Tell = stack.enter_context(console.status("Reading the log")).update
        desk = stack.enter_context(_desk(loaded, project, source, features, archive, environment, tell))
        codes = {one.name: one.coded_inputs for one in loaded.models.values()}
        bundles = Bundles(models, registered_hashes(_facts(desk, source)), codes)
        if name is not None and version is not None:
            bundles.find(name, version)
        rules = {one.name: one.decision for one in loaded.models.values()}
        going = Replay(bundles, rules, version=version, features=desk.features)
        rows = _Rows(stack, output, as_json=as_json)
        for table in batched(desk.records.read(PREDICTIONS, selection), batch_rows):
            rows.write(going.score(table))
            tell(f"Scored {going.summary.records:,} records")
        if not going.summary.records:
            raise RefusedError(_nothing(request, name), status=404, title="No such request")
        going.summary.missing = bool(desk.missing)
        if outcomes and going.summary.pairings:
            for table in batched(_outcomes(desk, source, selection), batch_rows):
                going.add_outcomes(table)
        told = {
            **going.summary.as_json(),
            "bundles": {
                ref: {"sha256": one.sha256, "held_to": one.against} for ref, one in bundles.verified.items()
            },
            "notes": desk.notes,
            "output": None if output is None else str(output),
        }
        rows.finish(told)
    if not as_json:
        _print(Console(), told, rows.worst)
    for reason, count in going.summary.reasons.items():
        console.print(f"[red]{count:,} not scored:[/red] {escape(reason)}", highlight=False, soft_wrap=True)
    if not going.summary.proven:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """What a replay reads from."""

    records: Records
    topic: TopicRecords | None
    archive: ArchiveRecords | None
    features: ArchivedFeatures | None

    @property
    def missing(self) -> int:
        """Records that may have been asked for and could not be read."""
        return self.records.gaps + (0 if self.topic is None else self.topic.unreadable)

    @property
    def notes(self) -> list[str]:
        unreadable = 0 if self.topic is None else self.topic.unreadable
        told = [f"records that could not be decoded: {unreadable:,}"] if unreadable else []
        return [*self.records.notes, *told]


@contextmanager
def _desk(
    loaded: Project,
    folder: Path,
    source: Source,
    features: FeaturesOf,
    location: str,
    environment: str,
    tell: Tell,
) -> Iterator[_Desk]:
    topics = Topics(loaded.name, environment)
    tables = ArchiveRecords(Archive.at(location, topics.prefix), tell)
    archived = None if source is Source.TOPIC else tables
    again = ArchivedFeatures(loaded, tables) if features is FeaturesOf.RECOMPUTED else None
    if source is Source.ARCHIVE:
        yield _Desk(records=Records(None, archived), topic=None, archive=archived, features=again)
        return
    settings, _ = settings_for(folder)
    with (
        LogReader(settings.kafka_config()) as reader,
        SchemaRegistry(settings.schema_registry_url) as registry,
    ):
        topic = TopicRecords(reader, topics, registry, tell)
        yield _Desk(records=Records(topic, archived), topic=topic, archive=archived, features=again)


def _facts(desk: _Desk, source: Source) -> Iterator[pa.Table]:
    """Yield the models' life, where it is at hand: a replay without it trusts what the bundles say of themselves."""
    if source is not Source.ARCHIVE or (desk.archive is not None and desk.archive.has(MODEL_EVENTS)):
        yield from desk.records.read(MODEL_EVENTS, Selection())


def _outcomes(desk: _Desk, source: Source, selection: Selection) -> Iterator[pa.Table]:
    if source is not Source.ARCHIVE or (desk.archive is not None and desk.archive.has(OUTCOMES)):
        yield from desk.records.read(OUTCOMES, selection)


@dataclass(slots=True)
class _Rows:
    """Where the rows go: to the file, else into the JSON, one after the other; the worst are kept for the screen."""

    stack: ExitStack
    output: Path | None
    as_json: bool = field(kw_only=True)
    worst: pa.Table = field(default_factory=RESULT.empty_table)
    _file: ResultFile | None = None
    _out: BinaryIO = field(default_factory=lambda: sys.stdout.buffer)
    _begun: bool = False

    def __post_init__(self) -> None:
        if self.output is not None:
            self._file = self.stack.enter_context(ResultFile(self.output))

    def write(self, rows: pa.Table) -> None:
        """Take the rows of a batch."""
        if self._file is not None:
            self._file.write_table(rows)
        elif self.as_json:
            for row in rows.to_pylist():
                self._out.write(b",\n" if self._begun else b'{"rows": [\n')
                self._out.write(orjson.dumps(row, option=orjson.OPT_UTC_Z))
                self._begun = True
        different = rows.filter(pc.field("result") == DIFFERENT)
        if len(different):
            together = pa.concat_tables([self.worst, different])
            order = np.argsort(-np.abs(together["difference"].to_numpy()), kind="stable")
            self.worst = together.take(pa.array(order[:_SHOWN]))

    def finish(self, told: dict[str, Any]) -> None:
        """Write the sums after the rows."""
        if not self.as_json:
            return
        if self._file is None:
            self._out.write(b"],\n" if self._begun else b'{"rows": [],\n')
            self._out.write(b'"summary": ' + orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"}\n")
        else:
            self._out.write(orjson.dumps({"summary": told}, option=orjson.OPT_INDENT_2) + b"\n")
        self._out.flush()


def _model(text: str) -> tuple[str | None, str | None]:
    """Return the model and the version that are asked for."""
    name, at, version = text.partition("@")
    if at and not (name and version):
        raise ConfigurationError(f"--model {text}: write NAME or NAME@VERSION")
    return name or None, version or None


def _selection(start: str, stop: str, request: str, model: str | None, by: By) -> Selection:
    if bool(start) == bool(request):
        raise ConfigurationError("say which requests: --from (and --to), or --request")
    if request:
        if stop:
            raise ConfigurationError("--to belongs to --from; --request is one request, whenever it was")
        try:
            return Selection(request_id=parse_id(request), model=model)
        except ValueError as error:
            raise ConfigurationError(f"--request {request}: is no UUID") from error
    begin = _instant("--from", start)
    end = _instant("--to", stop) if stop else instant_us(datetime.now(UTC))
    if begin >= end:
        raise ConfigurationError(f"--from {start} is not before --to {stop or 'now'}")
    return Selection(start_us=begin, stop_us=end, by=by.value, model=model)


def _instant(option: str, text: str) -> int:
    try:
        return text_us(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} {text}: is no ISO 8601 instant, like 2026-06-15T12:00") from error


def _print(console: Console, told: dict[str, Any], worst: pa.Table) -> None:
    counted = [f"{count:,} {why}" for why, count in told["not_answered"].items()]
    console.print(
        f"{told['records']:,} records" + (f", of them not scored: {', '.join(counted)}" if counted else ""),
        highlight=False,
    )
    if told["versions"]:
        console.print(_versions(told["versions"]))
    if told["features"] is not None:
        _print_features(console, told["features"])
    for row in worst.to_pylist():
        change = (
            ""
            if row["decision"] == row["logged_decision"]
            else f", {row['logged_decision']} to {row['decision']}"
        )
        console.print(
            f"  {row['request_id']}  {row['logged_score']!r} was logged, {row['score']!r} now "
            f"({row['difference']:+.3g}{change})",
            highlight=False,
            soft_wrap=True,
        )
    for note in told["notes"]:
        console.print(f"[yellow]note:[/yellow] {escape(note)}", highlight=False, soft_wrap=True)
    if told["output"] is not None:
        console.print(f"every row: {escape(told['output'])}", highlight=False, soft_wrap=True)
    if verdict := _verdict(told):
        console.print(verdict, highlight=False)


def _versions(found: list[dict[str, Any]]) -> Table:
    table = Table("answered by", "scored by")
    for heading in ("scored", "bit-equal", "largest", "mean difference", "decisions changed"):
        table.add_column(heading, justify="right")
    table.add_column("log loss: logged, replayed (outcomes)", justify="right")
    for one in found:
        losses = "none known"
        if one["labelled"]:
            losses = f"{one['log_loss_logged']:.4f}, {one['log_loss_replayed']:.4f} ({one['labelled']:,})"
        shown = (
            ("none", "", "", "")
            if not one["scored"]
            else (
                f"{one['equal']:,} of {one['scored']:,}",
                f"{one['max_difference']:.3g}",
                f"{one['mean_difference']:.3g}",
                f"{one['decisions_changed']:,}",
            )
        )
        table.add_row(
            f"{one['model']}@{one['logged_version']}",
            "the same" if one["version"] == one["logged_version"] else one["version"],
            f"{one['scored']:,} of {one['scored'] + one['unscored']:,}",
            *shown,
            losses,
        )
    return table


def _print_features(console: Console, found: dict[str, Any]) -> None:
    console.print(
        f"{found['values']:,} feature values computed again: {found['equal']:,} are those that were served",
        highlight=False,
    )
    for column, count in list(found["different"].items())[:_SHOWN]:
        console.print(f"  {column}: {count:,} others", highlight=False)


def _verdict(told: dict[str, Any]) -> str:
    same = [one for one in told["versions"] if one["version"] == one["logged_version"]]
    if not same or told["features"] is not None:
        return ""
    of = ", ".join(sorted({f"{one['model']}@{one['version']}" for one in same}))
    if told["proven"]:
        return f"[green]bit-equal:[/green] every score that {of} gave is the logged one"
    return f"[red]not proven:[/red] a score that {of} gave is not the logged one, could not be computed, or could not be read"


def _nothing(request: str, model: str | None) -> str:
    of = f" of model {model!r}" if model else ""
    return (
        f"no request {request}{of} is in the log" if request else f"no request{of} of that span is in the log"
    )
