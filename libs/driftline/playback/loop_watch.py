"""Watch what the loop makes of a play, and let it keep up: signals, retrain requests, models, alerts.

The player stops once a day of event time. When a day is settled,

1. the windows of the day before are waited for, and a retrain request for each signal that asks for one;
2. what is offered on this day is asked for;
3. every training is waited for until it has come to a model or a refusal;
4. where a comparison is due, the registry gets the time to decide;
5. the predictor is waited for until it serves the champion.

A comparison that is due can be decided from midnight on, so 4. and 5. come after every step of that night as well:
before a window of the day before is closed and asks for a training, which begins with who is champion.
So the same data lead to the same decisions, and each holds from the same request on, however fast the machine is.
"""

import http.client
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from driftline.contracts.project_schemas import PLATFORM_RECORDS, platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import (
    ALERTS,
    DRIFT_SIGNALS,
    MODEL_EVENTS,
    RETRAIN_REQUESTS,
    WINDOW_REPORTS,
    Topics,
)
from driftline.contracts.wire import frame, split
from driftline.models.life_log import LifeLog
from driftline.models.lifecycle import ModelHistory, State, fold
from driftline.models.model_event import Kind, ModelEvent
from driftline.models.retraining import RetrainRequest
from driftline.playback.plan import Step
from driftline.playback.platform import Platform
from driftline.playback.topic_reading import TopicReader
from driftline.project import ComparisonRule, ModelDeclaration
from driftline.runtime.acknowledged_producer import AcknowledgedProducer
from driftline.runtime.clock import instant_us

DAY_US = 86_400_000_000
#: By this time of the UTC day the flights' (and most people's) last labels of the day before are known.
SETTLED_US = 6 * 3_600_000_000
_WATCHED = (WINDOW_REPORTS, DRIFT_SIGNALS, RETRAIN_REQUESTS, MODEL_EVENTS, ALERTS)
_WINDOW_SECONDS = 30.0
#: A signal in the cooldown is never answered, so there is an end to waiting for a request.
_REQUEST_SECONDS = 3.0
_RETRAIN_SECONDS = 300.0
_DECISION_SECONDS = 5.0
#: The registry looks at new outcomes once a second.
_NIGHT_SECONDS = 2.0
_CHAMPION_SECONDS = 30.0
#: What lies in the topic already comes within this time.
_SOON = 0.05
#: What a training comes to.
CAME_TO = frozenset(
    {"TRAINING_FAILED", "DATA_REFUSED", "REJECTED", "CHALLENGER", "APPROVAL_WANTED", "PROMOTED"}
)
_DECIDED = frozenset({Kind.PROMOTED, Kind.REJECTED, Kind.ROLLED_BACK, Kind.APPROVAL_WANTED})


