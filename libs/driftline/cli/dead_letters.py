"""`driftline dead-letters list|show|resubmit`: what went aside, why, and how it goes back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from confluent_kafka import KafkaError, Message, Producer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from driftline.cli.decoding import Decoded, ValueDecoder, headers_of, text_of, time_of
from driftline.cli.options import JsonOption, ProjectOption, settings_for
from driftline.contracts.project_schemas import published_types
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry, project_topic_schemas
from driftline.contracts.topics import Topics
from driftline.contracts.wire import frame
from driftline.playback.topic_reading import TopicReader
from driftline.project import Project
from driftline.runtime.errors import BadMessageError, RefusedError, UnavailableError
from driftline.runtime.settings import PlatformSettings
from driftline.streaming.dead_letters import Origin, original_headers, read_origin

app = typer.Typer(help="Messages that a service could not use.", no_args_is_help=True)

#: Says of a message which dead letter it was.
RESUBMITTED = "driftline.resubmitted.from"

_FLUSH_SECONDS = 30.0
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="topic/partition/offset, as `list` shows it.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter, once, however often it was written."""

    origin: Origin
    message: Message


def read_letters(kafka: Mapping[str, Any], topic: str) -> dict[str, Letter]:
    """Return all dead letters by id, oldest first; of one that was written twice the newest copy."""
    letters: dict[str, Letter] = {}
    with TopicReader(kafka, [topic]) as reader:
        for message in reader.read_to_end():
            origin = read_origin(headers_of(message))
            if origin is not None:
                letters[origin.id] = Letter(origin=origin, message=message)
    return letters


