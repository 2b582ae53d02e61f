"""A view that comes later ends up as if it had always been there, whatever happens on the way."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from driftline.archive.sink import Span, TopicTable
from driftline.archive.tables import TOPICS, Archive
from driftline.features.filling import Standing, incomplete_views, read_standings
from driftline.features.keys import owner_key, views_key
from driftline.runtime import metrics
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.serving.view_watch import ViewWatch
from driftline.streaming.partitions import Partition, PartitionBatch
from services.archiver.decoding import AvroDecoder
from services.feature_store.backfill import Backfill
from services.feature_store.fenced_store import FencedStore
from services.feature_store.partition_state import PartitionState
from services.feature_store.past_events import PastEvents

NEW = ("earned", "large", "pairs")


class Crash(BaseException):
    """The process dies here."""


def declare(world: Any, *, without: tuple[str, ...] = ()) -> None:
    """Let the project have the world's views, or all but some."""
    world.declare(*(view for name, view in world.all_views.items() if name not in without))


def wipe(world: Any) -> None:
    for key in world.client.scan_iter(f"dl:{{{world.topics.prefix}.*", count=5_000):
        world.client.delete(key)


def standings(world: Any) -> Any:
    return read_standings(
        world.client.mget, prefix=world.topics.prefix, project=world.project, partitions={"payments": 2}
    )


def assert_as_if_always_there(world: Any) -> None:
    """Compare every byte with a store that had all views from the beginning."""
    filled = world.stored()
    assert world.blobs() == world.expected()
    wipe(world)
    world.run()
    assert filled == world.stored()


def test_a_new_view_is_filled_from_the_topic_while_the_stream_goes_on(world: Any, payments: Any) -> None:
    declare(world, without=NEW)
    events = payments(900)
    world.publish(events[:500])
    world.publish_raw(b"rubbish")
    world.run()
    assert not any(b"earned@1" in key for key in world.stored())
    declare(world)
    published = [False]

    def until() -> bool:
        if not published[0]:
            published[0] = True
            world.publish(events[480:])  # some of them once more
        return bool(world.filled())

    read = metrics.BACKFILL_RECORDS.labels(world.topic)
    before = read._value.get()
    world.run(max_batch=30, past_batch=40, until=until)
    assert read._value.get() - before >= 500
    assert len(world.dead_letters()) == 1  # the live stream's, not once more
    fills = [build for one in standings(world) for build in one.builds if build.views]
    assert len(fills) == 2
    assert all(set(one.views) == {f"{name}@1" for name in NEW} and one.finished_us for one in fills)
    assert sum(one.events for one in fills) >= 480
    assert_as_if_always_there(world)


def test_a_backfill_that_is_faster_than_a_stream_behind_takes_nothing_of_it(
    world: Any, payments: Any
) -> None:
    """The stream lags, so the backfill meets it in the middle of the log."""
    declare(world, without=NEW)
    events = payments(1_200)
    world.publish(events[:200])
    world.run()
    world.publish(events[200:])
    declare(world)
    world.run(max_batch=5, backfill_share=0.9, until=world.filled)
    fills = [build for one in standings(world) for build in one.builds if build.views]
    ends = world.ends()
    assert any(one.stop < ends[number] - 5 for number, one in enumerate(fills))
    assert_as_if_always_there(world)


