"""Records into a Delta table exactly once: the next offset of every partition rides in the commit itself.

The table's log keeps one *application transaction* per partition: the offset that comes next. Rows and offsets
are one atomic commit, so they cannot disagree. The protocol; its numbers return as comments beside the code.

1. A span of a partition begins where the log stood when its first record was asked for.
2. The table is opened anew for every commit. Does the log still stand there, for every partition of the commit?
3. The rows are written against exactly that version of the table. delta-rs refuses the commit when another one
   that came in between moved an offset which this one moves too.
4. Refused for whatever reason: again from step 2, which tells a harmless race (a compaction, another
   partition's commit, new columns) from a lost one.
5. The log stands at the span's *end*: the rows are in, and only the answer was lost.
6. It stands elsewhere: someone else writes this partition. LostOwnershipError, nothing is written.

A process that dies before the commit leaves data files that no version of the table names; vacuum removes them.
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError

from driftline.archive.columns import (
    EVENT_DATE,
    OFFSET,
    PARTITION,
    ColumnConflictError,
    fitted,
    united,
)
from driftline.archive.tables import app_id, open_table, storage
from driftline.runtime.errors import LostOwnershipError, UnavailableError
from driftline.streaming.partitions import Partition

#: Commits between two checkpoints, which spare readers the log before them.
_CHECKPOINT_COMMITS = "50"
_ATTEMPTS = 20
_PAUSE_SECONDS = 0.05
_WRITER = WriterProperties(compression="ZSTD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Offsets of a partition, from ``start`` (None: the log has none) up to and without ``stop``."""

    partition: Partition
    start: int | None
    stop: int


class TopicTable:
    """The Delta table of a topic."""

    def __init__(self, uri: str, *, group: str) -> None:
        self.uri = uri
        self._group = group

    def positions(self, partitions: Iterable[Partition]) -> dict[Partition, int | None]:
        """Return where the log stands: the next offset of each partition, None where it has none.

        Raises
        ------
        UnavailableError
            The store does not answer.
        """
        return self._positions(open_table(self.uri), partitions)

    def columns(self) -> pa.Schema:
        """Return the table's columns as they are now; none where there is no table yet."""
        table = open_table(self.uri)
        return pa.schema([]) if table is None else _columns(table)

    def append(self, rows: pa.Table, spans: Sequence[Span]) -> None:
        """Append the rows of spans and move their offsets, in one commit.

        Raises
        ------
        LostOwnershipError
            The log of a partition stands elsewhere: another process moved it, or the table was replaced.
        UnavailableError
            The store does not answer, or the table's columns changed so that these rows do not fit any more.
        """
        for attempt in range(_ATTEMPTS):
            table = self._opened(rows.schema)  # (2)
            found = self._positions(table, [span.partition for span in spans])
            if all(found[span.partition] == span.stop != span.start for span in spans):
                return  # (5)
            moved = [span for span in spans if found[span.partition] != span.start]
            if moved:
                one = moved[0]
                msg = (
                    f"{self.uri}: {one.partition} was at {one.start}, is at {found[one.partition]}: "
                    "another process writes it"
                )
                raise LostOwnershipError(msg)  # (6)
            if self._committed(table, rows, {span.partition: span.stop for span in spans}):
                return
            time.sleep(_PAUSE_SECONDS * attempt)  # (4)
        raise UnavailableError(f"{self.uri}: {_ATTEMPTS} commits in a row met others")

    def append_missing(self, topic: str, rows: pa.Table) -> int:
        """Append those rows that lie beyond the log, and return how many those were.

        For records that are written *beside* a span's commit, before it: after a crash between the two they
        come again, and are in already. An offset is decided once; rows must come in the order of the log.
        """
        for attempt in range(_ATTEMPTS):
            table = self._opened(rows.schema)
            numbers, offsets = rows[PARTITION].to_numpy(), rows[OFFSET].to_numpy()
            partitions = {int(number): Partition(topic, int(number)) for number in np.unique(numbers)}
            stored = self._positions(table, partitions.values())
            missing = np.zeros(len(rows), np.bool_)
            stops = {}
            for number, partition in partitions.items():
                chosen = (numbers == number) & (offsets >= (stored[partition] or 0))
                if chosen.any():
                    stops[partition] = int(offsets[chosen].max()) + 1
                missing |= chosen
            if not stops or self._committed(table, rows.filter(pa.array(missing)), stops):
                return int(missing.sum())
            time.sleep(_PAUSE_SECONDS * attempt)
        raise UnavailableError(f"{self.uri}: {_ATTEMPTS} commits in a row met others")

    def _opened(self, columns: pa.Schema) -> DeltaTable:
        table = open_table(self.uri)
        if table is None:
            try:
                with storage(self.uri):
                    table = DeltaTable.create(
                        self.uri,
                        schema=columns,
                        partition_by=[EVENT_DATE],
                        mode="error",
                        configuration={"delta.checkpointInterval": _CHECKPOINT_COMMITS},
                    )
            except (CommitFailedError, UnavailableError):
                table = open_table(self.uri)  # another process may have made it in this instant
                if table is None:
                    raise
        return table

    def _positions(
        self, table: DeltaTable | None, partitions: Iterable[Partition]
    ) -> dict[Partition, int | None]:
        if table is None:
            return dict.fromkeys(partitions)
        with storage(self.uri):
            return {
                one: table.transaction_version(app_id(self._group, one.topic, one.number))
                for one in partitions
            }

    def _committed(self, table: DeltaTable, rows: pa.Table, stops: dict[Partition, int]) -> bool:
        """Write rows and offsets against this version of the table (3); False where another commit came first."""
        known = _columns(table)
        try:
            columns = united(known, rows.schema)
        except ColumnConflictError as error:
            raise UnavailableError(f"{self.uri}: the table's columns changed: {error}") from error
        told = {str(partition): stop for partition, stop in stops.items()}
        properties = CommitProperties(
            custom_metadata={"driftline.offsets": json.dumps(told)},
            app_transactions=[
                Transaction(app_id(self._group, one.topic, one.number), stop) for one, stop in stops.items()
            ],
        )
        try:
            with storage(self.uri):
                write_deltalake(
                    table,
                    fitted(rows, columns),
                    mode="append",
                    # The columns were united here: delta-rs would cast a double to a bigint without a word.
                    schema_mode=None if columns.equals(known) else "merge",
                    writer_properties=_WRITER,
                    commit_properties=properties,
                )
        except CommitFailedError:
            return False
        return True


def _columns(table: DeltaTable) -> pa.Schema:
    with storage(table.table_uri):
        return pa.schema(table.schema())
