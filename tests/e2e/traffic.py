"""Applications that publish and ask while their servers are killed, and remember what was acknowledged."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from confluent_kafka import Producer

from driftline.runtime.ids import new_id

START_US = 1_750_000_000_000_000
_UNACKNOWLEDGED = 1_000


class Traffic(threading.Thread):
    """Repeats one step until it is told to stop; ``acknowledged`` holds the ids that were promised."""

    def __init__(self, *, seed: int, pause: float) -> None:
        super().__init__(daemon=True)
        self.acknowledged: set[str] = set()
        self.attempted: set[str] = set()
        self.failures: list[str] = []
        self.random = random.Random(seed)
        self._pause = pause
        self._ended = threading.Event()

    def step(self) -> None:
        raise NotImplementedError

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                self.step()
                time.sleep(self._pause)
            self.finish()
        except Exception as error:  # noqa: BLE001 - a dead traffic thread must fail the test, not pass it
            self.failures.append(repr(error))

    def finish(self) -> None:
        """Wait for what is still under way."""

    def stop(self) -> None:
        self._ended.set()

    def end(self) -> None:
        self.stop()
        self.join(240)
        assert not self.is_alive(), f"{type(self).__name__} still waits for its acknowledgements"
        assert not self.failures, self.failures


@contextmanager
def sending(*traffic: Traffic) -> Iterator[None]:
    """Send while the block lasts; after it all is acknowledged. Where it fails, what is sent stops as well."""
    for one in traffic:
        one.start()
    try:
        yield
    except BaseException:
        for one in traffic:
            one.stop()
        raise
    for one in traffic:
        one.end()


class Payments:
    """Makes payments whose event time goes on by a tenth of a second each; some with nulls."""

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._made = 0

    def make(self) -> dict[str, Any]:
        self._made += 1
        return {
            "event_id": new_id(),
            "customer": f"customer-{self._random.randrange(200)}",
            "merchant": f"merchant-{self._random.randrange(20)}",
            "paid_at": START_US + self._made * 100_000 - self._random.randrange(600) * 1_000_000,
            "amount": None if self._random.random() < 0.1 else round(self._random.uniform(1, 500), 2),
            "refunded": self._random.choice([True, False, None]),
        }


def kafka_producer(bootstrap: str) -> Producer:
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "delivery.timeout.ms": 300_000,
            "linger.ms": 1,
            "reconnect.backoff.max.ms": 1_000,
            "log_level": 2,  # the broker is killed on purpose: each failed reconnection would be a line
        }
    )


class TopicTraffic(Traffic):
    """Produces framed records straight to a topic; each step makes a few."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        encode: Callable[[dict[str, Any]], bytes],
        make: Callable[[], tuple[str, str, dict[str, Any]]],
        *,
        seed: int,
        burst: int,
        pause: float = 0.02,
    ) -> None:
        super().__init__(seed=seed, pause=pause)
        self._producer = kafka_producer(bootstrap)
        self._topic, self._encode, self._make, self._burst = topic, encode, make, burst

    def step(self) -> None:
        if len(self._producer) > _UNACKNOWLEDGED:  # the broker is away: an application would not make more
            self._producer.poll(0.05)
            return
        for _ in range(self._burst):
            identity, key, record = self._make()
            self.attempted.add(identity)

            def acknowledged(error: Any, _message: Any, identity: str = identity) -> None:
                if error is None:
                    self.acknowledged.add(identity)

            value = self._encode(record)
            self._producer.produce(self._topic, value, key.encode(), on_delivery=acknowledged)
            if self.random.random() < 0.05:  # a retried event: the same UUID again
                self._producer.produce(self._topic, value, key.encode())
        self._producer.poll(0)

    def finish(self) -> None:
        assert self._producer.flush(200) == 0


class IngestTraffic(Traffic):
    """Publishes over HTTP and, like a careful client, repeats the same events until they are acknowledged."""

    def __init__(self, url: Callable[[], str], *, seed: int, pause: float = 0.01) -> None:
        super().__init__(seed=seed, pause=pause)
        self._url = url
        self._payments = Payments(self.random)
        self.retries = 0

    def step(self) -> None:
        events = [self._payments.make() for _ in range(20)]
        self.attempted.update(event["event_id"] for event in events)
        for _ in range(600):
            try:
                answer = httpx.post(f"{self._url()}/v1/events/payments", json=events, timeout=15)
            except (httpx.HTTPError, OSError, ValueError, KeyError):
                self.retries += 1
                time.sleep(0.1)
                continue
            if answer.status_code == 202:
                results = answer.json()["results"]
                self.acknowledged.update(one["event_id"] for one in results if one["status"] == "accepted")
                return
            if answer.status_code not in {429, 503}:
                self.failures.append(f"{answer.status_code} {answer.text}")
                return
            self.retries += 1
            time.sleep(0.1)
        self.failures.append("never acknowledged")


class PredictionTraffic(Traffic):
    """Asks for predictions over HTTP and, like a careful client, repeats a request until it is answered; some once more.

    Each 2xx is a promise that the log holds it; each further one of the same UUID has the same bytes.
    """

    def __init__(self, url: Callable[[], str], *, seed: int, pause: float = 0.01) -> None:
        super().__init__(seed=seed, pause=pause)
        self._url = url
        self.answers: dict[str, float] = {}
        self.retries = 0

    def step(self) -> None:
        request_id = new_id()
        self.attempted.add(request_id)
        body = {
            "request_id": request_id,
            "entities": {
                "customer": f"customer-{self.random.randrange(250)}",
                "merchant": f"merchant-{self.random.randrange(20)}",
            },
            "inputs": {"amount": self.random.uniform(1, 500)},
            "event_time": START_US + 3_600_000_000,
        }
        first = self._ask(body)
        if first is None:
            return
        self.acknowledged.add(request_id)
        self.answers[request_id] = first.json()["score"]
        if self.random.random() < 0.2:
            again = self._ask(body)
            if again is not None and again.content != first.content:
                self.failures.append(f"{again.content!r} is not {first.content!r}")

    def _ask(self, body: dict[str, Any]) -> httpx.Response | None:
        for _ in range(600):
            try:
                answer = httpx.post(f"{self._url()}/v1/models/fraud/predictions", json=body, timeout=15)
            except (httpx.HTTPError, OSError, ValueError, KeyError):
                self.retries += 1
                time.sleep(0.1)
                continue
            if answer.status_code == 200:
                return answer
            if answer.status_code not in {429, 503}:
                self.failures.append(f"{answer.status_code} {answer.text}")
                return None
            self.retries += 1
            time.sleep(0.1)
        self.failures.append(f"{body['request_id']} was never answered")
        return None
