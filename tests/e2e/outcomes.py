"""What outcomes a topic of predictions and a topic of labels must end in, and traffic that makes both."""

import itertools
import math
import random
from typing import Any

from driftline.runtime.ids import new_id
from tests.e2e.platform import Platform
from tests.e2e.traffic import START_US, TopicTraffic

ASKED_US = START_US + 3_600_000_000
HOUR_US = 3_600_000_000
HORIZON_US = 24 * HOUR_US


class Orders:
    """Requests for orders in turn, and labels for orders of before and of soon, by order or by request."""

    #: Where the next orders begin: event time only goes on, over all tests, and apart from all other requests.
    _next_us = ASKED_US + 6 * HOUR_US

    def __init__(self, platform: Platform, seed: int) -> None:
        self._start_us = Orders._next_us
        self._seed = seed
        self._platform = platform
        self._random = random.Random(seed)
        self._requests: list[str] = []

    def _asked_us(self, number: int) -> int:
        """The event time of an order's request: one every two seconds."""
        asked = self._start_us + number * 2_000_000
        Orders._next_us = max(asked + 6 * HOUR_US, Orders._next_us)
        return asked

    @property
    def end_us(self) -> int:
        """The event time after the last order."""
        return self._asked_us(len(self._requests))

    def request(self) -> tuple[str, str, dict[str, Any]]:
        number = len(self._requests)
        request = {
            **self._platform.request(self._random),
            "order_id": f"order-{self._seed}-{number}",
            "event_time": self._asked_us(number),
        }
        self._requests.append(request["request_id"])
        return request["request_id"], request["request_id"], request

    def label(self) -> tuple[str, str, dict[str, Any]]:
        made = len(self._requests)
        number = max(0, made + self._random.randrange(-60, 15))
        by_request = number < made and self._random.random() < 0.3
        label_id = new_id()
        late = self._random.random() < 0.05
        return (
            label_id,
            label_id,
            {
                "label_id": label_id,
                "model": None,
                "request_id": self._requests[number] if by_request else None,
                "key": None if by_request else f"order-{self._seed}-{number}",
                "label": self._random.choice([0.0, 0.0, 1.0, None]),
                "known_at": self._asked_us(number)
                + self._random.randrange(1, 3_600) * 1_000_000
                + late * HORIZON_US,
            },
        )

    def traffic(self, seed: int) -> tuple[TopicTraffic, TopicTraffic]:
        """Return threads that send both."""
        topics = self._platform.topics
        return (
            self._platform.traffic(topics.prediction_requests, self.request, seed=seed, burst=3),
            self._platform.traffic(topics.labels, self.label, seed=seed + 1, burst=4),
        )


def assert_outcomes(platform: Platform) -> None:
    """Each prediction has the outcome that its labels give, from one first outcome on, without a gap or a repetition."""
    platform.wait_consumed(platform.requests_topic, "predictor")
    platform.wait_consumed(platform.predictions_topic, "outcome_joiner")
    platform.wait_consumed(platform.topics.labels, "outcome_joiner")
    predictions = platform.journal(platform.predictions_topic).values()
    labels = platform.journal(platform.topics.labels).values()
    found: dict[str, list[dict[str, Any]]] = {}
    for outcome in platform.journal(platform.topics.outcomes).values():
        found.setdefault(outcome["request_id"], []).append(outcome)
    expected = _expected(predictions, labels)
    assert expected
    assert set(found) == set(expected)
    for request_id, (known_us, label) in expected.items():
        # After a crash what one partition caused may follow what another one caused later: labels' times order them.
        outcomes = sorted(
            found[request_id],
            key=lambda one: (one["label_known_at"], one["kind"] == "CORRECTED", one["label"]),
        )
        kinds = [one["kind"] for one in outcomes]
        assert kinds[0] in {"JOINED", "NEVER"}
        assert set(kinds[1:]) <= {"CORRECTED"}
        for before, after in itertools.pairwise(outcomes):
            assert after["previous_label"] == before["label"]
        last = outcomes[-1]
        assert last["label"] == (0.0 if label is None else label)  # the shop counts "never" as no charge-back
        if label is not None:
            score = last["score"] if label else 1 - last["score"]
            assert math.isclose(last["log_loss"], -math.log(score), rel_tol=1e-9)
        assert last["label_known_at"].timestamp() * 1e6 <= known_us


def _expected(
    predictions: list[dict[str, Any]], labels: list[dict[str, Any]]
) -> dict[str, tuple[int, float | None]]:
    """The label known last within the horizon, of equals the larger one, for each prediction that has one."""
    by: dict[str, list[tuple[int, float]]] = {}
    for label in labels:
        known_us = round(label["known_at"].timestamp() * 1e6)
        value = -1.0 if label["label"] is None else label["label"]
        by.setdefault(label["request_id"] or label["key"], []).append((known_us, value))
    expected = {}
    for one in predictions:
        if one["status"] != "ANSWERED":
            continue
        horizon = round(one["event_time"].timestamp() * 1e6) + HORIZON_US
        candidates = [*by.get(one["request_id"], []), *by.get(one["order_id"] or "", [])]
        inside = [pair for pair in candidates if pair[0] <= horizon]
        if inside:
            known_us, value = max(inside)
            expected[one["request_id"]] = (known_us, None if value < 0 else value)
    return expected
