"""Answers that were logged before, read again from their framed records, and whether a request is the one they answer."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from driftline.contracts import prediction_fields as fields
from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import split
from driftline.project import Project
from driftline.runtime.clock import instant_us
from driftline.runtime.errors import BadMessageError, UnavailableError


class RepeatedRecord(dict[str, Any]):
    """A record of the log (times in microseconds) that is given as an answer once more."""


class KeptAnswers:
    """Reads framed records of a project's log.

    Parameters
    ----------
    schema_of
        Returns a writer's schema by its id: an answer may be older than this process's project.
    """

    def __init__(self, project: Project, schema_of: Callable[[int], Mapping[str, Any]]) -> None:
        self._codec = RecordCodec(prediction_schema(project))
        self._schema_of = schema_of
        self._asked = (
            fields.MODEL,
            *project.request_entities,
            *(one.name for one in project.request_inputs),
        )

    def read(self, value: bytes) -> RepeatedRecord:
        """Return the record; raise UnavailableError where it cannot be read."""
        try:
            schema_id, body = split(value)
            record = self._codec.decode(body, self._schema_of(schema_id))
        except BadMessageError as error:
            raise UnavailableError(f"the answer of before cannot be read: {error}") from error
        return RepeatedRecord(
            {name: instant_us(one) if isinstance(one, datetime) else one for name, one in record.items()}
        )

    def differences(self, first: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
        """Return the names of what a request asks otherwise than the first one of its UUID.

        An instant counts where both name one: without one it is when the request came. Who asks does not count.
        """
        found = [name for name in self._asked if first[name] != request[name]]
        if _named_instant(first) and _named_instant(request):
            found += [name for name in (fields.EVENT_TIME,) if first[name] != request[name]]
        return found


def _named_instant(request: Mapping[str, Any]) -> bool:
    return bool(request[fields.EVENT_TIME] != request[fields.REQUESTED_AT])
