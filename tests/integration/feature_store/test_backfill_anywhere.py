"""Any log, any interleaving of stream, backfill, deaths and changed declarations leaves the bytes of a store that began so.

No broker here: the log is a list, read by both sides; the store and all that writes to it are the real ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.batch_codec import BatchDecoder
from driftline.features import Entity, FeatureView, Source, count, last, mean, sum_of
from driftline.features import field as event_field
from driftline.features.filling import StoredViews, fingerprints_of
from driftline.features.keys import views_key
from driftline.project import EventType, Project
from driftline.runtime.clock import SystemClock
from driftline.streaming.partitions import Partition
from services.feature_store.backfill import Backfill, plan_views
from services.feature_store.fenced_store import FencedStore, Lane, Ownership
from services.feature_store.partition_state import PartitionState
from services.feature_store.past_events import Stretch

_SCHEMA = {
    "type": "record",
    "name": "Sale",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "shop", "type": "string"},
        {"name": "article", "type": ["null", "string"], "default": None},
        {"name": "sold_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "price", "type": ["null", "double"], "default": None},
    ],
}
_HOUR_US = 3_600_000_000
_BEGIN_US = 1_750_000_000_000_000
_SHOP = Source("sales", Entity("shop"), "sold_at")
_ARTICLE = Source("sales", Entity("article"), "sold_at")
VIEWS = {
    view.name: view
    for view in (
        FeatureView("taken", 1, _SHOP, [count().over("1h"), sum_of("price").over("24h"), last("price")]),
        FeatureView("sold", 1, _ARTICLE, [count().over("24h"), mean("price").over("24h")]),
        FeatureView("dear", 1, _SHOP, [count().over("24h")], where=event_field("price") > 5),
    )
}
_NAMES = st.sets(st.sampled_from(sorted(VIEWS)), min_size=1).map(frozenset)


class _Death(BaseException):
    """The process dies here."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the log: its event, and its timestamp."""

    event: dict[str, Any]
    record_us: int


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Draw a log over a few days: repeated ids, late events, some from the future, pauses, missing values."""
    now_us = _BEGIN_US
    records = []
    for _ in range(draw(st.integers(0, 60))):
        now_us += draw(st.sampled_from([0, 1_000_000, 600_000_000, 5 * _HOUR_US, -1_000_000]))
        lag_us = draw(st.sampled_from([0, 60_000_000, 3 * _HOUR_US, 30 * _HOUR_US, -_HOUR_US, -1_000_000]))
        event = {
            "event_id": str(draw(st.integers(0, 25))),
            "shop": draw(st.sampled_from(["a", "b", "c"])),
            "article": draw(st.sampled_from([None, "x", "y"])),
            "sold_at": now_us - lag_us,
            "price": draw(st.sampled_from([None, 1.0, 2.5, 7.25, 0.1])),
        }
        records.append(Record(event, now_us))
    return records


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("live"), st.integers(1, 20)),
        st.tuples(st.just("fill"), st.integers(1, 20)),
        st.tuples(st.just("fill"), st.integers(1, 20)),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("declare"), _NAMES),
        st.tuples(st.just("die before"), st.sampled_from(["live", "fill"])),
        st.tuples(st.just("die after"), st.sampled_from(["live", "fill"])),
    ),
    max_size=40,
)


class Machine:
    """One partition's store, driven by hand."""

    def __init__(self, client: Any, url: str, prefix: str, log: list[Record], names: frozenset[str]) -> None:
        self._client = client
        self._prefix = prefix
        self._log = log
        self._store = FencedStore(url, prefix=prefix, clock=SystemClock())
        self._decoder = BatchDecoder(_SCHEMA, lambda _: _SCHEMA)
        self.batch = 7
        self.wipe()
        self.declare(names)

    def declare(self, names: frozenset[str]) -> None:
        """Start with these views."""
        self._project = _project(self._prefix, names)
        self.restart()

    def restart(self) -> None:
        """Take the partition, as a process does that knows nothing."""
        ownership = self._store.take("sales", 0, oldest=lambda: 0, beginning=self._beginning)
        ownership, plan = plan_views(self._store, ownership, self._project, 0)
        self._live = self._state(ownership, plan.views.complete, Lane.LIVE)
        self._backfill: Backfill | None = None
        if plan.fill is not None:
            wanted = plan.fill.views
            self._backfill = Backfill(
                self._store,
                self._live,
                plan,
                self,
                partition=Partition("sales", 0),
                decoder=self._decoder,
                make_state=lambda: self._state(self._live.ownership, wanted, Lane.FILL),
                clock=SystemClock(),
            )

    def live(self, size: int) -> None:
        """Apply the live stream's next records."""
        offset = self._live.ownership.next_offset
        some = self._log[offset : offset + size]
        if some:
            change = self._live.apply(*_columns(some))
            self._live.commit(change, offset + len(some))

    def fill(self, size: int) -> None:
        """Give the backfill a turn of so many records."""
        self.batch = size
        if self._backfill is not None and self._backfill.turn():
            self._backfill = None

    def die(self, what: str, *, after: bool, size: int = 5) -> None:
        """Die before or after the step that writes, then start again."""
        original = self._store._step

        def dying(*arguments: Any, **options: Any) -> Any:
            if after:
                original(*arguments, **options)
            raise _Death

        self._store._step = dying  # type: ignore[method-assign]
        try:
            self.live(size) if what == "live" else self.fill(size)
        except _Death:
            pass
        finally:
            self._store._step = original  # type: ignore[method-assign]
        self.restart()

    def finish(self) -> None:
        """Let everything come to its end."""
        self.live(len(self._log))
        while self._backfill is not None:
            self.fill(11)

    def first(self, partition: Partition) -> int:
        """Return the oldest offset (this is the backfill's past)."""
        return 0

    def read(self, partition: Partition, decoder: BatchDecoder, offset: int, stop: int) -> Stretch:
        """Return the next records."""
        some = self._log[offset : min(offset + self.batch, stop)]
        table, record_us = _columns(some)
        return Stretch(table=table, record_us=record_us, next_offset=offset + len(some))

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def stored(self) -> dict[str, bytes]:
        """Return what is true in the store, without the prefix: nothing of views that are not declared, no times."""
        head = f"dl:{{{self._prefix}.sales.0}}:"
        keys = [key.decode() for key in self._client.scan_iter(f"{head}*", count=1_000)]
        known = {view.ref for view in self._project.views_of("sales")}
        found = {}
        for key, value in zip(keys, self._client.mget(keys) if keys else [], strict=True):
            name = key.removeprefix(head)
            ref = name.split(":")[0]
            if name in {"owner", "builds"} or ("@" in ref and ref not in known):
                continue
            stored = StoredViews.parse(value) if name == "views" else None
            found[name] = value if stored is None else replace(stored, left=()).format()
        return found

    def wipe(self) -> None:
        """Leave nothing."""
        for key in self._client.scan_iter(f"dl:{{{self._prefix}.*", count=1_000):
            self._client.unlink(key)

    def _beginning(self, _offset: int) -> dict[str, bytes]:
        views = StoredViews(complete=fingerprints_of(self._project, "sales"))
        return {views_key(self._prefix, "sales", 0): views.format()}

    def _state(self, ownership: Ownership, refs: Any, lane: Lane) -> PartitionState:
        return PartitionState(
            self._store,
            ownership,
            self._project,
            prefix=self._prefix,
            partitions=1,
            max_entities=2,  # rows come and go
            views=[view for view in self._project.views_of("sales") if view.ref in refs],
            lane=lane,
        )


