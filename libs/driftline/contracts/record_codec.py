"""One record at a time, strictly, with fastavro; also the oracle of the columnar codec."""

import io
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import fastavro
from fastavro.validation import validate

from driftline.runtime.errors import BadMessageError, ConfigurationError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGERS = {"int": 2**31, "long": 2**63}


class RecordCodec:
    """Encodes and decodes bodies (without the wire header) of one record schema.

    Raises
    ------
    ConfigurationError
        For schemas that one small message could make endless: arrays of items without size, recursion.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = dict(schema)
        check_bounded(self.schema)
        self._parsed = fastavro.parse_schema(self.schema)
        self._writers: dict[int, Any] = {}

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Return the body of a record; raise BadMessageError where it does not fit the schema."""
        body = io.BytesIO()
        try:
            fastavro.schemaless_writer(body, self._parsed, record, strict=False)
        except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
            raise BadMessageError(f"does not fit the schema: {error}", stage="encode") from error
        return body.getvalue()

    def decode(self, body: bytes, writer: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the record of a body; raise BadMessageError for truncated, trailing or impossible bytes."""
        source = io.BytesIO(body)
        try:
            if writer is None or writer == self.schema:
                record = fastavro.schemaless_reader(source, self._parsed, None)
            else:
                record = fastavro.schemaless_reader(source, self._writer(writer), self._parsed)
        except (
            EOFError,
            ValueError,
            TypeError,
            IndexError,
            KeyError,
            OverflowError,
            MemoryError,
            StopIteration,
            AssertionError,
        ) as error:
            raise BadMessageError(f"cannot be decoded: {type(error).__name__}: {error}") from error
        except fastavro.schema.SchemaParseException as error:
            raise BadMessageError(f"cannot be decoded: {error}") from error
        if source.tell() != len(body):
            raise BadMessageError(f"{len(body) - source.tell()} bytes follow the record")
        return dict(record)  # type: ignore[arg-type]

    def from_json(self, value: Any) -> dict[str, Any]:
        """Return the record that a JSON object means.

        Times are ISO 8601 texts with an offset (or Z), or whole microseconds since the epoch.

        Raises
        ------
        BadMessageError
            Names the path of the field that is wrong, missing or unknown.
        """
        record = _from_json(self.schema, value, "")
        validate(record, self._parsed)
        return record  # type: ignore[no-any-return]

    @staticmethod
    def to_json(record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record as JSON can hold it: times in ISO 8601, NaN and infinities as null."""
        return {name: _to_json(value) for name, value in record.items()}

    def _writer(self, writer: Mapping[str, Any]) -> Any:
        key = id(writer)
        if key not in self._writers:
            check_bounded(writer)
            self._writers[key] = (writer, fastavro.parse_schema(dict(writer)))
        return self._writers[key][1]


def check_bounded(schema: Any, seen: tuple[str, ...] = (), path: str = "") -> None:
    """Raise ConfigurationError for recursive schemas and for arrays whose items take no bytes."""
    if isinstance(schema, list):
        for branch in schema:
            check_bounded(branch, seen, path)
    elif isinstance(schema, str):
        if schema in seen:
            raise ConfigurationError(
                f"{path or 'the record'} is recursive; driftline takes no recursive schemas"
            )
    elif schema["type"] == "record":
        names = (*seen, schema["name"], f"{schema.get('namespace', '')}.{schema['name']}")
        for field in schema["fields"]:
            check_bounded(field["type"], names, f"{path}.{field['name']}" if path else field["name"])
    elif schema["type"] == "array":
        if _takes_no_bytes(schema["items"]):
            raise ConfigurationError(
                f"{path}: an array of items without bytes has no bound; driftline takes none"
            )
        check_bounded(schema["items"], seen, f"{path}[]")
    elif schema["type"] == "map":
        check_bounded(schema["values"], seen, f"{path}{{}}")
    elif isinstance(schema["type"], dict | list):
        check_bounded(schema["type"], seen, path)


def _takes_no_bytes(schema: Any) -> bool:
    if isinstance(schema, str):
        return schema == "null"
    if isinstance(schema, list):
        return False
    if schema["type"] == "record":
        return all(_takes_no_bytes(field["type"]) for field in schema["fields"])
    return bool(schema["type"] == "null" or (schema["type"] == "fixed" and schema["size"] == 0))


def _bad(path: str, wanted: str, value: Any) -> BadMessageError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return BadMessageError(f"{path or 'the event'}: {wanted} is wanted, got {shown}", stage="validate")


def _from_json(schema: Any, value: Any, path: str) -> Any:
    if isinstance(schema, list):
        if value is None and "null" in schema:
            return None
        branches = [branch for branch in schema if branch != "null"]
        if len(branches) == 1:
            return _from_json(branches[0], value, path)
        for branch in branches:
            try:
                return _from_json(branch, value, path)
            except BadMessageError:
                continue
        raise _bad(path, " or ".join(str(branch) for branch in branches), value)
    if isinstance(schema, dict) and isinstance(schema["type"], dict | list):
        return _from_json(schema["type"], value, path)
    kind = schema if isinstance(schema, str) else schema["type"]
    logical = schema.get("logicalType") if isinstance(schema, dict) else None
    if logical in {"timestamp-micros", "timestamp-millis"}:
        return _time(value, path)
    if logical == "date":
        return _date(value, path)
    if kind == "record":
        return _record(schema, value, path)
    if kind == "array":
        if not isinstance(value, list):
            raise _bad(path, "a list", value)
        return [_from_json(schema["items"], item, f"{path}[{index}]") for index, item in enumerate(value)]
    if kind == "map":
        if not isinstance(value, dict):
            raise _bad(path, "an object", value)
        return {name: _from_json(schema["values"], item, f"{path}.{name}") for name, item in value.items()}
    if kind == "enum":
        if value not in schema["symbols"]:
            raise _bad(path, f"one of {', '.join(schema['symbols'])}", value)
        return value
    return _primitive(kind, value, path)


def _primitive(kind: str, value: Any, path: str) -> Any:
    if kind in _INTEGERS:
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or not -_INTEGERS[kind] <= value < _INTEGERS[kind]
        ):
            raise _bad(path, "a whole number", value)
        return value
    if kind in {"float", "double"}:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _bad(path, "a finite number", value)
        return float(value)
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "string" and isinstance(value, str):
        return value
    if kind == "bytes" and isinstance(value, str):
        try:
            return value.encode("iso-8859-1")
        except UnicodeEncodeError:
            raise _bad(path, "bytes, written as code points up to 255", value) from None
    raise _bad(path, {"boolean": "true or false", "string": "a text"}.get(kind, kind), value)


