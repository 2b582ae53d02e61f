"""`driftline training-set build|check|list|pull`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from driftline.archive.training_rows import REQUEST_ID, rows_of, table_of
from driftline.archive.training_sets import (
    TrainingSets,
    TrainingSetVersion,
    as_dict,
    models_with_sets,
)
from driftline.archive.training_sources import (
    ArchiveLog,
    Material,
    SourceKind,
    Span,
    TopicLog,
    code_of,
    from_files,
    from_log,
)
from driftline.cli.archive import DEFAULT_ARCHIVE, ArchiveOption, EnvironmentOption, archive_of
from driftline.cli.options import JsonOption, ProjectOption, echo_json, settings_for
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.models.leak_check import SAMPLE, check_leaks
from driftline.models.leak_report import Evidence, Finding, LeakReport
from driftline.models.training_set import Rows, assemble
from driftline.project import ModelDeclaration, Project, load_project
from driftline.replay.records import TopicRecords
from driftline.runtime.clock import text_us
from driftline.runtime.errors import ConfigurationError
from driftline.serving.log_reading import LogReader

app = typer.Typer(help="Named, reproducible training sets.", no_args_is_help=True)

ModelOption = Annotated[str, typer.Option(help="The model; may be left out where the project has one.")]
SampleOption = Annotated[
    int, typer.Option(min=1, help="Rows whose features are computed again, one event at a time.")
]
AcceptOption = Annotated[
    list[str] | None,
    typer.Option("--accept", help="A column that is known when it is asked for, whatever it looks like."),
]
Tell = Callable[[str], None]


@app.command("build")
def build(
    name: Annotated[str, typer.Argument(help="Name of the training set; it means these rows for ever.")] = "",
    *,
    since: Annotated[
        str, typer.Option("--since", "--from", help="First instant of the requests, ISO 8601, UTC.")
    ],
    until: Annotated[str, typer.Option("--until", "--to", help="Instant after the last one.")],
    known_by: Annotated[
        str, typer.Option(help="Labels known at this instant count; the end of the span if left out.")
    ] = "",
    named: Annotated[str, typer.Option("--name", help="The name, as an option.")] = "",
    source: Annotated[
        SourceKind,
        typer.Option(help="Files: the project's history. Archive or topic: what was served and known."),
    ] = SourceKind.FILES,
    check: Annotated[bool, typer.Option(help="Look for leaks before the rows are kept.")] = True,
    sample: SampleOption = SAMPLE,
    accept: AcceptOption = None,
    model: ModelOption = "",
    project: ProjectOption = Path(),
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    environment: EnvironmentOption = "",
    as_json: JsonOption = False,
) -> None:
    """Compute a model's features point-in-time, look for leaks, and keep the rows under a name.

    Built again under its name it is the same rows to the byte: the log is read up to the same offsets. The exit code is 1,
    and nothing is kept, where a leak is found.

    Example: driftline training-set build winter --since 2013-01-01 --until 2013-04-01
    """
    name = name or named
    if not name:
        raise ConfigurationError("give the training set a name: driftline training-set build NAME ...")
    loaded = load_project(project)
    declared = loaded.models[_model(loaded, model)]
    span = _span(since, until, known_by)
    sets = TrainingSets(archive_of(loaded, archive, environment), declared.name)
    report: LeakReport | None = None
    with _status("reading", quiet=as_json) as tell:
        before = sets.look_up(name)
        pins = _pins(before, source, span)
        material = _material(loaded, project, declared, source, span, archive, environment, pins, tell)
        rows = assemble(declared, material.history, material.requests, tell, join=material.join)
        if not len(rows):
            raise ConfigurationError(f"no request from {since} to {until} has a label that was known by then")
        if check:
            evidence = _evidence(loaded, material)
            report = check_leaks(declared, rows, evidence, sample=sample, accept=accept or [], progress=tell)
        manifest = {**material.made_from, **code_of(loaded, declared)}
        if report is not None:
            manifest["leak_check"] = report.as_json()
        found = None
        if report is None or report.clean:
            tell(f"writing {len(rows):,} rows")
            found = sets.build(
                name,
                table_of(declared, rows, material.requests[REQUEST_ID]),
                span=(since, until),
                # The hash that a bundle's manifest has of the rows that it was trained on.
                meta={"project": loaded.name, "rows_sha256": rows.sha256()},
                manifest=manifest,
            )
    if found is not None:
        _print_sets([found], as_json=as_json, one=True)
    if report is not None and (found is None or not as_json):
        _print_report(report, f"training set {name!r} of {declared.name}", as_json=as_json)
    if found is None:
        raise typer.Exit(1)


@app.command("check")
def check_set(
    name: Annotated[str, typer.Argument(help="Name of the training set.")],
    *,
    sample: SampleOption = SAMPLE,
    accept: AcceptOption = None,
    model: ModelOption = "",
    project: ProjectOption = Path(),
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    environment: EnvironmentOption = "",
    as_json: JsonOption = False,
) -> None:
    """Look for leaks in a training set: labels and facts of the future among its columns.

    What it was made from is read again, up to the same offsets. The exit code is 1 where something is found.

    Example: driftline training-set check winter
    """
    loaded = load_project(project)
    declared = loaded.models[_model(loaded, model)]
    sets = TrainingSets(archive_of(loaded, archive, environment), declared.name)
    with _status(f"reading {name}", quiet=as_json) as tell:
        found = sets.find(name)
        rows, request_ids = _stored_rows(declared, found, sets.pull(name))
        source, span = _made_by(found)
        material = _material(
            loaded, project, declared, source, span, archive, environment, found.manifest, tell
        )
        _check_unchanged(loaded, declared, found, material)
        material = _in_order(material, request_ids, name)
        evidence = _evidence(loaded, material)
        accepted = [*(accept or []), *_accepted(found)]
        report = check_leaks(declared, rows, evidence, sample=sample, accept=accepted, progress=tell)
    _print_report(report, f"training set {name!r} of {declared.name}", as_json=as_json)
    if not report.clean:
        raise typer.Exit(1)


@app.command("list")
def list_sets(
    *,
    model: Annotated[str, typer.Option(help="Only this model's.")] = "",
    project: ProjectOption = Path(),
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    environment: EnvironmentOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the training sets that were built, the newest of each model first."""
    where = archive_of(load_project(project), archive, environment)
    models = [model] if model else models_with_sets(where)
    found = [one for name in models for one in TrainingSets(where, name).list_sets()]
    _print_sets(found, as_json=as_json)


