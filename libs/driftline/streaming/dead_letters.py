"""Dead letters: a bad message goes aside with its bytes, its headers and the reason, its neighbours go on.

The headers are Kafka Connect's, so that tools which know those can read them. Topic, partition and offset
of the original are a dead letter's identity: one that was written twice (a crash between the dead letter and
the commit) counts once.
"""

import traceback
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from driftline.runtime import metrics
from driftline.runtime.errors import BadMessageError, DeadLetterCeilingError, UnavailableError

_PREFIX = "__connect.errors."
TOPIC = _PREFIX + "topic"
PARTITION = _PREFIX + "partition"
OFFSET = _PREFIX + "offset"
CONNECTOR_NAME = _PREFIX + "connector.name"
TASK_ID = _PREFIX + "task.id"
STAGE = _PREFIX + "stage"
CLASS_NAME = _PREFIX + "class.name"
EXCEPTION_CLASS_NAME = _PREFIX + "exception.class.name"
EXCEPTION_MESSAGE = _PREFIX + "exception.message"
EXCEPTION_STACKTRACE = _PREFIX + "exception.stacktrace"
#: Ours: the original's timestamp (ms), and its size where its bytes did not fit.
TIMESTAMP = "driftline.original.timestamp"
TRUNCATED_FROM = "driftline.truncated.from"

#: A dead letter with all its headers stays below the broker's usual limit of 1,048,588 bytes.
MAX_BYTES = 1_040_000
_MAX_TEXT = 4_000
_FLUSH_SECONDS = 30.0

