"""Follow the outcomes for the pairs that are compared: read, decode to columns, score with both versions."""

import time
from collections.abc import Callable, Collection
from pathlib import Path

from confluent_kafka import Message

from driftline.contracts.batch_codec import BatchDecoder
from driftline.models.bundle import BundleError, load_bundle
from driftline.models.scoring import Scorer
from driftline.models.shadow import Pair, PairedOutcomes, Shadow
from driftline.playback.topic_reading import TopicReader
from driftline.project import Project
from driftline.runtime.health import Health
from driftline.runtime.logging import get_logger

_log = get_logger(__name__)
#: One visit takes no longer than this, so that commands are answered meanwhile.
_VISIT_SECONDS = 2.0


class OutcomeFollower:
    """Reads the outcomes of all partitions, from their beginning for each new set of pairs. Belongs to no group."""

    def __init__(
        self,
        project: Project,
        models_dir: Path,
        open_reader: Callable[[], TopicReader],
        decoder: BatchDecoder,
        *,
        health: Health,
    ) -> None:
        self._project = project
        self._models_dir = models_dir
        self._open_reader = open_reader
        self._decoder = decoder
        self._health = health
        self._reader: TopicReader | None = None
        self._shadow: Shadow | None = None
        self._wanted: frozenset[Pair] = frozenset()

    def follow(self, pairs: Collection[Pair]) -> Shadow | None:
        """Take in what has come; return the comparisons, None where there is nothing to compare."""
        if frozenset(pairs) != self._wanted:
            self._begin(frozenset(pairs))
        if self._reader is None or self._shadow is None:
            return None
        until = time.monotonic() + _VISIT_SECONDS
        while time.monotonic() < until:
            messages = self._reader.poll(0.0 if self._shadow.mark_us is not None else 0.2)
            if not messages:
                break
            self._add(messages)
        return self._shadow

    def close(self) -> None:
        """Close the reader."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _begin(self, pairs: frozenset[Pair]) -> None:
        self.close()
        self._wanted, self._shadow = pairs, None
        compared = {}
        for pair in sorted(pairs, key=repr):
            try:
                compared[pair] = self._paired(pair)
            except BundleError as error:
                self._health.error(f"{pair.challenger} cannot be compared: {error}")
                _log.error("a pair cannot be compared", pair=repr(pair), error=str(error))
        if compared:
            self._reader = self._open_reader()
            self._shadow = Shadow(compared, sources=len(self._reader.partitions))
            _log.info("comparing", pairs=[f"{one.challenger} with {one.champion}" for one in compared])

    def _paired(self, pair: Pair) -> PairedOutcomes:
        model = self._project.models[pair.model]
        label = model.label
        if label is None:
            raise BundleError(f"model {pair.model!r} declares no label, so nothing comes back to compare on")
        first, second = (
            Scorer(load_bundle(self._models_dir / pair.model / version), model.coded_inputs)
            for version in (pair.champion, pair.challenger)
        )
        paired = PairedOutcomes(pair, first, second, horizon_us=label.horizon_us)
        missing = sorted(paired.needed - set(self._decoder.schema.names))
        if missing:
            raise BundleError(f"it needs {', '.join(missing)}, which no prediction was served with yet")
        return paired

    def _add(self, messages: list[Message]) -> None:
        by_partition: dict[int, list[bytes | None]] = {}
        for message in messages:
            by_partition.setdefault(message.partition() or 0, []).append(message.value())
        for number, values in by_partition.items():
            decoded = self._decoder.decode(values)
            if decoded.bad:
                _log.warning("outcomes passed over", partition=number, count=len(decoded.bad))
            if self._shadow is not None:
                self._shadow.add(number, decoded.table)
