"""Training sets with a name: each is a version of a model's Delta table, and the same rows for ever.

A build is one commit that replaces the table's content; older versions keep their files, which no vacuum may
delete. Name, SHA-256, rows and span stand in the commit itself, so that there is no index to disagree with, and
the name is taken by an application transaction: of two builds under one name at the same time one is refused.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError

from driftline.archive.columns import INSTANT
from driftline.archive.tables import TRAINING_SETS, Archive, open_table, storage
from driftline.runtime.clock import Clock, SystemClock
from driftline.runtime.errors import ConfigurationError, DriftlineError, UnavailableError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_KEY = "driftline.training_set"
_ROW = "_row"
_ATTEMPTS = 10
_FOR_EVER = "interval 36500 days"
_TABLE = {
    "delta.deletedFileRetentionDuration": _FOR_EVER,
    "delta.logRetentionDuration": _FOR_EVER,
    "delta.enableExpiredLogCleanup": "false",
}
_INTEGERS = {pa.int8(), pa.int16(), pa.int32(), pa.int64()}
_PLAIN = _INTEGERS | {pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.binary(), pa.date32()}


class TrainingSetChangedError(DriftlineError):
    """What lies in the store is not what was built: its hash differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetVersion:
    """A named training set. ``version`` is the Delta table's, ``span`` what it was made from, as ISO texts.

    ``sha256`` is ``content_sha256`` of the rows; ``meta`` is whatever the builder wanted to keep, ``manifest`` what the
    rows were made from (JSON values).
    """

    name: str
    model: str
    version: int
    rows: int
    sha256: str
    span: tuple[str, str]
    created_at: str
    meta: Mapping[str, str] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)


class TrainingSets:
    """The training sets of a model."""

    def __init__(self, archive: Archive, model: str, *, clock: Clock | None = None) -> None:
        self._model = _checked(model, "a model's name")
        self._uri = archive.table(TRAINING_SETS, self._model)
        self._clock = clock or SystemClock()

    def build(
        self,
        name: str,
        table: pa.Table,
        *,
        span: tuple[str, str] = ("", ""),
        meta: Mapping[str, str] | None = None,
        manifest: Mapping[str, Any] | None = None,
    ) -> TrainingSetVersion:
        """Keep rows under a name; the same rows under the same name again are what is there already.

        Raises
        ------
        ConfigurationError
            The name holds other rows, or a column has a type that Delta would not give back as it was.
        UnavailableError
            The store does not answer.
        """
        _checked(name, "a training set's name")
        stored = _for_store(table)
        told = {
            "name": name,
            "rows": len(table),
            "sha256": content_sha256(table),
            "span": list(span),
            "created_at": datetime.fromtimestamp(self._clock.now_us() / 1e6, tz=UTC).isoformat(),
            "meta": dict(meta or {}),
            "manifest": dict(manifest or {}),
            "schema": base64.b64encode(table.schema.serialize().to_pybytes()).decode(),
        }
        for _ in range(_ATTEMPTS):
            delta = self._opened(stored.schema)
            if delta.transaction_version(f"training-set/{name}") is not None:
                return self._same(name, str(told["sha256"]))
            if self._committed(delta, stored, name, told):
                return self.find(name)
        raise UnavailableError(f"{self._uri}: {_ATTEMPTS} commits in a row met others")

    def list_sets(self) -> list[TrainingSetVersion]:
        """Return the model's training sets, the newest first; none where there is no table yet."""
        return [found for found, _ in self._sets()]

    def look_up(self, name: str) -> TrainingSetVersion | None:
        """Return a training set's description; None where there is none of this name."""
        return next((found for found, _ in self._sets() if found.name == name), None)

    def find(self, name: str) -> TrainingSetVersion:
        """Return a training set's description; ConfigurationError where there is none of this name."""
        return self._found(name)[0]

    def pull(self, name: str) -> pa.Table:
        """Return the rows of a training set, exactly as they were given: order, types and every bit.

        Raises
        ------
        ConfigurationError
            There is no training set of this name.
        TrainingSetChangedError
            Its files were changed.
        UnavailableError
            The store does not answer.
        """
        found, schema = self._found(name)
        delta = open_table(self._uri, found.version)
        if delta is None:
            raise UnavailableError(f"{self._uri}: version {found.version} is gone")
        with storage(f"{self._uri}: version {found.version}"):
            try:
                stored = delta.to_pyarrow_table()
            except pa.ArrowInvalid as error:
                raise TrainingSetChangedError(f"training set {name!r} of {self._model!r}: {error}") from error
        table = stored.sort_by(_ROW).drop_columns([_ROW]).select(schema.names).cast(schema).combine_chunks()
        sha256 = content_sha256(table)
        if sha256 != found.sha256:
            msg = f"training set {name!r} of {self._model!r}: its rows hash to {sha256}, built were {found.sha256}"
            raise TrainingSetChangedError(msg)
        return table

    def _same(self, name: str, sha256: str) -> TrainingSetVersion:
        found = self.find(name)
        if found.sha256 != sha256:
            msg = (
                f"model {self._model!r} has a training set {name!r} with other rows, built {found.created_at}: "
                "a name means the same rows for ever, take another"
            )
            raise ConfigurationError(msg)
        return found

    def _found(self, name: str) -> tuple[TrainingSetVersion, pa.Schema]:
        sets = self._sets()
        for found, schema in sets:
            if found.name == name:
                return found, schema
        known = ", ".join(found.name for found, _ in sets) or "none"
        raise ConfigurationError(f"model {self._model!r} has no training set {name!r}; it has: {known}")

    def _sets(self) -> list[tuple[TrainingSetVersion, pa.Schema]]:
        delta = open_table(self._uri)
        if delta is None:
            return []
        with storage(self._uri):
            commits = delta.history()
        return [self._described(commit) for commit in commits if _KEY in commit]

    def _described(self, commit: Mapping[str, Any]) -> tuple[TrainingSetVersion, pa.Schema]:
        told = json.loads(commit[_KEY])
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(told.pop("schema"))))
        span = (told["span"][0], told["span"][1])
        return TrainingSetVersion(
            **{**told, "span": span}, model=self._model, version=commit["version"]
        ), schema

    def _opened(self, columns: pa.Schema) -> DeltaTable:
        delta = open_table(self._uri)
        if delta is None:
            try:
                with storage(self._uri):
                    delta = DeltaTable.create(self._uri, schema=columns, mode="error", configuration=_TABLE)
            except (CommitFailedError, UnavailableError):
                delta = open_table(self._uri)  # another build may have made it in this instant
                if delta is None:
                    raise
        return delta

    def _committed(self, delta: DeltaTable, rows: pa.Table, name: str, told: Mapping[str, Any]) -> bool:
        try:
            with storage(self._uri):
                write_deltalake(
                    delta,
                    rows,
                    mode="overwrite",
                    schema_mode="overwrite",
                    writer_properties=WriterProperties(compression="ZSTD"),
                    commit_properties=CommitProperties(
                        custom_metadata={_KEY: json.dumps(told)},
                        app_transactions=[
                            Transaction(f"training-set/{name}", 1),
                            # Every build moves it, so that of two at once one is refused and comes again: replacing
                            # nothing (a table that is still empty) would not collide by itself.
                            Transaction("training-sets", delta.version() + 1),
                        ],
                    ),
                )
        except CommitFailedError:
            return False
        return True


