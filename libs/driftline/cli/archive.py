"""`driftline archive query|tables|compact` and `driftline training-set build|list|pull`."""

import base64
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from driftline.archive.maintenance import compact as compact_table
from driftline.archive.query import query as query_archive
from driftline.archive.tables import BAD, TOPICS, Archive, TableSummary, summarize
from driftline.archive.training_rows import table_of
from driftline.archive.training_sets import TrainingSets, TrainingSetVersion, as_dict, models_with_sets
from driftline.cli.options import JsonOption, ProjectOption, echo_json
from driftline.contracts.topics import Topics
from driftline.models.training_set import assemble, labelled_requests
from driftline.project import Project, load_project
from driftline.project.history import load_history
from driftline.runtime.errors import ConfigurationError

app = typer.Typer(help="Ask and look after the archive of every topic.", no_args_is_help=True)
training_sets = typer.Typer(help="Named, reproducible training sets.", no_args_is_help=True)

ArchiveOption = Annotated[
    str, typer.Option("--archive", envvar="DRIFTLINE_ARCHIVE", help="Folder or URL of the archive.")
]
EnvironmentOption = Annotated[
    str, typer.Option("--environment", envvar="DRIFTLINE_ENVIRONMENT", help="Prefix of all topics.")
]
ModelOption = Annotated[str, typer.Option(help="The model; may be left out where the project has one.")]

_DEFAULT = ".driftline/archive"
_DAY = ["%Y-%m-%d"]
_SHOWN_ROWS = 100


@app.command("query")
def query(
    sql: Annotated[str, typer.Argument(help="SQL; a topic is a table by its stream's name.")],
    *,
    limit: Annotated[int, typer.Option(min=1, help="Rows at most.")] = _SHOWN_ROWS,
    project: ProjectOption = Path(),
    archive: ArchiveOption = _DEFAULT,
    environment: EnvironmentOption = "",
    as_json: JsonOption = False,
) -> None:
    """Ask the archive in SQL (DuckDB).

    Example: driftline archive query "SELECT status, count(*) FROM predictions GROUP BY 1"
    """
    where = _archive(load_project(project), archive, environment)
    with Console(stderr=True, quiet=as_json).status("Asking the archive"):
        found = query_archive(where, sql, limit=limit)
    if as_json:
        rows = found.to_pylist(maps_as_pydicts="lossy")
        typer.echo(orjson.dumps(rows, default=_as_text, option=orjson.OPT_INDENT_2).decode())
        return
    table = Table(*found.column_names)
    for row in zip(*(column.to_pylist() for column in found.columns), strict=True):
        table.add_row(*(_cell(value) for value in row))
    Console().print(table)
    if len(found) == limit:
        Console(stderr=True).print(f"the first {limit} rows; --limit shows more", style="dim")


