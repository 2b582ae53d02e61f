"""Retrain requests in, facts about new versions out: one request at a time, each worked on to its end.

1. What the log of model events says of the version already: a request that was finished is passed over.
2. TRAINING_STARTED, in a transaction of its own, so that everyone can see it meanwhile.
3. The job. Between its steps it is asked whether a person has stopped it, or the process shall end.
4. Its facts and the request's offset are one transaction, fenced by the group's generation: whoever has lost the
   partition meanwhile cannot write. Killed before, the request comes again, and makes the same version.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

from confluent_kafka import Message

from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.wire import split
from driftline.models.life_log import LifeCodec, LifeLog
from driftline.models.lifecycle import State, fold
from driftline.models.model_event import Kind, ModelEvent
from driftline.models.retraining import RetrainRequest
from driftline.models.retraining_job import RetrainingJob, TrainingCancelledError
from driftline.project import Project
from driftline.runtime.errors import BadMessageError, UnavailableError
from driftline.runtime.health import Health
from driftline.runtime.logging import get_logger
from driftline.streaming.dead_letters import DeadLetterCeiling
from driftline.streaming.kafka_sink import KafkaSink
from driftline.streaming.partitions import Partition, PartitionBatch

SERVICE = "trainer"
_log = get_logger(__name__)

MakeJob = Callable[[Callable[[str], None]], RetrainingJob]


class TrainerPipeline:
    """The steps from requests to facts (a ``driftline.streaming.loop.Pipeline``); batches hold one message."""

    def __init__(
        self,
        project: Project,
        sink: KafkaSink,
        registry: SchemaRegistry,
        codec: LifeCodec,
        make_job: MakeJob,
        open_log: Callable[[], LifeLog],
        *,
        target: str,
        ceiling: DeadLetterCeiling,
        health: Health,
        stop: threading.Event,
    ) -> None:
        self._project = project
        self._sink = sink
        self._registry = registry
        self._requests = RecordCodec(platform_schema("retrain_request"))
        self._codec = codec
        self._make_job = make_job
        self._open_log = open_log
        self._target = target
        self._ceiling = ceiling
        self._health = health
        self._stop = stop

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """Start where the group has committed."""
        return self._sink.positions(partitions)

    def process(self, batches: Sequence[PartitionBatch]) -> None:
        """Work on the requests, one after the other."""
        for batch in batches:
            for message in batch.messages:
                end = PartitionBatch(
                    partition=batch.partition, messages=[message], next_offset=(message.offset() or 0) + 1
                )
                self._work_on(message, end)

    def _work_on(self, message: Message, end: PartitionBatch) -> None:
        try:
            request = self._decoded(message)
        except BadMessageError as error:
            self._ceiling.check(total=1, bad=1)
            with self._sink.transaction([end]) as transaction:
                transaction.dead_letter(message, error)
            return
        self._ceiling.check(total=1, bad=0)
        with self._open_log() as log:
            facts = self._facts(request, _Watch(log, request, self._health, self._stop))
        with self._sink.transaction([end]) as transaction:  # 4.
            keys = [fact.model for fact in facts]
            transaction.send(self._target, keys, [self._codec.encode(fact) for fact in facts])
        self._health.set("training", ready=True, detail="waiting for a request")

    def _facts(self, request: RetrainRequest, watch: "_Watch") -> list[ModelEvent]:
        if watch.finished:  # 1.
            _log.info("finished before", model=request.model, version=request.version)
            return []
        job = self._make_job(watch.step)
        with self._sink.transaction([]) as transaction:  # 2.
            transaction.send(self._target, [request.model], [self._codec.encode(job.started(request))])
        _log.info("training", model=request.model, version=request.version, cause=request.cause.value)
        facts = job.run(request)  # 3.
        for fact in facts:
            _log.info("training: fact", version=fact.version, kind=fact.kind.value, reason=fact.reason)
        return facts

    def _decoded(self, message: Message) -> RetrainRequest:
        schema_id, body = split(message.value())
        request = RetrainRequest.of(self._requests.decode(body, self._registry.schema(schema_id)))
        if request.model not in self._project.models:
            known = ", ".join(sorted(self._project.models)) or "none"
            msg = f"the project has no model {request.model!r}; its models: {known}"
            raise BadMessageError(msg, stage="validate")
        return request

    def forget(self, partitions: Collection[Partition]) -> None:
        """Nothing is cached."""

    def idle(self) -> Mapping[Partition, float]:
        """Nothing to look after."""
        return {}


class _Watch:
    """Follows the log during a training: shows its steps, and ends it where a person or the process asks for it."""

    def __init__(self, log: LifeLog, request: RetrainRequest, health: Health, stop: threading.Event) -> None:
        self._log = log
        self._request = request
        self._health = health
        self._stop = stop
        self._stopped_by: ModelEvent | None = None
        events = log.read_to_end()
        state = fold(request.model, events).state_of(request.version)
        self.finished = state not in {None, State.TRAINING}
        self._look_for_stop(events)

    def step(self, text: str) -> None:
        """Show a step; raise where there shall be no further one."""
        self._health.set("training", ready=True, detail=f"{self._request.version}: {text}")
        self._health.progress("stream")
        _log.info("training: step", version=self._request.version, step=text)
        if self._stop.is_set():
            raise UnavailableError("stopping; the request is worked on again at the next start")
        self._look_for_stop(self._log.poll())
        if self._stopped_by is not None:
            by = self._stopped_by
            raise TrainingCancelledError(f"stopped by {by.by}: {by.reason}")

    def _look_for_stop(self, events: Sequence[ModelEvent]) -> None:
        for event in events:
            mine = event.model == self._request.model and event.version == self._request.version
            if mine and event.kind is Kind.REJECT:
                self._stopped_by = event
