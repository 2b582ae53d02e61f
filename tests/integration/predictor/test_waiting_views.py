"""A view that is being filled is served to nobody, and everybody is told how far it is."""

import time
from collections.abc import Callable
from typing import Any

from driftline.contracts.topics import event_partitions
from driftline.features.filling import Fill, StoredViews, fingerprints_of
from driftline.features.keys import fill_key, format_owner, owner_key, views_key
from tests.integration.predictor.conftest import Running, Shop

GOOD: dict[str, Any] = {"entities": {"customer": "c1", "merchant": "m1"}, "inputs": {"amount": 1.5}}
WHY = "feature view merchant_payments@1 is being filled (43%)"


def test_requests_fail_with_how_far_the_view_is_until_it_is_whole(shop: Shop, predictor: Running) -> None:
    assert predictor.ask(**GOOD).status_code == 200
    marks = fingerprints_of(shop.project, "payments")
    new = {"merchant_payments@1": marks["merchant_payments@1"]}
    complete = {ref: mark for ref, mark in marks.items() if ref not in new}
    for number in range(event_partitions(shop.topics, shop.project)["payments"]):
        place = shop.topics.prefix, "payments", number
        shop.redis.set(owner_key(*place), format_owner(7, 100))
        shop.redis.set(views_key(*place), StoredViews(complete=complete).format())
        shop.redis.set(fill_key(*place), Fill(views=new, start=0, offset=43).format())

    wait_for(lambda: predictor.ask(**GOOD).status_code == 503)
    refused = predictor.ask(**GOOD)
    assert WHY in refused.text
    features = predictor.http.get("/v1/features/merchant_payments/m1")
    assert (features.status_code, features.json()["detail"]) == (503, WHY)
    assert predictor.http.get("/v1/features/customer_payments/c1").status_code == 200
    assert not predictor.health.ready
    assert WHY in str(predictor.health.report()["components"]["models"])

    for number in range(event_partitions(shop.topics, shop.project)["payments"]):
        place = shop.topics.prefix, "payments", number
        shop.redis.set(views_key(*place), StoredViews(complete=marks).format())
        shop.redis.delete(fill_key(*place))
    wait_for(lambda: predictor.ask(**GOOD).status_code == 200)
    assert predictor.http.get("/v1/features/merchant_payments/m1").status_code == 200
    wait_for(lambda: predictor.health.ready)


def wait_for(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.1)
