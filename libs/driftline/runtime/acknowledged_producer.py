"""A Kafka producer whose sends complete when the broker has acknowledged, for asyncio and for threads.

1. ``send`` counts the message as in flight, or raises BackpressureError at the bound: memory stays bounded and the
   caller learns at once.
2. librdkafka batches, compresses, retries; idempotent, so a retry writes once and in order.
3. A thread polls for delivery reports. It gathers those of one poll, counts them at once, and completes their futures
   with one wake-up of the event loop, not one each.
4. A second thread asks the broker for metadata every second: a broker that holds its connections open but is silent
   shows in ``/readyz`` as well, even when nothing is being sent.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future as ThreadFuture
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from driftline.runtime.errors import BackpressureError, BadMessageError, DriftlineError, UnavailableError
from driftline.runtime.futures import complete
from driftline.runtime.health import Health
from driftline.runtime.logging import get_logger
from driftline.runtime.metrics import PRODUCE_FAILURES, PRODUCE_IN_FLIGHT

Headers = Sequence[tuple[str, bytes]]

_POLL_SECONDS = 0.1
_PROBE_SECONDS = 1.0
_log = get_logger(__name__)


class Acknowledgement(NamedTuple):
    """Where the broker wrote a message."""

    topic: str
    partition: int
    offset: int


Outcome: TypeAlias = Acknowledgement | DriftlineError
#: Told what became of a message.
Tell: TypeAlias = Callable[[Outcome], None]
#: A delivery report: the event loop to tell on (None: at once, on the producer's thread), whom to tell, and what.
_Report: TypeAlias = tuple[asyncio.AbstractEventLoop | None, Tell, Outcome]


class Sending(NamedTuple):
    """A message to be sent, and who is told on which event loop what became of it."""

    loop: asyncio.AbstractEventLoop
    key: bytes | str | None
    value: bytes | None
    tell: Tell


class AcknowledgedProducer:
    """Sends to Kafka; each send completes with an Acknowledgement or fails with an error of our vocabulary.

    Parameters
    ----------
    config
        Connection settings of librdkafka (``PlatformSettings.kafka_config()``); more settings override ours.
    max_in_flight
        Messages that may wait for their acknowledgement; more are refused with BackpressureError.
    delivery_seconds
        A message that is not acknowledged by then fails with UnavailableError. Below the callers' deadline.
    requests_in_flight
        Produce requests under way to a broker at a time, 1 to 5. With one, what comes while it is under way makes up the
        next: no linger is needed, and librdkafka's thread does not spin on messages that are due and have to wait.
    health
        Where ``broker`` is reported, by a probe each second.
    on_fatal
        Called once, from a thread, when the producer can never send again; the process should end.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        max_in_flight: int = 20_000,
        delivery_seconds: float = 5.0,
        linger_ms: float = 1.0,
        requests_in_flight: int = 5,
        health: Health | None = None,
        on_fatal: Callable[[str], None] | None = None,
    ) -> None:
        self._max_in_flight = max_in_flight
        self._health = health
        self._on_fatal = on_fatal
        self._lock = threading.Lock()
        self._in_flight = 0
        self._reports: list[_Report] = []  # of the poll thread alone
        self._fatal = ""
        self._told = ""
        self._closing = threading.Event()
        self._closed = threading.Event()
        self._producer = Producer(
            {
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",  # as Java's clients: the feature store computes partitions alike
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "max.in.flight.requests.per.connection": requests_in_flight,
                "message.timeout.ms": round(delivery_seconds * 1000),
                "queue.buffering.max.messages": max_in_flight + 1_000,
                "socket.timeout.ms": max(1_000, round(delivery_seconds * 1000)),
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 1_000,
                "socket.nagle.disable": True,
                "topic.metadata.propagation.max.ms": 2_000,
                "log_level": 2,  # each failed reconnection would be a line; what matters is in the health
                **config,
                "error_cb": self._on_error,
            }
        )
        if health is not None:
            health.set("broker", False, "no answer yet")
        self._threads = [
            threading.Thread(target=self._poll, name="producer-poll", daemon=True),
            threading.Thread(target=self._probe, name="producer-probe", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def in_flight(self) -> int:
        """Messages that wait for their acknowledgement."""
        return self._in_flight

    def check_room(self, messages: int) -> None:
        """Raise BackpressureError where so many more messages would be too many."""
        if self._in_flight + messages > self._max_in_flight:
            raise BackpressureError(f"{self._in_flight} messages wait for the broker already")

    def send(
        self, topic: str, key: bytes | str | None, value: bytes | None, headers: Headers = ()
    ) -> asyncio.Future[Acknowledgement]:
        """Send from a coroutine; await what is returned for the acknowledgement.

        Raises (here, or when awaited)
        ------------------------------
        BackpressureError
            Too many messages are in flight.
        BadMessageError
            The message can never be sent: too large, no such topic.
        UnavailableError
            The broker did not acknowledge in time. It may still have the message: send again with the same id.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Acknowledgement] = loop.create_future()

        self._produce(topic, key, value, headers, loop, partial(complete, future))
        return future

    def send_together(self, topic: str, messages: Sequence[Sending]) -> None:
        """Send messages from any thread, in one go: much cheaper than one by one, above all where other threads run.

        Each is told what became of it, refusals included; nothing is raised.
        """
        taken = 0
        refusal: DriftlineError | None = None
        with self._lock:  # 1.
            try:
                self._check_open()
                taken = min(len(messages), self._max_in_flight - self._in_flight)
                self._in_flight += taken
            except UnavailableError as error:
                refusal = error
        refused = [(one, refusal or self._full()) for one in messages[taken:]]
        produced = [
            {
                "key": one.key,
                "value": one.value,
                "callback": partial(self._on_delivery, topic, one.loop, one.tell),
            }
            for one in messages[:taken]
        ]
        PRODUCE_IN_FLIGHT.inc(taken)
        try:
            if produced:
                self._producer.produce_batch(topic, produced)
        except KafkaException as error:  # of the topic as a whole
            failures: list[Any] = [error.args[0]] * taken
        else:
            failures = [message.get("_error") for message in produced]
        unsent = [
            (one, _explain(found, topic)) for one, found in zip(messages, failures, strict=False) if found
        ]
        self._leave(len(unsent))
        for one, told in (*unsent, *refused):
            _tell_on(one.loop, [(one.tell, told)])

    def submit(
        self, topic: str, key: bytes | str | None, value: bytes | None, headers: Headers = ()
    ) -> ThreadFuture[Acknowledgement]:
        """Send from a thread; like ``send``, with a future of ``concurrent.futures``."""
        future: ThreadFuture[Acknowledgement] = ThreadFuture()

        def report(result: Outcome) -> None:
            if not future.set_running_or_notify_cancel():
                return
            if isinstance(result, DriftlineError):
                future.set_exception(result)
            else:
                future.set_result(result)

        self._produce(topic, key, value, headers, None, report)
        return future

    def _produce(
        self,
        topic: str,
        key: bytes | str | None,
        value: bytes | None,
        headers: Headers,
        loop: asyncio.AbstractEventLoop | None,
        tell: Tell,
    ) -> None:
        with self._lock:  # 1.
            self._check_open()
            if self._in_flight >= self._max_in_flight:
                raise self._full()
            self._in_flight += 1
        PRODUCE_IN_FLIGHT.inc()
        on_delivery = partial(self._on_delivery, topic, loop, tell)
        try:
            self._producer.produce(topic, value, key, headers=list(headers), on_delivery=on_delivery)
        except (BufferError, KafkaException, ValueError) as error:
            self._leave(1)
            if isinstance(error, BufferError):
                raise BackpressureError("the producer's queue is full") from error
            if isinstance(error, KafkaException):
                raise _explain(error.args[0], topic) from error
            raise BadMessageError(str(error), stage="produce") from error

    def _check_open(self) -> None:
        if self._fatal or self._closing.is_set():
            raise UnavailableError(self._fatal or "the producer is closed")

    def _full(self) -> BackpressureError:
        return BackpressureError(f"{self._in_flight} messages wait for the broker already")

    def _leave(self, messages: int) -> None:
        """Count messages that are in flight no more."""
        if messages:
            with self._lock:
                self._in_flight -= messages
            PRODUCE_IN_FLIGHT.dec(messages)

    def _on_delivery(
        self,
        topic: str,
        loop: asyncio.AbstractEventLoop | None,
        tell: Tell,
        error: KafkaError | None,
        message: Message,
    ) -> None:
        if error is None:
            outcome: Outcome = Acknowledgement(topic, message.partition() or 0, message.offset() or 0)
        else:
            PRODUCE_FAILURES.labels(topic).inc()
            outcome = _explain(error, topic)
        self._reports.append((loop, tell, outcome))

    def _poll(self) -> None:
        while not self._closed.is_set():
            if self._closing.is_set():
                self._producer.flush(0)  # do not linger
            self._producer.poll(_POLL_SECONDS)
            self._complete()

    def _complete(self) -> None:
        if not self._reports:
            return
        ready, self._reports = self._reports, []
        self._leave(len(ready))
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Tell, Outcome]]] = {}
        for loop, tell, outcome in ready:  # 3.
            if loop is None:
                tell(outcome)
            else:
                by_loop.setdefault(loop, []).append((tell, outcome))
        for loop, told in by_loop.items():
            _tell_on(loop, told)

    def _probe(self) -> None:
        while not self._closing.wait(_PROBE_SECONDS if self._health and self._health.ready else 0.2):
            try:
                found = self._producer.list_topics(topic="__consumer_offsets", timeout=2.0)  # 4.
            except KafkaException as error:
                self._report_broker(False, str(error.args[0].str()))
            else:
                self._report_broker(bool(found.brokers), "" if found.brokers else "the cluster has no broker")

    def _report_broker(self, ready: bool, detail: str) -> None:
        if self._health is not None and not self._fatal and not self._closing.is_set():
            detail = detail and f"the broker does not answer: {detail}"
            self._health.set("broker", ready, detail)
            if detail != self._told:
                self._told = detail
                _log.warning("broker lost" if detail else "broker answers", detail=detail)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._die(error.str())
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._report_broker(False, error.str())

    def _die(self, reason: str) -> None:
        if self._fatal:
            return
        self._fatal = f"the producer failed for good: {reason}"
        _log.error("producer failed for good", reason=reason)
        if self._health is not None:
            self._health.fail("broker", self._fatal)
        if self._on_fatal is not None:
            self._on_fatal(self._fatal)

    def close(self, timeout: float = 10.0) -> int:
        """Flush, fail what is left, stop the threads; return how many messages were not acknowledged."""
        with self._lock:
            if self._closing.is_set():
                return self._in_flight
            self._closing.set()
        until = time.monotonic() + timeout
        while self._in_flight and time.monotonic() < until:
            time.sleep(0.002)  # the poll thread takes the reports
        left = self._in_flight
        if left:
            self._producer.purge()
            until = time.monotonic() + 1.0
            while self._in_flight and time.monotonic() < until:
                time.sleep(0.002)
        self._closed.set()
        for thread in self._threads:
            thread.join(5)
        self._complete()
        return left


def _tell_on(loop: asyncio.AbstractEventLoop, told: Sequence[tuple[Tell, Outcome]]) -> None:
    try:
        loop.call_soon_threadsafe(_settle, told)
    except RuntimeError:  # the loop is closed: nobody waits any more
        _log.warning("acknowledgements for a closed event loop", count=len(told))


def _settle(told: Sequence[tuple[Tell, Outcome]]) -> None:
    for tell, outcome in told:
        try:
            tell(outcome)
        except Exception as error:  # noqa: BLE001 - the others are told
            _log.error("telling of an acknowledgement failed", exc_info=error)


def _explain(error: KafkaError, topic: str) -> DriftlineError:
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return BadMessageError(f"the message is larger than {topic} takes", stage="produce")
    if error.code() in {KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART}:
        return UnavailableError(f"topic {topic} does not exist yet: run `driftline topics`")
    if error.code() == KafkaError._QUEUE_FULL:
        return BackpressureError("the producer's queue is full")
    return UnavailableError(f"the broker did not acknowledge: {error.str()}")