def models_with_sets(archive: Archive) -> list[str]:
    """Return the models that have training sets."""
    return archive.names(TRAINING_SETS)


def as_dict(found: TrainingSetVersion) -> dict[str, Any]:
    """Return a description as JSON can hold it."""
    return {**asdict(found), "span": list(found.span)}


def content_sha256(table: pa.Table) -> str:
    """Name exactly these rows: a hash over names, types, nulls and every value's bits, in order.

    What Arrow leaves open (chunks, padding, bytes below a null) does not count.
    """
    digest = hashlib.sha256()
    for field_, column in zip(table.schema, table.columns, strict=True):
        array = column.combine_chunks()
        digest.update(f"{field_.name}\0{field_.type}\0{len(array)}\0".encode())
        digest.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
        for part in _bits(array):
            digest.update(part)
    return digest.hexdigest()


def _bits(array: pa.Array) -> list[bytes]:
    kind = array.type
    if kind in {pa.string(), pa.binary()}:
        filled = pc.fill_null(array.cast(pa.large_binary()), b"")
        return [pc.binary_length(filled).to_numpy().tobytes(), _joined(filled)]
    if pa.types.is_timestamp(kind):
        array = array.cast(pa.int64())
    elif kind == pa.date32():
        array = array.cast(pa.int32())
    filled = pc.fill_null(array, False if kind == pa.bool_() else 0)
    return [filled.to_numpy(zero_copy_only=False).tobytes()]


def _joined(values: pa.LargeBinaryArray) -> bytes:
    """Return all values one after the other."""
    _, offsets, data = values.buffers()
    if data is None or not len(values):
        return b""
    ends = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    return memoryview(data)[int(ends[0]) : int(ends[-1])].tobytes()


def _for_store(table: pa.Table) -> pa.Table:
    """Return the rows with their numbers, times as instants: what every Delta reader has."""
    wrong = [
        f"{one.name} ({one.type})"
        for one in table.schema
        if one.type not in _PLAIN and not (pa.types.is_timestamp(one.type) and one.type.unit == "us")
    ]
    if wrong or _ROW in table.column_names:
        what = ", ".join(wrong) or f"{_ROW} (the archive's own)"
        msg = (
            f"a training set cannot have the columns {what}; it takes whole and floating numbers, booleans, texts, "
            "bytes, days and times in microseconds"
        )
        raise ConfigurationError(msg)
    columns = [
        column.cast(INSTANT) if pa.types.is_timestamp(column.type) else column for column in table.columns
    ]
    numbers = pa.array(np.arange(len(table), dtype=np.int64))
    return pa.table([numbers, *columns], names=[_ROW, *table.column_names])


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} cannot be {what}: letters, digits, dots, dashes and underscores")
    return name
