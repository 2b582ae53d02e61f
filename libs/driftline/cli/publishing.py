"""`driftline publish FILE` and `driftline tail TOPIC`."""

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import httpx
import orjson
import typer
from confluent_kafka import Message
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from driftline.batch.event_files import Row, read_events
from driftline.cli.decoding import ValueDecoder, headers_of, text_of, time_of
from driftline.cli.options import JsonOption, ProjectOption, settings_for
from driftline.contracts.project_schemas import published_types
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.playback.topic_reading import TopicReader
from driftline.project import EventType, Project
from driftline.runtime.errors import BadMessageError, ConfigurationError, RefusedError, UnavailableError
from driftline.runtime.ids import new_id
from driftline.runtime.instance_file import read_instance_files
from driftline.streaming.dead_letters import read_origin

_LIST_ROWS = 500
_ATTEMPTS = 8
_SHOWN_MISTAKES = 20


@dataclass(slots=True, kw_only=True)
class _Outcome:
    accepted: int = 0
    mistakes: list[Row] = field(default_factory=list)


def publish(
    file: Annotated[Path, typer.Argument(help="CSV, JSON lines, Parquet or Avro; known by its ending.")],
    *,
    event_type: Annotated[
        str, typer.Option("--type", help="The event type; the file's name says it unless given.")
    ] = "",
    url: Annotated[
        str, typer.Option(envvar="DRIFTLINE_INGEST_URL", help="Ingest, where it is not this machine's own.")
    ] = "",
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Publish the events of a file through ingest; each row is acknowledged or its mistake is shown.

    Example: driftline publish departures.csv --project examples/flights
    """
    settings, loaded = settings_for(project)
    kind = _event_type(loaded, event_type or file.stem)
    url = url or ingest_url(settings.state)
    console = Console(stderr=True, quiet=as_json)
    outcome = _Outcome()
    with (
        _progress(console) as progress,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        task = progress.add_task(f"Publishing {kind.name}", total=None)
        rows = read_events(file, kind.schema)
        while chunk := list(islice(rows, _LIST_ROWS)):
            _publish(client, kind, chunk, outcome)
            progress.advance(task, len(chunk))
    if as_json:
        rejected = [{"row": row.number, "error": row.mistake} for row in outcome.mistakes]
        typer.echo(orjson.dumps({"accepted": outcome.accepted, "rejected": rejected}).decode())
    else:
        for row in outcome.mistakes[:_SHOWN_MISTAKES]:
            console.print(f"row {row.number}: {row.mistake}", style="red", markup=False, highlight=False)
        hidden = len(outcome.mistakes) - _SHOWN_MISTAKES
        if hidden > 0:
            console.print(f"and {hidden:,} more; --json lists them all")
        console.print(f"{outcome.accepted:,} accepted, {len(outcome.mistakes):,} rejected")
    if outcome.mistakes:
        raise typer.Exit(1)


def tail(
    topic: Annotated[str, typer.Argument(help="A topic, or a stream or event type of the project.")],
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the newest to show.")] = 10,
    from_beginning: Annotated[bool, typer.Option(help="Show everything the topic holds.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show a topic's records, decoded, as a consumer of committed records sees them.

    Example: driftline tail predictions --follow
    """
    settings, loaded = settings_for(project)
    topics = settings.topics(loaded)
    name = topic if topic in topics.all_of(loaded) or "." in topic else topics.stream(topic)
    show = _show_json if as_json else _show
    with (
        SchemaRegistry(settings.schema_registry_url) as registry,
        TopicReader(settings.kafka_config(), [name]) as reader,
    ):
        decoder = ValueDecoder(registry)
        if not from_beginning:
            # Markers of transactions take offsets too, so a few more are read than are shown.
            reader.seek_back(2 * lines + 10)
        found: Iterable[Message] = reader.read_to_end()
        if not from_beginning:
            found = deque(sorted(found, key=lambda message: message.timestamp()[1]), maxlen=lines)
        for message in found:
            show(message, decoder)
        try:
            while follow:
                for message in reader.poll(1.0):
                    show(message, decoder)
        except KeyboardInterrupt:
            return


def ingest_url(state: Path) -> str:
    """Return where this machine's ingest listens.

    Raises
    ------
    ConfigurationError
        Where none is running.
    """
    for instance in read_instance_files(state):
        if instance.service == "ingest":
            return f"http://127.0.0.1:{instance.port}"
    raise ConfigurationError("ingest does not run here; start it with `driftline up`, or name one with --url")


def _event_type(project: Project, name: str) -> EventType:
    types = published_types(project)
    if name not in types:
        known = ", ".join(sorted(types))
        raise ConfigurationError(
            f"{name!r} is no event type of {project.name}; name one with --type: {known}"
        )
    return types[name]


def _publish(client: httpx.Client, kind: EventType, rows: Sequence[Row], outcome: _Outcome) -> None:
    """Check rows here, so that a mistake names its row, and send the good ones."""
    codec = RecordCodec(dict(kind.schema))
    numbers, events = [], []
    for row in rows:
        mistake = row.mistake
        if row.event is not None:
            # The id is made here, so that a list that is sent again changes nothing.
            event = {**row.event, kind.event_id: row.event.get(kind.event_id) or new_id()}
            try:
                codec.from_json(event)
            except BadMessageError as error:
                mistake = error.reason
            else:
                numbers.append(row.number)
                events.append(event)
        if mistake:
            outcome.mistakes.append(Row(number=row.number, mistake=mistake))
    if not events:
        return
    for number, result in zip(numbers, _post(client, kind.name, events), strict=True):
        if result["status"] == "accepted":
            outcome.accepted += 1
        else:
            outcome.mistakes.append(Row(number=number, mistake=str(result.get("error"))))


def _post(client: httpx.Client, name: str, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    body = orjson.dumps(events)
    answer = None
    for attempt in range(_ATTEMPTS):
        try:
            answer = client.post(
                f"/v1/events/{name}", content=body, headers={"Content-Type": "application/json"}
            )
        except httpx.TransportError as error:
            if attempt == _ATTEMPTS - 1:
                raise UnavailableError(f"ingest at {client.base_url} does not answer: {error}") from error
            time.sleep(min(0.2 * 2**attempt, 5.0))
            continue
        if answer.status_code not in (429, 503):
            break
        time.sleep(min(float(answer.headers.get("Retry-After", 1)), 10.0))
    found = {} if answer is None else orjson.loads(answer.content)
    if answer is None or answer.status_code in (429, 503):
        raise UnavailableError(f"ingest takes no events now: {found.get('detail', 'it does not answer')}")
    if "results" not in found:
        raise RefusedError(f"ingest answered {answer.status_code}: {found.get('detail', answer.text[:300])}")
    results: list[dict[str, Any]] = found["results"]
    return results


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=console.quiet,
    )


def _as_dict(message: Message, decoder: ValueDecoder) -> dict[str, Any]:
    found: dict[str, Any] = {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": time_of(message).isoformat(timespec="milliseconds"),
        "key": text_of(message.key()),
    }
    origin = read_origin(headers_of(message))
    if origin is not None:
        return {**found, "dead_letter": origin.id, "stage": origin.stage, "error": origin.message}
    decoded = decoder.decode(message.value())
    if decoded.record is not None:
        return {**found, "value": RecordCodec.to_json(decoded.record)}
    return {**found, "error": decoded.mistake, "bytes": (message.value() or b"").hex()}


def _show_json(message: Message, decoder: ValueDecoder) -> None:
    typer.echo(orjson.dumps(_as_dict(message, decoder)).decode())


def _show(message: Message, decoder: ValueDecoder) -> None:
    found = _as_dict(message, decoder)
    place = f"{found['partition']}/{found['offset']}"
    rest = {
        name: found[name] for name in ("value", "dead_letter", "stage", "error", "bytes") if name in found
    }
    value = rest.pop("value", rest)
    typer.echo(
        f"{typer.style(found['timestamp'], dim=True)} {typer.style(place, fg='cyan')} "
        f"{typer.style(str(found['key']), fg='green')} {orjson.dumps(value).decode()}"
    )
