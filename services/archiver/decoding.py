"""From a batch of messages to rows of the archive: good ones as columns, bad ones as bytes with the reason.

Records are decoded with the schema that they were written with, so that nothing a newer producer says is lost
because the archiver's project is older.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
from confluent_kafka import Message

from driftline.archive.columns import PLACE, ColumnConflictError, fitted, placed, storage_schema, united
from driftline.contracts.batch_codec import BatchDecoder, Resolve
from driftline.contracts.wire import HEADER_BYTES, MAGIC, split
from driftline.runtime.errors import BadMessageError, ConfigurationError, UnavailableError
from driftline.runtime.logging import get_logger
from driftline.streaming.partitions import PartitionBatch

_log = get_logger(__name__)

_RAW = pa.schema([("key", pa.binary()), ("value", pa.binary()), ("headers", pa.string())])
_REASON = pa.schema([("stage", pa.string()), ("reason", pa.string())])
#: The columns of records that are kept as they came, and of those that could not be decoded.
RAW_COLUMNS = pa.schema([*_RAW, *PLACE])
BAD_COLUMNS = pa.schema([*_REASON, *_RAW, *PLACE])

Bad = list[tuple[int, BadMessageError]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A batch as rows of the archive: tables of stored columns and place, and the rows of BAD_COLUMNS."""

    good: tuple[pa.Table, ...]
    bad: pa.Table


class Decoder(Protocol):
    """Turns the messages of a topic into rows."""

    def decode(self, batch: PartitionBatch, known: pa.Schema) -> Rows:
        """Return a batch's rows; what does not fit the ``known`` columns of the table is bad."""
        ...


class RawDecoder:
    """Keeps messages as they are: for topics without a schema."""

    def decode(self, batch: PartitionBatch, known: pa.Schema) -> Rows:
        """Return each message's key, value and headers."""
        del known  # these columns never change
        every = range(len(batch.messages))
        return Rows(good=(_at(_raw(batch, every), batch, every),), bad=_bad(batch, []))


class AvroDecoder:
    """Decodes the messages of a topic whose subject has a schema.

    ``resolve`` gives the schema of an id, ``latest`` the subject's newest one (None where it has none yet).
    """

    def __init__(
        self,
        topic: str,
        resolve: Resolve,
        latest: Callable[[], Mapping[str, Any] | None],
        *,
        event_times: Sequence[str],
    ) -> None:
        self._topic = topic
        self._resolve = resolve
        self._latest = latest
        self._event_times = event_times
        self._writers: dict[int, tuple[BatchDecoder, pa.Schema]] = {}
        self._told: set[tuple[int, str]] = set()

    def decode(self, batch: PartitionBatch, known: pa.Schema) -> Rows:
        """Return the batch's rows, a table for each schema that they were written with.

        Raises
        ------
        UnavailableError
            The registry does not answer, or has no schema of this topic yet.
        """
        values = batch.values
        groups, bad = _by_schema(values)
        good = []
        for schema_id, indexes in groups.items():
            try:
                decoder, stored = self._writer(schema_id)
                known = united(known, stored)
            except (BadMessageError, ConfigurationError, ColumnConflictError) as error:
                bad += [(index, self._refusal(schema_id, error)) for index in indexes]
                continue
            decoded = decoder.decode([values[index] for index in indexes])
            bad += [(indexes[row.index], row.error) for row in decoded.bad]
            rows = [indexes[row] for row in decoded.rows.tolist()]
            table = fitted(pa.Table.from_batches([decoded.table]), stored)
            good.append(_at(table, batch, rows, self._event_times))
        return Rows(
            good=tuple(table for table in good if len(table)), bad=_bad(batch, sorted(bad, key=_index))
        )

    def _writer(self, schema_id: int) -> tuple[BatchDecoder, pa.Schema]:
        if schema_id not in self._writers:
            schema = self._resolve(schema_id)
            latest = self._latest()
            if latest is None:
                raise UnavailableError(
                    f"{self._topic}: no schema is registered for it yet; run `driftline schemas register`"
                )
            found, wanted = (str(one.get("name", "")).rpartition(".")[2] for one in (schema, latest))
            if found != wanted:
                raise BadMessageError(f"schema {schema_id} is of a {found}; {self._topic} carries {wanted}")
            decoder = BatchDecoder(schema, self._resolve)
            self._writers[schema_id] = decoder, storage_schema(decoder.schema)
        return self._writers[schema_id]

    def _refusal(self, schema_id: int, error: Exception) -> BadMessageError:
        if isinstance(error, BadMessageError):
            return error
        if (schema_id, str(error)) not in self._told:
            self._told.add((schema_id, str(error)))
            _log.error("records are kept as bytes", topic=self._topic, schema=schema_id, error=str(error))
        return BadMessageError(f"schema {schema_id} is refused: {error}", stage="archive")


def _by_schema(values: Sequence[bytes | None]) -> tuple[dict[int, Sequence[int]], Bad]:
    """Return the positions of values by schema id, and those that have none."""
    headers = {value[:HEADER_BYTES] if value is not None else b"" for value in values}
    if len(headers) == 1 and (header := headers.pop()).startswith(MAGIC) and len(header) == HEADER_BYTES:
        return {int.from_bytes(header[1:], "big"): range(len(values))}, []  # nearly always
    groups: dict[int, list[int]] = {}
    bad: Bad = []
    for index, value in enumerate(values):
        try:
            schema_id, _ = split(value)
        except BadMessageError as error:
            bad.append((index, error))
        else:
            groups.setdefault(schema_id, []).append(index)
    return dict(groups), bad


def _at(
    table: pa.Table, batch: PartitionBatch, indexes: Sequence[int], event_times: Sequence[str] = ()
) -> pa.Table:
    offsets = [cast(int, batch.messages[index].offset()) for index in indexes]
    stamps = [batch.messages[index].timestamp()[1] for index in indexes]
    return placed(
        table,
        partition=batch.partition.number,
        offsets=offsets,
        timestamps_ms=np.array(stamps, np.int64),
        event_times=event_times,
    )


def _raw(batch: PartitionBatch, indexes: Sequence[int]) -> pa.Table:
    messages = [batch.messages[index] for index in indexes]
    columns = [
        pa.array([message.key() for message in messages], pa.binary()),
        pa.array([message.value() for message in messages], pa.binary()),
        pa.array([headers_json(message) for message in messages], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=_RAW)


def _bad(batch: PartitionBatch, found: Bad) -> pa.Table:
    indexes = [index for index, _ in found]
    table = _raw(batch, indexes)
    for position, (name, texts) in enumerate(
        {"stage": [e.stage for _, e in found], "reason": [e.reason for _, e in found]}.items()
    ):
        table = table.add_column(position, pa.field(name, pa.string()), pa.array(texts, pa.string()))
    return _at(table, batch, indexes)


def _index(pair: tuple[int, BadMessageError]) -> int:
    return pair[0]


def headers_json(message: Message) -> str:
    """Return a message's headers as JSON: pairs of name and text; bytes that are no text as ``{"base64": ...}``."""
    pairs = cast(list[tuple[str, bytes | None]], message.headers() or [])
    return json.dumps([[name, _told(value)] for name, value in pairs], ensure_ascii=False)


def _told(value: bytes | None) -> str | dict[str, str] | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
