"""Requests from the topic to predictions in the log, exactly once: decode, drop repeats, predict, encode, commit."""

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
from services.predictor.topic_repeats import TopicRepeats

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
        repeats: TopicRepeats | None = None,
    ) -> None:
        self._engine = engine
        self._decoder = decoder
        self._encoder = encoder
        self._sink = sink
        self._log = log
        self._ceiling = ceiling
        self._look_after = look_after
        self._repeats = repeats

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """Start where the group has committed."""
        return self._sink.positions(partitions)

    def prepare(self, batches: Sequence[PartitionBatch]) -> Callable[[], None]:
        """Predict batches; answers, dead letters and offsets are one transaction, which what is returned makes."""
        messages = [message for batch in batches for message in batch.messages]
        with metrics.STEP_SECONDS.labels("decode").time():
            decoded = self._decoder.decode([message.value() for message in messages])
        self._ceiling.check(total=len(messages), bad=len(decoded.bad))
        requests = decoded.table
        if self._repeats is not None:
            with metrics.STEP_SECONDS.labels("repeats").time():
                requests = self._repeats.drop(requests, [messages[row] for row in decoded.rows.tolist()])
        predictions = self._engine.predict(requests, TOPIC)
        with metrics.STEP_SECONDS.labels("encode").time():
            values = self._encoder.encode(predictions)
        if self._repeats is not None:
            self._repeats.release_failed(predictions)
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