@dataclass(slots=True)
class LoopWatch:
    """Reads what the loop writes from now on. ``offers`` are requested at the end of their data."""

    platform: Platform
    topics: Topics
    registry: SchemaRegistry
    model: ModelDeclaration
    offers: Sequence[RetrainRequest] = ()
    unclosed: int = 0
    seen: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    _reader: TopicReader = field(init=False)
    _life: LifeLog = field(init=False)
    _events: list[ModelEvent] = field(default_factory=list)
    _codecs: dict[str, tuple[str, RecordCodec]] = field(init=False)
    _asked: set[int] = field(default_factory=set)
    _settled: set[int] = field(default_factory=set)
    _answered: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Begin where the topics end now."""
        names = {self.topics.stream(stream): stream for stream in _WATCHED}
        with TopicReader(self.platform.kafka, names) as reader:
            ends = reader.ends()
        self._reader = TopicReader(self.platform.kafka, names, positions=ends)
        self._life = LifeLog(self.platform.kafka, self.topics.stream(MODEL_EVENTS), self.registry)
        self._codecs = {
            topic: (stream, RecordCodec(platform_schema(PLATFORM_RECORDS[stream])))
            for topic, stream in names.items()
        }
        self.seen = {stream: {} for stream in _WATCHED}
        self._events = self._life.read_to_end()

    def close(self) -> None:
        """Close the readers."""
        self._reader.close()
        self._life.close()

    def step(self, step: Step) -> None:
        """After a step: at the settled hour of each day wait until the loop has followed."""
        if not len(step.requests):
            return
        window_us = self.model.monitor.window_us
        self._asked.add(step.at_us // window_us * window_us)
        midnight = (step.at_us - SETTLED_US) // DAY_US * DAY_US
        if midnight not in self._settled:
            self._settled.add(midnight)
            self._settle(midnight)
        today = step.at_us // DAY_US * DAY_US
        if today > midnight and self._decides(today):
            self._timed("decisions", lambda: self._wait_for_decisions(today, _NIGHT_SECONDS))
            self._timed("champion", self._wait_for_champion)

    def finish(self) -> None:
        """Read what is still coming."""
        self._read_until(lambda: False, 5.0)
        self._wait_for_trainings()

    def count(self, stream: str, name: str, identity: str) -> dict[str, int]:
        """Return how many records of a stream there were by a field, each identity and value once."""
        found = {(one[identity], one[name]) for one in self.seen[stream].values()}
        return dict(sorted(Counter(value for _, value in found).items()))

    def once(self, stream: str, identity: str) -> list[dict[str, Any]]:
        """Return the records of a stream, each identity once, in the order in which they came."""
        found: dict[str, dict[str, Any]] = {}
        for one in self.seen[stream].values():
            found.setdefault(one[identity], one)
        return list(found.values())

    def retrains(self) -> list[dict[str, Any]]:
        """Return the retrain requests, with what each came to."""
        ends = {
            one["cause_id"]: one["kind"] for one in self.seen[MODEL_EVENTS].values() if one["kind"] in CAME_TO
        }
        return [
            {
                "cause": one["cause"],
                "reason": one["reason"],
                "data_until": one["data_until"].isoformat(),
                "came_to": ends.get(one["request_id"], "nothing yet"),
                "version": RetrainRequest.of(one).version,
            }
            for one in self.once(RETRAIN_REQUESTS, "request_id")
        ]

    def models(self) -> list[dict[str, Any]]:
        """Return the facts of the models' life in order."""
        return [
            {
                "at": one["effective_at"].isoformat(),
                "kind": one["kind"],
                "version": one["version"],
                "reason": one["reason"],
                "by": one["by"],
            }
            for one in self.once(MODEL_EVENTS, "event_id")
        ]

    def _settle(self, midnight: int) -> None:
        waits: tuple[tuple[str, Callable[[], None]], ...] = (
            ("windows", lambda: self._wait_for_windows(midnight)),
            ("requests", self._wait_for_requests),
            ("offers", lambda: self._offer(midnight)),
            ("trainings", self._wait_for_trainings),
            ("decisions", lambda: self._wait_for_decisions(midnight, _DECISION_SECONDS)),
            ("champion", self._wait_for_champion),
        )
        for name, wait in waits:
            self._timed(name, wait)

    def _timed(self, name: str, wait: Callable[[], None]) -> None:
        began = time.monotonic()
        wait()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    def _wait_for_windows(self, before_us: int) -> None:
        """Wait until every asked window that ended before an instant is reported, with its outcomes (1.)."""
        window_us = self.model.monitor.window_us
        wanted = {window for window in self._asked if window + window_us <= before_us}
        if not wanted:
            return
        last = max(wanted)

        def reported() -> bool:
            kinds = {
                one["kind"]
                for one in self.seen[WINDOW_REPORTS].values()
                if one["segment"] == "" and instant_us(one["window_start"]) == last
            }
            return len(kinds) == 2

        if not self._read_until(reported, _WINDOW_SECONDS):
            self.unclosed += 1
        self._read(0.1)  # the signal of the last report

    def _wait_for_requests(self) -> None:
        """Wait until signals that ask for a retrain had the time to be answered."""
        signals = {
            one["signal_id"] for one in self.seen[DRIFT_SIGNALS].values() if one["level"] == "RETRAIN"
        } - self._answered
        if not signals:
            return
        self._answered |= signals
        self._read_until(
            lambda: signals & {one["cause_id"] for one in self.seen[RETRAIN_REQUESTS].values()} != set(),
            _REQUEST_SECONDS,
        )

    def _offer(self, midnight: int) -> None:
        """Ask for what is offered on this day (2.), as a person would, and wait until the trainer has begun."""
        due = [one for one in self.offers if one.data_until_us == midnight]
        if not due:
            return
        topic = self.topics.stream(RETRAIN_REQUESTS)
        schema = platform_schema(PLATFORM_RECORDS[RETRAIN_REQUESTS])
        schema_id = self.registry.schema_id(self.topics.subject(topic), schema)
        producer = AcknowledgedProducer(self.platform.kafka)
        try:
            for one in due:
                producer.submit(
                    topic, one.model, frame(schema_id, RecordCodec(schema).encode(one.record()))
                ).result(30)
        finally:
            producer.close()
        offered = {one.request_id for one in due}
        self._read_until(
            lambda: offered <= {one["request_id"] for one in self.seen[RETRAIN_REQUESTS].values()},
            _REQUEST_SECONDS,
        )

    def _wait_for_trainings(self) -> None:
        """Wait until every retrain request has come to something (3.)."""
        self._read_until(
            lambda: all(one["came_to"] != "nothing yet" for one in self.retrains()), _RETRAIN_SECONDS
        )

    def _decides(self, midnight: int) -> bool:
        """Say whether a comparison is due on this day, and not decided yet."""
        label = self.model.label
        rule = self.model.promotion.comparison
        if label is None or midnight not in decision_days(self._history(), label.horizon_us, rule):
            return False
        return not any(one.kind in _DECIDED and one.effective_us >= midnight for one in self._events)

    def _wait_for_decisions(self, midnight: int, seconds: float) -> None:
        """Give the registry time where a comparison is due (4.): of a decision to wait nothing is told."""
        until = time.monotonic() + seconds
        while self._decides(midnight) and time.monotonic() < until:
            self._follow_life(0.1)

    def _wait_for_champion(self) -> None:
        """Wait until the predictor serves the champion (5.)."""
        self._follow_life(_SOON)
        champion = self._history().champion
        until = time.monotonic() + _CHAMPION_SECONDS
        while champion is not None and self._serving() != champion and time.monotonic() < until:
            time.sleep(0.1)

    def _serving(self) -> str | None:
        parts = urlsplit(self.platform.predictor_url)
        with closing(http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=10)) as asked:
            asked.request("GET", "/v1/models")
            found = json.loads(asked.getresponse().read())["models"]
        return next((one["version"] for one in found if one["name"] == self.model.name), None)

    def _history(self) -> ModelHistory:
        return fold(self.model.name, self._events)

    def _follow_life(self, seconds: float) -> None:
        while found := self._life.poll(seconds):
            self._events += found
            seconds = 0.0

    def _read_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Read until something is so, or time is up; say whether it is."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._read(0.1)
            if done():
                return True
        return False

    def _read(self, seconds: float) -> None:
        for message in self._reader.poll(seconds):
            stream, codec = self._codecs[message.topic() or ""]
            schema_id, body = split(message.value())
            record = codec.decode(body, self.registry.schema(schema_id))
            place = f"{message.partition()}/{message.offset()}"
            self.seen[stream][place] = record


def decision_days(history: ModelHistory, horizon_us: int, rule: ComparisonRule) -> set[int]:
    """Return the midnights at which a running comparison can be decided.

    A comparison begins with what the newer version has not learnt from, or with the change of champion; a day's
    outcomes are complete a horizon after its end.
    """
    begins = [history.versions[one].data_until_us for one in history.in_state(State.CHALLENGER)]
    if history.previous is not None:
        begins.append(history.last_change_us)
    return {
        begin // DAY_US * DAY_US + look * DAY_US + horizon_us
        for begin in begins
        if begin is not None
        for look in rule.looks
    }
