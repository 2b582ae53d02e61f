"""One reader of the prediction log for all who listen, while anybody does.

1. The first listener starts the reader: a thread with a consumer of its own, in no group, from the log's end on.
2. It makes events of what finished transactions hold, and hands them to the event loop, a batch at a time, together
   with the positions behind them. The next batch is read once that one was handed out.
3. Each listener has a bounded queue. A full one loses its oldest event, and the listener is told how many it lost.
4. A listener that comes back joins first and then reads, apart, from its id up to where it joined: nothing in between
   is missed or comes twice. So far back as the topic's retention and ``MOST_RESUMED`` records reach; the rest is told.
5. When the last has gone the reader ends. When the reader fails all listeners are sent away; they come back by themselves.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.project_schemas import prediction_schema
from driftline.project import Project
from driftline.runtime import metrics
from driftline.runtime.errors import (
    BackpressureError,
    ConfigurationError,
    DriftlineError,
    UnavailableError,
)
from driftline.runtime.logging import get_logger
from driftline.serving.log_reading import LogReader, Stretch
from services.predictor.live_events import (
    EventMaker,
    LiveEvent,
    Positions,
    Wanted,
    heartbeat,
    missed,
    opening,
)

_log = get_logger(__name__)
QUEUE = 500
MOST_RESUMED = 10_000
_TOGETHER = 50
_POLL_SECONDS = 0.1
_HANDED_OUT_SECONDS = 10.0
_HEARTBEAT_SECONDS = 15.0
_FAREWELL_SECONDS = 2.0

Resolve = Callable[[int], Mapping[str, Any]]


class Listener:
    """A caller's queue. Of the event loop alone."""

    def __init__(self, wanted: Wanted, joined: Positions) -> None:
        self.wanted = wanted
        self.joined = dict(joined)
        self.ended = False
        #: Of the answer; None until it begins.
        self.limit: asyncio.Timeout | None = None
        self._waiting: deque[LiveEvent] = deque()
        self._missed = 0
        self._woken = asyncio.Event()

    def put(self, event: LiveEvent) -> None:
        """Queue an event that is wanted."""
        if not self.wanted.takes(event):
            return
        if len(self._waiting) == QUEUE:  # 3.
            self._waiting.popleft()
            self._missed += 1
            metrics.LIVE_MISSED.labels(self.wanted.model).inc()
        self._waiting.append(event)
        self._woken.set()

    def end(self) -> None:
        """Send the caller away, once it has what waits, or has had a moment for it."""
        self.ended = True
        if self.limit is not None:
            self.limit.reschedule(asyncio.get_running_loop().time() + _FAREWELL_SECONDS)
        self._woken.set()

    async def take(self, seconds: float) -> bytes:
        """Return the next events as they are sent; nothing where none came within so many seconds, or it has ended."""
        if not self._waiting and not self.ended:
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), seconds)
        lost, self._missed = self._missed, 0
        some = [self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))]
        return (missed(lost) if lost else b"") + b"".join([event.text for event in some])


