"""Each rail of the control plane (design, section 6), on Faust's own agents, without a broker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from faust.types import TP
from faust.types.enums import ProcessingGuarantee

from driftline.control.faust_app import Guard, GuardedApp, add_agents, add_timer, make_faust_app
from driftline.control.ledger import Ledger
from driftline.control.processing import Processor
from driftline.control.routes import Handler, decode_tick
from driftline.runtime.errors import BadMessageError, UnavailableError
from driftline.streaming.partitions import Partition
from tests.unit.control.memory import EVENTS, LETTERS, MemoryBroker, count, framed, make_processor

P = Partition(EVENTS, 0)


def make_app(ledger: Ledger | None = None) -> GuardedApp:
    return make_faust_app(
        group="p.counter",
        instance="counter-0",
        bootstrap_servers="127.0.0.1:1,127.0.0.1:2",
        credentials=None,
        ledger=ledger or Ledger(MemoryBroker()),
    )


class Rig:
    """An agent with the guard around a handler; ``acked`` are the offsets that were acknowledged."""

    def __init__(
        self, broker: MemoryBroker, handler: Handler = count, *, table: str | None = "counts"
    ) -> None:
        self.broker = broker
        broker.offsets.setdefault(P, 0)
        self.ledger = Ledger(broker)
        self.app = make_app(self.ledger)
        self.acked: list[int] = []
        processor: Processor = make_processor(broker, {EVENTS: handler}, table=table)
        self.guard = Guard(self.app, processor, on_handled=self._note)
        self.agent = add_agents(self.app, [EVENTS], self.guard)[EVENTS]

    def _note(self, partition: Partition) -> None:
        self.acked.append((self.ledger.next_offset(partition, generation=0) or 0) - 1)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Any]:
        async with self.agent.test_context() as agent:
            yield agent


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


# 1: at least once, one worker, one event at a time, static member, raw topics, read committed


def test_rail_1_settings() -> None:
    conf = make_app().conf
    assert conf.processing_guarantee == ProcessingGuarantee.AT_LEAST_ONCE
    assert conf.consumer_group_instance_id == "counter-0"
    assert (conf.broker_session_timeout, conf.broker_heartbeat_interval, conf.broker_commit_interval) == (
        10,
        2,
        0.5,
    )
    assert (conf.web_enabled, conf.topic_allow_declare) == (False, False)
    assert [str(url) for url in conf.broker] == ["kafka://127.0.0.1:1", "kafka://127.0.0.1:2"]


def test_rail_1_reads_what_is_committed_in_the_group() -> None:
    async def test() -> None:
        app = make_app()
        thread: Any = app.consumer._thread  # type: ignore[attr-defined]
        consumer = thread._create_worker_consumer(app.transport)
        assert consumer._isolation_level == "read_committed"
        assert consumer._group_instance_id == "counter-0"
        consumer._closed = True

    run(test)


def test_rail_1_one_event_at_a_time_over_all_topics() -> None:
    running = []

    async def watch(record: dict[str, Any], context: Any) -> None:
        running.append(1)
        await asyncio.sleep(0.01)
        assert len(running) == 1
        running.pop()

    async def test() -> None:
        broker = MemoryBroker(offsets={P: 0, Partition("p.others", 0): 0})
        app = make_app(ledger := Ledger(broker))
        processor = make_processor(broker, {EVENTS: watch, "p.others": watch})
        handled: list[Partition] = []
        agents = add_agents(app, [EVENTS, "p.others"], Guard(app, processor, on_handled=handled.append))
        assert all(agent.concurrency == 1 for agent in agents.values())
        async with agents[EVENTS].test_context() as one, agents["p.others"].test_context() as other:
            for _ in range(5):
                await one.put(framed("a"), wait=False)
                await other.put(framed("a"), wait=False)
            await until(lambda: len(handled) == 10)
        assert ledger.next_offset(P, generation=0) == 5
        assert not app.crashed

    run(test)


# 2: freeze


def test_rail_2_nothing_flows_until_faust_has_sought() -> None:
    async def test() -> None:
        app = make_app()
        app.consumer.resume_flow()
        app.flow_control.resume()
        await app.on_rebalance_complete.send()
        assert app.consumer.flow_active is False
        assert not app.flow_control.is_active()

    run(test)


# 3: the guard


def test_rail_3_a_bad_message_is_done_when_its_dead_letter_is_acknowledged() -> None:
    async def test() -> None:
        acknowledge = asyncio.Event()

        class Slow(MemoryBroker):
            async def send(self, topic: str, **message: Any) -> None:
                await acknowledge.wait()
                await super().send(topic, **message)

        rig = Rig(Slow())
        async with rig.running() as agent:
            await agent.put(b"\x00junk", wait=False)
            await asyncio.sleep(0.05)
            assert rig.acked == []
            acknowledge.set()
            await until(lambda: rig.acked == [0])
            await agent.put(framed("a"))
            assert rig.acked == [0, 1]
        assert [one.value() for one in rig.broker.topics[Partition(LETTERS, 0)]] == [b"\x00junk"]
        assert not rig.app.crashed

    run(test)


def test_rail_3_any_other_error_crashes_the_app_and_takes_nothing_more() -> None:
    async def broken(record: dict[str, Any], context: Any) -> None:
        if record["key"] == "broken":
            raise RuntimeError("a bug")
        await count(record, context)

    async def test() -> None:
        rig = Rig(MemoryBroker(), broken)
        async with rig.running() as agent:
            events = [await agent.put(framed("a"))]
            events += [await agent.put(framed(key), wait=False) for key in ("broken", "a")]
            await until(lambda: rig.app.crashed)
            await asyncio.sleep(0.05)
            assert rig.acked == [0]
            assert [event.message.acked for event in events] == [True, False, False]
            assert isinstance(rig.app.crash_reason, RuntimeError)
            assert rig.ledger.next_offset(P, generation=0) == 1  # what is committed

        assert [event.message.acked for event in events] == [True, False, False]

    run(test)


def test_rail_3_after_a_crash_the_guard_never_returns() -> None:
    async def broken(record: dict[str, Any], context: Any) -> None:
        raise RuntimeError("a bug")

    async def test() -> None:
        rig = Rig(MemoryBroker(), broken)
        wrapper = rig.agent.test_context()
        event = rig.app.create_event(b"k", framed("a"), None, wrapper.to_message(b"k", framed("a")))
        for _ in range(2):  # the event itself, and whoever comes after it
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(rig.guard.take(event), 0.1)
        assert rig.app.crashed

    run(test)


def test_rail_3_cancellation_passes_and_is_no_acknowledgement() -> None:
    started = asyncio.Event()

    async def slow(record: dict[str, Any], context: Any) -> None:
        started.set()
        await asyncio.sleep(60)

    async def test() -> None:
        rig = Rig(MemoryBroker(), slow)
        async with rig.running() as agent:
            event = await agent.put(framed("a"), wait=False)
            await asyncio.wait_for(started.wait(), 5)
        assert rig.acked == []
        assert not event.message.acked
        assert not rig.app.crashed

    run(test)


@pytest.mark.parametrize("table", ["counts", None])
def test_rail_3_an_event_of_a_former_generation_is_left_to_its_new_owner(table: str | None) -> None:
    rigs: list[Rig] = []

    async def slow(record: dict[str, Any], context: Any) -> None:
        if table is not None:
            await count(record, context)
        rigs[0].app.consumer_generation_id = 8  # the partition moves while it is handled

    async def test() -> None:
        rigs.append(rig := Rig(MemoryBroker(), slow, table=table))
        async with rig.running() as agent:
            event = await agent.put(framed("a"), wait=False)
            await asyncio.sleep(0.1)
        assert rig.acked == []
        assert not event.message.acked
        assert Partition("p.counter.counts-changelog", 0) not in rig.broker.topics
        assert not rig.app.crashed

    run(test)


# 4: idempotence is the processor's (test_processing.py); here, that passed-over events stop everything


def test_rail_4_an_event_that_was_passed_over_crashes_before_the_next_is_acknowledged() -> None:
    async def test() -> None:
        rig = Rig(MemoryBroker())
        async with rig.running() as agent:
            await agent.put(framed("a"))
            agent.sent_offset += 1  # Faust has dropped one
            await agent.put(framed("a"), wait=False)
            await until(lambda: rig.app.crashed)
        assert rig.acked == [0]
        assert "was passed over" in str(rig.app.crash_reason)

    run(test)


def test_rail_4_what_is_committed_is_what_was_handled() -> None:
    async def test() -> None:
        rig = Rig(MemoryBroker())
        async with rig.running() as agent:
            for _ in range(3):
                await agent.put(framed("a"))
        consumer: Any = rig.app.consumer
        tp = TP(EVENTS, 0)
        consumer._acked[tp] = [0, 1, 2, 7]  # Faust believes more
        rig.app.consumer_generation_id = 0
        assert consumer._new_offset(tp) == 3
        rig.app.consumer_generation_id = 4  # another generation has handled nothing yet
        assert consumer._new_offset(tp) is None

    run(test)


# 5: every send is awaited


def test_rail_5_a_failed_send_crashes_and_the_event_comes_again() -> None:
    async def test() -> None:
        broker = MemoryBroker()
        rig = Rig(broker)
        async with rig.running() as agent:
            await agent.put(framed("a"))
            broker.down = True
            await agent.put(framed("a"), wait=False)
            await until(lambda: rig.app.crashed)
        assert rig.acked == [0]
        assert isinstance(rig.app.crash_reason, UnavailableError)

    run(test)


# 6: ticks


def test_rail_6_timers_publish_only_while_settled_and_crash_when_they_cannot() -> None:
    published: list[int] = []

    async def publish() -> None:
        published.append(1)
        if len(published) == 3:
            raise UnavailableError("the broker does not answer")

    async def test() -> None:
        app = make_app()
        add_timer(app, 0.02, publish)
        (task,) = app._app_tasks
        timer = asyncio.ensure_future(task())
        await asyncio.sleep(0.15)
        assert published == []
        app.settled = True
        await until(lambda: app.crashed)
        assert isinstance(app.crash_reason, UnavailableError)
        timer.cancel()

    run(test)


@pytest.mark.parametrize("bad", [b"", b"{}", b'{"at_us": "soon"}', None])
def test_rail_6_a_strange_tick_is_a_bad_message(bad: bytes | None) -> None:
    with pytest.raises(BadMessageError, match="no tick"):
        decode_tick(bad)
