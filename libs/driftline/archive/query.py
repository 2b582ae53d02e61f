"""SQL over the archive, with DuckDB: every topic is a view by its stream's name.

``predictions``, ``prediction_requests`` (dashes become underscores); ``bad.predictions`` has the records that could
not be decoded. Filters and columns are pushed down to the files, so a day or a column costs what it holds.
"""

import re
from collections.abc import Mapping

import duckdb
import pyarrow as pa

from driftline.archive.tables import BAD, TOPICS, Archive, open_table, storage
from driftline.runtime.errors import ConfigurationError

_BATCH_ROWS = 10_000


def view_name(kind: str, stream: str) -> str:
    """Return the name of a table in SQL.

    >>> view_name("bad", "prediction-requests")
    'bad.prediction_requests'
    """
    name = re.sub(r"\W", "_", stream)
    return f"{BAD}.{name}" if kind == BAD else name


def query(archive: Archive, sql: str, *, limit: int | None = None) -> pa.Table:
    """Return the rows that a query gives, ``limit`` of them at most.

    Raises
    ------
    ConfigurationError
        The query is wrong; where it names an unknown table, the message has those that there are.
    UnavailableError
        The store does not answer.
    """
    views = _views(archive)
    with duckdb.connect() as connection, storage("reading the archive"):
        connection.execute(
            "SET TimeZone = 'UTC'; SET autoinstall_known_extensions = false; CREATE SCHEMA bad"
        )
        try:
            _register(
                connection, archive, {name: place for name, place in views.items() if _named(name, sql)}
            )
            return _rows(connection.execute(sql), limit)
        except duckdb.CatalogException as error:
            known = (
                ", ".join(sorted({view_name(*place) for place in views.values()}))
                or "none yet; start the archiver"
            )
            raise ConfigurationError(f"{error}\nThe archive's tables: {known}") from error
        except duckdb.IOException as error:
            raise OSError(str(error)) from error
        except duckdb.Error as error:
            raise ConfigurationError(str(error)) from error


def _views(archive: Archive) -> dict[str, tuple[str, str]]:
    """Return each view's table: every stream by its own name too, to be quoted where it has a dash."""
    tables = [(kind, name) for kind in (TOPICS, BAD) for name in archive.names(kind)]
    views = {f"{BAD}.{name}" if kind == BAD else name: (kind, name) for kind, name in tables}
    for kind, name in tables:
        views.setdefault(view_name(kind, name), (kind, name))
    return views


def _named(view: str, sql: str) -> bool:
    """Tell whether a query may mean a view; the log of one that it cannot mean is not read."""
    return view.rpartition(".")[2].lower() in sql.lower() or "show" in sql.lower()


def _register(
    connection: duckdb.DuckDBPyConnection, archive: Archive, views: Mapping[str, tuple[str, str]]
) -> None:
    for number, (view, (kind, name)) in enumerate(views.items()):
        table = open_table(archive.table(kind, name))
        if table is None:
            continue
        connection.register(f"__archive_{number}", table.to_pyarrow_dataset())
        quoted = ".".join(f'"{part}"' for part in view.split("."))
        connection.execute(f"CREATE VIEW {quoted} AS FROM __archive_{number}")


def _rows(answer: duckdb.DuckDBPyConnection, limit: int | None) -> pa.Table:
    reader = answer.to_arrow_reader(_BATCH_ROWS)
    batches: list[pa.RecordBatch] = []
    found = 0
    for batch in reader:
        if limit is not None and found + batch.num_rows >= limit:
            batches.append(batch.slice(0, limit - found))
            break
        batches.append(batch)
        found += batch.num_rows
    return pa.Table.from_batches(batches, schema=reader.schema)