def _record(schema: Mapping[str, Any], value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(path, "an object", value)
    fields = {field["name"]: field for field in schema["fields"]}
    for name in value:
        if name not in fields:
            raise BadMessageError(f"{path}.{name}".lstrip(".") + ": no such field", stage="validate")
    record = {}
    for name, field in fields.items():
        place = f"{path}.{name}" if path else name
        if name in value:
            record[name] = _from_json(field["type"], value[name], place)
        elif "default" in field:
            record[name] = field["default"]
        else:
            raise BadMessageError(f"{place}: the field is missing", stage="validate")
    return record


def _time(value: Any, path: str) -> datetime:
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return _EPOCH + timedelta(microseconds=value)
        except OverflowError:
            raise _bad(path, "a time between the years 1 and 9999", value) from None
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            raise _bad(path, "an ISO 8601 time with an offset, like 2013-04-01T12:00:00Z", value) from None
        if parsed.tzinfo is None:
            raise _bad(path, "a time with an offset (end it with Z for UTC)", value)
        try:
            return parsed.astimezone(UTC)
        except OverflowError:
            raise _bad(path, "a time between the years 1 and 9999", value) from None
    raise _bad(path, "an ISO 8601 time or whole microseconds since the epoch", value)


def _date(value: Any, path: str) -> date:
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise _bad(path, "an ISO 8601 date", value) from None


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("iso-8859-1")
    if isinstance(value, Mapping):
        return {name: _to_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    return value
