"""Whatever happens between two steps, every record stands in the archive once."""

import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from driftline.archive import sink
from driftline.archive.sink import TopicTable
from driftline.archive.tables import TOPICS, open_table
from driftline.runtime.errors import UnavailableError
from driftline.streaming.partitions import Partition
from services.archiver.pipeline import ArchiverPipeline

from .conftest import PARTITIONS, World


class Crash(BaseException):
    """The process dies here."""


def crash_at(target: Any, method: str, *, call: int, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the n-th call die, before or after it has done its work."""
    original: Callable[..., Any] = getattr(target, method)
    calls = [0]

    def dying(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and not after:
            raise Crash
        result = original(*arguments, **options)
        if calls[0] == call:
            raise Crash
        return result

    monkeypatch.setattr(target, method, dying)


STEPS = {
    "taking: before the log is read": (TopicTable, "positions", 1, False),
    "taking: after it": (TopicTable, "positions", 2, True),
    "holding: messages are decoded": (ArchiverPipeline, "_decode", 3, True),
    "commit: before the bad records": (TopicTable, "append_missing", 1, False),
    "commit: bad records are in, good ones are not": (TopicTable, "append_missing", 1, True),
    "commit: the table is made, nothing is in it": (TopicTable, "_opened", 2, True),
    "commit: before the first rows": (TopicTable, "append", 1, False),
    "commit: after the first rows": (TopicTable, "append", 1, True),
    "commit: a later one, before": (TopicTable, "append", 4, False),
    "commit: a later one, after": (TopicTable, "append", 4, True),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_between_two_steps_loses_and_doubles_nothing(
    world: World, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish(500)
    world.publish_raw(b"rubbish")
    world.publish(900)
    target, method, call, after = STEPS[step]
    with monkeypatch.context() as patched:
        crash_at(target, method, call=call, after=after, monkeypatch=patched)
        with pytest.raises(Crash):
            world.run()
    world.publish(100)
    world.run()
    world.assert_exact()
    assert [row["value"] for row in world.bad()] == [b"rubbish"]


def test_restarts_in_mid_stream(world: World) -> None:
    """Five starts, each ended somewhere in the middle, with other batches and commits each time."""
    for turn in range(5):
        world.publish(700)
        goal = 500 * (turn + 1)
        world.run(
            until=lambda goal=goal: len(world.rows()) >= goal,  # type: ignore[misc]
            max_batch=(1, 17, 100, 333, 5_000)[turn],
            rows=(50, 400, 90, 1_000, 10)[turn],
        )
    world.run()
    world.assert_exact()


def test_stopping_commits_what_is_held(world: World) -> None:
    world.publish(400)
    assembly = world.assemble(seconds=3_600, rows=1_000_000)

    def all_held() -> bool:
        return sum(held.rows for held in list(assembly.pipeline._held.values())) == 400

    assembly.run(until=all_held)
    world.assert_exact()
    assert version(world) == 1  # one commit for everything, after the table's own


def test_a_store_that_fails_for_a_while_delays_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish(600)
    failures = [0]
    write = sink.write_deltalake

    def failing(*arguments: Any, **options: Any) -> None:
        failures[0] += 1
        if failures[0] in (1, 3):
            raise OSError("no space left on device")
        write(*arguments, **options)
        if failures[0] == 4:
            raise OSError("the answer was lost")

    monkeypatch.setattr(sink, "write_deltalake", failing)
    world.run()
    assert failures[0] >= 4
    world.assert_exact()


def test_a_registry_that_fails_for_a_while_delays_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish(600)
    latest = world.registry.latest
    failures = [0]

    def failing(subject: str) -> Any:
        failures[0] += 1
        if failures[0] <= 2:
            raise UnavailableError("the registry does not answer")
        return latest(subject)

    monkeypatch.setattr(world.registry, "latest", failing)
    world.run()
    assert failures[0] == 3
    world.assert_exact()


def test_a_zombie_is_refused(world: World) -> None:
    """It holds rows; meanwhile another process takes over and goes on; then it wakes and commits."""
    world.publish(400)
    world.publish_raw(b"rubbish")
    zombie = world.assemble(seconds=3_600, rows=1_000_000)
    consumer, pipeline = zombie.consumer, zombie.pipeline
    until = time.monotonic() + 30
    while sum(held.rows for held in pipeline._held.values()) < 401:
        assert time.monotonic() < until
        for partition, position in pipeline.positions(consumer.due()).items():
            consumer.start(partition, position)
        pipeline.process(consumer.poll(0.2))
    consumer.close()  # out of the group, as after a long pause
    world.publish(100)
    world.run(instance="archiver-1")
    before = version(world)
    pipeline.flush()
    assert set(pipeline.idle()) == {Partition(world.topic, number) for number in range(PARTITIONS)}
    assert version(world) == before
    world.assert_exact()


def version(world: World) -> int:
    table = open_table(world.archive.table(TOPICS, "payments"))
    assert table is not None
    return table.version()


def test_two_archivers_share_the_partitions(world: World) -> None:
    world.publish(2_000)
    over = threading.Event()
    errors: list[BaseException] = []

    def second() -> None:
        try:
            world.run(instance="archiver-1", until=over.is_set, rows=120)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=second)
    thread.start()
    try:
        time.sleep(0.5)
        world.run(rows=70)  # joins, both work, leaves: its partitions go to the other
        world.publish(500)
        until = time.monotonic() + 60
        while not world.caught_up():
            assert time.monotonic() < until
            time.sleep(0.2)
    finally:
        over.set()
        thread.join()
    assert errors == []
    world.assert_exact()


def test_an_archive_that_was_removed_is_filled_again(world: World) -> None:
    world.publish(300)
    removed = [False]

    def until() -> bool:
        if not removed[0] and world.caught_up():
            shutil.rmtree(world.archive.table("topics", "payments"))
            world.publish(100)
            removed[0] = True
        return removed[0] and world.caught_up()

    world.run(until=until)
    world.assert_exact()
