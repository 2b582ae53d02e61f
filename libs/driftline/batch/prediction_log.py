"""The prediction log as one job writes it: predictions and the job's progress are one Kafka transaction.

The progress is the committed offset of a consumer group that bears the job's name and that nobody joins: the number of
the last row of the file that is done. So the broker knows where a job stands, wherever its next run is started.

1. Start: a producer of the job's name fences an earlier one, and the broker settles what that one left. Then the
   progress is read.
2. Write: predictions and progress are committed together, or neither is.
3. After a failure nobody knows whether 2 happened: back to 1, which tells.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from driftline.contracts.topics import Topics
from driftline.runtime.errors import RefusedError, UnavailableError
from driftline.streaming.kafka_sink import KafkaSink
from driftline.streaming.partitions import Partition, PartitionBatch

SERVICE = "batch"
_REQUEST_SECONDS = 10.0
_FENCED = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}


class PredictionLog(Protocol):
    """Where a job's predictions go, with its progress."""

    def start(self) -> int:
        """Return the number of the last row that is done, 0 for none; for the start, and after every failure."""
        ...

    def write(self, keys: Sequence[str], values: Sequence[bytes], *, through: int) -> None:
        """Write predictions, and that all rows through this one are done: both or neither.

        Raises
        ------
        UnavailableError
            It is not known whether it was written: ``start`` tells.
        RefusedError
            Another process has taken the job over.
        """
        ...

    def close(self) -> None:
        """Let go of the log."""
        ...


class KafkaPredictionLog:
    """A job's predictions in a Kafka topic."""

    def __init__(self, kafka: Mapping[str, Any], topics: Topics, *, job: str) -> None:
        group = f"{topics.prefix}.{SERVICE}-{job}"
        self._topic = topics.predictions
        self._bookmark = _Bookmark(kafka, group)
        self._sink = KafkaSink(
            kafka,
            self._bookmark,
            group=group,
            service=SERVICE,
            instance="0",
            dead_letters=topics.dead_letters,
        )
        self._place = Partition(self._topic, 0)

    def start(self) -> int:
        """Return the number of the last row that is done. See ``PredictionLog``."""
        try:
            return self._sink.positions([self._place])[self._place] or 0  # 1.
        except KafkaException as error:
            raise _refusal(error) from error

    def write(self, keys: Sequence[str], values: Sequence[bytes], *, through: int) -> None:
        """Commit predictions and progress. See ``PredictionLog``."""
        done = PartitionBatch(partition=self._place, messages=(), next_offset=through)
        try:
            with self._sink.transaction([done]) as transaction:  # 2.
                transaction.send(self._topic, keys, values)
        except KafkaException as error:
            raise _refusal(error) from error

    def close(self) -> None:
        """Let the last callbacks run, and close the connection."""
        self._sink.close()
        self._bookmark.close()


class _Bookmark:
    """A consumer group of which only the committed offset is used."""

    def __init__(self, kafka: Mapping[str, Any], group: str) -> None:
        self._consumer = Consumer({**kafka, "group.id": group, "enable.auto.commit": False, "log_level": 2})

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, int | None]:
        """Return the group's committed offsets; None where there is none."""
        wanted = [TopicPartition(*partition) for partition in partitions]
        try:
            answer = self._consumer.committed(wanted, timeout=_REQUEST_SECONDS)
        except KafkaException as error:
            raise UnavailableError(f"the job's progress cannot be read: {error}") from error
        for found in answer:
            if found.error is not None:
                raise UnavailableError(f"the job's progress cannot be read: {found.error}")
        return {
            Partition(found.topic, found.partition): found.offset if found.offset >= 0 else None
            for found in answer
        }

    def group_metadata(self) -> Any:
        """Return the group as a transaction wants it."""
        return self._consumer.consumer_group_metadata()

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


def _refusal(error: KafkaException) -> RefusedError:
    if error.args[0].code() in _FENCED:
        return RefusedError("another run of this file for this model took over, so this one ends")
    return RefusedError(f"the broker does not take transactions from this process: {error}")
