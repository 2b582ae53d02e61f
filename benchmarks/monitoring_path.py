"""The monitoring services' lines: outcomes joined, and rows profiled, exactly once, each beside R on the same topics."""

import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import redis
from confluent_kafka import Consumer, TopicPartition

from benchmarks import peers, scored
from benchmarks.comparison import Comparison
from benchmarks.data_plane import Bench, rewind
from driftline.contracts.admin import create_topics
from driftline.contracts.batch_codec import BatchEncoder
from driftline.contracts.project_schemas import label_schema, platform_schema, prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import PROFILES, Topics
from driftline.project import Project, load_project
from driftline.runtime.health import Health
from services.outcome_joiner.assembly import run_outcome_joiner
from services.outcome_joiner.settings import OutcomeJoinerSettings
from services.profiler.assembly import run_profiler
from services.profiler.settings import ProfilerSettings

LABELLED = 100_000
#: So many commits of profiles in a run. The service's own setting (100,000 rows a commit) makes fewer.
COMMITS = 6
_JOINER_GROUP, _PROFILER_GROUP = "outcome_joiner", "profiler"


class Monitored:
    """A model's loaded topics, in an environment of their own, and a service run over them."""

    def __init__(self, bench: Bench, environment: str, *, rows: int, labelled: int) -> None:
        self.bench = bench
        self.project: Project = load_project(scored.PROJECT)
        self.topics = Topics(self.project.name, environment)
        self.environment, self.rows, self.labelled = environment, rows, labelled
        create_topics({"bootstrap.servers": bench.bootstrap}, self.project, self.topics)
        with SchemaRegistry(bench.environment["SCHEMA_REGISTRY_URL"]) as registry:
            ids = registry.register_project(self.project, self.topics)
        predictions = BatchEncoder(prediction_schema(self.project), ids[self.topics.predictions])
        batches = scored.prediction_batches(self.project, rows)
        scored.load(bench.bootstrap, self.topics.predictions, predictions, batches)
        labels = BatchEncoder(label_schema(), ids[self.topics.labels])
        scored.load(bench.bootstrap, self.topics.labels, labels, scored.label_batches(labelled))

    def joined_per_second(self) -> float:
        """Join the whole topics as the service does; outcomes a second between the first and the last commit.

        The room is empty at the start. It lies in the second database of Redis, beside what other lines keep.
        """
        room = self.bench.environment["REDIS_URL"].removesuffix("/0") + "/1"
        settings = OutcomeJoinerSettings.model_validate({**self._given("joiner"), "REDIS_URL": room})
        with closing(redis.Redis.from_url(room)) as client:
            client.flushdb()
            wanted = {self.topics.predictions: self.rows, self.topics.labels: self.labelled}
            with self._running(run_outcome_joiner, settings, _JOINER_GROUP, wanted) as watch:
                first, begun = watch.first_commit()
                done, ended = watch.reached(sum(wanted.values()))
            found = client.hget(f"dl:{{{self.topics.prefix}.outcomes}}:n", "joined")
        joined = int(found) if isinstance(found, bytes) else 0
        if joined != self.labelled:
            raise RuntimeError(f"{joined:,} outcomes of {self.labelled:,} labelled predictions")
        return joined * (done - first) / done / (ended - begun)

    def read_pairs_per_second(self) -> float:
        """R: read and decode the same predictions and labels; labelled predictions a second."""
        seconds = self.rows / self._r(self.topics.predictions, self.rows, prediction_schema(self.project))
        seconds += self.labelled / self._r(self.topics.labels, self.labelled, label_schema())
        return self.labelled / seconds

    def profiled_per_second(self) -> float:
        """Profile the predictions as the service does; rows a second between commits.

        What is left after the last full commit waits for the service's timer, and is not counted.
        """
        flush = self.rows // COMMITS
        settings = ProfilerSettings.model_validate(
            {**self._given("profiler"), "DRIFTLINE_PROFILER_FLUSH_ROWS": flush}
        )
        before = self._end(self.topics.stream(PROFILES))
        wanted = {self.topics.predictions: self.rows}
        with self._running(run_profiler, settings, _PROFILER_GROUP, wanted) as watch:
            first, begun = watch.first_commit()
            done, ended = watch.reached(self.rows - flush)
            watch.reached(self.rows)
        profiled = self._profiled_rows(before)
        if profiled != self.rows:
            raise RuntimeError(f"profiles of {profiled:,} rows of {self.rows:,}")
        return (done - first) / (ended - begun)

    def read_per_second(self) -> float:
        """R: read and decode the same predictions."""
        return self._r(self.topics.predictions, self.rows, prediction_schema(self.project))

    def _r(self, topic: str, rows: int, schema: Mapping[str, Any]) -> float:
        return peers.consume_and_decode(self.bench.bootstrap, topic, rows, dict(schema))

    def _given(self, instance: str) -> dict[str, Any]:
        return {
            **self.bench.environment,
            "DRIFTLINE_PROJECT": str(scored.PROJECT),
            "DRIFTLINE_ENVIRONMENT": self.environment,
            "DRIFTLINE_INSTANCE": f"{instance}-bench",
            "DRIFTLINE_MODELS": str(self.bench.folder / "models"),
        }

    @contextmanager
    def _running(
        self, run: Callable[..., None], settings: Any, service: str, wanted: Mapping[str, int]
    ) -> "Iterator[Watch]":
        """Run a service from the beginning of its topics while the caller watches its commits."""
        group = f"{self.topics.prefix}.{service}"
        places = [TopicPartition(topic, 0, 0) for topic in wanted]
        rewind(self.bench.bootstrap, group, places)
        stop = threading.Event()
        worker = threading.Thread(
            target=run, args=(settings, self.project), kwargs={"health": Health(), "stop": stop}
        )
        worker.start()
        try:
            with closing(
                Consumer({"bootstrap.servers": self.bench.bootstrap, "group.id": group})
            ) as consumer:
                yield Watch(consumer, places, worker)
        finally:
            stop.set()
            worker.join(30)

    def _end(self, topic: str) -> int:
        with closing(peers.consumer(self.bench.bootstrap, "bench-profiles")) as consumer:
            return int(consumer.get_watermark_offsets(TopicPartition(topic, 0))[1])

    def _profiled_rows(self, start: int) -> int:
        """Return the rows of the profiles of everything (not of segments) that were written since an offset."""
        topic = self.topics.stream(PROFILES)
        end, codec, rows = self._end(topic), RecordCodec(platform_schema("profile")), 0
        with closing(peers.consumer(self.bench.bootstrap, "bench-profiles")) as consumer:
            consumer.assign([TopicPartition(topic, 0, start)])
            while consumer.position([TopicPartition(topic, 0)])[0].offset < end:
                for message in consumer.consume(1_000, 1.0):
                    record = codec.decode((message.value() or b"")[peers.HEADER :])
                    rows += record["rows"] if not record["segment"] else 0
        return rows


