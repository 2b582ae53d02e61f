"""`driftline activity`: what happened to the project, in the order of time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from driftline.alerts.alert import Alert, to_iso
from driftline.cli.activity_feed import Entry, Subject, feed
from driftline.cli.feature_status import standings_of
from driftline.cli.filling_feed import filling_feed
from driftline.cli.options import JsonOption, ProjectOption, echo_json, settings_for
from driftline.contracts.project_schemas import PLATFORM_RECORDS, platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import ALERTS, DRIFT_SIGNALS, MODEL_EVENTS, RETRAIN_REQUESTS
from driftline.contracts.wire import split
from driftline.models.model_event import ModelEvent
from driftline.playback.topic_reading import TopicReader
from driftline.project import Project
from driftline.runtime.clock import SystemClock, text_us
from driftline.runtime.durations import parse_duration_us
from driftline.runtime.errors import BadMessageError, ConfigurationError, UnavailableError
from driftline.runtime.settings import PlatformSettings

_STYLES = {
    Subject.VIEW: "cyan",
    Subject.DEPRECATION: "yellow",
    Subject.MODEL: "green",
    Subject.DRIFT: "magenta",
    Subject.RETRAIN: "blue",
    Subject.ALERT: "red",
}
_STREAMS = (MODEL_EVENTS, DRIFT_SIGNALS, RETRAIN_REQUESTS, ALERTS)


def activity(
    *,
    since: Annotated[
        str,
        typer.Option(
            help="How far back, like 7d, or an ISO 8601 instant (UTC unless it says); all unless said."
        ),
    ] = "",
    model: Annotated[str, typer.Option(help="Only what is about this model.")] = "",
    subject: Annotated[Subject | None, typer.Option(help="Only that.", case_sensitive=False)] = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Tell what happened, the oldest first: views, deprecations, models, drift, retrains, alerts.

    Example: driftline activity --since 7d
    """
    from_us = begin_us(since, SystemClock().now_us())
    entries = [
        one
        for one in _entries(project)
        if one.at_us >= from_us and (not model or one.model == model) and subject in (None, one.subject)
    ]
    if as_json:
        echo_json([one.as_json() for one in entries])
        return
    if not entries:
        typer.echo("nothing happened" + (f" since {to_iso(from_us)}" if since else ""))
        return
    console = Console()
    for one in entries:
        console.print(line(one), highlight=False, soft_wrap=True)


def begin_us(since: str, now_us: int) -> int:
    """Return the instant from which on to tell, in microseconds; ConfigurationError for what is none.

    >>> begin_us("1h", 3_600_000_005), begin_us("1970-01-01T00:00:01", 0), begin_us("", 7)
    (5, 1000000, 0)
    """
    if not since:
        return 0
    try:
        return now_us - parse_duration_us(since)
    except ValueError:
        pass
    try:
        return text_us(since)
    except ValueError:
        raise ConfigurationError(
            f"--since {since!r} is neither a duration, like 7d, nor an instant, like 2026-06-01T12:00"
        ) from None


def line(entry: Entry) -> str:
    """Return an entry as a line, with the terminal's markup."""
    at = to_iso(entry.at_us // 1_000_000 * 1_000_000)
    style = _STYLES[entry.subject]
    who = f"{entry.model}: " if entry.model else ""
    return f"{at} [{style}]{entry.subject:<11}[/] {escape(f'{who}{entry.text} ({entry.by})')}"


def _entries(project: Path) -> list[Entry]:
    settings, loaded = settings_for(project)
    topics = settings.topics(loaded)
    names = {topics.stream(stream): stream for stream in _STREAMS}
    found: dict[str, list[dict[str, Any]]] = {stream: [] for stream in _STREAMS}
    with (
        SchemaRegistry(settings.schema_registry_url) as registry,
        TopicReader(settings.kafka_config(), names) as reader,
    ):
        for stream, record in _records(reader, registry, names):
            found[stream].append(record)
    told = feed(
        list(map(ModelEvent.of, found[MODEL_EVENTS])),
        found[DRIFT_SIGNALS],
        found[RETRAIN_REQUESTS],
        map(Alert.from_record, found[ALERTS]),
    )
    return sorted([*told, *_fillings(settings, loaded)], key=lambda one: one.at_us)


def _fillings(settings: PlatformSettings, project: Project) -> list[Entry]:
    """Return when views were filled, which the store keeps itself; nothing where it does not answer."""
    try:
        return filling_feed(standings_of(settings, project))
    except UnavailableError as error:
        typer.echo(f"when views were filled is left out: {error}", err=True)
        return []


def _records(
    reader: TopicReader, registry: SchemaRegistry, names: dict[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield stream and record of everything that can be read; what cannot is a dead letter elsewhere."""
    codecs = {stream: RecordCodec(platform_schema(PLATFORM_RECORDS[stream])) for stream in names.values()}
    for message in reader.read_to_end():
        stream = names[message.topic() or ""]
        try:
            schema_id, body = split(message.value())
            yield stream, codecs[stream].decode(body, registry.schema(schema_id))
        except BadMessageError:
            continue
