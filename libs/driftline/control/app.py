"""A control-plane service: a table of topic -> handler, carried by Faust on rails.

```python
def build(health: Health) -> ControlApp:
    app = ControlApp(settings, service="counter", prefix="flights", health=health)
    app.on("flights.profiles", profile_schema, merge_profile, table="windows")
    app.sends("flights.drift-signals", signal_schema)
    app.tick("close", 5, close_windows, table="windows")
    return app
```
"""

import asyncio
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka.errors import UnsupportedCodecError  # type: ignore[import-untyped]

from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import DEAD_LETTERS, Topics
from driftline.control.faust_app import Guard, GuardedApp, add_agents, add_timer, make_faust_app
from driftline.control.ledger import Ledger
from driftline.control.outbox import KafkaOutbox
from driftline.control.own_topics import CHANGELOG, TICKS, create_own_topics
from driftline.control.partition_reader import PartitionReader
from driftline.control.processing import Output, Processor
from driftline.control.routes import Declarations, Handler, Tick, avro_decoder, tick_record
from driftline.control.security import faust_credentials
from driftline.control.settings import ControlSettings
from driftline.control.tables import Tables
from driftline.control.watchdog import Watchdog
from driftline.runtime.clock import Clock, SystemClock
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.runtime.health import Health
from driftline.runtime.logging import get_logger
from driftline.streaming.partitions import Partition
from driftline.streaming.service import wait_for_topics

_log = get_logger(__name__)
_POLL_SECONDS = 0.05
_STOP_SECONDS = 20.0
_HEARTBEAT_SECONDS = 1.0
#: A tick that is not handled by then is taken for lost, and the next one is sent.
_TICK_PATIENCE_SECONDS = 10.0


async def _nothing(_record: dict[str, Any], _context: Any) -> None:
    return


