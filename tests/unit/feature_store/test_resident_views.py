"""Rows in memory: written through, bounded, read back from the store when they return."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from driftline.features import Entity, FeatureView, Source, count, sum_of
from driftline.features.layout import ViewLayout
from driftline.runtime.errors import ConfigurationError
from services.feature_store.resident_views import ResidentView

VIEW = FeatureView(
    "spent",
    1,
    Source("payments", Entity("customer"), "paid_at"),
    [count().over("1h"), sum_of("amount").over("1h")],
)
LAYOUT = ViewLayout.of(VIEW)


class Store:
    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.reads = 0

    def load(self, keys: Sequence[str]) -> list[bytes | None]:
        self.reads += 1
        return [self.blobs.get(key) for key in keys]

    def apply(self, view: ResidentView, entities: Sequence[str | None]) -> None:
        times = np.arange(len(entities), dtype=np.int64) * 1_000_000
        inputs = {"amount": np.ones(len(entities))}
        writes, _ = view.apply(pa.array(entities, pa.string()), times, inputs, self.load)
        raw = writes.blobs.tobytes()
        for position, head in enumerate(writes.heads):
            self.blobs[head.split(b"\r\n")[2].decode()] = raw[
                position * writes.size : (position + 1) * writes.size
            ]


def events_of(store: Store, entity: str) -> int:
    return int(np.frombuffer(store.blobs[f"k:{entity}"], LAYOUT.dtype)["events"][0])


def test_events_reach_the_blob_of_their_entity_and_null_reaches_none() -> None:
    store, view = Store(), ResidentView(LAYOUT, "k:{}".format, limit=1_000)
    store.apply(view, ["a", "b", None, "a"])
    store.apply(view, ["a"])
    store.apply(view, [None])
    assert set(store.blobs) == {"k:a", "k:b"}
    assert events_of(store, "a") == 3
    assert store.reads == 1


def test_evicted_rows_come_back_as_they_were() -> None:
    store, view = Store(), ResidentView(LAYOUT, "k:{}".format, limit=100)
    names = [f"e{number}" for number in range(3_000)]
    for _ in range(3):
        for start in range(0, len(names), 70):
            store.apply(view, names[start : start + 70])
            assert len(view) <= 100 + 70
    assert all(events_of(store, name) == 3 for name in names)


def test_a_changed_declaration_is_refused() -> None:
    store = Store()
    store.apply(ResidentView(LAYOUT, "k:{}".format, limit=10), ["a"])
    other = FeatureView("spent", 1, VIEW.source, [count().over("2h"), sum_of("amount").over("2h")])
    with pytest.raises(ConfigurationError, match="Raise its version"):
        store.apply(ResidentView(ViewLayout.of(other), "k:{}".format, limit=10), ["a"])


def test_a_batch_of_which_no_event_is_of_the_view_writes_nothing() -> None:
    store, view = Store(), ResidentView(LAYOUT, "k:{}".format, limit=1_000)
    store.apply(view, [])
    assert store.blobs == {}
    store.apply(view, ["a"])
    assert events_of(store, "a") == 1
