"""Keep tables quick to read: few large files instead of many small ones, and nothing that no version needs.

Compaction rewrites files and changes no row; it runs beside the archiver. Readers of an older version keep their
files for ``VACUUM_HOURS``.
"""

from dataclasses import dataclass

from deltalake import WriterProperties
from deltalake.exceptions import CommitFailedError

from driftline.archive.tables import open_table, storage

#: How long a file that the newest version does not name stays, in hours.
VACUUM_HOURS = 168
_TARGET_BYTES = 128 << 20
_WRITER = WriterProperties(compression="ZSTD")


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
            done = table.optimize.compact(target_size=_TARGET_BYTES, writer_properties=_WRITER)
            removed, added = done["numFilesRemoved"], done["numFilesAdded"]
            deleted = table.vacuum(retention_hours=vacuum_hours, dry_run=False, full=True)
        except CommitFailedError:
            deleted = []
    return Compaction(removed=removed, added=added, deleted=len(deleted))
