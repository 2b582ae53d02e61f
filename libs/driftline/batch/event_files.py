"""Read events from a file: CSV, JSON lines, Parquet or Avro, a row at a time, with the mistakes of each row."""

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import fastavro
import orjson
import pyarrow.parquet as pq

from driftline.project.event_types import field_type
from driftline.runtime.errors import ConfigurationError

_BATCH_ROWS = 5_000
_TRUE, _FALSE = {"true", "t", "yes", "1"}, {"false", "f", "no", "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a file: its number (from 1; in CSV the line below the header is 1), its event or its mistake."""

    number: int
    event: Mapping[str, Any] | None = None
    mistake: str = ""


def read_events(path: Path, schema: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of a file as JSON events of a schema.

    Raises
    ------
    ConfigurationError
        Where the file cannot be read, or its ending names no known format.
    """
    readers: dict[str, Callable[[Path, Mapping[str, Any]], Iterator[Row]]] = {
        ".csv": _csv,
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".parquet": _parquet,
        ".avro": _avro,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigurationError(f"{path}: the format is not known by its ending; use {', '.join(readers)}")
    if not path.is_file():
        raise ConfigurationError(f"{path}: there is no such file")
    return reader(path, schema)


def _csv(path: Path, schema: Mapping[str, Any]) -> Iterator[Row]:
    """Read texts, and make of each what its field wants; an empty cell is null, or text where null is none."""
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines, restkey="", strict=True)
        number = 0
        while True:
            number += 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError) as error:
                yield Row(number=number, mistake=str(error))
                return
            if "" in cells:
                yield Row(
                    number=number, mistake=f"has more cells than the header ({len(reader.fieldnames or ())})"
                )
                continue
            try:
                yield Row(
                    number=number,
                    event={name: _cell(schema, name, text) for name, text in cells.items()},
                )
            except ValueError as error:
                yield Row(number=number, mistake=str(error))


def _cell(schema: Mapping[str, Any], name: str, text: str | None) -> Any:
    kind = field_type(schema, name)
    base = kind["type"] if isinstance(kind, dict) else kind
    logical = kind.get("logicalType") if isinstance(kind, dict) else None
    if text is None or (text == "" and base != "string"):
        return None
    if text == "" and _nullable(schema, name):
        return None
    try:
        if base in {"int", "long"} and (logical is None or text.lstrip("-").isdigit()):
            return int(text)
        if base in {"float", "double"}:
            return float(text)
    except ValueError:
        raise ValueError(f"{name}: a number is wanted, got {text!r}") from None
    if base == "boolean":
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ValueError(f"{name}: true or false is wanted, got {text!r}")
    return text


def _nullable(schema: Mapping[str, Any], name: str) -> bool:
    return any(
        field["name"] == name and isinstance(field["type"], list) and "null" in field["type"]
        for field in schema["fields"]
    )


def _json_lines(path: Path, _schema: Mapping[str, Any]) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                event = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield Row(number=number, mistake=f"is no JSON: {error}")
                continue
            if isinstance(event, dict):
                yield Row(number=number, event=event)
            else:
                yield Row(number=number, mistake="is no JSON object")


def _parquet(path: Path, _schema: Mapping[str, Any]) -> Iterator[Row]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number=number, event=_plain(values))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read as Parquet: {error}") from error


def _avro(path: Path, _schema: Mapping[str, Any]) -> Iterator[Row]:
    try:
        with path.open("rb") as file:
            for number, values in enumerate(fastavro.reader(file), 1):
                yield Row(number=number, event=_plain(values))
    except (EOFError, ValueError, KeyError, IndexError) as error:
        raise ConfigurationError(f"{path}: cannot be read as an Avro file: {error}") from error


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: times as microseconds since the epoch, naive ones taken as UTC."""
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
        return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("iso-8859-1")
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
