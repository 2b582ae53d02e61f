"""Write to the log of alert inputs, and wait until the broker has it."""

from collections.abc import Mapping
from typing import Any

from driftline.alerts.inputs import ALERT_INPUT, Input, input_record
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import ALERT_INPUTS, Topics
from driftline.contracts.wire import frame
from driftline.runtime.acknowledged_producer import AcknowledgedProducer
from driftline.runtime.clock import Clock, SystemClock

#: The stream of alert inputs.
_SECONDS = 10.0


class InputLog:
    """Puts inputs on ``<prefix>.alert-inputs``, keyed by group. Thread-safe."""

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topics: Topics,
        registry: SchemaRegistry,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._topic = topics.stream(ALERT_INPUTS)
        self._registry = registry
        self._clock = clock or SystemClock()
        self._codec = RecordCodec(ALERT_INPUT)
        self._producer = AcknowledgedProducer(kafka, delivery_seconds=_SECONDS)

    def put(self, event: Input) -> None:
        """Write an input and wait for its acknowledgement.

        Raises
        ------
        UnavailableError
            The broker or the registry does not answer.
        ConfigurationError
            The schema is not registered.
        """
        schema_id = self._registry.schema_id(Topics.subject(self._topic), ALERT_INPUT)
        value = frame(schema_id, self._codec.encode(input_record(event, at_us=self._clock.now_us())))
        self._producer.submit(self._topic, event.group, value).result(_SECONDS + 5)

    def close(self) -> None:
        """Send what is left and disconnect."""
        self._producer.close()