@app.command("tables")
def tables(
    *,
    project: ProjectOption = Path(),
    archive: ArchiveOption = _DEFAULT,
    environment: EnvironmentOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the archive's tables: rows, days, size, and the next offset of each partition."""
    found = list(_summaries(_archive(load_project(project), archive, environment)))
    if as_json:
        echo_json([_told(one) for one in found])
        return
    table = Table("table", "days", "next offsets")
    for heading in ("rows", "files", "MB", "version"):
        table.add_column(heading, justify="right")
    for one in found:
        days = f"{one.first_day} to {one.last_day}" if one.first_day else "none"
        offsets = " ".join(f"{number}:{offset}" for number, offset in one.offsets.items())
        table.add_row(
            f"bad.{one.name}" if one.kind == BAD else one.name,
            days,
            offsets,
            f"{one.rows:,}",
            f"{one.files:,}",
            f"{one.size / 1e6:,.1f}",
            str(one.version),
        )
    Console().print(table)


@app.command("compact")
def compact(
    *,
    project: ProjectOption = Path(),
    archive: ArchiveOption = _DEFAULT,
    environment: EnvironmentOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make few large files of many small ones, and delete what no version needs; the archiver may run."""
    where = _archive(load_project(project), archive, environment)
    done: list[dict[str, Any]] = []
    with Console(stderr=True, quiet=as_json).status("Compacting") as status:
        for kind in (TOPICS, BAD):
            for name in where.names(kind):
                status.update(f"Compacting {name}")
                found = compact_table(where.table(kind, name))
                if found is not None:
                    numbers = {"removed": found.removed, "added": found.added, "deleted": found.deleted}
                    done.append({"table": name, "kind": kind, **numbers})
    if as_json:
        typer.echo(orjson.dumps(done).decode())
        return
    for one in done:
        typer.echo(
            f"{one['kind']}/{one['table']}: {one['removed']} files became {one['added']}, "
            f"{one['deleted']} old ones deleted"
        )


@training_sets.command("build")
def build(
    *,
    start: Annotated[datetime, typer.Option("--from", formats=_DAY, help="First day, UTC.")],
    end: Annotated[datetime, typer.Option("--to", formats=_DAY, help="Day after the last one, UTC.")],
    name: Annotated[str, typer.Option(help="Name of the training set; it means these rows for ever.")],
    model: ModelOption = "",
    project: ProjectOption = Path(),
    archive: ArchiveOption = _DEFAULT,
    environment: EnvironmentOption = "",
    as_json: JsonOption = False,
) -> None:
    """Compute a model's features point-in-time over its project's history, and keep the rows under a name.

    Example: driftline training-set build --from 2013-01-01 --to 2013-04-01 --name winter
    """
    loaded = load_project(project)
    chosen = _model(loaded, model)
    first, last = start.date(), end.date()
    with Console(stderr=True, quiet=as_json).status("history") as status:
        history = load_history(loaded, first, last)
        requests = labelled_requests(history.requests, _midnight_us(last))
        rows = assemble(loaded.models[chosen], history, requests, status.update)
        if not len(rows):
            raise ConfigurationError(f"no request between {first} and {last} has a known label")
        status.update(f"writing {len(rows):,} rows")
        found = _sets(loaded, chosen, archive, environment).build(
            name,
            table_of(loaded.models[chosen], rows, requests["request_id"]),
            span=(first.isoformat(), last.isoformat()),
            # The hash that a bundle's manifest has of the rows that it was trained on.
            meta={"project": loaded.name, "rows_sha256": rows.sha256()},
        )
    _print_sets([found], as_json=as_json, one=True)


@training_sets.command("list")
def list_sets(
    *,
    model: Annotated[str, typer.Option(help="Only this model's.")] = "",
    project: ProjectOption = Path(),
    archive: ArchiveOption = _DEFAULT,
    environment: EnvironmentOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the training sets that were built, the newest of each model first."""
    where = _archive(load_project(project), archive, environment)
    models = [model] if model else models_with_sets(where)
    found = [one for name in models for one in TrainingSets(where, name).list_sets()]
    _print_sets(found, as_json=as_json)


@training_sets.command("pull")
def pull(
    name: Annotated[str, typer.Argument(help="Name of the training set.")],
    *,
    out: Annotated[Path, typer.Option(help="File to write: .parquet, .arrow or .csv.")],
    model: ModelOption = "",
    project: ProjectOption = Path(),
    archive: ArchiveOption = _DEFAULT,
    environment: EnvironmentOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write a training set to a file, after checking that it is what was built, bit by bit."""
    if out.suffix not in _WRITERS:
        raise ConfigurationError(f"--out {out}: its ending must be one of {', '.join(_WRITERS)}")
    loaded = load_project(project)
    sets = _sets(loaded, _model(loaded, model), archive, environment)
    with Console(stderr=True, quiet=as_json).status(f"Reading {name}"):
        table = sets.pull(name)
        out.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[out.suffix](table, out)
    found = sets.find(name)
    if as_json:
        typer.echo(orjson.dumps({**as_dict(found), "path": str(out)}).decode())
    else:
        typer.echo(f"{len(table):,} rows to {out}, as built {found.created_at} (sha256 {found.sha256})")


def _write_arrow(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


_WRITERS = {".parquet": pq.write_table, ".arrow": _write_arrow, ".csv": pa_csv.write_csv}


def _archive(project: Project, location: str, environment: str) -> Archive:
    return Archive.at(location, Topics(project.name, environment).prefix)


def _sets(project: Project, model: str, location: str, environment: str) -> TrainingSets:
    return TrainingSets(_archive(project, location, environment), model)


def _model(project: Project, name: str) -> str:
    if name in project.models:
        return name
    names = ", ".join(sorted(project.models)) or "none"
    if not name and len(project.models) == 1:
        return next(iter(project.models))
    raise ConfigurationError(f"project {project.name!r} has these models: {names}; name one with --model")


def _summaries(where: Archive) -> Iterator[TableSummary]:
    for kind in (TOPICS, BAD):
        for name in where.names(kind):
            found = summarize(where, kind, name)
            if found is not None:
                yield found


def _told(one: TableSummary) -> dict[str, Any]:
    return {
        "table": one.name,
        "kind": one.kind,
        "uri": one.uri,
        "version": one.version,
        "rows": one.rows,
        "files": one.files,
        "bytes": one.size,
        "first_day": one.first_day,
        "last_day": one.last_day,
        "next_offsets": {str(number): offset for number, offset in one.offsets.items()},
    }


def _print_sets(found: list[TrainingSetVersion], *, as_json: bool, one: bool = False) -> None:
    if as_json:
        told = [as_dict(each) for each in found]
        typer.echo(orjson.dumps(told[0] if one else told, option=orjson.OPT_INDENT_2).decode())
        return
    table = Table("model", "name", "span", "built", "sha256")
    table.add_column("rows", justify="right")
    table.add_column("version", justify="right")
    for each in found:
        span = " to ".join(part for part in each.span if part)
        built = each.created_at[:19]
        table.add_row(
            each.model, each.name, span, built, each.sha256[:12], f"{each.rows:,}", str(each.version)
        )
    Console().print(table)


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else str(_as_text(value))


def _as_text(value: Any) -> Any:
    """Return what JSON has no form for as a text: bytes in base64, decimals and durations in full."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value if isinstance(value, int | float) else str(value)


def _midnight_us(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
