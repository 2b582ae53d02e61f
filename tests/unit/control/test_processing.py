"""One record after the other, whatever happens in between: the table and the outputs are exact."""

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.control.context import Context, deterministic_id
from driftline.control.tables import PartitionState
from driftline.runtime.errors import (
    BadMessageError,
    ConfigurationError,
    DeadLetterCeilingError,
    LostOwnershipError,
    OffsetGapError,
    UnavailableError,
)
from driftline.streaming.dead_letters import DeadLetterCeiling, read_origin
from driftline.streaming.partitions import Partition
from tests.unit.control.memory import (
    CHANGELOG,
    COUNTS,
    EVENTS,
    LETTERS,
    Crash,
    MemoryBroker,
    count,
    framed,
    incoming,
    make_processor,
)


def table_of(broker: MemoryBroker) -> dict[str, Any]:
    state = PartitionState()
    for message in broker.read_all(Partition(CHANGELOG, 0)):
        state.replay(message.key(), message.value())
    return {key: orjson.loads(value.state) for key, value in state.values.items()}


async def process(broker: MemoryBroker, keys: list[str], *, start: int = 0, generation: int = 1) -> None:
    processor = make_processor(broker)
    for offset in range(start, len(keys)):
        await processor.process(incoming(offset, framed(keys[offset])), generation=generation)


@given(st.data())
def test_dying_anywhere_and_being_given_old_records_again_changes_nothing(data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=12))
    broker, start = MemoryBroker(), 0
    for _ in range(data.draw(st.integers(0, 5))):
        broker.dies_at = broker.writes + data.draw(st.integers(0, 2 * len(keys)))
        try:
            asyncio.run(process(broker, keys, start=start))
        except Crash:
            done = {offset for offset in range(len(keys)) if includes(broker, offset)}
            start = data.draw(st.integers(0, len(done)))  # what was committed: at most what is done
    broker.dies_at = None
    asyncio.run(process(broker, keys, start=start))
    assert table_of(broker) == {**Counter(keys), "all": len(keys)}
    outputs = {output["id"]: output for output in broker.outputs()}
    assert all(outputs[output["id"]] == output for output in broker.outputs())
    told = Counter((output["key"], output["count"]) for output in outputs.values())
    assert told == Counter(
        (key, step) for key, total in Counter(keys).items() for step in range(1, total + 1)
    )


def includes(broker: MemoryBroker, offset: int) -> bool:
    state = PartitionState()
    for message in broker.read_all(Partition(CHANGELOG, 0)):
        state.replay(message.key(), message.value())
    return state.includes(EVENTS, offset)


def test_a_record_that_died_between_output_and_table_sends_the_same_again() -> None:
    broker = MemoryBroker(dies_at=1)
    with pytest.raises(Crash):
        asyncio.run(process(broker, ["a"]))
    broker.dies_at = None
    asyncio.run(process(broker, ["a"]))
    first, second = broker.outputs()
    assert first == second == {"id": deterministic_id(EVENTS, 0, 0), "key": "a", "count": 1}
    assert table_of(broker)["a"] == 1


def test_the_value_carries_the_offset_that_it_includes() -> None:
    seen = []

    async def look(record: dict[str, Any], context: Context) -> None:
        seen.append(context.table.offset_of("a"))
        await count(record, context)

    async def run() -> None:
        processor = make_processor(broker, {EVENTS: look})
        for offset in (3, 8):
            await processor.process(incoming(offset, framed("a")), generation=1)

    broker = MemoryBroker()
    asyncio.run(run())
    assert seen == [None, (EVENTS, 3)]
    stored = [
        orjson.loads(one.value()) for one in broker.read_all(Partition(CHANGELOG, 0)) if one.key() == b"a"
    ]
    assert stored[-1] == {"topic": EVENTS, "offset": 8, "state": 2}


def test_topics_that_share_a_table_have_a_watermark_each() -> None:
    async def run() -> None:
        processor = make_processor(broker, {EVENTS: count, "p.others": count})
        await processor.process(incoming(50, framed("a")), generation=1)
        await processor.process(incoming(4, framed("a"), topic="p.others"), generation=1)
        await processor.process(incoming(4, framed("a"), topic="p.others"), generation=1)
        await processor.process(incoming(50, framed("a")), generation=1)
        await processor.process(incoming(51, framed("a")), generation=1)

    broker = MemoryBroker()
    asyncio.run(run())
    assert table_of(broker) == {"a": 3, "all": 3}


