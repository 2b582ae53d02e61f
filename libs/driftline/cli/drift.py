"""`driftline drift status|history|explain`: which features, which segments, since when, how bad."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from driftline.cli.options import JsonOption, ProjectOption, settings_for
from driftline.contracts.project_schemas import PLATFORM_RECORDS, platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import DRIFT_SIGNALS, WINDOW_REPORTS
from driftline.contracts.wire import split
from driftline.playback.topic_reading import TopicReader

app = typer.Typer(
    help="What the monitor sees: drift, its damage, where and since when.", no_args_is_help=True
)

_BARS = "▁▂▃▄▅▆▇█"
_STYLES = {"NONE": "green", "WARNING": "yellow", "ALERT": "red", "RETRAIN": "bold red", "RESOLVED": "green"}
Records = list[dict[str, Any]]

ModelOption = Annotated[str, typer.Option("--model", help="The model; all unless said.")]


@app.command("status")
def status(*, model: ModelOption = "", project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Show each open problem: its level, since when, its damage, what moved most; worst damage first.

    Example: driftline drift status
    """
    signals = _read(project, DRIFT_SIGNALS)
    problems = open_problems(one for one in signals if not model or one["model"] == model)
    if as_json:
        typer.echo(_json(problems))
        return
    if not problems:
        typer.echo("no open problem")
        return
    table = Table()
    for heading in ("model", "segment", "level", "since", "damage (log loss)", "what"):
        table.add_column(heading)
    for one in problems:
        level = one["level"]
        table.add_row(
            f"{one['model']}@{one['model_version']}",
            one["segment"] or "everything",
            f"[{_STYLES[level]}]{level.lower()}[/]",
            f"{one['since']:%Y-%m-%d}",
            _damage(one),
            one["explanation"],
        )
    Console().print(table)


@app.command("history")
def history(
    *,
    model: ModelOption = "",
    segment: Annotated[str, typer.Option(help="Like origin=JFK; everything unless said.")] = "",
    windows: Annotated[int, typer.Option(min=1, help="How many of the newest windows.")] = 30,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show window by window how a model did: rows, log loss beside the moving average, level.

    Example: driftline drift history --segment origin=JFK
    """
    reports = [
        one
        for one in _read(project, WINDOW_REPORTS)
        if one["segment"] == segment and (not model or one["model"] == model)
    ]
    reports.sort(key=lambda one: (one["window_start"], one["kind"]))
    outcomes = [one for one in reports if one["kind"] == "OUTCOMES"][-windows:]
    if as_json:
        typer.echo(_json(reports[-2 * windows :]))
        return
    if not outcomes:
        typer.echo("no window of outcomes is closed yet")
        return
    losses = [orjson.loads(one["measurements"])["log_loss"] for one in outcomes]
    highest = max(losses)
    table = Table()
    for heading in ("window", "version", "outcomes", "log loss", "", "moving average", "damage", "level"):
        table.add_column(heading, justify="right" if heading in {"outcomes", "log loss"} else "left")
    for one, loss in zip(outcomes, losses, strict=True):
        baseline = orjson.loads(one["measurements"])["baselines"].get("moving_average")
        table.add_row(
            f"{one['window_start']:%Y-%m-%d %H:%M}",
            one["model_version"],
            f"{one['rows']:,}",
            f"{loss:.4f}",
            _bar(loss, highest),
            "" if baseline is None else f"{baseline['log_loss']:.4f}",
            _damage(one),
            f"[{_STYLES[one['level']]}]{one['level'].lower()}[/]",
        )
    Console().print(table)


@app.command("explain")
def explain(
    *,
    model: ModelOption = "",
    segment: Annotated[str, typer.Option(help="Like origin=JFK; everything unless said.")] = "",
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Explain the newest closed window of predictions: what moved, how far beyond its threshold.

    Example: driftline drift explain --segment carrier=EV
    """
    reports = [
        one
        for one in _read(project, WINDOW_REPORTS)
        if one["kind"] == "PREDICTIONS" and one["segment"] == segment and (not model or one["model"] == model)
    ]
    if not reports:
        typer.echo("no window of predictions is closed yet")
        return
    newest = max(reports, key=lambda one: one["window_start"])
    moved = orjson.loads(newest["measurements"])
    if as_json:
        typer.echo(_json({**newest, "measurements": moved}))
        return
    console = Console()
    console.print(
        f"{newest['model']}@{newest['model_version']}, {segment or 'everything'}, "
        f"{newest['window_start']:%Y-%m-%d %H:%M} to {newest['window_end']:%Y-%m-%d %H:%M} UTC: "
        f"{newest['rows']:,} predictions, damage {_damage(newest)}",
        highlight=False,
    )
    if not moved:
        console.print("nothing passed its threshold")
        return
    table = Table()
    for heading in ("column", "check", "value", "threshold", ""):
        table.add_column(heading, justify="right" if heading in {"value", "threshold"} else "left")
    largest = max(one["value"] / max(one["threshold"], 1e-12) for one in moved)
    for one in moved:
        table.add_row(
            one["column"] or "score",
            one["check"],
            f"{one['value']:.4g}",
            f"{one['threshold']:.4g}",
            _bar(one["value"] / max(one["threshold"], 1e-12), largest),
        )
    console.print(table)


def open_problems(signals: Any) -> Records:
    """Return the newest signal of each problem that is not resolved, the largest damage first."""
    newest: dict[tuple[str, str, str], dict[str, Any]] = {}
    for one in signals:
        key = (one["model"], one["model_version"], one["segment"])
        if key not in newest or one["raised_at"] >= newest[key]["raised_at"]:
            newest[key] = one
    problems = [one for one in newest.values() if one["level"] != "RESOLVED"]
    return sorted(problems, key=lambda one: one["damage_log_loss"] or 0.0, reverse=True)


def _read(project: Path, stream: str) -> Records:
    """Return all records of a stream, each id once, in the log's order."""
    settings, loaded = settings_for(project)
    topics = settings.topics(loaded)
    codec = RecordCodec(platform_schema(PLATFORM_RECORDS[stream]))
    found: dict[str, dict[str, Any]] = {}
    identity = "signal_id" if stream == DRIFT_SIGNALS else "report_id"
    with (
        SchemaRegistry(settings.schema_registry_url) as registry,
        TopicReader(settings.kafka_config(), [topics.stream(stream)]) as reader,
    ):
        for message in reader.read_to_end():
            schema_id, body = split(message.value())
            record = codec.decode(body, registry.schema(schema_id))
            found[record[identity]] = record
    return list(found.values())


def _damage(one: Mapping[str, Any]) -> str:
    if one["damage_log_loss"] is None:
        return "unknown"
    return f"{one['damage_log_loss']:+.3f} {'measured' if one['damage_measured'] else 'estimated'}"


def _bar(value: float, highest: float, width: int = 12) -> str:
    """Return a bar of text blocks; a full one for the highest value.

    >>> _bar(0.5, 1.0, width=4)
    '██'
    """
    eighths = round(max(value, 0.0) / highest * width * 8) if highest > 0 else 0
    return "█" * (eighths // 8) + (_BARS[eighths % 8 - 1] if eighths % 8 else "")


def _json(value: Sequence[Any] | Mapping[str, Any]) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2, default=_plain).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
