"""Bad messages become dead letters with their bytes and headers; their neighbours are unharmed."""

import math
from dataclasses import replace
from typing import Any

import pytest

from driftline.contracts.wire import frame
from driftline.features.keys import partition_of
from driftline.runtime.errors import DeadLetterCeilingError
from driftline.streaming.dead_letters import original_headers, read_origin

DAY_US = 86_400_000_000


def test_every_kind_of_bad_message_is_a_dead_letter_and_its_neighbours_count(
    world: Any, payments: Any
) -> None:
    good = payments(40)
    encoded = world.encode(good[0])
    key = good[1].customer
    bad = {
        "magic": b"\x01" + encoded[1:],
        "unknown schema": frame(2_000_000_000, encoded[5:]),
        "truncated": encoded[:-3],
        "trailing": encoded + b"\x00",
        "null": None,
        "empty": b"",
        "nan": world.encode(replace(good[1], event_id="nan", amount=math.nan)),
        "infinity": world.encode(replace(good[1], event_id="inf", amount=math.inf)),
        "huge": world.encode(replace(good[1], event_id="huge", amount=1e300)),
        "future": world.encode(replace(good[1], event_id="future", paid_at=good[1].paid_at + 400 * DAY_US)),
        "past": world.encode(replace(good[1], event_id="past", paid_at=-1)),
    }
    world.publish(good[:20])
    for name, value in bad.items():
        world.publish_raw(value, key=key, headers=[("trace", name.encode()), ("trace", None)])
    world.publish(good[20:])
    world.run()
    assert world.blobs() == world.expected()
    letters = world.dead_letters()
    assert {dict(original_headers(letter.headers())[:1])["trace"].decode() for letter in letters} == set(bad)
    for letter in letters:
        origin = read_origin(letter.headers())
        assert origin is not None
        name = letter.headers()[0][1].decode()
        assert letter.value() == bad[name]
        assert letter.key() == key.encode()
        assert original_headers(letter.headers()) == [("trace", name.encode()), ("trace", None)]
        assert (origin.topic, origin.partition) == (world.topic, partition_of(key, 2))
        assert (origin.service, origin.instance) == ("feature_store", "store-0")
        assert origin.stage == {"future": "future"}.get(name, origin.stage)
        assert origin.message
    assert len({read_origin(letter.headers()).id for letter in letters}) == len(bad)


def test_a_far_future_event_does_not_freeze_its_entity(world: Any, payments: Any) -> None:
    first, *later = [replace(payment, customer="c1") for payment in payments(20)]
    world.publish([first])
    world.publish_raw(world.encode(replace(first, event_id="x", paid_at=first.paid_at + 300 * DAY_US)))
    world.publish(later)
    world.run()
    assert world.blobs() == world.expected()


def test_an_event_refused_once_counts_when_it_comes_mended(world: Any, payments: Any) -> None:
    event = payments(1)[0]
    world.publish_raw(world.encode(replace(event, amount=math.nan)), key=event.customer)
    world.publish([event])
    world.run()
    assert world.blobs() == world.expected()
    assert len(world.dead_letters()) == 1


def test_a_message_in_the_wrong_partition_is_refused(world: Any, payments: Any) -> None:
    event = payments(1)[0]
    wrong = 1 - partition_of(event.customer, 2)
    world.producer.produce(world.topic, value=world.encode(event), key=event.customer, partition=wrong)
    world.producer.flush()
    world.run()
    assert world.blobs() == {}
    assert "murmur2_random" in read_origin(world.dead_letters()[0].headers()).message


def test_all_poison_stops_before_anything_is_committed(world: Any) -> None:
    for _ in range(5):
        world.publish_raw(b"poison")
    with pytest.raises(DeadLetterCeilingError):
        world.run(minimum=5)
    assert [world.owner(number)[1] for number in range(2)] == [0, 0]
    assert world.dead_letters() == []
    # After the cause is mended (here: the ceiling is raised) nothing is missing.
    world.run(minimum=6)
    assert len(world.dead_letters()) == 5
