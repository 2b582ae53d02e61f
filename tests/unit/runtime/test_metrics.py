"""Histograms whose values are gathered show the same as those that observe each at once."""

import threading

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from driftline.runtime.metrics import GatheringHistogram

#: Powers of two: their sums are exact in any order.
_BUCKETS = (0.0625, 0.125, 1.0)


def shown(histogram: Histogram) -> list[tuple[str, dict[str, str], float]]:
    (family,) = histogram.collect()
    return [(one.name, one.labels, one.value) for one in family.samples if not one.name.endswith("_created")]


@given(st.lists(st.sampled_from([0.0, 0.0625, 0.25, 0.5, 1.0, 8.0]), max_size=2_500), st.booleans())
def test_they_show_the_same(amounts: list[float], labelled: bool) -> None:
    names = ["route"] if labelled else []
    gathering = GatheringHistogram("x", "x", names, registry=CollectorRegistry(), buckets=_BUCKETS)
    plain = Histogram("x", "x", names, registry=CollectorRegistry(), buckets=_BUCKETS)
    note, observe = (
        (gathering.labels("a").note, plain.labels("a").observe)
        if labelled
        else (gathering.note, plain.observe)
    )
    for number, amount in enumerate(amounts):
        note(amount)
        observe(amount)
        if number == 20:
            assert shown(gathering) == shown(plain)
    assert shown(gathering) == shown(plain) == shown(gathering)


def test_nothing_is_lost_or_doubled_between_threads() -> None:
    histogram = GatheringHistogram("x", "x", registry=CollectorRegistry(), buckets=_BUCKETS)
    threads = [
        threading.Thread(target=lambda: [histogram.note(0.5) for _ in range(20_000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        shown(histogram)
    assert {name: value for name, _, value in shown(histogram)}["x_count"] == 80_000
