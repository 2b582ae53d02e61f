"""Looks for the answer to one request in the log, forwards from an instant."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from driftline.contracts import prediction_fields as fields
from driftline.features.keys import partition_of
from driftline.runtime.errors import UnavailableError
from driftline.serving.kept_answers import RepeatedRecord
from driftline.serving.log_reading import CLOCK_SLACK_MS, LogReader

_FAILED = fields.STATUSES[2]


class LoggedAnswers:
    """The log, asked now and then. Connects when it is asked first. For one thread.

    Parameters
    ----------
    read
        Returns the record of a framed value; UnavailableError where it is none.
    """

    def __init__(self, kafka: Mapping[str, Any], topic: str, read: Callable[[bytes], RepeatedRecord]) -> None:
        self._kafka = {**kafka, "log_level": 2}
        self._topic = topic
        self.read = read
        self._reader: LogReader | None = None

    def find(self, request_id: str, since_ms: int) -> bytes | None:
        """Return the first framed answer or refusal that was logged for a request since an instant; None without one.

        Raises
        ------
        UnavailableError
            The broker does not answer.
        """
        if self._reader is None:
            self._reader = LogReader(self._kafka)
        held = self._reader.held(self._topic)
        # A topic's request may have written its UUID in capitals; such a record lies elsewhere.
        homes = dict.fromkeys(partition_of(one, len(held)) for one in (request_id, request_id.upper()))
        for home in homes:
            start = self._reader.offset_at(held[home], since_ms - CLOCK_SLACK_MS)
            for messages in self._reader.read([replace(held[home], start=start)]):
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
