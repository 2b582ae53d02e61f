"""A small control-plane service: counts each key's records in a table and says every new count; ticks are counted too.

Run as a process by the tests. ``COUNTER_PREFIX`` names its topics, ``COUNTER_BROKEN`` a probability of an exception
before the changes are written, ``COUNTER_WIDEN`` seconds for which Faust's own race is widened, ``COUNTER_WITHOUT``
rails to take away (freeze, seek, ledger), to see what they are for. A record of ``HANGING`` blocks the process, once.
"""

import asyncio
import os
import random
import sys
import time
from typing import Any

from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from driftline.control import Context, ControlApp, ControlSettings, faust_app, run_control_service
from driftline.control.ledger import Ledger, _Entry
from driftline.runtime.errors import BadMessageError
from driftline.runtime.health import Health
from driftline.streaming.partitions import Partition

EVENT = {
    "type": "record",
    "name": "Event",
    "fields": [{"name": "key", "type": "string"}, {"name": "number", "type": "long"}],
}
COUNT = {
    "type": "record",
    "name": "Count",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "key", "type": "string"},
        {"name": "number", "type": "long"},
        {"name": "count", "type": "long"},
    ],
}
SERVICE = "counter"
HANGING = 999_999
PREFIX = os.environ.get("COUNTER_PREFIX", "counting")
BROKEN = float(os.environ.get("COUNTER_BROKEN", "0"))
WIDEN = float(os.environ.get("COUNTER_WIDEN", "0"))
WITHOUT = os.environ.get("COUNTER_WITHOUT", "").split(",")


async def count(record: dict[str, Any], context: Context) -> None:
    if record["number"] < 0:
        raise BadMessageError("a negative number", stage="validate")
    if record["number"] == HANGING and not (mark := settings().state / "hung").exists():
        mark.touch()
        time.sleep(600)
    entry = context.table.get(record["key"], {"count": 0, "numbers": 0})
    entry["count"] += 1
    entry["numbers"] += record["number"]
    total = context.table.get("total", 0) + 1
    out = {"id": context.id_of("count"), **record, "count": entry["count"]}
    await context.send(f"{PREFIX}.counts", record["key"], out)
    if random.random() < BROKEN:
        raise RuntimeError("this handler breaks now and then")
    context.table.put(record["key"], entry)
    context.table.put("total", total)


async def count_tick(_record: dict[str, Any], context: Context) -> None:
    context.table.put("ticks", context.table.get("ticks", 0) + 1)


def widen_the_race() -> None:
    """Hold Faust for a while where it has partitions but its flow is not resumed yet."""
    original = faust_app._Consumer.perform_seek

    async def slow(self: Any) -> None:
        await asyncio.sleep(WIDEN / 2)
        await original(self)
        await asyncio.sleep(WIDEN / 2)

    faust_app._Consumer.perform_seek = slow  # type: ignore[method-assign]


def take_away(rails: list[str]) -> None:
    if "freeze" in rails:
        faust_app.freeze = lambda app: None
    if "seek" in rails:
        faust_app._Thread.seek_to_committed = AIOKafkaConsumerThread.seek_to_committed  # type: ignore[method-assign]
    if "ledger" in rails:
        Ledger.is_next = believe  # type: ignore[method-assign]


async def believe(self: Ledger, partition: Partition, offset: int, *, generation: int) -> bool:
    self._entries[partition] = _Entry(generation, offset)
    return True


def settings() -> ControlSettings:
    return ControlSettings.from_environment()


def main() -> int:
    if WIDEN:
        widen_the_race()
    take_away(WITHOUT)

    def build(health: Health) -> ControlApp:
        app = ControlApp(settings(), service=SERVICE, prefix=PREFIX, health=health)
        app.on(f"{PREFIX}.events", EVENT, count, table="counts")
        app.sends(f"{PREFIX}.counts", COUNT)
        app.tick("beat", 0.5, count_tick, table="counts")
        return app

    return run_control_service(SERVICE, settings(), build)


if __name__ == "__main__":
    sys.exit(main())
