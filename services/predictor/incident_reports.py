"""Tells `model-events` what this process saw of versions that fail, until the broker has acknowledged it."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from driftline.models.life_log import LifeCodec
from driftline.models.model_event import ModelEvent
from driftline.project import Project
from driftline.runtime.acknowledged_producer import AcknowledgedProducer, Acknowledgement
from driftline.runtime.errors import DriftlineError
from driftline.runtime.logging import get_logger
from driftline.serving.incidents import events_of
from driftline.serving.rack import ModelRack

_log = get_logger(__name__)
_MOST_WAITING = 1_000


class IncidentReports:
    """Sends what the rack noted. Runs on the loop's thread, and waits for nothing there.

    ``open_codec`` asks the schema registry, which is put off until there is something to tell.
    """

    def __init__(
        self,
        project: Project,
        rack: ModelRack,
        producer: AcknowledgedProducer,
        open_codec: Callable[[], LifeCodec],
        *,
        topic: str,
        by: str,
    ) -> None:
        self._project = project
        self._rack = rack
        self._producer = producer
        self._open_codec = open_codec
        self._codec: LifeCodec | None = None
        self._topic = topic
        self._by = by
        self._waiting: deque[ModelEvent] = deque(maxlen=_MOST_WAITING)
        self._sent: list[tuple[ModelEvent, Future[Acknowledgement]]] = []

    def send(self) -> None:
        """Send what is new, and again what the broker did not acknowledge: ids make it count once."""
        self._take_back()
        for incident in self._rack.take_incidents():
            rule = self._project.models[incident.model].promotion
            self._waiting.extend(events_of(incident, rule, by=self._by))
        while self._waiting:
            try:
                if self._codec is None:
                    self._codec = self._open_codec()
                event = self._waiting[0]
                sent = self._producer.submit(self._topic, event.model, self._codec.encode(event))
            except DriftlineError as error:
                _log.warning("a failing version is not told yet", error=str(error))
                return
            self._sent.append((self._waiting.popleft(), sent))

    def _take_back(self) -> None:
        for event, sent in self._sent:
            if sent.done() and sent.exception() is not None:
                _log.warning("a failing version is told again", error=str(sent.exception()))
                self._waiting.append(event)
        self._sent = [(event, sent) for event, sent in self._sent if not sent.done()]
