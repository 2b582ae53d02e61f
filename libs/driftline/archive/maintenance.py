"""Keep tables quick to read: few large files instead of many small ones, and nothing that no version needs.

Compaction rewrites files and changes no row; it runs beside the archiver. Readers of an older version keep their
files for ``VACUUM_HOURS``.

delta-rs lets two compactions of the same files both commit, and every row stands there twice (ADR 10). So whoever
compacts claims the table first: a token among its properties. delta-rs refuses every commit across such a change, so
of two only the last to claim can commit; an append that is refused tries again.
"""

from dataclasses import dataclass

import pyarrow as pa
from deltalake import DeltaTable, WriterProperties
from deltalake.exceptions import CommitFailedError

from driftline.archive.tables import open_table, storage
from driftline.runtime.ids import new_id

#: How long a file that the newest version does not name stays, in hours.
VACUUM_HOURS = 168
_TARGET_BYTES = 128 << 20
_WRITER = WriterProperties(compression="ZSTD")
_CLAIM = "driftline.compaction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What a compaction did: so many files became so many; ``deleted`` older ones were removed from the store."""

    removed: int
    added: int
    deleted: int


def compact(uri: str, *, vacuum_hours: int = VACUUM_HOURS) -> Compaction | None:
    """Compact a table, then delete what is no longer named and older than ``vacuum_hours``.

    That includes what killed writers left. None where there is no table; no files where another process compacts
    it at the same time.

    Raises
    ------
    UnavailableError
        The store does not answer.
    """
    table = open_table(uri)
    if table is None:
        return None
    removed = added = 0
    with storage(uri):
        try:
            if has_small_files(table):
                table = claimed(uri)
                done = table.optimize.compact(target_size=_TARGET_BYTES, writer_properties=_WRITER)
                removed, added = done["numFilesRemoved"], done["numFilesAdded"]
            deleted = table.vacuum(retention_hours=vacuum_hours, dry_run=False, full=True)
        except CommitFailedError:
            deleted = []
    return Compaction(removed=removed, added=added, deleted=len(deleted))


def has_small_files(table: DeltaTable) -> bool:
    """Tell whether any two files of one day fit into one."""
    files = pa.table(table.get_add_actions(flatten=False))
    sizes: dict[str, list[int]] = {}
    for partition, size in zip(files["partition"].to_pylist(), files["size_bytes"].to_pylist(), strict=True):
        sizes.setdefault(str(partition), []).append(size)
    return any(sum(sorted(own)[:2]) <= _TARGET_BYTES for own in sizes.values() if len(own) > 1)


def claimed(uri: str) -> DeltaTable:
    """Return the table as it stands with a claim of our own: whoever claimed it before can no longer compact it.

    Raises
    ------
    CommitFailedError
        Another process claims it at this instant.
    """
    token = new_id()
    DeltaTable(uri).alter.set_table_properties({_CLAIM: token}, raise_if_not_exists=False)
    table = DeltaTable(uri)
    if table.metadata().configuration.get(_CLAIM) != token:
        raise CommitFailedError(f"{uri}: another process has claimed the table")
    return table
