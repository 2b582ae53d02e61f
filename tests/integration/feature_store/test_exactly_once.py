"""Whatever happens between two steps of the protocol, every event counts once."""

from collections.abc import Callable
from typing import Any

import pytest

from driftline.runtime.clock import SystemClock
from driftline.runtime.errors import LostOwnershipError
from driftline.streaming.dead_letters import DeadLetterTopic
from services.feature_store import fenced_store
from services.feature_store.fenced_store import FencedStore
from services.feature_store.partition_state import PartitionState


class Crash(BaseException):
    """The process dies here."""


def crash_at(target: Any, method: str, *, call: int, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the n-th call of a method die, before or after it has done its work."""
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
    "taking: before it": (FencedStore, "_try_take", 1, False),
    "taking: the epoch is set (2)": (FencedStore, "_try_take", 1, True),
    "clearing: before the oldest offset is set (3)": (FencedStore, "_step", 1, False),
    "clearing: one partition is done, the other not (3)": (FencedStore, "_step", 1, True),
    "loading: ownership is taken, nothing is loaded (4)": (FencedStore, "load_clock", 2, False),
    "batch: before it is applied": (PartitionState, "apply", 1, False),
    "batch: applied in memory": (PartitionState, "apply", 2, True),
    "batch: before the dead letters": (DeadLetterTopic, "write", 1, False),
    "batch: dead letters are written, offsets are not": (DeadLetterTopic, "write", 1, True),
    "writing: before the step (5)": (PartitionState, "commit", 1, False),
    "writing: EXEC is done, the answer is lost (9)": (FencedStore, "_step", 3, True),
    "writing: the second partition is not written": (PartitionState, "commit", 2, False),
    "writing: a later batch": (PartitionState, "commit", 5, False),
    "writing: after a later batch": (PartitionState, "commit", 5, True),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_between_two_steps_loses_and_doubles_nothing(
    world: Any, payments: Any, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = payments(600)
    world.publish(events[:400])
    world.publish_raw(b"rubbish")
    world.publish(events[390:])
    target, method, call, after = STEPS[step]
    with monkeypatch.context() as patched:
        crash_at(target, method, call=call, after=after, monkeypatch=patched)
        with pytest.raises(Crash):
            world.run(max_batch=100)
    world.run(max_batch=100)
    assert world.blobs() == world.expected()
    assert {letter.value() for letter in world.dead_letters()} == {b"rubbish"}


def test_a_connection_lost_in_the_middle_of_a_step_is_settled_by_the_owner_key(
    world: Any, payments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis closes the connection: after the step was sent, and before; the loop goes on by itself."""
    world.publish(payments(500))
    original = fenced_store._reply
    calls = [0]

    def losing(connection: Any) -> Any:
        calls[0] += 1
        if calls[0] in {12, 30, 31}:
            connection.disconnect()
            raise fenced_store.redis.ConnectionError("gone")
        return original(connection)

    monkeypatch.setattr(fenced_store, "_reply", losing)
    world.run(max_batch=50)
    assert calls[0] > 31
    assert world.blobs() == world.expected()


def test_batches_of_any_size_leave_the_same_bytes(world: Any, payments: Any) -> None:
    world.publish(payments(300))
    world.run()
    at_once = world.stored()
    for key in world.client.scan_iter(f"dl:{{{world.topics.prefix}.*"):
        world.client.delete(key)
    world.run(max_batch=7)
    assert world.stored() == at_once
    assert world.blobs() == world.expected()


def test_the_zombie_of_an_old_epoch_is_refused(world: Any, payments: Any) -> None:
    world.publish(payments(50))
    world.run()
    store = FencedStore(world.redis_url, prefix=world.topics.prefix, clock=SystemClock())
    zombie = store.take("payments", 0, oldest=lambda: 0)
    store.take("payments", 0, oldest=lambda: 0)
    before = world.stored()
    write = fenced_store.StoreWrite(blobs=[], seen={1: b"12345678"}, forgotten_hours=[], clock=b"9||9")
    with pytest.raises(LostOwnershipError):
        store.write(zombie, write, zombie.next_offset + 5)
    assert world.stored() == before
    store.close()


def test_an_owner_that_changes_during_the_step_is_noticed(
    world: Any, payments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between GET (5) and EXEC (8) another process takes the partition."""
    world.publish(payments(50))
    world.run()
    store = FencedStore(world.redis_url, prefix=world.topics.prefix, clock=SystemClock())
    slow = store.take("payments", 0, oldest=lambda: 0)
    overtaken = []
    connection_type = type(store._servers.of("any").connection_pool.make_connection())
    send = connection_type.send_packed_command

    def sending(connection: Any, command: Any, check_health: bool = True) -> Any:
        if b"MULTI" in command[0][:20] and not overtaken:
            overtaken.append(True)
            other = FencedStore(world.redis_url, prefix=world.topics.prefix, clock=SystemClock())
            other.take("payments", 0, oldest=lambda: 0)
            other.close()
        return send(connection, command, check_health)

    monkeypatch.setattr(connection_type, "send_packed_command", sending)
    before = world.stored()
    write = fenced_store.StoreWrite(blobs=[], seen={1: b"12345678"}, forgotten_hours=[], clock=b"9||9")
    with pytest.raises(LostOwnershipError):
        store.write(slow, write, slow.next_offset + 5)
    assert overtaken
    assert world.stored() == before
    store.close()


def test_an_emptied_redis_is_rebuilt_to_the_same_bytes_without_traffic(world: Any, payments: Any) -> None:
    world.publish(payments(400))
    emptied = {"when": False, "stored": {}}

    def until() -> bool:
        if not emptied["when"]:
            if world.caught_up():
                emptied["stored"] = world.stored()
                keys = list(world.client.scan_iter(f"dl:{{{world.topics.prefix}.*"))
                world.client.delete(*keys)
                emptied["when"] = True
            return False
        return bool(world.caught_up())

    world.run(until=until)
    assert world.stored() == emptied["stored"]
    assert world.blobs() == world.expected()


def test_a_restored_older_snapshot_is_noticed_and_caught_up(world: Any, payments: Any) -> None:
    world.publish(payments(200))
    world.run()
    keys = list(world.client.scan_iter(f"dl:{{{world.topics.prefix}.*"))
    snapshot = {key: world.client.dump(key) for key in keys}
    restored = [False]
    world.publish(payments(200, start=200))

    def until() -> bool:
        if world.caught_up() and not restored[0]:
            world.client.delete(*world.client.scan_iter(f"dl:{{{world.topics.prefix}.*"))
            for key, value in snapshot.items():
                world.client.restore(key, 0, value)
            restored[0] = True
            return False
        return restored[0] and bool(world.caught_up())

    world.run(until=until)
    assert world.blobs() == world.expected()


def test_stale_blobs_without_an_owner_are_not_added_to(world: Any, payments: Any) -> None:
    """Only blobs are left, of which one has no events any more: everything is built anew, not on top."""
    world.publish(payments(200))
    world.run()
    for key in world.client.scan_iter(f"dl:{{{world.topics.prefix}.*"):
        if b"@1:" not in key:
            world.client.delete(key)
    ghost = next(iter(world.blobs())) + b"-ghost"
    world.client.set(ghost, b"left behind")
    world.run()
    assert world.blobs() == world.expected()


def test_retried_events_change_nothing_across_restarts(world: Any, payments: Any) -> None:
    events = payments(150)
    world.publish(events + events[:50])
    world.run()
    world.publish(events)
    world.run(max_batch=20)
    assert world.blobs() == world.expected()
