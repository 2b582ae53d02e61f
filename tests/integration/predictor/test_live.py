"""Live predictions from the real log: all who listen hear the same, who comes back misses nothing, the slow are told."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from driftline.client import Client, LivePrediction, NotFoundError
from driftline.client.live import ServerEvent, server_events
from driftline.runtime.ids import new_id
from services.predictor.live_events import Wanted
from services.predictor.live_feed import QUEUE, LiveFeed
from tests.integration.predictor.conftest import Running, Shop

LIVE = "/v1/models/fraud/predictions/live"
_BEGINNING = b"id: 0:0,1:0\n\n"
GOOD: dict[str, Any] = {"entities": {"customer": "c1", "merchant": "m1"}, "inputs": {"amount": 1.5}}


class Hearing:
    """A caller that listens in a thread of its own."""

    def __init__(self, running: Running, **options: Any) -> None:
        self.events: list[ServerEvent] = []
        self.opened = threading.Event()
        self.ended = threading.Event()
        self._leave = threading.Event()
        self._client = httpx.Client(base_url=running.http.base_url, timeout=60)
        self._thread = threading.Thread(target=self._listen, kwargs=options, daemon=True)
        self._thread.start()
        assert self.opened.wait(30)

    def _listen(self, **options: Any) -> None:
        with self._client, self._client.stream("GET", LIVE, **options) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            for event in server_events(response.iter_lines()):
                self.events.append(event)
                self.opened.set()
                if self._leave.is_set():
                    break
        self.ended.set()

    @property
    def predictions(self) -> list[dict[str, Any]]:
        return [json.loads(one.data) for one in self.events if one.kind == "prediction"]

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        until = time.monotonic() + 30
        while len(self.predictions) < count:
            assert time.monotonic() < until, self.events
            time.sleep(0.02)
        return self.predictions

    def leave(self) -> None:
        """Hear one more event, then go."""
        self._leave.set()


def ids(predictions: list[dict[str, Any]]) -> list[str]:
    return [one["request_id"] for one in predictions]


def answered(running: Running, count: int, **changes: Any) -> list[str]:
    return [running.ask(**{**GOOD, **changes}).json()["request_id"] for _ in range(count)]


def test_two_listeners_hear_the_same_from_http_and_topic_as_it_stands_in_the_log(
    shop: Shop, predictor: Running
) -> None:
    answered(predictor, 2)  # before anybody listens
    one, other = (
        Hearing(predictor),
        Hearing(predictor, params={"status": "ANSWERED", "entity": "customer:c2"}),
    )
    asked = answered(predictor, 3)
    asked += answered(predictor, 2, entities={"customer": "c2", "merchant": "m1"})
    on_topic = shop.request(customer="c2")
    shop.ask_topic(on_topic)
    asked.append(on_topic["request_id"])
    heard = one.wait_for(6)
    assert sorted(ids(heard)) == sorted(asked)
    assert sorted(ids(other.wait_for(3))) == sorted(asked[3:])
    log = shop.log(8)
    for told in heard:
        (record,) = log[told["request_id"]]
        assert float(told["score"]).hex() == record["score"].hex()
        assert (told["channel"], told["entities"]["customer"]) == (record["channel"], record["customer"])
    assert 'driftline_live_listeners{model="fraud"} 2.0' in predictor.http.get("/metrics").text


def test_who_comes_back_goes_on_where_it_was(shop: Shop, predictor: Running) -> None:
    first = Hearing(predictor)
    asked = answered(predictor, 5)
    heard = ids(first.wait_for(5))
    place = [one.id for one in first.events if one.kind == "prediction"][2]
    first.leave()
    missed = answered(predictor, 4)
    back = Hearing(predictor, headers={"last-event-id": str(place)})
    new = answered(predictor, 2)
    again = ids(back.wait_for(8))
    assert sorted(heard) == sorted(asked)
    assert sorted(again) == sorted([*heard[3:], *missed, *new])  # a partition's order is kept, theirs is not
    assert not [one for one in back.events if one.kind == "missed"]


def test_a_place_beyond_reach_is_told(
    shop: Shop, predictor: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(predictor, 12)
    monkeypatch.setattr("services.predictor.live_feed.MOST_RESUMED", 4)
    back = Hearing(predictor, headers={"last-event-id": "0:0,1:0,99:7"})
    heard = back.wait_for(1)
    (left_out,) = [json.loads(one.data)["missed"] for one in back.events if one.kind == "missed"]
    answered(predictor, 1)
    until = time.monotonic() + 20
    while len(heard) + left_out < 13 and time.monotonic() < until:
        heard = back.predictions
        time.sleep(0.02)
    assert len(heard) + left_out == 13
    assert len(heard) <= 5


def test_a_slow_listener_holds_up_nobody_and_is_told_what_it_lost(shop: Shop) -> None:
    """One takes nothing until all is in the log; the other takes all."""

    async def story() -> tuple[bytes, bytes]:
        slow = await feed.join(Wanted(model="fraud"))
        quick = await feed.join(Wanted(model="fraud"))
        asked = [shop.request() for _ in range(QUEUE + 200)]
        await asyncio.to_thread(shop.ask_topic, *asked)
        heard, until = b"", time.monotonic() + 60
        while heard.count(b"event: prediction") < len(asked) and time.monotonic() < until:
            heard += await quick.take(0.1)
        late = b""
        while text := await slow.take(0.0):
            late += text
        feed.leave(slow)
        feed.leave(quick)
        return heard, late

    with serving(shop) as running:
        feed = LiveFeed(
            shop.settings.kafka_config(),
            shop.topics.predictions,
            shop.project,
            running.predictor._registry.schema,
            max_listeners=2,
        )
        heard, late = asyncio.run(story())
    assert heard.count(b"event: prediction") == QUEUE + 200
    assert late.startswith(b'event: missed\ndata: {"missed":200}\n\n')
    assert late.count(b"event: prediction") == QUEUE
    assert heard.endswith(late.partition(b"\n\n")[2])


def test_a_sign_of_life_names_the_place_behind_what_was_not_wanted(shop: Shop, predictor: Running) -> None:
    async def story() -> list[bytes]:
        nothing = await feed.join(Wanted(model="fraud", statuses=frozenset(["FAILED"])))
        texts = feed.stream(nothing, None)
        heard = [await anext(texts)]
        await asyncio.to_thread(shop.ask_topic, *[shop.request() for _ in range(20)])
        until = time.monotonic() + 30
        while heard[-1].endswith(_BEGINNING) and time.monotonic() < until:
            heard.append(await anext(texts))
        feed.leave(nothing)
        return heard

    feed = LiveFeed(
        shop.settings.kafka_config(),
        shop.topics.predictions,
        shop.project,
        predictor.predictor._registry.schema,
        max_listeners=1,
        heartbeat_seconds=0.2,
    )
    first, *signs = asyncio.run(story())
    assert first.endswith(_BEGINNING)
    assert all(one.startswith(b": listening\nid: ") for one in signs)
    assert not signs[-1].endswith(_BEGINNING)


@contextmanager
def serving(shop: Shop, **changes: Any) -> Iterator[Running]:
    running = Running(shop.settings.model_copy(update=changes), shop.project)
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


def test_a_stream_outlives_the_deadline_and_ends_with_the_predictor(shop: Shop) -> None:
    with serving(shop, deadline_seconds=1.0) as running:
        hearing = Hearing(running)
        idle = running.http.send(running.http.build_request("GET", LIVE), stream=True)  # nobody reads it
        time.sleep(2.5)
        answered(running, 1)
        hearing.wait_for(1)
        assert not hearing.ended.is_set()
    assert hearing.ended.wait(10), "it was cut off instead"
    idle.close()


def test_who_does_not_read_holds_up_neither_the_others_nor_the_end(shop: Shop) -> None:
    with serving(shop) as running:
        lost = told_missed(running)
        with deaf(running):
            hearing = Hearing(running, params={"sample": 0.05})
            requests = [shop.request() for _ in range(12_000)]
            shop.ask_topic(*requests)
            until = time.monotonic() + 60
            while told_missed(running) == lost:
                assert time.monotonic() < until
                time.sleep(0.1)
            assert len(hearing.wait_for(1))
            answered(running, 1)
            running.predictor._live.close()
            assert hearing.ended.wait(20)
            while 'driftline_live_listeners{model="fraud"} 0.0' not in running.http.get("/metrics").text:
                assert time.monotonic() < until + 20
                time.sleep(0.1)


@contextmanager
def deaf(running: Running) -> Iterator[None]:
    """Listen without reading."""
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.connect(("127.0.0.1", running.http.base_url.port))
        deaf.sendall(f"GET {LIVE} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert deaf.recv(10)
        yield


def told_missed(running: Running) -> float:
    lines = running.http.get("/metrics").text.splitlines()
    return sum(
        float(one.rpartition(" ")[2]) for one in lines if one.startswith("driftline_live_missed_total{")
    )


def test_too_many_listeners_are_sent_away_and_when_one_leaves_there_is_room(shop: Shop) -> None:
    with serving(shop, max_listeners=1) as running:
        only = Hearing(running)
        refused = running.http.get(LIVE)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
        only.leave()
        answered(running, 1)
        assert only.ended.wait(20)
        until = time.monotonic() + 20
        while running.http.get(f"{LIVE}?status=x").status_code != 422:
            assert time.monotonic() < until
        again = Hearing(running)
        answered(running, 1)
        assert len(again.wait_for(1)) == 1


def test_what_is_asked_wrongly_is_told(predictor: Running) -> None:
    assert predictor.http.get("/v1/models/frod/predictions/live").status_code == 404
    for query in ("status=DONE", "entity=shop:1", "sample=0", "sample=x"):
        assert predictor.http.get(f"{LIVE}?{query}").status_code == 422
    assert predictor.http.get(LIVE, headers={"last-event-id": "x"}).status_code == 422


def test_the_sdk_listens_and_comes_back(shop: Shop) -> None:
    with serving(shop) as running, Client(predictor_url=str(running.http.base_url)) as client:
        asked: list[str] = []

        def ask() -> None:
            while not done.is_set():
                asked.append(running.ask(**GOOD, request_id=new_id()).json()["request_id"])

        done = threading.Event()
        asking = threading.Thread(target=ask)
        asking.start()
        try:
            heard: list[LivePrediction] = []
            for told in client.live_predictions("fraud", statuses=["ANSWERED"], entities={"customer": "c1"}):
                heard.append(told)
                if len(heard) == 5:
                    break
            for told in client.live_predictions("fraud", since=heard[-1].place):
                heard.append(told)
                if len(heard) == 10:
                    break
        finally:
            done.set()
            asking.join()
        with pytest.raises(NotFoundError):
            next(client.live_predictions("nobody"))
    found = [one.answer.request_id for one in heard]
    assert len(set(found)) == 10
    assert set(found) <= set(asked)
    assert {one.missed_before for one in heard} == {0}
    assert all(one.answer.score is not None and one.entities["customer"] == "c1" for one in heard)
