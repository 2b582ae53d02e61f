"""The rows of a replay, written batch by batch to a file that is there whole or not at all."""

from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from driftline.replay.replaying import RESULT
from driftline.runtime.errors import ConfigurationError


class RowWriter(Protocol):
    """Takes tables of ``RESULT``."""

    def write_table(self, table: pa.Table) -> None:
        """Write rows."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class JsonLines:
    """One JSON object a line; numbers in the shortest form that gives the same bits back, times in ISO 8601."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write_table(self, table: pa.Table) -> None:
        """Write rows."""
        for row in table.to_pylist():
            self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))

    def close(self) -> None:
        """Nothing is left: the file belongs to the caller."""


class ResultFile:
    """A file of results: Parquet, CSV or JSON lines, by its ending."""

    def __init__(self, path: Path) -> None:
        if path.suffix not in _WRITERS:
            raise ConfigurationError(f"--output {path}: its ending must be one of {', '.join(_WRITERS)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        self._file = self._part.open("wb")
        self._writer = _WRITERS[path.suffix](self._file)

    def __enter__(self) -> Self:
        """Return the file, to be finished at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the file in its place; after an error, remove what there is of it."""
        self._writer.close()
        self._file.close()
        if error is None:
            self._part.replace(self._path)
        else:
            self._part.unlink()

    def write_table(self, table: pa.Table) -> None:
        """Write rows."""
        self._writer.write_table(table)


def _parquet(file: BinaryIO) -> RowWriter:
    writer: RowWriter = pq.ParquetWriter(file, RESULT, compression="zstd")
    return writer


def _csv(file: BinaryIO) -> RowWriter:
    writer: RowWriter = pa_csv.CSVWriter(file, RESULT)
    return writer


_WRITERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": JsonLines}
