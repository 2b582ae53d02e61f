"""The rows of a file as requests to one model: a batch of columns, with what is wrong with each row."""

import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.batch.event_files import Row
from driftline.batch.seen_ids import SeenIds
from driftline.contracts import prediction_fields as fields
from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.project_schemas import prediction_request_schema
from driftline.project import InputType, ModelDeclaration, Project
from driftline.runtime.clock import Clock
from driftline.runtime.errors import ConfigurationError
from driftline.serving.request_values import (
    FUTURE_US,
    MAX_CALLER,
    MAX_KEY,
    MAX_TEXT,
    WrongValueError,
    read_instant,
    read_number,
    read_request_id,
    read_text,
)

_REPEATED = "request_id is that of an earlier row; it is not scored again"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRequests:
    """Some rows of a file as requests.

    Attributes
    ----------
    numbers
        The rows' numbers in the file, from 1.
    requests
        Columns of the project's request schema, a row each; what is wrong is null.
    mistakes
        What is wrong with a row, by its position here.
    repeated
        The positions among the mistakes whose UUID an earlier row of the file has.
    """

    numbers: NDArray[np.int64]
    requests: pa.RecordBatch
    mistakes: Mapping[int, str]
    repeated: frozenset[int]


class RequestReader:
    """Reads rows of one file as requests to one model.

    A column is known by its name: the model's entities and inputs, ``request_id``, ``event_time`` and ``caller``.
    A row without a ``request_id`` gets one made of ``namespace`` and its number: the same whenever it is read.

    Parameters
    ----------
    texts
        Whether every cell is a text, as in CSV: then a text may be a number.
    event_time_us
        The instant of rows that name none; None: when they are read.
    """

    def __init__(
        self,
        project: Project,
        model: ModelDeclaration,
        *,
        namespace: uuid.UUID,
        clock: Clock,
        texts: bool,
        caller: str | None = None,
        event_time_us: int | None = None,
    ) -> None:
        self._model = model
        self._schema = arrow_schema(prediction_request_schema(project))
        self._namespace = namespace
        self._clock = clock
        self._caller = caller
        self._event_time_us = event_time_us
        self._seen = SeenIds()
        self._readers: dict[str, Callable[[Any], Any]] = {
            fields.REQUEST_ID: read_request_id,
            fields.EVENT_TIME: _instant_of_text if texts else read_instant,
            fields.CALLER: lambda value: read_text(value, MAX_CALLER),
            **dict.fromkeys(model.entity_keys, lambda value: _key(value, MAX_KEY)),
        }
        for one in model.inputs:
            number = _number_of_text if texts else _number
            self._readers[one.name] = (
                number if one.type is InputType.DOUBLE else lambda value: _key(value, MAX_TEXT)
            )

    @property
    def wanted(self) -> frozenset[str]:
        """The columns that mean something."""
        return frozenset(self._readers)

    @property
    def inputs(self) -> frozenset[str]:
        """The columns that may be missing: the model's inputs."""
        return frozenset(one.name for one in self._model.inputs)

    def check_columns(self, path: Path, columns: Iterable[str]) -> None:
        """Raise ConfigurationError where a column is not there without which every row would be refused."""
        found = set(columns)
        missing = [name for name in self._model.entity_keys if name not in found]
        if missing:
            msg = (
                f"{path}: has no column {', '.join(missing)}, the entity that {self._model.name} is asked about; its "
                f"columns are {', '.join(sorted(found)) or 'none'}. Rename the column, or add it"
            )
            raise ConfigurationError(msg)

    def read(self, rows: Sequence[Row]) -> FileRequests:
        """Return rows as requests; call it with every row of the file, in order."""
        now_us = self._clock.now_us()
        events = [row.event or {} for row in rows]
        mistakes = {at: row.mistake for at, row in enumerate(rows) if row.event is None}
        read = {name: self._column(name, events, mistakes) for name in self._readers}
        as_of = now_us if self._event_time_us is None else self._event_time_us
        times = [as_of if value is None else value for value in read[fields.EVENT_TIME]]
        for at, instant in enumerate(times):
            if not 0 <= instant <= now_us + FUTURE_US:
                _note(mistakes, at, "event_time lies before 1970 or more than a day ahead")
                times[at] = as_of
        for key in self._model.entity_keys:
            for at, value in enumerate(read[key]):
                if value is None:
                    _note(mistakes, at, f"entity {key!r} is missing")
        ids = [
            given or str(uuid.uuid5(self._namespace, str(row.number)))
            for given, row in zip(read[fields.REQUEST_ID], rows, strict=True)
        ]
        repeated = np.flatnonzero(self._seen.add(ids)).tolist() if any(read[fields.REQUEST_ID]) else []
        mistakes.update(dict.fromkeys(repeated, _REPEATED))
        made = {
            **read,
            fields.REQUEST_ID: ids,
            fields.MODEL: [self._model.name] * len(rows),
            fields.REQUESTED_AT: [now_us] * len(rows),
            fields.EVENT_TIME: times,
            fields.CALLER: [self._caller if one is None else one for one in read[fields.CALLER]],
        }
        columns = [
            pa.array(made.get(column.name, [None] * len(rows)), column.type) for column in self._schema
        ]
        return FileRequests(
            numbers=np.array([row.number for row in rows], np.int64),
            requests=pa.RecordBatch.from_arrays(columns, schema=self._schema),
            mistakes=dict(sorted(mistakes.items())),
            repeated=frozenset(repeated),
        )

    def _column(
        self, name: str, events: Sequence[Mapping[str, Any]], mistakes: dict[int, str]
    ) -> list[Any | None]:
        """Return a column's values as the request has them; what is wrong is noted, and null."""
        read = self._readers[name]
        values: list[Any | None] = []
        for at, event in enumerate(events):
            value = event.get(name)
            if value is not None:
                try:
                    value = read(value)
                except WrongValueError as error:
                    _note(mistakes, at, f"{name}: {error}")
                    value = None
            values.append(value)
        return values


def _note(mistakes: dict[int, str], at: int, text: str) -> None:
    """Add a mistake to a row's."""
    if text not in mistakes.get(at, ""):
        mistakes[at] = f"{mistakes[at]}; {text}" if at in mistakes else text


def _key(value: Any, longest: int) -> str | None:
    """Return a text; a whole number is written as one, and NaN is what is missing (a float, where others are)."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if value.is_integer() and abs(value) < 2**53:
            value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return read_text(str(value) if whole else value, longest)


def _number(value: Any) -> float | None:
    """Return a finite number; in a file, NaN is what is missing."""
    return None if isinstance(value, float) and math.isnan(value) else read_number(value)


def _number_of_text(value: Any) -> float | None:
    try:
        return _number(float(value))
    except ValueError as error:
        if isinstance(error, WrongValueError):
            raise
        raise WrongValueError(f"a number is wanted, got {value[:60]!r}") from None


def _instant_of_text(value: Any) -> int:
    digits = value.removeprefix("-")
    return read_instant(int(value) if digits.isascii() and digits.isdigit() else value)
