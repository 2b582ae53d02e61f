"""A file's rows with their scores beside them, as Parquet or CSV: there whole or not at all.

Scores are kept in parts, a file for each batch, in a folder beside the output. A part is named by the rows that it follows
and ends with, and is written before its batch is logged: a run that was killed finds the parts of all that was logged.
When every row is done the file is read once more, and its rows are written with what the parts say of them.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from driftline.batch.event_files import Row
from driftline.batch.job import RESULT, ROW, batches, columns_of
from driftline.runtime.errors import ConfigurationError

#: Put before the name of a file's column that a result's column has too.
OWN = "file_"
_BATCH_ROWS = 10_000
_CSV, _PARQUET = ".csv", ".parquet"


class ScoreFile:
    """Scores beside the rows of ``source``, in ``target`` (a ``driftline.batch.job.ScoreSink``)."""

    def __init__(self, source: Path, target: Path, *, job: str) -> None:
        if target.suffix not in {_CSV, _PARQUET}:
            raise ConfigurationError(f"--out {target}: its ending must be {_PARQUET} or {_CSV}")
        if target.resolve() == source.resolve():
            raise ConfigurationError(f"--out {target}: is the file that is read; name another")
        self._source = source
        self._target = target
        self._folder = target.with_name(f".{target.name}.{job}.parts")
        self._finished = target.with_name(f".{target.name}.{job}.done")

    def begin(self, *, done: int) -> None:
        """Keep the parts of rows that are done.

        Raises
        ------
        ConfigurationError
            Rows are in the log whose scores are in no part: they were logged without this output.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for part in self._parts():
            if _span(part)[1] > done:
                part.unlink()
        if self._end() != done and not (self._finished.exists() and self._target.is_file()):
            msg = (
                f"--out {self._target}: rows of {self._source} up to {done:,} are in the log already, and their scores "
                "are not kept beside this output: leave --out away, or score the file once more as --run NAME"
            )
            raise ConfigurationError(msg)

    def write(self, result: pa.RecordBatch, *, after: int) -> None:
        """Write a part, durably."""
        part = self._folder / f"{after:012d}-{result.column(ROW)[-1].as_py():012d}{_PARQUET}"
        scratch = part.with_suffix(".writing")
        with scratch.open("wb") as file:
            pq.write_table(pa.Table.from_batches([result]), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(part)

    def finish(self) -> None:
        """Put rows and scores together, and the output in its place; where that was done before, nothing."""
        if self._parts():
            rows = self._table_rows() if self._source.suffix.lower() == _PARQUET else self._text_rows()
            scratch = self._folder / "whole"
            with scratch.open("wb") as file:
                self._write(file, rows)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self._target)
            self._finished.touch()
        shutil.rmtree(self._folder)

    def _write(self, file: Any, rows: Iterator[pa.Table]) -> None:
        writer: Any = None
        results = _Results(self._parts())
        for own in rows:
            renamed = own.rename_columns(
                [OWN + name if name in RESULT.names else name for name in own.column_names]
            )
            result = results.take(len(own))
            columns = [*renamed.columns, *result.columns]
            fields = [*renamed.schema, *result.schema]
            if self._target.suffix == _CSV:
                columns = [_plain(column) for column in columns]
                fields = [one.with_type(column.type) for one, column in zip(fields, columns, strict=True)]
            table = pa.Table.from_arrays(columns, schema=pa.schema(fields))
            if writer is None:
                make = pa_csv.CSVWriter if self._target.suffix == _CSV else pq.ParquetWriter
                writer = make(file, table.schema)
            writer.write_table(table)
        writer.close()

    def _table_rows(self) -> Iterator[pa.Table]:
        with pq.ParquetFile(self._source) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                yield pa.Table.from_batches([batch]).replace_schema_metadata()

    def _text_rows(self) -> Iterator[pa.Table]:
        """Yield rows of a file whose columns have no types as texts; the columns are all that any row has."""
        names: dict[str, None] = {}
        for rows in batches(self._source, _BATCH_ROWS):
            names.update(dict.fromkeys(columns_of(rows)))
        for rows in batches(self._source, _BATCH_ROWS):
            yield pa.table({name: _texts(rows, name) for name in names})

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{_PARQUET}"))

    def _end(self) -> int:
        """Return the last row up to which parts follow one another without a gap."""
        end = 0
        for part in self._parts():
            first, last = _span(part)
            if first != end:
                return -1
            end = last
        return end


class _Results:
    """The rows of parts in order, as many at a time as are asked for."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self._parts = iter(parts)
        self._held = RESULT.empty_table()

    def take(self, count: int) -> pa.Table:
        while len(self._held) < count:
            self._held = pa.concat_tables([self._held, pq.read_table(next(self._parts))])
        taken, self._held = self._held.slice(0, count), self._held.slice(count)
        return taken


def _span(part: Path) -> tuple[int, int]:
    after, last = part.stem.split("-")
    return int(after), int(last)


def _texts(rows: Sequence[Row], name: str) -> pa.Array:
    values = [(row.event or {}).get(name) for row in rows]
    return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value, default=str).decode()


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as CSV can hold it: nested values as JSON."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    if pa.types.is_nested(kind):
        return pa.chunked_array([pa.array([_text(value) for value in column.to_pylist()], pa.string())])
    return column
