"""A project's past, as columns: what training, backfill and playback read.

A project names a Python file in ``driftline.yaml`` (``history: history.py``) with a function
``history(start: date, end: date) -> History`` over whatever it has: files, a warehouse, a lake.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from driftline.project.declaration import Project
from driftline.project.modules import load_module
from driftline.runtime.errors import ConfigurationError

#: Column of every event table: when the event became known (a timestamp in microseconds, UTC).
KNOWN_AT = "known_at"
#: Columns of the request table beside the requests' own fields.
LABEL = "label"
LABEL_KNOWN_AT = "label_known_at"
_TIME = pa.timestamp("us")


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What happened in a span of time, and what was asked.

    ``events`` holds per event type the columns of its Avro schema and ``known_at``, sorted by it.
    ``requests`` holds ``request_id``, ``event_time`` (the as-of instant), the requests' entities and
    inputs, ``label`` (null where it never becomes known) and ``label_known_at``, sorted by event time.
    ``labels``, where the project has them, holds the columns of the platform's labels, sorted by ``known_at``.
    Timestamps are naive, UTC, in microseconds.
    """

    events: Mapping[str, pa.Table]
    requests: pa.Table
    labels: pa.Table | None = None


def load_history(project: Project, start: date, end: date) -> History:
    """Return a project's history of ``[start, end)``, days in UTC, and check its columns.

    Raises
    ------
    ConfigurationError
        Where the project has no history, or its tables lack columns: the message names them.
    """
    path = project.history_module
    if path is None:
        msg = f"{project.folder / 'driftline.yaml'}: no `history:` names a Python file, so there is no past to read"
        raise ConfigurationError(msg)
    if end <= start:
        raise ConfigurationError(f"the span from {start} to {end} is empty; it ends before its last day")
    function = getattr(load_module(path), "history", None)
    if not callable(function):
        raise ConfigurationError(f"{path}: has no function history(start, end)")
    found = function(start, end)
    if not isinstance(found, History):
        raise ConfigurationError(f"{path}: history(start, end) returned {type(found).__name__}, not History")
    _check(project, found)
    return found


def _check(project: Project, history: History) -> None:
    for name, event_type in project.event_types.items():
        wanted = [field["name"] for field in event_type.schema["fields"]]
        table = history.events.get(name)
        if table is None:
            raise ConfigurationError(f"{project.history_module}: no table of event type {name!r}")
        _check_table(project, f"events[{name!r}]", table, [*wanted, KNOWN_AT], KNOWN_AT)
    wanted = ["request_id", "event_time", *project.request_entities]
    wanted += [field.name for field in project.request_inputs]
    _check_table(project, "requests", history.requests, [*wanted, LABEL, LABEL_KNOWN_AT], "event_time")


def _check_table(project: Project, name: str, table: pa.Table, wanted: list[str], sorted_by: str) -> None:
    where = f"{project.history_module}: {name}"
    missing = [column for column in wanted if column not in table.column_names]
    if missing:
        raise ConfigurationError(f"{where} lacks {', '.join(missing)}")
    if table.schema.field(sorted_by).type != _TIME:
        kind = table.schema.field(sorted_by).type
        raise ConfigurationError(f"{where}: {sorted_by} must be {_TIME} in UTC, found {kind}")
    times = pc.cast(table[sorted_by], pa.int64())
    if times.null_count:
        raise ConfigurationError(f"{where}: {sorted_by} holds {times.null_count} nulls")
    if len(times) > 1 and pc.min(pc.pairwise_diff(times.combine_chunks())).as_py() < 0:
        raise ConfigurationError(f"{where}: is not sorted by {sorted_by}")