class Watch:
    """Looks at what a group has committed."""

    def __init__(self, consumer: Consumer, places: list[TopicPartition], worker: threading.Thread) -> None:
        self._consumer = consumer
        self._places = [TopicPartition(place.topic, place.partition) for place in places]
        self._worker = worker

    def first_commit(self) -> tuple[int, float]:
        """Return the rows of the first commit that is seen, and when."""
        return self.reached(1)

    def reached(self, rows: int) -> tuple[int, float]:
        """Wait until so many rows are committed; return how many are, and when."""
        while True:
            found = self._consumer.committed(self._places, timeout=10)
            done = sum(max(place.offset, 0) for place in found)
            if done >= rows:
                return done, time.perf_counter()
            if not self._worker.is_alive():
                raise RuntimeError("the service ended; see above")
            time.sleep(0.005)


def comparisons(bench: Bench) -> list[Comparison]:
    """Return the lines. The topics are loaded when the first of them begins."""

    @functools.cache
    def joined() -> Monitored:
        rows = min(LABELLED, bench.rows)
        return Monitored(bench, "joined", rows=rows, labelled=rows)

    @functools.cache
    def profiled() -> Monitored:
        scored.write_reference(load_project(scored.PROJECT), bench.folder / "models")
        return Monitored(bench, "profiled", rows=bench.rows, labelled=0)

    return [
        Comparison(
            name="outcome joins, exactly once / R",
            unit="outcomes/s",
            ours=lambda: joined().joined_per_second(),
            theirs=lambda: joined().read_pairs_per_second(),
            note="each outcome takes a prediction and a label, joined in Redis by a business key; R decodes both",
        ),
        Comparison(
            name="drift profiling, predictions to profiles exactly once / R",
            unit="rows/s",
            ours=lambda: profiled().profiled_per_second(),
            theirs=lambda: profiled().read_per_second(),
            aim=1.0,
            note="10 numbers, a category and the score; everything and 4 sites; R: consume and decode with fastavro",
        ),
    ]