@app.command("pull")
def pull(
    name: Annotated[str, typer.Argument(help="Name of the training set.")],
    *,
    out: Annotated[Path, typer.Option(help="File to write: .parquet, .arrow or .csv.")],
    model: ModelOption = "",
    project: ProjectOption = Path(),
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    environment: EnvironmentOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write a training set to a file, after checking that it is what was built, bit by bit."""
    if out.suffix not in _WRITERS:
        raise ConfigurationError(f"--out {out}: its ending must be one of {', '.join(_WRITERS)}")
    loaded = load_project(project)
    sets = TrainingSets(archive_of(loaded, archive, environment), _model(loaded, model))
    with _status(f"reading {name}", quiet=as_json):
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


def _material(
    loaded: Project,
    folder: Path,
    model: ModelDeclaration,
    source: SourceKind,
    span: Span,
    location: str,
    environment: str,
    made_from: Any,
    tell: Tell,
) -> Material:
    """Read what a set is made from; where it was made before, up to where it was read then."""
    if source is SourceKind.FILES:
        tell("history")
        return from_files(loaded, span)
    if source is SourceKind.ARCHIVE:
        log = ArchiveLog(archive_of(loaded, location, environment), tell)
        return from_log(loaded, model, log, span, made_from=made_from, tell=tell)
    settings, _ = settings_for(folder)
    with (
        LogReader(settings.kafka_config()) as reader,
        SchemaRegistry(settings.schema_registry_url) as registry,
    ):
        records = TopicRecords(reader, Topics(loaded.name, environment), registry, tell)
        return from_log(loaded, model, TopicLog(records), span, made_from=made_from, tell=tell)


def _pins(before: TrainingSetVersion | None, source: SourceKind, span: Span) -> Any:
    """Return what a set of this name was made from; ConfigurationError where something else is asked for now."""
    if before is None or not before.manifest:
        return None
    asked = {"source": source.value, "span": span.as_json()}
    there = {key: before.manifest.get(key) for key in asked}
    if there != asked:
        raise ConfigurationError(
            f"the training set {before.name!r} was built {before.created_at} from {there['source']}, {there['span']}: a "
            "name means the same rows for ever, take another"
        )
    return before.manifest


def _made_by(found: TrainingSetVersion) -> tuple[SourceKind, Span]:
    told = found.manifest.get("span")
    if told is None:
        raise ConfigurationError(
            f"the training set {found.name!r} does not say what it was made from: it is older than that; build it anew"
        )
    span = Span(**{f"{name}_us": text_us(text) for name, text in told.items()})
    return SourceKind(found.manifest["source"]), span


def _accepted(found: TrainingSetVersion) -> list[str]:
    report = found.manifest.get("leak_check") or {}
    return [one["column"] for one in report.get("accepted", ())]


def _stored_rows(
    model: ModelDeclaration, found: TrainingSetVersion, table: pa.Table
) -> tuple[Rows, pa.ChunkedArray]:
    missing = [
        name
        for name in (*model.numeric_columns, *model.categorical_columns)
        if name not in table.column_names
    ]
    if missing:
        raise ConfigurationError(
            f"the training set {found.name!r} has no columns {', '.join(missing)}: the project has changed since; check "
            "it with the project as it was then"
        )
    return rows_of(model, table), table[REQUEST_ID]


def _check_unchanged(
    project: Project, model: ModelDeclaration, found: TrainingSetVersion, material: Material
) -> None:
    """Refuse to hold a set against other views, or another history, than it was made from."""
    views, tables = code_of(project, model)["views"], material.made_from.get("tables", {})
    then = {**found.manifest.get("views", {}), **found.manifest.get("tables", {})}
    changed = [name for name, told in {**views, **tables}.items() if then.get(name) != told]
    if changed:
        raise ConfigurationError(
            f"{', '.join(changed)}: not what the training set {found.name!r} was made from; check it with the project, and "
            "the history, as they were then"
        )


def _in_order(material: Material, request_ids: pa.ChunkedArray, name: str) -> Material:
    """Return the material with the requests of a set, in its order."""
    there = material.requests[REQUEST_ID].cast(pa.string()).combine_chunks()
    places = pc.index_in(request_ids.combine_chunks(), there)
    if places.null_count:
        raise ConfigurationError(
            f"{places.null_count:,} requests of the training set {name!r} are no longer in what it was made from: it "
            "cannot be checked against that"
        )
    return Material(
        history=material.history,
        requests=material.requests.take(places),
        join=material.join,
        made_from=material.made_from,
    )


def _evidence(project: Project, material: Material) -> Evidence:
    return Evidence(
        events=material.history.events,
        requests=material.requests,
        answered_us=material.answered_us,
        join=material.join,
        future_skew_us=project.future_skew_us,
    )


def _model(project: Project, name: str) -> str:
    if name in project.models:
        return name
    names = ", ".join(sorted(project.models)) or "none"
    if not name and len(project.models) == 1:
        return next(iter(project.models))
    raise ConfigurationError(f"project {project.name!r} has these models: {names}; name one with --model")


def _span(since: str, until: str, known_by: str) -> Span:
    until_us = _instant("--until", until)
    known_by_us = _instant("--known-by", known_by) if known_by else until_us
    return Span(since_us=_instant("--since", since), until_us=until_us, known_by_us=known_by_us)


def _instant(option: str, text: str) -> int:
    try:
        return text_us(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} {text}: is no ISO 8601 instant, like 2026-06-15T12:00") from error


@contextmanager
def _status(first: str, *, quiet: bool) -> Iterator[Tell]:
    with Console(stderr=True, quiet=quiet).status(first) as status:
        yield status.update


def _print_report(report: LeakReport, what: str, *, as_json: bool) -> None:
    if as_json:
        echo_json(report.as_json())
        return
    console = Console()
    looked = f"{report.values:,} values of {report.sampled:,} of {report.rows:,} rows computed again"
    if report.clean:
        console.print(f"{what}: no leak found; {looked}", highlight=False, soft_wrap=True)
    else:
        console.print(f"[red]{what} knows what it could not have known[/red] ({looked}):", highlight=False)
    for finding in report.findings:
        console.print(f"  {_line(finding)}", highlight=False, soft_wrap=True)
    for finding in report.accepted:
        console.print(f"  accepted: {_line(finding)}", style="dim", highlight=False, soft_wrap=True)
    for text in report.unjudged:
        console.print(f"  not judged: {escape(text)}", style="dim", highlight=False, soft_wrap=True)


def _line(finding: Finding) -> str:
    return f"{finding.column}: {escape(finding.text)} ({finding.rows:,} of {finding.of:,} rows)"


def _print_sets(found: list[TrainingSetVersion], *, as_json: bool, one: bool = False) -> None:
    if as_json:
        told = [as_dict(each) for each in found]
        echo_json(told[0] if one else told)
        return
    table = Table("model", "name", "source", "span", "built", "sha256")
    table.add_column("rows", justify="right")
    table.add_column("version", justify="right")
    for each in found:
        span = " to ".join(part for part in each.span if part)
        table.add_row(
            each.model,
            each.name,
            str(each.manifest.get("source", SourceKind.FILES.value)),
            span,
            each.created_at[:19],
            each.sha256[:12],
            f"{each.rows:,}",
            str(each.version),
        )
    Console().print(table)