class LiveFeed:
    """Hands a project's live predictions to listeners. Connects to nothing while nobody listens.

    Parameters
    ----------
    kafka
        Settings of librdkafka.
    topic
        The prediction log's.
    resolve
        Gives the schema of an id.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topic: str,
        project: Project,
        resolve: Resolve,
        *,
        max_listeners: int,
        heartbeat_seconds: float = _HEARTBEAT_SECONDS,
    ) -> None:
        self._kafka, self._topic, self._project, self._resolve = kafka, topic, project, resolve
        self._max_listeners, self._heartbeat_seconds = max_listeners, heartbeat_seconds
        self._reader: _Reader | None = None
        self._listeners: list[Listener] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Lock | None = None
        self._resuming: asyncio.Lock | None = None
        self._expected = 0
        self._closed = False

    async def join(self, wanted: Wanted) -> Listener:
        """Listen from now on; ``leave`` must follow.

        Raises
        ------
        BackpressureError
            Too many listen.
        UnavailableError
            The broker does not answer, or the predictor stops.
        """
        if self._closed:
            raise UnavailableError("the predictor is stopping")
        if len(self._listeners) + self._expected >= self._max_listeners:
            raise BackpressureError("too many listen to live predictions already", retry_after=30.0)
        self._expected += 1
        try:
            reader = await self._started()
        finally:
            self._expected -= 1
        listener = Listener(wanted, reader.positions)
        self._listeners.append(listener)
        metrics.LIVE_LISTENERS.labels(wanted.model).inc()
        if reader is not self._reader or self._closed:  # it ended while we waited for it
            listener.end()
        return listener

    def leave(self, listener: Listener) -> None:
        """Listen no more."""
        self._listeners.remove(listener)
        metrics.LIVE_LISTENERS.labels(listener.wanted.model).dec()
        if not self._listeners and not self._expected and self._reader is not None:
            self._reader.stop()  # 5.
            self._reader = None

    async def stream(self, listener: Listener, since: Positions | None) -> AsyncIterator[bytes]:
        """Yield what a listener is sent, until it is sent away; ``since`` is the place that it comes back from."""
        places = listener.joined
        if since is not None:
            places = {number: min(since.get(number, stop), stop) for number, stop in places.items()}
        yield opening(places)
        if places != listener.joined:
            try:
                found, left_out = await self._resumed(listener, places)
            except DriftlineError as error:
                _log.warning("a listener could not resume", error=str(error))
                return
            if left_out:
                yield missed(left_out)
            for start in range(0, len(found), _TOGETHER):
                yield b"".join(found[start : start + _TOGETHER])
        while text := await listener.take(self._heartbeat_seconds) or self._sign_of_life(listener):
            yield text

    def _sign_of_life(self, listener: Listener) -> bytes:
        """Return a heartbeat; nothing where it has ended."""
        return b"" if listener.ended or self._reader is None else heartbeat(self._reader.positions)

    async def _resumed(self, listener: Listener, since: Positions) -> tuple[list[bytes], int]:
        self._resuming = self._resuming or asyncio.Lock()
        async with self._resuming:  # one at a time: they are read beside the predictions
            events, left_out = await asyncio.to_thread(self._read_back, listener, since)
        return [event.text for event in events if listener.wanted.takes(event)], left_out

    def _read_back(self, listener: Listener, since: Positions) -> tuple[list[LiveEvent], int]:
        """Return the model's events from ``since`` up to where the listener joined, and how many records were left out."""
        maker = self._maker()
        positions, found = dict(since), []
        with LogReader(self._kafka) as reader:
            held = {one.partition: one for one in reader.held(self._topic)}
            wanted = [
                replace(held[number], start=since[number], stop=stop)
                for number, stop in listener.joined.items()
                if number in held
            ]
            stretches = within_reach(wanted, {number: one.start for number, one in held.items()})
            for messages in reader.read(stretches):
                found += maker.events(messages, positions, (listener.wanted.model,))
        return found, sum(one.length for one in wanted) - sum(one.length for one in stretches)

    def _maker(self) -> EventMaker:
        return EventMaker(self._project, BatchDecoder(prediction_schema(self._project), self._resolve))

    async def _started(self) -> "_Reader":
        """Return the reader, once it knows where it begins (1)."""
        self._loop = asyncio.get_running_loop()
        self._starting = self._starting or asyncio.Lock()
        async with self._starting:
            if self._reader is None:
                reader = _Reader(self._kafka, self._topic, self._maker, tuple(self._project.models))
                await asyncio.to_thread(reader.open)
                self._reader = reader
                reader.start(
                    partial(self._hand_out, reader, self._loop), partial(self._fail, reader, self._loop)
                )
            return self._reader

    def _hand_out(
        self,
        reader: "_Reader",
        loop: asyncio.AbstractEventLoop,
        events: Sequence[LiveEvent],
        positions: Positions,
    ) -> None:
        """Give events to all listeners, on the event loop; returns when they have them (2). On the reader's thread."""
        handed = threading.Event()

        def hand_out() -> None:
            reader.positions = positions
            for listener in self._listeners if reader is self._reader else ():
                for event in events:
                    listener.put(event)
            handed.set()

        loop.call_soon_threadsafe(hand_out)
        handed.wait(_HANDED_OUT_SECONDS)

    def _fail(self, reader: "_Reader", loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon_threadsafe(self._end_all, reader)

    def _end_all(self, reader: "_Reader | None" = None) -> None:
        if reader is not None and reader is not self._reader:
            return
        if self._reader is not None:
            self._reader.stop()
            self._reader = None
        for listener in self._listeners:
            listener.end()

    def close(self) -> None:
        """Send all listeners away, and take no more. From any thread."""
        self._closed = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and they with it
                self._loop.call_soon_threadsafe(self._end_all)


class _Reader:
    """The thread that reads the log from its end on. ``positions`` is of the event loop: behind what was handed out."""

    def __init__(
        self, kafka: Mapping[str, Any], topic: str, maker: Callable[[], EventMaker], models: Sequence[str]
    ) -> None:
        self.positions: Positions = {}
        self._kafka, self._topic, self._maker, self._models = kafka, topic, maker, models
        self._stop = threading.Event()

    def open(self) -> None:
        """Find the log's end; raise UnavailableError where the broker does not answer."""
        try:
            with LogReader(self._kafka) as reader:
                self.positions = {one.partition: one.stop for one in reader.held(self._topic)}
        except ConfigurationError as error:  # services start in any order
            raise UnavailableError(str(error)) from error

    def start(
        self, hand_out: Callable[[Sequence[LiveEvent], Positions], None], fail: Callable[[], None]
    ) -> None:
        """Read, until told to stop; ``fail`` is called where that is not possible."""
        places = [TopicPartition(self._topic, number, offset) for number, offset in self.positions.items()]
        work = partial(self._run, places, dict(self.positions), hand_out, fail)
        threading.Thread(target=work, name="live", daemon=True).start()

    def stop(self) -> None:
        """End soon."""
        self._stop.set()

    def _run(
        self,
        places: list[TopicPartition],
        positions: dict[int, int],
        hand_out: Callable[[Sequence[LiveEvent], Positions], None],
        fail: Callable[[], None],
    ) -> None:
        try:
            self._read(places, positions, hand_out)
        except (DriftlineError, KafkaException) as error:
            _log.warning("live predictions cannot be read", error=str(error))
            fail()
        except RuntimeError:  # the event loop has ended, and everybody with it
            _log.info("live predictions for a closed event loop")

    def _read(
        self,
        places: list[TopicPartition],
        positions: dict[int, int],
        hand_out: Callable[[Sequence[LiveEvent], Positions], None],
    ) -> None:
        maker = self._maker()
        consumer = Consumer(
            {
                **self._kafka,
                "group.id": "driftline-live",  # it joins none
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
            }
        )
        try:
            consumer.assign(places)
            while not self._stop.is_set():
                messages = []
                for message in consumer.consume(QUEUE, _POLL_SECONDS):
                    error = message.error()
                    if error is None:
                        messages.append(message)
                    elif error.fatal() or not error.retriable():
                        raise UnavailableError(f"{self._topic}: {error.str()}")
                if messages:
                    events = maker.events(messages, positions, self._models)
                    hand_out(events, dict(positions))
        finally:
            consumer.close()


def within_reach(stretches: Sequence[Stretch], held_from: Positions) -> list[Stretch]:
    """Return what of stretches of a log is still held, and of that the newest records, so many as may be resumed.

    >>> whole = [Stretch(topic="t", partition=number, start=0, stop=9_000) for number in (0, 1)]
    >>> [(one.start, one.stop) for one in within_reach(whole, {0: 8_500, 1: 0})]
    [(8500, 9000), (0, 9000)]
    >>> [(one.start, one.stop) for one in within_reach(whole, {0: 0, 1: 0})]
    [(4000, 9000), (4000, 9000)]
    """
    held = [
        replace(one, start=min(max(one.start, held_from.get(one.partition, 0)), one.stop))
        for one in stretches
    ]
    total = sum(one.length for one in held)
    if total <= MOST_RESUMED:
        return held
    return [replace(one, start=one.stop - one.length * MOST_RESUMED // total) for one in held]