def test_partitions_of_a_table_are_apart() -> None:
    async def run() -> None:
        processor = make_processor(broker)
        await processor.process(incoming(0, framed("a")), generation=1)
        await processor.process(incoming(0, framed("a"), partition=1), generation=1)

    broker = MemoryBroker()
    asyncio.run(run())
    assert [output["count"] for output in broker.outputs()] == [1, 1]


def test_a_new_generation_reads_what_others_wrote_meanwhile() -> None:
    async def run() -> None:
        mine, theirs = make_processor(broker), make_processor(broker)
        await mine.process(incoming(0, framed("a")), generation=1)
        await theirs.process(incoming(1, framed("a")), generation=2)
        await mine.process(incoming(2, framed("a")), generation=3)

    broker = MemoryBroker()
    asyncio.run(run())
    assert table_of(broker)["a"] == 3


def test_what_a_former_owner_writes_late_is_passed_over() -> None:
    broker = MemoryBroker()
    asyncio.run(process(broker, ["a", "a", "a"]))
    late = PartitionState().changes(EVENTS, 1, {"a": b"99"})
    asyncio.run(broker.append(CHANGELOG, 0, late))
    assert table_of(broker)["a"] == 3
    assert includes(broker, 2)


def test_nothing_is_written_of_a_partition_that_has_moved() -> None:
    broker = MemoryBroker()
    processor = make_processor(broker)
    with pytest.raises(LostOwnershipError):
        asyncio.run(processor.process(incoming(0, framed("a")), generation=1, ours=lambda: False))
    assert table_of(broker) == {}


def test_a_bad_message_goes_aside_whole() -> None:
    broker = MemoryBroker()
    asyncio.run(make_processor(broker).process(incoming(5, b"\x00junk"), generation=1))
    (letter,) = broker.topics[Partition(LETTERS, 0)]
    origin = read_origin(letter.headers_)
    assert (letter.key(), letter.value()) == (b"k", b"\x00junk")
    assert ("trace", b"t-1") in letter.headers_
    assert origin is not None
    assert (origin.id, origin.timestamp_ms, origin.service) == (f"{EVENTS}/0/5", 1_700_000_000_123, "counter")
    assert table_of(broker) == {}


def test_a_handler_may_refuse_and_nothing_of_it_stays() -> None:
    async def refuse(record: dict[str, Any], context: Context) -> None:
        context.table.put("a", 1)
        raise BadMessageError("not like this", stage="validate")

    broker = MemoryBroker()
    asyncio.run(make_processor(broker, {EVENTS: refuse}).process(incoming(0, framed("a")), generation=1))
    origin = read_origin(broker.topics[Partition(LETTERS, 0)][0].headers_)
    assert origin is not None
    assert (origin.stage, origin.message) == ("validate", "not like this")
    assert table_of(broker) == {}


def test_too_many_bad_messages_stop_before_the_last_goes_aside() -> None:
    async def run() -> None:
        for offset in range(10):
            await processor.process(incoming(offset, None), generation=1)

    broker = MemoryBroker()
    processor = make_processor(broker, ceiling=DeadLetterCeiling(share=0.5, window=10, minimum=3))
    with pytest.raises(DeadLetterCeilingError):
        asyncio.run(run())
    assert len(broker.topics[Partition(LETTERS, 0)]) == 2


def test_a_failed_send_is_not_a_done_record() -> None:
    broker = MemoryBroker(down=True)
    processor = make_processor(broker)
    broker.down = False
    asyncio.run(process(broker, []))
    broker.down = True
    with pytest.raises(UnavailableError):
        asyncio.run(processor.process(incoming(0, framed("a")), generation=1))


@pytest.mark.parametrize("topic", ["p.unknown", COUNTS])
def test_outputs_are_declared_and_fit_their_schema(topic: str) -> None:
    async def send(record: dict[str, Any], context: Context) -> None:
        await context.send(topic, "a", {"id": 1})

    processor = make_processor(MemoryBroker(), {EVENTS: send})
    with pytest.raises(ConfigurationError, match=topic):
        asyncio.run(processor.process(incoming(0, framed("a")), generation=1))


def test_a_topic_made_anew_is_noticed_and_not_taken_for_handled() -> None:
    broker = MemoryBroker()
    asyncio.run(process(broker, ["a"] * 9))
    broker.ends[Partition(EVENTS, 0)] = 3
    with pytest.raises(OffsetGapError, match="ends at 3"):
        asyncio.run(process(broker, ["a"]))


def test_a_handler_without_a_table_has_none() -> None:
    processor = make_processor(MemoryBroker(), {EVENTS: count}, table=None)
    with pytest.raises(ConfigurationError, match="has no table"):
        asyncio.run(processor.process(incoming(0, framed("a")), generation=1))
