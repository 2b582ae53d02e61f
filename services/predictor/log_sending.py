"""The last steps of a prediction over HTTP: encoded, claimed, sent to the log; its caller is told once it is there."""

from collections.abc import Callable, Sequence
from functools import partial

from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchEncoder
from driftline.runtime.acknowledged_producer import AcknowledgedProducer, Sending
from driftline.runtime.errors import BadMessageError, DriftlineError, UnavailableError
from driftline.runtime.pipelined_redis import PipelinedRedis
from driftline.serving.predict import PredictionEngine
from driftline.serving.rows import RequestRows
from services.predictor.each_anew import EachAnew, Framed
from services.predictor.waiting import Record, WaitingRequest
from services.predictor.zero_wait_queue import call

HTTP = fields.CHANNELS[0]

#: Predictions and who waits for them.
Made = Sequence[tuple[WaitingRequest, Record]]


class LogSending:
    """Sends predictions to the log, from a thread or from the event loop.

    Parameters
    ----------
    numbers
        Names of the requests' fields that are floats.
    topic
        The log.
    """

    def __init__(
        self,
        engine: PredictionEngine,
        encoder: BatchEncoder,
        producer: AcknowledgedProducer,
        repeats: EachAnew,
        *,
        numbers: frozenset[str],
        topic: str,
    ) -> None:
        self._engine = engine
        self._encoder = encoder
        self._producer = producer
        self._repeats = repeats
        self._numbers = numbers
        self._topic = topic

    def rows(self, taken: Sequence[WaitingRequest]) -> RequestRows:
        """Return requests as the engine takes them."""
        return RequestRows([one.request for one in taken], self._numbers)

    def send(self, made: Made, failure: DriftlineError | None) -> None:
        """Send predictions to the log; each caller is told once its own is there. ``failure`` is told instead of it."""
        framed = self._framed(made)
        if failure is None:
            try:
                framed = self._repeats.claim(framed)
            except UnavailableError as error:
                self._send_failed(framed, error)
                return
        self._to_log(framed, failure)

    def send_by(self, server: PipelinedRedis, made: Made, done: Callable[[Exception | None], None]) -> None:
        """Do as ``send``, from an event loop that has a connection of its own.

        ``done`` is told once all is sent (None), or why not all of it was.
        """
        framed = self._framed(made)

        def claimed(left: Sequence[Framed] | UnavailableError) -> None:
            error: Exception | None = None
            try:
                if isinstance(left, UnavailableError):
                    self._send_failed(framed, left)
                else:
                    self._to_log(left, None)
            except Exception as raised:  # noqa: BLE001 - it is told
                error = raised
            done(error)

        self._repeats.claim_by(server, framed, claimed)

    def send_framed(
        self,
        one: WaitingRequest,
        record: Record,
        value: bytes | BadMessageError,
        failure: DriftlineError | None = None,
    ) -> None:
        """Send a record to the log; its caller is told once it is there."""
        settle = partial(self._repeats.settle, one, record, value, failure)
        one.sent = True
        if isinstance(value, BadMessageError):
            call(one.loop, partial(settle, value))
        else:
            self._producer.send_together(
                self._topic, [Sending(one.loop, record[fields.REQUEST_ID], value, settle)]
            )

    def _framed(self, made: Made) -> Sequence[Framed]:
        values = self._encoder.encode_records([record for _, record in made])
        return [(one, record, value) for (one, record), value in zip(made, values, strict=True)]

    def _send_failed(self, framed: Sequence[Framed], error: UnavailableError) -> None:
        """Log as failed what could not be claimed."""
        callers = [one for one, _, _ in framed]
        failed = self._engine.failed(self.rows(callers), HTTP, str(error))
        self._to_log(self._framed(list(zip(callers, failed, strict=True))), error)

    def _to_log(self, framed: Sequence[Framed], failure: DriftlineError | None) -> None:
        whole = []
        for one, record, value in framed:
            if isinstance(value, BadMessageError):
                self.send_framed(one, record, value, failure)
                continue
            settle = partial(self._repeats.settle, one, record, value, failure)
            one.sent = True
            whole.append(Sending(one.loop, record[fields.REQUEST_ID], value, settle))
        self._producer.send_together(self._topic, whole)