@app.command("list")
def list_letters(
    *,
    topic: Annotated[str, typer.Option(help="Only those from this topic or stream.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest to show.")] = 50,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """List the newest dead letters: where each comes from and why it is one."""
    settings, loaded = settings_for(project)
    topics = settings.topics(loaded)
    letters = [
        letter
        for letter in read_letters(settings.kafka_config(), topics.dead_letters).values()
        if topic in ("", letter.origin.topic) or topics.stream(topic) == letter.origin.topic
    ]
    shown = letters[-limit:]
    if as_json:
        typer.echo(orjson.dumps([_as_dict(letter) for letter in shown]).decode())
        return
    table = Table(title=f"{len(shown):,} of {len(letters):,} dead letters")
    for heading in ("id", "at", "service", "stage", "why"):
        table.add_column(heading, overflow="fold")
    for letter in shown:
        at = time_of(letter.message).isoformat(sep=" ", timespec="seconds")
        origin = letter.origin
        table.add_row(origin.id, at, origin.service, origin.stage, escape(origin.message))
    Console().print(table)


@app.command("show")
def show_letter(
    letter_id: IdArgument, *, project: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Show one dead letter: the reason, its headers, its bytes, and its record where they can be decoded."""
    settings, loaded = settings_for(project)
    letter = _find(settings, settings.topics(loaded), letter_id)
    with SchemaRegistry(settings.schema_registry_url) as registry:
        decoded = ValueDecoder(registry).decode(letter.message.value())
    found = {**_as_dict(letter), **_content(letter, decoded)}
    if as_json:
        typer.echo(orjson.dumps(found).decode())
        return
    console = Console()
    for name, value in found.items():
        text = (
            orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
            if isinstance(value, dict)
            else str(value)
        )
        console.print(f"{name}: {text}", markup=False)


@app.command("resubmit")
def resubmit_letter(
    letter_id: IdArgument,
    *,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field first; as JSON, else text."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Send this file instead: a .json record, or the bytes as they are.")
    ] = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Send a dead letter to its topic again: as it is, with fields changed, or with edited content.

    Example: driftline dead-letters resubmit flights.arrivals/0/17 --set arrival_delay=12
    """
    settings, loaded = settings_for(project)
    topics = settings.topics(loaded)
    letter = _find(settings, topics, letter_id)
    if changes and file is not None:
        raise RefusedError("--set changes the original and --file replaces it; give one of them")
    with SchemaRegistry(settings.schema_registry_url) as registry:
        desk = _Desk(project=loaded, topics=topics, registry=registry)
        if file is not None:
            value: bytes | None = desk.replaced(letter, file)
        elif changes:
            value = desk.changed(letter, changes)
        else:
            value = _as_it_is(letter)
        key = desk.key(letter, value)
    headers = [*original_headers(headers_of(letter.message)), (RESUBMITTED, letter_id.encode())]
    sent = _produce(settings.kafka_config(), letter.origin.topic, key, value, headers)
    if as_json:
        typer.echo(
            orjson.dumps(
                {"topic": sent.topic(), "partition": sent.partition(), "offset": sent.offset()}
            ).decode()
        )
    else:
        typer.echo(f"sent as {sent.topic()}/{sent.partition()}/{sent.offset()}")


def _find(settings: PlatformSettings, topics: Topics, letter_id: str) -> Letter:
    letter = read_letters(settings.kafka_config(), topics.dead_letters).get(letter_id)
    if letter is None:
        msg = f"there is no dead letter {letter_id}; `driftline dead-letters list` shows them"
        raise RefusedError(msg, status=404, title="Not found")
    return letter


def _as_dict(letter: Letter) -> dict[str, Any]:
    return {"id": letter.origin.id, "at": time_of(letter.message).isoformat(), **asdict(letter.origin)}


def _content(letter: Letter, decoded: Decoded) -> dict[str, Any]:
    value = letter.message.value()
    return {
        "key": text_of(letter.message.key()),
        "headers": {name: text_of(content) for name, content in headers_of(letter.message)},
        "bytes": None if value is None else value.hex(),
        "schema_id": decoded.schema_id,
        "record": None if decoded.record is None else RecordCodec.to_json(decoded.record),
        "decoding": decoded.mistake or "ok",
    }


def _as_it_is(letter: Letter) -> bytes | None:
    if letter.origin.truncated_from is not None:
        raise RefusedError(f"only a part of its {letter.origin.truncated_from:,} bytes was kept; give --file")
    return letter.message.value()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """Edits dead letters with the project's schemas."""

    project: Project
    topics: Topics
    registry: SchemaRegistry

    def replaced(self, letter: Letter, file: Path) -> bytes:
        """Return a file's content: a .json record encoded, anything else as it is."""
        try:
            content = file.read_bytes()
        except OSError as error:
            raise RefusedError(f"{file} cannot be read: {error}") from error
        return self._encode(letter.origin.topic, _json(content, file)) if file.suffix == ".json" else content

    def changed(self, letter: Letter, changes: list[str]) -> bytes:
        """Return the original with some fields changed."""
        decoded = ValueDecoder(self.registry).decode(letter.message.value())
        if decoded.record is None:
            msg = f"its fields cannot be changed, for it cannot be decoded ({decoded.mistake}); give --file"
            raise RefusedError(msg)
        record = RecordCodec.to_json(decoded.record)
        for change in changes:
            name, separator, text = change.partition("=")
            if not separator or name not in record:
                raise RefusedError(f"--set {change}: write FIELD=VALUE; its fields are {', '.join(record)}")
            try:
                record[name] = orjson.loads(text)
            except orjson.JSONDecodeError:
                record[name] = text
        return self._encode(letter.origin.topic, record)

    def key(self, letter: Letter, value: bytes | None) -> bytes | None:
        """Return the key that belongs to a value: that of its key field, or the original's."""
        for event_type in published_types(self.project).values():
            if self.topics.events(event_type.name) == letter.origin.topic:
                record = ValueDecoder(self.registry).decode(value).record
                if record is not None and isinstance(record.get(event_type.key), str):
                    return str(record[event_type.key]).encode()
        key = letter.message.key()
        return key.encode() if isinstance(key, str) else key

    def _encode(self, topic: str, record: dict[str, Any]) -> bytes:
        schemas = project_topic_schemas(self.project, self.topics)
        if topic not in schemas:
            msg = f"{topic} is no topic with a schema of project {self.project.name}; give --file with the bytes"
            raise RefusedError(msg)
        codec = RecordCodec(schemas[topic])
        try:
            body = codec.encode(codec.from_json(record))
        except BadMessageError as error:
            raise RefusedError(f"the record does not fit the schema: {error.reason}") from error
        return frame(self.registry.schema_id(self.topics.subject(topic), schemas[topic]), body)


def _json(content: bytes, file: Path) -> dict[str, Any]:
    try:
        record = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise RefusedError(f"{file} is no JSON: {error}") from error
    if not isinstance(record, dict):
        raise RefusedError(f"{file} holds no JSON object")
    return record


def _produce(
    kafka: Mapping[str, Any],
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, str | bytes | None]],
) -> Message:
    producer = Producer({**kafka, "acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random"})
    sent: list[Message] = []
    failures: list[str] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            sent.append(message)
        else:
            failures.append(error.str())

    producer.produce(topic, value, key, headers=list(headers), on_delivery=delivered)
    producer.flush(_FLUSH_SECONDS)
    if not sent:
        raise UnavailableError(
            f"the broker did not take it: {failures[0] if failures else 'no answer in time'}"
        )
    return sent[0]
