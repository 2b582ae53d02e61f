"""Requests from the topic to predictions in the log, exactly once: decode, predict, encode, commit."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from confluent_kafka import Message

from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchDecoder, BatchEncoder
from driftline.runtime import metrics
from driftline.runtime.errors import BadMessageError
from driftline.serving.predict import PredictionEngine
from driftline.streaming.dead_letters import DeadLetterCeiling
from driftline.streaming.kafka_sink import KafkaSink
from driftline.streaming.partitions import Partition, PartitionBatch

SERVICE = "predictor"
TOPIC = fields.CHANNELS[1]


class PredictorPipeline:
    """The steps from a batch of requests to the log (a ``driftline.streaming.overlapped.TwoStep``)."""

    def __init__(
        self,
        engine: PredictionEngine,
        decoder: BatchDecoder,
        encoder: BatchEncoder,
        sink: KafkaSink,
        *,
        log: str,
        ceiling: DeadLetterCeiling,
        look_after: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._decoder = decoder
        self._encoder = encoder
        self._sink = sink
        self._log = log
        self._ceiling = ceiling
        self._look_after = look_after

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """Start where the group has committed."""
        return self._sink.positions(partitions)

    def prepare(self, batches: Sequence[PartitionBatch]) -> Callable[[], None]:
        """Predict batches; answers, dead letters and offsets are one transaction, which what is returned makes."""
        messages = [message for batch in batches for message in batch.messages]
        with metrics.STEP_SECONDS.labels("decode").time():
            decoded = self._decoder.decode([message.value() for message in messages])
        self._ceiling.check(total=len(messages), bad=len(decoded.bad))
        predictions = self._engine.predict(decoded.table, TOPIC)
        with metrics.STEP_SECONDS.labels("encode").time():
            values = self._encoder.encode(predictions)
        keys = predictions.column(fields.REQUEST_ID).to_pylist()
        bad = [(messages[row.index], row.error) for row in decoded.bad]
        return partial(self._commit, batches, keys, values, bad, self._sink.member())

    def _commit(
        self,
        batches: Sequence[PartitionBatch],
        keys: Sequence[str],
        values: Sequence[bytes],
        bad: Sequence[tuple[Message, BadMessageError]],
        member: Any,
    ) -> None:
        with (
            metrics.STEP_SECONDS.labels("commit").time(),
            self._sink.transaction(batches, member=member) as transaction,
        ):
            transaction.send(self._log, keys, values)
            for message, error in bad:
                transaction.dead_letter(message, error)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Nothing is kept of a partition."""

    def idle(self) -> Mapping[Partition, float]:
        """Once a second: follow the active models."""
        self._look_after()
        return {}
