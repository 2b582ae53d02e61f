"""Bad bytes among the requests go aside in the transaction that logs their neighbours' predictions."""

from typing import Any

import pytest

from driftline.streaming.dead_letters import read_origin
from driftline.streaming.kafka_sink import KafkaSink
from tests.integration.predictor.conftest import Running, Shop

BAD = [b"", b"\x00\x00", b"\x07hello", b"\x00\x7f\xff\xff\xffnothing"]


class Crash(BaseException):
    """The process dies here."""


def test_bad_bytes_and_predictions_are_one_transaction(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    good = [shop.request() for _ in range(30)]
    shop.ask_topic(*good[:10], BAD[0], *good[10:20], BAD[1], BAD[2], *good[20:], BAD[3])

    def die(*_: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(KafkaSink, "_commit", die)
        patch.setattr(KafkaSink, "_abort", lambda _self, _producer: None)  # a dead process does not abort
        dying = Running(shop.settings, shop.project)
        dying._thread.join(60)
        with pytest.raises(Crash):
            dying.stop()
    assert shop.log(0, seconds=0) == {}
    assert shop.read(shop.topics.dead_letters, 1, 0, seconds=0) == []

    running = Running(shop.settings, shop.project)
    try:
        log = shop.log(len(good))
        letters = shop.read(shop.topics.dead_letters, 1, len(BAD))
    finally:
        running.stop()
    assert {key: [one["status"] for one in records] for key, records in log.items()} == {
        one["request_id"]: ["ANSWERED"] for one in good
    }
    assert sorted(letter.value() or b"" for letter in letters) == sorted(BAD)
    origins = [read_origin(letter.headers() or []) for letter in letters]
    assert {(one.topic, one.service) for one in origins if one} == {
        (shop.topics.prediction_requests, "predictor")
    }
