"""Where the archive's tables are, and what each holds.

``<root>/<prefix>/topics/<stream>`` has a topic's records, ``.../bad/<stream>`` those that could not be decoded,
``.../training_sets/<model>`` a model's training sets. The root is a folder, or a URL that delta-rs knows
(``s3://``, ``gs://``, ``az://``), with credentials in the store's usual environment variables (``AWS_...``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, FileType

from driftline.archive.columns import EVENT_DATE, PARTITION
from driftline.runtime.errors import UnavailableError

TOPICS = "topics"
BAD = "bad"
TRAINING_SETS = "training_sets"


@dataclass(frozen=True, slots=True)
class Archive:
    """The tables of a project (of one environment): ``prefix`` is what its topics begin with."""

    root: str
    prefix: str

    @classmethod
    def at(cls, location: str, prefix: str) -> Self:
        """Return the archive in a folder or at a URL.

        >>> Archive.at("s3://lake/archive/", "flights").table("topics", "predictions")
        's3://lake/archive/flights/topics/predictions'
        """
        is_url = "://" in location
        return cls(
            location.rstrip("/") if is_url else str(Path(location).expanduser().resolve()), prefix.strip(".")
        )

    def table(self, kind: str, name: str) -> str:
        """Return the place of a table; ``kind`` is TOPICS, BAD or TRAINING_SETS."""
        return f"{self.root}/{self.prefix}/{kind}/{name}"

    def stream(self, topic: str) -> str:
        """Return the stream of a topic: its name without the prefix."""
        return topic.removeprefix(f"{self.prefix}.")

    def group(self, service: str) -> str:
        """Return the consumer group whose offsets ride in the tables' commits."""
        return f"{self.prefix}.{service}"

    def names(self, kind: str) -> list[str]:
        """Return the names of the tables of a kind, sorted; none where there is no archive yet."""
        with storage(f"the archive at {self.root}"):
            try:
                folder = DeltaStorageHandler(f"{self.root}/{self.prefix}")
            except TableNotFoundError:
                return []
            found = folder.get_file_info_selector(FileSelector(kind, allow_not_found=True))
        return sorted(one.base_name for one in found if one.type is FileType.Directory)


@contextmanager
def storage(what: str) -> Iterator[None]:
    """Say UnavailableError where the store fails; a commit that lost its race passes as CommitFailedError."""
    try:
        yield
    except (CommitFailedError, TableNotFoundError):
        raise
    except (DeltaError, OSError) as error:
        raise UnavailableError(f"{what}: {error}") from error


def open_table(uri: str, version: int | None = None) -> DeltaTable | None:
    """Return a table as it is now (or was at a version); None where there is none."""
    with storage(uri):
        try:
            return DeltaTable(uri, version=version)
        except TableNotFoundError:
            return None


def app_id(group: str, topic: str, partition: int) -> str:
    """Return the name under which a table's log keeps the next offset of a partition."""
    return f"{group}/{topic}/{partition}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSummary:
    """What a topic's table holds. ``offsets`` are the next ones, by partition; ``size`` is in bytes."""

    name: str
    kind: str
    uri: str
    version: int
    rows: int
    files: int
    size: int
    first_day: date | None
    last_day: date | None
    offsets: dict[int, int]


def summarize(archive: Archive, kind: str, name: str, *, service: str = "archiver") -> TableSummary | None:
    """Return what a table holds, from its log alone; None where there is none."""
    uri = archive.table(kind, name)
    table = open_table(uri)
    if table is None:
        return None
    with storage(uri):
        files = pa.table(table.get_add_actions(flatten=True))
    days = files[f"partition.{EVENT_DATE}"] if f"partition.{EVENT_DATE}" in files.column_names else None
    span = pc.min_max(days).as_py() if days is not None else {"min": None, "max": None}
    return TableSummary(
        name=name,
        kind=kind,
        uri=uri,
        version=table.version(),
        rows=pc.sum(files["num_records"]).as_py() or 0,
        files=files.num_rows,
        size=pc.sum(files["size_bytes"]).as_py() or 0,
        first_day=span["min"],
        last_day=span["max"],
        offsets=_offsets(table, files, archive, name, service),
    )


def _offsets(
    table: DeltaTable, files: pa.Table, archive: Archive, stream: str, service: str
) -> dict[int, int]:
    largest = f"max.{PARTITION}"
    last = pc.max(files[largest]).as_py() if largest in files.column_names else None
    group, topic = archive.group(service), f"{archive.prefix}.{stream}"
    found = {}
    for number in range((last or 0) + 1):
        version = table.transaction_version(app_id(group, topic, number))
        if version is not None:
            found[number] = version
    return found
