"""The courier: through the log, each errand once, a slow channel holds up no other, results written whatever it takes."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from driftline.alerts.delivery import Channel
from driftline.alerts.inputs import Delivered, Failed, Started
from driftline.alerts.wording import compose
from driftline.runtime.errors import UnavailableError
from services.alerter.courier import Claim, Courier, Errand
from tests.unit.alerts.scenes import GROUP, Book, cause, route, rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow(Channel):
    gate: threading.Event
    entered: threading.Event = field(default_factory=threading.Event)

    def deliver(self, notification: object) -> None:
        self.entered.set()
        assert self.gate.wait(10)


class Log:
    """The log of inputs; it does not answer the first ``silent`` times."""

    def __init__(self, *, silent: int = 0) -> None:
        self.silent = silent
        self.taken: list[Started | Delivered | Failed] = []
        self.changed = threading.Condition()

    def put(self, event: Started | Delivered | Failed) -> None:
        with self.changed:
            if self.silent:
                self.silent -= 1
                raise UnavailableError("no broker")
            self.taken.append(event)
            self.changed.notify_all()

    def wait(self, count: int) -> list[Started | Delivered | Failed]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.taken) >= count, 10)
            return self.taken


def errand(channel: Channel, name: str = "chat", *, attempt: int = 0, input_id: str = "s1") -> Errand:
    book = Book(rules=rules()).tell(cause(input_id)).wait(1)
    words = compose(book.last, book.due[0], route("chat"))
    claim = Claim(group=GROUP, target=(name, 0), notice_id=words.key, attempt=attempt)
    return Errand(claim=claim, channel=channel, notification=words)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def courier(log: Log) -> Iterator[Courier]:
    made = Courier(log.put, boot="boot-1", by="alerter-0")
    yield made
    made.close(5)


def kinds(log: Log) -> list[tuple[str, int]]:
    return [(type(one).__name__, one.attempt) for one in log.taken]


def to_file(folder: Path, **more: Any) -> Errand:
    return errand(Channel(url="file://alerts.jsonl", folder=folder), **more)


def test_a_claim_is_started_once_taken_once_and_reported(log: Log, courier: Courier, tmp_path: Path) -> None:
    one = to_file(tmp_path)
    for _ in range(3):
        courier.offer(one.claim)
    (started,) = log.wait(1)
    assert isinstance(started, Started)
    assert (started.boot, started.notice_id) == ("boot-1", one.notification.key)
    for _ in range(3):
        courier.take(one)
    log.wait(2)
    courier.take(one)
    courier.close(5)
    assert kinds(log) == [("Started", 0), ("Delivered", 0)]
    assert len((tmp_path / "alerts.jsonl").read_text().splitlines()) == 1


def test_one_at_a_time_is_started_and_a_declined_one_passes_the_turn_on(
    log: Log, courier: Courier, tmp_path: Path
) -> None:
    first, second = to_file(tmp_path), to_file(tmp_path, input_id="s2")
    courier.offer(first.claim)
    courier.offer(second.claim)
    log.wait(1)
    time.sleep(0.3)
    assert kinds(log) == [("Started", 0)]
    courier.decline(*first.claim.name)
    assert log.wait(2)[1].notice_id == second.notification.key
    courier.take(second)
    log.wait(3)
    courier.offer(first.claim)
    assert log.wait(4)[3].notice_id == first.notification.key


def test_each_attempt_is_one(log: Log, courier: Courier, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for attempt in (0, 0, 1, 0):
        courier.take(errand(Channel(url="file://file/alerts.jsonl", folder=tmp_path), attempt=attempt))
    log.wait(2)
    courier.close(5)
    assert kinds(log) == [("Failed", 0), ("Failed", 1)]


def test_a_slow_channel_holds_up_no_other(log: Log, courier: Courier, tmp_path: Path) -> None:
    gate = threading.Event()
    courier.take(errand(Slow(url="slow://", gate=gate), "slow"))
    courier.take(to_file(tmp_path, name="file", input_id="s2"))
    assert isinstance(log.wait(1)[0], Delivered)
    gate.set()
    log.wait(2)


def test_a_result_is_written_down_when_the_broker_is_back(tmp_path: Path) -> None:
    log = Log(silent=2)
    courier = Courier(log.put, boot="boot-1", by="alerter-0")
    courier.take(to_file(tmp_path))
    assert isinstance(log.wait(1)[0], Delivered)
    courier.close(5)


def test_what_cannot_be_started_can_be_offered_again(tmp_path: Path) -> None:
    log = Log(silent=1)
    courier = Courier(log.put, boot="boot-1", by="alerter-0")
    one = to_file(tmp_path)
    until = time.monotonic() + 10
    while not log.taken:
        courier.offer(one.claim)
        assert time.monotonic() < until
    courier.take(one)
    log.wait(2)
    courier.close(5)
    assert kinds(log) == [("Started", 0), ("Delivered", 0)]


def test_at_the_end_what_is_under_way_is_finished_and_what_waits_is_left(
    log: Log, courier: Courier, tmp_path: Path
) -> None:
    gate = threading.Event()
    slow = Slow(url="slow://", gate=gate)
    courier.take(errand(slow))
    courier.offer(to_file(tmp_path, input_id="s2").claim)
    courier.offer(to_file(tmp_path, name="other", input_id="s3").claim)
    assert slow.entered.wait(10)
    log.wait(1)
    closing = threading.Thread(target=courier.close, args=(10,))
    closing.start()
    log.wait(2)
    gate.set()
    closing.join(10)
    # The one that was started and not sent says so; the one that waited was never started.
    assert kinds(log) == [("Started", 0), ("Failed", 0), ("Delivered", 0)]


@pytest.mark.parametrize("error", [ValueError("https://S3CRET"), KeyError("S3CRET")])
def test_whatever_a_plugin_raises_is_a_failure_and_hidden(
    log: Log, courier: Courier, error: Exception
) -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Broken(Channel):
        def deliver(self, notification: object) -> None:
            raise error

    courier.take(errand(Broken(url="broken://")))
    (found,) = log.wait(1)
    assert isinstance(found, Failed)
    assert "S3CRET" not in found.reason
