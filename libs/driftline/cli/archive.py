"""`driftline archive query|tables|compact`."""

import base64
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from driftline.archive.maintenance import compact as compact_table
from driftline.archive.query import query as query_archive
from driftline.archive.tables import BAD, TOPICS, Archive, TableSummary, summarize
from driftline.cli.options import JsonOption, ProjectOption, echo_json
from driftline.contracts.topics import Topics
from driftline.project import Project, load_project

app = typer.Typer(help="Ask and look after the archive of every topic.", no_args_is_help=True)

ArchiveOption = Annotated[
    str, typer.Option("--archive", envvar="DRIFTLINE_ARCHIVE", help="Folder or URL of the archive.")
]
EnvironmentOption = Annotated[
    str, typer.Option("--environment", envvar="DRIFTLINE_ENVIRONMENT", help="Prefix of all topics.")
]

DEFAULT_ARCHIVE = ".driftline/archive"
_SHOWN_ROWS = 100


@app.command("query")
def query(
    sql: Annotated[str, typer.Argument(help="SQL; a topic is a table by its stream's name.")],
    *,
    limit: Annotated[int, typer.Option(min=1, help="Rows at most.")] = _SHOWN_ROWS,
    project: ProjectOption = Path(),
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    environment: EnvironmentOption = "",
    as_json: JsonOption = False,
) -> None:
    """Ask the archive in SQL (DuckDB).

    Example: driftline archive query "SELECT status, count(*) FROM predictions GROUP BY 1"
    """
    where = archive_of(load_project(project), archive, environment)
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
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    environment: EnvironmentOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the archive's tables: rows, days, size, and the next offset of each partition."""
    found = list(_summaries(archive_of(load_project(project), archive, environment)))
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
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    environment: EnvironmentOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make few large files of many small ones, and delete what no version needs; the archiver may run."""
    where = archive_of(load_project(project), archive, environment)
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


def archive_of(project: Project, location: str, environment: str) -> Archive:
    """Return the archive of a project's environment."""
    return Archive.at(location, Topics(project.name, environment).prefix)


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


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else str(_as_text(value))


def _as_text(value: Any) -> Any:
    """Return what JSON has no form for as a text: bytes in base64, decimals and durations in full."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value if isinstance(value, int | float) else str(value)