class ControlApp:
    """What a service declares, and the loop that runs it.

    Parameters
    ----------
    prefix
        Of the project's topics: ``[<environment>.]<project>``. With the service's name it makes the consumer group
        and the names of the app's own topics.
    dead_letters
        Topic for bad messages; the project's unless given.
    registry
        Where schemas come from; the settings' unless given.
    """

    def __init__(
        self,
        settings: ControlSettings,
        *,
        service: str,
        prefix: str,
        health: Health,
        dead_letters: str | None = None,
        registry: SchemaRegistry | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._service = service
        self._health = health
        self._dead_letters = dead_letters or f"{prefix}.{DEAD_LETTERS}"
        self._registry = registry or SchemaRegistry(settings.schema_registry_url)
        self._clock = clock or SystemClock()
        self._declared = Declarations(group=f"{prefix}.{service}")
        self._faust: GuardedApp | None = None
        self._ticks_waiting: dict[Partition, float] = {}
        self._ticks_generation = -1
        self._credentials = faust_credentials(settings.kafka_security)

    def on(
        self, topic: str, schema: Mapping[str, Any], handler: Handler, *, table: str | None = None
    ) -> None:
        """Hand each record of a topic to a handler, with one partition of a table where it has one.

        Several topics may share a table, if they have equally many partitions.
        """
        self._declared.on(topic, avro_decoder(schema, self._registry.schema), handler, table)

    def tick(self, name: str, seconds: float, handler: Handler, *, table: str | None = None) -> None:
        """Hand a record ``{"at_us": ...}`` for every partition (the table's) to a handler, every so many seconds.

        Ticks are records of a topic of the app's own, so they are counted once and may change the table. While one
        is not handled yet, none is added; after an outage there is no backlog of them.
        """
        self._declared.tick(name, seconds, handler, table)

    def sends(self, topic: str, schema: Mapping[str, Any]) -> None:
        """Allow handlers to send records of a schema to a topic."""
        self._declared.sends(topic, schema)

    def run(self, stop: threading.Event) -> None:
        """Run until ``stop`` is set; the event in hand is finished first.

        Raises
        ------
        DriftlineError
            Whatever crashed the app; the process should end then, as Faust's threads go on.
        """
        self._health.set("stream", False)  # no detail: starting is no error
        if not self._declared.routes:
            raise ConfigurationError(f"{self._service} handles no topic")
        if not self._declared.ticks:
            self._declared.tick("heartbeat", _HEARTBEAT_SECONDS, _nothing, None)
        found = self._wait_for_topics(stop)
        if not found:
            return
        counts = self._declared.partitions(found)
        changelogs = set(self._declared.changelogs.values())
        kinds = {topic: CHANGELOG if topic in changelogs else TICKS for topic in counts}
        create_own_topics(self._settings.kafka_config(), counts, kinds)
        outputs = self._outputs()
        # Not asyncio.run: after a crash nothing of Faust may be waited for.
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(self._run(stop, outputs, counts))

    def _wait_for_topics(self, stop: threading.Event) -> dict[str, int]:
        wanted = {*self._declared.inputs, *self._declared.outputs, self._dead_letters}
        return wait_for_topics(self._settings.kafka_config(), wanted, health=self._health, stop=stop)

    def _outputs(self) -> dict[str, Output]:
        return {
            topic: Output(codec, self._registry.schema_id(Topics.subject(topic), codec.schema))
            for topic, codec in self._declared.outputs.items()
        }

    async def _run(
        self, stop: threading.Event, outputs: Mapping[str, Output], counts: Mapping[str, int]
    ) -> None:
        settings, group = self._settings, self._declared.group
        reader = PartitionReader(settings.kafka_config(), group=group)
        outbox = KafkaOutbox(
            settings.kafka_bootstrap_servers,
            settings.kafka_security,
            client=f"driftline-{settings.instance}",
        )
        await outbox.start()
        ledger = Ledger(reader)
        app = self._faust = make_faust_app(
            group=group,
            instance=settings.instance,
            bootstrap_servers=settings.kafka_bootstrap_servers,
            credentials=self._credentials,
            ledger=ledger,
            max_poll_interval_seconds=settings.max_poll_interval_ms / 1_000,
        )
        processor = Processor(
            self._declared.routes,
            outputs,
            Tables(reader, outbox, topic_of=self._declared.changelogs),
            outbox,
            dead_letters=self._dead_letters,
            ceiling=settings.ceiling(),
            service=self._service,
            instance=settings.instance,
        )
        guard = Guard(app, processor, on_handled=self._handled)
        add_agents(app, self._declared.routes, guard)
        for tick in self._declared.ticks.values():
            self._add_tick(app, tick, outbox)
        watchdog = Watchdog(
            _Observed(app),
            PartitionReader(settings.kafka_config(), group=group),
            health=self._health,
            stall_seconds=settings.stall_seconds,
            start_seconds=settings.start_seconds,
        )
        self._health.watch("stream", settings.stall_seconds)
        watchdog.start()
        await self._until(stop, app)
        watchdog.stop()
        await outbox.stop()
        reader.close()

    async def _until(self, stop: threading.Event, app: GuardedApp) -> None:
        starting = asyncio.ensure_future(app.start())
        while not stop.is_set():
            if app.crashed:
                raise _explained(app.crash_reason)
            if starting.done() and not starting.cancelled() and starting.exception() is not None:
                raise _explained(starting.exception())
            await asyncio.sleep(_POLL_SECONDS)
        try:
            await asyncio.wait_for(app.stop(), _STOP_SECONDS)
        except TimeoutError:
            _log.warning("not drained in time; what is in hand comes again", seconds=_STOP_SECONDS)
        starting.cancel()

    def _add_tick(self, app: GuardedApp, tick: Tick, outbox: KafkaOutbox) -> None:
        async def publish() -> None:
            value = tick_record(self._clock.now_us())
            for partition in self._due(app.assigned(), tick.topic):
                await outbox.send(tick.topic, key=None, value=value, partition=partition.number)

        add_timer(app, tick.seconds, publish)

    def _due(self, assigned: Iterable[Partition], topic: str) -> list[Partition]:
        """Return the partitions of a tick topic whose last tick was handled, and note the next one."""
        now, generation = time.monotonic(), self._faust.consumer_generation_id if self._faust else 0
        if generation != self._ticks_generation:  # what waited is handled by others, or comes again
            self._ticks_waiting.clear()
            self._ticks_generation = generation
        due = [
            partition
            for partition in sorted(assigned)
            if partition.topic == topic
            and now - self._ticks_waiting.get(partition, float("-inf")) > _TICK_PATIENCE_SECONDS
        ]
        self._ticks_waiting.update(dict.fromkeys(due, now))
        return due

    def _handled(self, partition: Partition) -> None:
        self._ticks_waiting.pop(partition, None)
        self._health.set("stream", True)
        self._health.progress("stream")


class _Observed:
    """The app as the watchdog sees it."""

    def __init__(self, app: GuardedApp) -> None:
        self._app = app

    def settled(self) -> bool:
        return self._app.settled and not self._app.rebalancing

    def assigned(self) -> set[Partition]:
        return self._app.assigned()

    def next_offset(self, partition: Partition) -> int | None:
        return self._app.ledger.next_offset(partition, generation=self._app.consumer_generation_id)


def _explained(error: BaseException | None) -> BaseException:
    if isinstance(error, UnsupportedCodecError):
        return ConfigurationError(
            f"a topic is compressed, and aiokafka cannot read it: install cramjam ({error})"
        )
    return error or UnavailableError("Faust stopped without a reason")
