"""Faust with rails: what makes a Faust app lose nothing. ``docs/adr/0008-control-plane.md`` has the evidence.

The numbers return beside the code.

1. At least once, one worker, one event at a time, a static member of its group, raw topics, read committed.
2. Freeze: when partitions have come, nothing flows until Faust has sought its offsets; and it really seeks.
3. An event is acknowledged by the guard alone, after it is done. Any error crashes the app, and nothing more is taken.
4. The ledger: an event that was passed over crashes the app before anything behind it is acknowledged, and what is
   committed is what the ledger says.
5. Ticks: timers only publish; what is due is decided by handlers.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, cast

import aiokafka  # type: ignore[import-untyped]
import faust
from faust.auth import Credentials
from faust.streams import Stream
from faust.transport.drivers import aiokafka as driver
from faust.types import EventT
from faust.types.auth import CredentialsT
from faust.types.transports import TransportT
from faust.types.tuples import TP

from driftline.control.context import Incoming
from driftline.control.ledger import Ledger
from driftline.control.processing import Processor
from driftline.runtime import metrics
from driftline.runtime.errors import LostOwnershipError
from driftline.runtime.logging import get_logger
from driftline.streaming.partitions import Partition

#: Not the module's name: Faust's services log under that, too much.
_log = get_logger("driftline.control.guard")

#: Seconds after which the group gives a silent member's partitions to others.
SESSION_SECONDS = 10.0


class _Thread(driver.AIOKafkaConsumerThread):
    """The consumer's thread, reading committed records and seeking every partition."""

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # (1) Faust has it for exactly_once alone
        return consumer

    async def seek_to_committed(self) -> Mapping[TP, int]:
        return cast(Mapping[TP, int], await self.call_thread(self._seek_all))

    async def _seek_all(self) -> Mapping[TP, int | None]:
        """Seek as aiokafka does, but to offset 0 and to the beginning as well, which it leaves out."""
        consumer = self._ensure_consumer()
        committed: dict[TP, int | None] = {}
        for where in consumer.assignment():
            offset = await consumer.committed(where)
            if offset is None:
                await consumer.seek_to_beginning(where)  # (2)
            else:
                consumer.seek(where, offset)
            committed[TP(where.topic, where.partition)] = offset
        return committed


class _Consumer(driver.Consumer):
    """A consumer that commits what the ledger says."""

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    def _new_offset(self, tp: TP) -> int | None:
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        app = cast("GuardedApp", self.app)
        partition = Partition(tp.topic, tp.partition)
        return app.ledger.next_offset(partition, generation=app.consumer_generation_id)  # (4)


class _Transport(driver.Transport):
    Consumer = _Consumer


class GuardedApp(faust.App):
    """A Faust app on these rails; ``settled`` tells whether its partitions are assigned and flowing."""

    def __init__(self, *args: Any, ledger: Ledger, **kwargs: Any) -> None:
        self.ledger = ledger
        self.settled = False
        super().__init__(*args, **kwargs)

    def _new_transport(self) -> TransportT:
        return cast(TransportT, _Transport(self.conf.broker_consumer, self))

    def _create_directories(self) -> None:
        """Keep nothing on disk."""

    def on_rebalance_start(self) -> None:
        """Note that partitions are on their way."""
        self.settled = False
        metrics.REBALANCES.labels("revoked").inc()
        super().on_rebalance_start()

    def on_rebalance_end(self) -> None:
        """Note that they have come."""
        super().on_rebalance_end()
        self.settled = True
        metrics.REBALANCES.labels("assigned").inc()

    def assigned(self) -> set[Partition]:
        """Return the partitions that this process has now; empty during a rebalance."""
        if not self.settled or self.rebalancing:
            return set()
        return {Partition(found.topic, found.partition) for found in self.consumer.assignment()}


