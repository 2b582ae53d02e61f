"""One record at a time, strictly, with fastavro; also the oracle of the columnar codec."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import fastavro

from driftline.contracts.avro_types import normal_form
from driftline.contracts.json_values import from_json, to_json
from driftline.contracts.strict_bytes import strict_check
from driftline.runtime.errors import BadMessageError, ConfigurationError

#: What fastavro raises for values and bytes that do not fit; ArithmeticError holds overflows and decimals.
_FASTAVRO_ERRORS = (
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    fastavro.read.SchemaResolutionError,
)
#: How much of an error's text is kept; some hold a whole schema.
_SHOWN = 200


class RecordCodec:
    """Encodes and decodes bodies (without the wire header) of one record schema.

    Raises
    ------
    ConfigurationError
        For what is no schema of a record, and for schemas that one small message could make endless.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = dict(schema)
        self.normal = normal_form(self.schema)
        if not isinstance(self.normal, dict) or self.normal["type"] != "record":
            raise ConfigurationError("the schema is not that of a record")
        self._writers: dict[int, _Writer] = {}
        self._own = _Writer(self.schema, self.normal)
        self._from_json = from_json(self.normal)

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Return the body of a record; raise BadMessageError where it does not fit the schema."""
        body = io.BytesIO()
        try:
            fastavro.schemaless_writer(body, self._own.parsed, record)
        except _FASTAVRO_ERRORS as error:
            raise BadMessageError(f"does not fit the schema: {error}", stage="encode") from error
        return body.getvalue()

    def decode(self, body: bytes, writer: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the record of a body; raise BadMessageError for truncated, trailing or impossible bytes.

        ``writer`` is the schema that it was written with, if that is not this codec's; pass the same object
        each time, as it is prepared once.
        """
        written = self._own if writer is None or writer is self.schema else self._writer(writer)
        written.check(body)
        reader = None if written is self._own else self._own.parsed
        try:
            record = fastavro.schemaless_reader(io.BytesIO(body), written.parsed, reader)
        except _FASTAVRO_ERRORS as error:
            raise BadMessageError(
                f"cannot be decoded: {str(error)[:_SHOWN] or type(error).__name__}"
            ) from error
        return dict(record)  # type: ignore[arg-type]

    def from_json(self, value: Any) -> dict[str, Any]:
        """Return the record that a JSON object means.

        Times are ISO 8601 texts with an offset (or Z), or whole microseconds since the epoch.

        Raises
        ------
        BadMessageError
            Names the path of the field that is wrong, missing or unknown.
        """
        return self._from_json(value)

    @staticmethod
    def to_json(record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record as JSON can hold it: times in ISO 8601, NaN and infinities as null."""
        return {name: to_json(value) for name, value in record.items()}

    def _writer(self, schema: Mapping[str, Any]) -> "_Writer":
        found = self._writers.get(id(schema))
        if found is None:
            try:
                found = _Writer(schema, normal_form(schema))
            except ConfigurationError as error:
                raise BadMessageError(f"its writer's schema is refused: {error}") from error
            self._writers[id(schema)] = found
        return found


class _Writer:
    """A schema that bytes are written with, prepared. Holds the schema, so that its id stays its own."""

    __slots__ = ("check", "parsed", "schema")

    def __init__(self, schema: Mapping[str, Any], normal: Any) -> None:
        self.schema = schema
        self.check: Callable[[bytes], None] = strict_check(normal)
        try:
            self.parsed = fastavro.parse_schema(dict(schema))
        except (
            fastavro.schema.SchemaParseException,
            fastavro.schema.UnknownType,
            *_FASTAVRO_ERRORS,
        ) as error:
            raise ConfigurationError(f"fastavro does not take the schema: {str(error)[:_SHOWN]}") from error