def _columns(records: list[Record]) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
    table = pa.RecordBatch.from_pylist([one.event for one in records], schema=arrow_schema(_SCHEMA))
    return table, np.array([one.record_us for one in records], np.int64)


def _project(name: str, names: frozenset[str]) -> Project:
    kind = EventType(
        name="sales", schema=_SCHEMA, schema_path=Path("sale.avsc"), key="shop", event_time="sold_at"
    )
    views = {name: view for name, view in VIEWS.items() if name in names}
    return Project(
        name=name,
        owner="tests",
        description="",
        folder=Path(),
        event_types={"sales": kind},
        entities={view.entity.name: view.entity for view in views.values()},
        views=views,
        models={},
        future_skew_us=300_000_000,
        max_jump_us=40 * _HOUR_US,
    )


@pytest.fixture(name="client")
def client_fixture(redis_url: str) -> Iterator[Any]:
    client = redis.Redis.from_url(redis_url)
    yield client
    client.close()


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(log=logs(), first=_NAMES, final=_NAMES, actions=ACTIONS)
def test_the_bytes_are_those_of_a_store_that_began_so(
    client: Any,
    redis_url: str,
    unique: str,
    log: list[Record],
    first: frozenset[str],
    final: frozenset[str],
    actions: list[tuple[str, Any]],
) -> None:
    machine = Machine(client, redis_url, f"any{unique}", log, first)
    whole = Machine(client, redis_url, f"whole{unique}", log, final)
    try:
        for what, how in actions:
            if what in {"live", "fill"}:
                getattr(machine, what)(how)
            elif what == "declare":
                machine.declare(how)
            elif what == "restart":
                machine.restart()
            else:
                machine.die(how, after=what == "die after")
        machine.declare(final)
        machine.finish()
        whole.finish()
        assert machine.stored() == whole.stored()
    finally:
        for one in (machine, whole):
            one.wipe()
            one.close()