STEPS = {
    "begun: before it": (FencedStore, "change", 1, False),
    "begun: it is written (3)": (FencedStore, "change", 1, True),
    "the first offset is written": (FencedStore, "change", 3, True),
    "before a batch is applied": (PartitionState, "apply", 1, False),
    "a batch is applied in memory": (PartitionState, "apply", 2, True),
    "a batch is applied in memory, not written": (Backfill, "_advanced", 2, False),
    "before a step (6)": (FencedStore, "fill", 2, False),
    "a step is done, the answer is lost (6)": (FencedStore, "fill", 2, True),
    "a later step": (FencedStore, "fill", 5, True),
    "before the last step (7)": (FencedStore, "complete", 1, False),
    "the last step is done, the answer is lost (7)": (FencedStore, "complete", 1, True),
    "the other partition is not complete": (FencedStore, "complete", 2, False),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("death", [Crash, UnavailableError])
def test_killed_at_any_step_it_goes_on_there(
    world: Any, payments: Any, step: str, death: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(world, without=NEW)
    events = payments(500, customers=450)  # most come once: no later batch writes their rows again
    world.publish([*events[:300], *events[250:350]])
    world.run()
    world.publish(events[330:])
    declare(world)
    target, method, call, after = STEPS[step]
    with monkeypatch.context() as patched:
        calls = fail_at(target, method, call=call, after=after, death=death, monkeypatch=patched)
        if death is Crash:
            with pytest.raises(Crash):
                world.run(max_batch=70, past_batch=25, until=world.filled)
        else:
            world.run(max_batch=70, past_batch=25, until=world.filled)
        assert calls[0] >= call
    world.run(max_batch=70, past_batch=25, until=world.filled)
    assert_as_if_always_there(world)


def fail_at(
    target: Any,
    method: str,
    *,
    call: int,
    after: bool,
    death: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> list[int]:
    """Let the n-th call of a method fail, before or after it has done its work; return the counter of calls."""
    original: Callable[..., Any] = getattr(target, method)
    calls = [0]

    def dying(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and not after:
            raise death("before")
        result = original(*arguments, **options)
        if calls[0] == call:
            raise death("after")
        return result

    monkeypatch.setattr(target, method, dying)
    return calls


def test_a_view_that_was_away_for_a_while_is_filled_anew(world: Any, payments: Any) -> None:
    """Its old blobs are true of the offset at which it left; they are deleted, not added to."""
    world.publish(payments(200))
    world.run()
    declare(world, without=NEW)
    world.publish(payments(200, start=200))
    world.run()
    declare(world)
    ghost = next(key for key in world.stored() if b"earned@1" in key) + b"-ghost"
    world.client.set(ghost, b"left behind")
    world.run(past_batch=50, until=world.filled)
    assert not world.client.exists(ghost)
    assert_as_if_always_there(world)


def test_another_view_during_a_backfill_begins_it_anew(
    world: Any, payments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(world, without=NEW)
    world.publish(payments(400))
    world.run()
    declare(world, without=("large",))
    with monkeypatch.context() as patched:
        fail_at(FencedStore, "fill", call=4, after=True, death=Crash, monkeypatch=patched)
        with pytest.raises(Crash):
            world.run(past_batch=30, until=world.filled)
    declare(world)
    world.run(past_batch=30, until=world.filled)
    assert_as_if_always_there(world)


def test_a_backfill_that_nobody_needs_any_more_is_dropped(
    world: Any, payments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(world, without=NEW)
    world.publish(payments(300))
    world.run()
    declare(world)
    with monkeypatch.context() as patched:
        fail_at(FencedStore, "fill", call=3, after=True, death=Crash, monkeypatch=patched)
        with pytest.raises(Crash):
            world.run(past_batch=30, until=world.filled)
    assert any(b":fill" in key for key in world.stored())
    declare(world, without=NEW)
    world.run(until=lambda: not any(b":fill" in key for key in world.stored()))
    declare(world)
    world.run(past_batch=30, until=world.filled)
    assert_as_if_always_there(world)


def test_a_snapshot_of_the_middle_of_a_backfill_is_noticed_and_gone_on_from(
    world: Any, payments: Any
) -> None:
    """No event comes meanwhile: only the epoch tells that the store went back."""
    declare(world, without=NEW)
    world.publish(payments(400))
    world.run()
    declare(world)
    snapshot: dict[bytes, bytes] = {}
    restored = [False]

    def until() -> bool:
        keys = list(world.client.scan_iter(f"dl:{{{world.topics.prefix}.*", count=5_000))
        if not snapshot and any(one.views[0].standing is Standing.FILLING for one in standings(world)):
            snapshot.update({key: world.client.dump(key) for key in keys})
        if snapshot and not restored[0] and world.filled():
            world.client.delete(*keys)
            for key, value in snapshot.items():
                world.client.restore(key, 0, value)
            restored[0] = True
            return False
        return restored[0] and bool(world.filled())

    declare(world, without=())
    world.run(past_batch=10, until=until)
    assert restored[0]
    assert_as_if_always_there(world)


def test_a_zombie_of_a_backfill_writes_nothing(world: Any, payments: Any) -> None:
    declare(world, without=NEW)
    world.publish(payments(300))
    world.run()
    declare(world)
    overtaken: list[bool] = []

    def until() -> bool:
        if not overtaken and any(one.views[0].standing is Standing.FILLING for one in standings(world)):
            overtaken.append(True)
            successor = world.assemble(instance="successor")
            successor.consumer.close()
            for number in range(2):
                successor.store.take("payments", number, oldest=lambda: 0)
            successor.store.close()
        return bool(overtaken and world.filled())

    world.run(past_batch=10, until=until)
    assert_as_if_always_there(world)


def test_a_store_of_before_has_the_views_of_which_it_has_blobs(world: Any, payments: Any) -> None:
    declare(world, without=NEW)
    world.publish(payments(300))
    world.run()
    for number in range(2):
        world.client.delete(views_key(world.topics.prefix, "payments", number))
    assert incomplete_views(standings(world)) == {}
    declare(world)
    world.run(past_batch=50, until=world.filled)
    fills = [build for one in standings(world) for build in one.builds if build.views]
    assert [set(one.views) for one in fills] == [{f"{name}@1" for name in NEW}] * 2
    assert_as_if_always_there(world)


def test_a_changed_view_under_the_same_version_is_refused(world: Any, payments: Any) -> None:
    world.publish(payments(20))
    world.run()
    key = views_key(world.topics.prefix, "payments", 0)
    stored = world.client.get(key)
    world.client.set(key, stored.replace(b'"large@1":', b'"large@1":1'))
    with pytest.raises(ConfigurationError, match=r"Raise its version \(now 1\)"):
        world.run(until=lambda: False)


def test_whoever_reads_is_told_what_is_not_whole(world: Any, payments: Any) -> None:
    declare(world, without=NEW)
    world.publish(payments(400))
    world.run()
    assert incomplete_views(standings(world)) == {}
    declare(world)
    watch = ViewWatch(
        world.redis_url, prefix=world.topics.prefix, project=world.project, partitions={"payments": 2}
    )
    watch.refresh()
    told = watch.incomplete()
    assert set(told) == {f"{name}@1" for name in NEW}
    assert "is not in the store yet" in told["large@1"]
    heard: list[str] = []

    def until() -> bool:
        watch.refresh()
        heard.append(watch.incomplete().get("large@1", ""))
        return bool(world.filled())

    world.run(past_batch=5, until=until)
    assert any("feature view large@1 is being filled (" in one for one in heard)
    watch.refresh()
    assert watch.incomplete() == {}
    watch.close()


def cut(world: Any, offsets: dict[int, int]) -> None:
    admin = AdminClient({"bootstrap.servers": world.kafka})
    places = [TopicPartition(world.topic, number, offset) for number, offset in offsets.items()]
    for future in admin.delete_records(places).values():
        future.result(10)


def test_what_the_topic_no_longer_holds_is_told_where_there_is_no_archive(world: Any, payments: Any) -> None:
    declare(world, without=NEW)
    world.publish(payments(300))
    world.run()
    cut(world, {0: 40, 1: 0})
    declare(world)
    world.run(past_batch=50, until=world.filled)
    (first,) = [build for build in standings(world)[0].builds if build.views]
    (second,) = [build for build in standings(world)[1].builds if build.views]
    assert (first.start, first.gone) == (40, 40)
    assert (second.start, second.gone) == (0, 0)
    assert world.blobs() != world.expected()


def test_retention_that_overtakes_a_backfill_is_counted(
    world: Any, payments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(world, without=NEW)
    world.publish(payments(300))
    world.run()
    declare(world)
    with monkeypatch.context() as patched:
        fail_at(FencedStore, "fill", call=2, after=True, death=Crash, monkeypatch=patched)
        with pytest.raises(Crash):
            world.run(past_batch=10, until=world.filled)
    filling = [one for one in standings(world) if one.views[0].standing is Standing.FILLING]
    cut(world, {one.partition: one.next_offset - 5 for one in filling})
    world.run(past_batch=10, until=world.filled)
    fills = [build for one in standings(world) for build in one.builds if build.views]
    assert any(one.gone > 0 for one in fills)


def archive(world: Any, folder: Path) -> None:
    """Write the topic into the archive, as the archiver does."""
    world.archive = Archive.at(str(folder), world.topics.prefix)
    table = TopicTable(
        world.archive.table(TOPICS, world.archive.stream(world.topic)), group=world.archive.group("archiver")
    )
    decoder = AvroDecoder(
        world.topic, world.registry.schema, lambda: world.codec.schema, event_times=["paid_at"]
    )
    for number, end in world.ends().items():
        partition = Partition(world.topic, number)
        messages = consumed(world, partition, end)
        half = len(messages) // 2
        for start, some in ((None, messages[:half]), (messages[half].offset(), messages[half:])):
            stop = some[-1].offset() + 1
            batch = PartitionBatch(partition=partition, messages=some, next_offset=stop)
            rows = decoder.decode(batch, table.columns())
            table.append(rows.good[0], [Span(partition=partition, start=start, stop=stop)])


def consumed(world: Any, partition: Partition, end: int) -> list[Any]:
    consumer = Consumer({"bootstrap.servers": world.kafka, "group.id": "archive-of-tests"})
    consumer.assign([TopicPartition(*partition, 0)])
    found: list[Any] = []
    until = time.monotonic() + 20
    while len(found) < end and time.monotonic() < until:
        found += [one for one in consumer.consume(1_000, 0.5) if one.error() is None]
    consumer.close()
    return found


def test_what_the_topic_no_longer_holds_comes_from_the_archive(
    world: Any, payments: Any, tmp_path: Path
) -> None:
    declare(world, without=NEW)
    events = payments(400)
    world.publish([*events[:250], *events[200:300]])
    world.publish_raw(b"rubbish")
    archive(world, tmp_path)
    world.publish(events[290:])
    world.run()
    whole = dict(world.stored())
    # What the whole log comes to, while the topic still has it.
    declare(world)
    wipe(world)
    world.run()
    expected = world.stored()
    wipe(world)
    for key, value in whole.items():
        world.client.set(key, value)
    for number, end in world.ends().items():
        world.client.set(owner_key(world.topics.prefix, "payments", number), f"1|{end}")
    cut(world, dict.fromkeys(range(2), 100))
    world.run(past_batch=33, until=world.filled)
    assert world.stored() == expected
    assert world.blobs() == world.expected()
    fills = [build for one in standings(world) for build in one.builds if build.views]
    assert [(one.start, one.gone) for one in fills] == [(0, 0), (0, 0)]


def test_an_archive_that_does_not_answer_holds_the_live_stream_up_in_nothing(
    world: Any, payments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(world, without=NEW)
    world.publish(payments(200))
    world.run()
    declare(world)
    lost = metrics.STORE_OWNERSHIP_LOST.labels("payments")
    before = lost._value.get()
    with monkeypatch.context() as patched:

        def silent(*_: Any) -> Any:
            raise UnavailableError("the archive does not answer")

        patched.setattr(PastEvents, "read", silent)
        world.publish(payments(100, start=200))
        seen: list[str] = []
        assembly = world.assemble()

        def until() -> bool:
            seen.extend(one["waits_for"] for one in assembly.pipeline.filling())
            return bool(world.caught_up()) and "the archive does not answer" in seen

        assembly.run(until=until)
    assert lost._value.get() == before
    world.run(until=world.filled)
    assert_as_if_always_there(world)


def test_a_build_from_the_beginning_has_its_time_on_the_record(world: Any, payments: Any) -> None:
    world.publish(payments(300))
    finished = lambda: all(  # noqa: E731
        one.builds and one.builds[0].finished_us is not None for one in standings(world)
    )
    world.run(until=lambda: world.caught_up() and finished())
    for one, end in zip(standings(world), world.ends().values(), strict=True):
        (build,) = one.builds
        assert (build.views, build.start, build.stop, build.records) == ((), 0, end, end)
        assert build.seconds is not None
        assert build.seconds > 0
    assert metrics.STORE_BUILD_SECONDS.labels(world.topic, "0")._value.get() > 0
    wipe(world)
    world.run(until=lambda: world.caught_up() and finished())
    assert world.blobs() == world.expected()


def test_the_live_stream_touches_no_view_that_is_not_complete(
    world: Any, payments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(world, without=NEW)
    world.publish(payments(100))
    world.run()
    declare(world)
    monkeypatch.setattr(Backfill, "turn", lambda _: False)
    world.publish(payments(100, start=100))
    world.run()
    assert not any(b"earned@1" in key or b"large@1" in key for key in world.blobs())