#: Headers as the client takes them.
Headers = list[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message for the dead-letter topic, with the place that it comes from."""

    topic: str
    stage: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a dead letter comes from and why it is one, read back from its headers."""

    topic: str
    partition: int
    offset: int
    stage: str
    service: str
    instance: str
    error: str
    message: str
    timestamp_ms: int | None
    truncated_from: int | None

    @property
    def id(self) -> str:
        """The dead letter's identity; readers apply each once."""
        return f"{self.topic}/{self.partition}/{self.offset}"


def dead_letter(message: Message, error: BadMessageError, *, service: str, instance: str) -> DeadLetter:
    """Return the dead letter of a message: original key, value and headers, with the reason added."""
    topic = message.topic() or ""
    cause = error.__cause__ or error
    reason = {
        TOPIC: topic,
        PARTITION: str(message.partition()),
        OFFSET: str(message.offset()),
        CONNECTOR_NAME: service,
        TASK_ID: instance,
        STAGE: error.stage,
        CLASS_NAME: f"driftline.{service}",
        EXCEPTION_CLASS_NAME: f"{type(error).__module__}.{type(error).__qualname__}",
        EXCEPTION_MESSAGE: error.reason[:_MAX_TEXT],
        EXCEPTION_STACKTRACE: "".join(traceback.format_exception(cause))[-_MAX_TEXT:],
        TIMESTAMP: str(message.timestamp()[1]),
    }
    # A resubmitted dead letter that fails again says why it failed this time.
    original = [pair for pair in cast(Headers, message.headers() or []) if pair[0] not in reason]
    key, value = message.key(), message.value()
    headers: Headers = [*original, *((name, text.encode()) for name, text in reason.items())]
    room = MAX_BYTES - len(key or b"") - sum(len(n) + len(v or b"") + 10 for n, v in headers)
    if value is not None and len(value) > room:
        headers.append((TRUNCATED_FROM, str(len(value)).encode()))
        value = value[: max(0, room)]
    return DeadLetter(topic=topic, stage=error.stage, key=key, value=value, headers=headers)


def read_origin(headers: Iterable[tuple[str, bytes | None]]) -> Origin | None:
    """Return where a message of the dead-letter topic comes from; None where its headers do not say."""
    found = {name: (value or b"").decode(errors="replace") for name, value in headers}
    try:
        return Origin(
            topic=found[TOPIC],
            partition=int(found[PARTITION]),
            offset=int(found[OFFSET]),
            stage=found.get(STAGE, ""),
            service=found.get(CONNECTOR_NAME, ""),
            instance=found.get(TASK_ID, ""),
            error=found.get(EXCEPTION_CLASS_NAME, ""),
            message=found.get(EXCEPTION_MESSAGE, ""),
            timestamp_ms=int(found[TIMESTAMP]) if TIMESTAMP in found else None,
            truncated_from=int(found[TRUNCATED_FROM]) if TRUNCATED_FROM in found else None,
        )
    except (KeyError, ValueError):
        return None


def original_headers(headers: Iterable[tuple[str, bytes | None]]) -> Headers:
    """Return a dead letter's headers without those that were added to it, for resubmitting it."""
    added = {TIMESTAMP, TRUNCATED_FROM}
    return [pair for pair in headers if not pair[0].startswith(_PREFIX) and pair[0] not in added]


class DeadLetterTopic:
    """Writes dead letters and waits for their acknowledgement, for sinks that are not Kafka transactions."""

    def __init__(self, kafka: Mapping[str, Any], topic: str) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                **kafka,
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": "murmur2_random",
                "linger.ms": 2,
                "message.timeout.ms": 20_000,
            }
        )

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Write all and return once the broker has acknowledged each.

        Raises
        ------
        UnavailableError
            The broker did not acknowledge all of them; writing them again is harmless.
        """
        if not letters:
            return
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        try:
            for letter in letters:
                self._produce(letter, delivered)
            unsent = self._producer.flush(_FLUSH_SECONDS)
        except KafkaException as error:
            raise UnavailableError(f"dead letters cannot be written: {error}") from error
        if failures or unsent:
            self._producer.purge()
            self._producer.flush(1.0)
            reason = failures[0].str() if failures else "no acknowledgement in time"
            raise UnavailableError(f"{len(failures) + unsent} dead letters were not written: {reason}")

    def _produce(self, letter: DeadLetter, delivered: Any) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value=letter.value,
                    key=letter.key,
                    headers=list(letter.headers),
                    on_delivery=delivered,
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                return


def count_dead_letters(letters: Iterable[DeadLetter]) -> None:
    """Add to the metric; to be called once they are committed."""
    for letter in letters:
        metrics.DEAD_LETTERS.labels(letter.topic, letter.stage).inc()


class DeadLetterCeiling:
    """Stops a service whose messages are mostly bad: the fault is then ours, or upstream, not theirs.

    Looks at the last ``window`` messages and more, batch by batch. It must see at least ``minimum`` bad ones.

    >>> ceiling = DeadLetterCeiling(share=0.5, window=10, minimum=3)
    >>> ceiling.check(total=10, bad=3)
    >>> ceiling.check(total=4, bad=4)
    >>> ceiling.check(total=6, bad=6)
    Traceback (most recent call last):
    driftline.runtime.errors.DeadLetterCeilingError: 10 of the last 10 messages were bad (ceiling 50%): ...
    """

    def __init__(self, *, share: float = 0.5, window: int = 1_000, minimum: int = 200) -> None:
        self._share = share
        self._window = window
        self._minimum = minimum
        self._batches: deque[tuple[int, int]] = deque()

    def check(self, *, total: int, bad: int) -> None:
        """Look at a batch *before* it is committed; raise DeadLetterCeilingError where it is too much."""
        self._batches.append((total, bad))
        totals = sum(part for part, _ in self._batches)
        while totals - self._batches[0][0] >= self._window:
            totals -= self._batches.popleft()[0]
        bads = sum(part for _, part in self._batches)
        if bads >= self._minimum and bads > self._share * totals:
            msg = (
                f"{bads} of the last {totals} messages were bad (ceiling {self._share:.0%}): nothing of this batch "
                f"is committed. Look at the newest dead letters, mend the cause, then start again"
            )
            raise DeadLetterCeilingError(msg)
