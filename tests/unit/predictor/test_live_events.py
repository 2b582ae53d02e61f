"""Given logged predictions, the events that listeners are sent: what they hold, who gets them, what a slow one loses."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame
from driftline.project import Project
from driftline.runtime.errors import RefusedError
from driftline.runtime.ids import new_id
from services.predictor.live_events import (
    EventMaker,
    LiveEvent,
    Wanted,
    heartbeat,
    opening,
    positions_text,
    read_positions,
    read_wanted,
)
from services.predictor.live_feed import QUEUE, Listener

NOW_US = 1_750_000_000_000_000


@dataclass
class Logged:
    """A message of the log, as a consumer gives it."""

    bytes_: bytes
    partition_: int
    offset_: int

    def value(self) -> bytes:
        return self.bytes_

    def partition(self) -> int:
        return self.partition_

    def offset(self) -> int:
        return self.offset_


@pytest.fixture
def maker(project: Project) -> EventMaker:
    schema = prediction_schema(project)
    return EventMaker(project, BatchDecoder(schema, lambda _: schema))


def prediction(project: Project, **changes: Any) -> dict[str, Any]:
    nothing = {one["name"]: None for one in prediction_schema(project)["fields"]}
    return {
        **nothing,
        "request_id": new_id(),
        "model": "fraud",
        "model_version": "7",
        "channel": "HTTP",
        "status": "ANSWERED",
        "score": 0.25,
        "decision": "accept",
        "requested_at": NOW_US,
        "event_time": NOW_US,
        "predicted_at": NOW_US + 1,
        "duration_us": 5,
        "caller": "till 7",
        "feature_views": [],
        "customer": "c1",
        "merchant": "m1",
        "amount": 9.5,
        "customer_payments__count_1h": 4.0,
        "customer_payments__age_ms": 12,
        **changes,
    }


def logged(project: Project, *records: dict[str, Any] | bytes) -> list[Any]:
    codec = RecordCodec(prediction_schema(project))
    values = [one if isinstance(one, bytes) else frame(7, codec.encode(one)) for one in records]
    return [Logged(value, number % 2, 10 + number // 2) for number, value in enumerate(values)]


def told(event: LiveEvent) -> tuple[str, str, dict[str, Any]]:
    first, second, third = event.text.decode().removesuffix("\n\n").split("\n")
    return (
        first.removeprefix("id: "),
        second.removeprefix("event: "),
        orjson.loads(third.removeprefix("data: ")),
    )


def test_an_event_holds_the_answer_and_who_it_was_about_and_neither_inputs_nor_caller(
    project: Project, maker: EventMaker
) -> None:
    positions = {0: 10, 1: 10}
    (event,) = maker.events(logged(project, prediction(project)), positions, ["fraud"])
    place, kind, body = told(event)
    assert (place, kind, positions) == ("0:11,1:10", "prediction", {0: 11, 1: 10})
    assert (body["score"], body["decision"], body["version"], body["degraded"]) == (0.25, "accept", "7", None)
    assert (body["entities"], body["channel"]) == ({"customer": "c1", "merchant": "m1"}, "HTTP")
    assert body["predicted_at"] == "2025-06-15T15:06:40.000001Z"
    assert body["features"]["customer_payments"]["values"]["count_1h"] == 4.0
    assert body["features"]["customer_payments"]["age_ms"] == 12
    assert "till 7" not in event.text.decode()
    assert "amount" not in body


def test_order_and_places_are_the_logs_and_what_is_bad_or_another_models_is_passed_over(
    project: Project, maker: EventMaker
) -> None:
    records = [
        prediction(project),
        b"junk",
        prediction(project, model="other"),
        prediction(project, score=0.5),
    ]
    positions = {0: 10, 1: 10}
    events = maker.events(logged(project, *records), positions, ["fraud"])
    assert [told(one)[0] for one in events] == ["0:11,1:10", "0:12,1:12"]
    assert [told(one)[2]["score"] for one in events] == [0.25, 0.5]
    assert maker.events(logged(project, *records), {}, []) == []


@given(st.dictionaries(st.integers(0, 999_999_999), st.integers(0, 10**18 - 1), min_size=1, max_size=9))
def test_a_place_is_read_as_it_was_written(positions: dict[int, int]) -> None:
    assert read_positions(positions_text(positions)) == positions
    assert f"id: {positions_text(positions)}\n" in heartbeat(positions).decode()
    assert opening(positions).decode().startswith("retry: 2000\n")


@pytest.mark.parametrize("text", ["", "7", "0:1,", "0:-1", "0:x", "٣:1", "0:1;1:2", "0:" + "9" * 19])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(RefusedError, match="leave it out"):
        read_positions(text)


def test_a_listener_gets_what_it_wants(project: Project, maker: EventMaker) -> None:
    model = project.models["fraud"]
    records = [
        prediction(project),
        prediction(project, status="REFUSED", score=None, error="no"),
        prediction(project, customer="c2"),
    ]
    events = maker.events(logged(project, *records), {}, ["fraud"])

    def taken(*args: Any) -> list[int]:
        wanted = read_wanted(model, *args)
        return [number for number, event in enumerate(events) if wanted.takes(event)]

    assert taken([], [], 1.0) == [0, 1, 2]
    assert taken(["REFUSED", "FAILED"], [], 1.0) == [1]
    assert taken([], ["customer:c1", "merchant:m1"], 1.0) == [0, 1]
    assert taken([], ["customer:c1", "merchant:m2"], 1.0) == []
    for statuses, entities in ((["answered"], []), ([], ["shop:c1"]), ([], ["customer"])):
        with pytest.raises(RefusedError, match=r"known are|knows the names"):
            read_wanted(model, statuses, entities, 1.0)


def events_of(count: int) -> Iterator[LiveEvent]:
    for number in range(count):
        yield LiveEvent(
            model="fraud", request_id=new_id(), status="ANSWERED", entities={}, text=b"%d\n\n" % number
        )


def test_a_sample_is_a_share_and_the_same_for_all() -> None:
    events = list(events_of(4_000))
    some, others = Wanted(model="fraud", share=0.25), Wanted(model="fraud", share=0.25)
    taken = [event for event in events if some.takes(event)]
    assert taken == [event for event in events if others.takes(event)]
    assert 800 < len(taken) < 1_200


def test_a_slow_listener_loses_the_oldest_and_is_told_how_many() -> None:
    async def story() -> list[bytes]:
        listener = Listener(Wanted(model="fraud"), {})
        for event in events_of(QUEUE + 3):
            listener.put(event)
        texts = []
        while text := await listener.take(0.0):
            texts.append(text)
        return texts

    texts = asyncio.run(story())
    assert texts[0].startswith(b'event: missed\ndata: {"missed":3}\n\n3\n\n4\n\n')
    assert b"".join(texts).endswith(b"%d\n\n" % (QUEUE + 2))
    assert b"".join(texts).count(b"\n\n") == QUEUE + 1


def test_who_is_sent_away_first_gets_what_waits() -> None:
    async def story() -> tuple[bytes, bytes]:
        listener = Listener(Wanted(model="fraud"), {})
        waiting = asyncio.create_task(listener.take(60.0))
        await asyncio.sleep(0)
        for event in events_of(1):
            listener.put(event)
        listener.end()
        return await waiting, await listener.take(60.0)

    assert asyncio.run(story()) == (b"0\n\n", b"")
