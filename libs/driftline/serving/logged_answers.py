"""Looks for the answer to one request in the log, forwards from an instant."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from driftline.contracts import prediction_fields as fields
from driftline.features.keys import partition_of
from driftline.runtime.errors import UnavailableError
from driftline.runtime.ids import id_time_ms
from driftline.serving.kept_answers import RepeatedRecord
from driftline.serving.log_reading import CLOCK_SLACK_MS, LogReader

_FAILED = fields.STATUSES[2]
#: How far a clock may be set back between making a UUID and stamping its record.
_MADE_SLACK_MS = 1_000


class LoggedAnswers:
    """The log, asked now and then. Connects when it is asked first. For one thread.

    Parameters
    ----------
    read
        Returns the record of a framed value; UnavailableError where it is none.
    made_seconds
        How long after it was made a predictor's own UUID comes into the log, at most.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topic: str,
        read: Callable[[bytes], RepeatedRecord],
        *,
        made_seconds: float,
    ) -> None:
        self._kafka = {**kafka, "log_level": 2}
        self._topic = topic
        self.read = read
        self._made_ms = round(made_seconds * 1_000)
        self._reader: LogReader | None = None

    def find(self, request_id: str, since_ms: int) -> bytes | None:
        """Return the first framed answer or refusal that was logged for a request since an instant; None without one.

        Raises
        ------
        UnavailableError
            The broker does not answer.
        """
        return self._find(request_id, since_ms - CLOCK_SLACK_MS, None)

    def find_made(self, request_id: str) -> bytes | None:
        """Return what ``find`` does for a UUID of ours: where its record must be, if anywhere.

        The clock that made it also stamped its record, so little has to be read.
        """
        made_ms = id_time_ms(request_id) or 0
        return self._find(request_id, made_ms - _MADE_SLACK_MS, made_ms + self._made_ms)

    def _find(self, request_id: str, since_ms: int, until_ms: int | None) -> bytes | None:
        if self._reader is None:
            self._reader = LogReader(self._kafka)
        held = self._reader.held(self._topic)
        # A topic's request may have written its UUID in capitals; such a record lies elsewhere.
        homes = dict.fromkeys(partition_of(one, len(held)) for one in (request_id, request_id.upper()))
        for home in homes:
            start = self._reader.offset_at(held[home], since_ms)
            stop = held[home].stop if until_ms is None else self._reader.offset_at(held[home], until_ms)
            for messages in self._reader.read([replace(held[home], start=start, stop=stop)]):
                for message in messages:
                    value = message.value()
                    named = (message.key() or b"").lower() == request_id.encode()
                    if named and value and self._answers(value):
                        return value
        return None

    def close(self) -> None:
        """Let go of the log."""
        if self._reader is not None:
            self._reader.__exit__(None, None, None)
            self._reader = None

    def _answers(self, value: bytes) -> bool:
        try:
            return bool(self.read(value)[fields.STATUS] != _FAILED)
        except UnavailableError:
            return False