class Guard:
    """Takes one event at a time through the processor, and decides what becomes of Faust after it."""

    def __init__(
        self, app: GuardedApp, processor: Processor, *, on_handled: Callable[[Partition], None]
    ) -> None:
        self._app = app
        self._processor = processor
        self._on_handled = on_handled
        self._turn = asyncio.Lock()

    async def take(self, event: EventT[Any]) -> None:
        """Handle an event and acknowledge it; after any error crash the app and never return."""
        async with self._turn:
            try:
                await self._handle(event)
            except LostOwnershipError as error:
                _log.warning("not acknowledged", error=str(error))
            except Exception as error:  # noqa: BLE001  (3) whatever it is: it must not be acknowledged
                await self._app.crash(error)
                await asyncio.Event().wait()

    async def _handle(self, event: EventT[Any]) -> None:
        message = event.message
        generation = message.generation_id or 0
        partition = Partition(message.topic, message.partition)

        def ours() -> bool:
            return generation == (self._app.consumer_generation_id or 0)

        if not ours():
            return
        if await self._app.ledger.is_next(partition, message.offset, generation=generation):  # (4)
            await self._processor.process(_incoming(event), generation=generation, ours=ours)
            if not ours():
                raise LostOwnershipError(f"{partition} moved to another process meanwhile")
            self._app.ledger.handled(partition, message.offset)
        event.ack()  # (3)
        self._on_handled(partition)


def make_faust_app(
    *,
    group: str,
    instance: str,
    bootstrap_servers: str,
    credentials: Credentials | None,
    ledger: Ledger,
    max_poll_interval_seconds: float = 300.0,
) -> GuardedApp:
    """Return a Faust app on the rails, without agents."""
    app = GuardedApp(
        group,
        ledger=ledger,
        broker=[f"kafka://{server}" for server in bootstrap_servers.split(",")],
        broker_credentials=cast(CredentialsT | None, credentials),
        broker_client_id=f"driftline-{instance}",
        # (1)
        processing_guarantee="at_least_once",
        consumer_group_instance_id=instance,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=SESSION_SECONDS,
        broker_heartbeat_interval=2.0,
        broker_commit_interval=0.5,
        broker_request_timeout=30.0,
        broker_rebalance_timeout=60.0,
        broker_max_poll_interval=max_poll_interval_seconds,
        # Small, so that a rebalance has little to drop and every partition gets its turn soon.
        broker_max_poll_records=200,
        stream_buffer_maxsize=200,
        stream_wait_empty=True,
        store="memory://",
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        autodiscover=False,
        # Members are told apart by it, though nothing listens there.
        canonical_url=f"http://{instance}",
    )

    async def before_flow(*_: Any, **__: Any) -> None:
        freeze(app)

    app.on_rebalance_complete.connect(before_flow, weak=False)
    return app


def freeze(app: GuardedApp) -> None:
    """Stop fetching and delivering (2): what Faust fetches before it resumes its flow, it drops."""
    app.consumer.stop_flow()
    app.flow_control.suspend()


def add_agents(app: GuardedApp, topics: Iterable[str], guard: Guard) -> dict[str, Any]:
    """Give each topic an agent that hands its raw messages to the guard; return the agents by topic."""
    agents = {}
    for topic in topics:
        channel = app.topic(topic, key_serializer="raw", value_serializer="raw", allow_empty=True)
        agents[topic] = app.agent(channel, name=topic, concurrency=1)(cast(Any, _agent(guard)))
    return agents


def _agent(guard: Guard) -> Callable[[Stream[bytes]], AsyncIterator[int]]:
    async def take_events(stream: Stream[bytes]) -> AsyncIterator[int]:
        async for event in stream.noack().events():  # (3) Faust acknowledges an event whose agent raised
            await guard.take(event)
            yield event.message.offset

    return take_events


def add_timer(app: GuardedApp, seconds: float, publish: Callable[[], Awaitable[None]]) -> None:
    """Call ``publish`` every so many seconds while partitions are assigned; a failure crashes the app."""

    async def timer() -> None:
        if not app.settled or app.rebalancing:
            return
        try:
            await publish()  # (5)
        except Exception as error:  # noqa: BLE001  an unpublished tick would be an hour that never ends
            await app.crash(error)

    app.timer(seconds)(timer)


def _incoming(event: EventT[Any]) -> Incoming:
    message = event.message
    headers = message.headers or ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return Incoming(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=tuple((str(name), value) for name, value in pairs),
        timestamp_ms=round(message.timestamp * 1_000),
    )
