"""Where blobs are: one home where the topic is keyed by the entity, all partitions where it is not."""

import gc
from pathlib import Path

import pytest

from driftline.features import Entity, FeatureView, Source, count
from driftline.features.keys import partition_of
from driftline.features.layout import ViewLayout
from driftline.features.stored_views import StoredViews
from driftline.project import load_project
from driftline.runtime.errors import RefusedError

FLIGHTS = load_project(Path(__file__).parents[3] / "examples" / "flights")
PARTITIONS = dict.fromkeys(FLIGHTS.event_types, 4)


@pytest.fixture
def views() -> StoredViews:
    return StoredViews("flights", FLIGHTS, PARTITIONS)


def hourly(entity: Entity, version: int = 1) -> FeatureView:
    return FeatureView("hourly", version, Source("arrivals", entity, "arrived_at"), [count().over("1h")])


def test_an_entity_that_keys_the_topic_has_one_blob(views: StoredViews) -> None:
    stored = views.of(FLIGHTS.views["dest_arrivals"])
    homes = {name: partition_of(name, 4) for name in ("JFK", "EWR")}
    ref = FLIGHTS.views["dest_arrivals"].ref
    assert stored.parts == 1
    assert stored.keys(["JFK", "EWR"]) == [
        f"dl:{{flights.arrivals.{home}}}:{ref}:{name}" for name, home in homes.items()
    ]


def test_any_other_has_one_in_each_partition(views: StoredViews) -> None:
    stored = views.of(FLIGHTS.views["carrier_arrivals"])
    ref = FLIGHTS.views["carrier_arrivals"].ref
    assert stored.parts == 4
    assert stored.keys(["UA", "AA"]) == [
        f"dl:{{flights.arrivals.{home}}}:{ref}:{name}" for name in ("UA", "AA") for home in range(4)
    ]


def test_a_composite_entity_is_at_home_where_its_part_is_that_keys_the_topic(views: StoredViews) -> None:
    stored = views.of(hourly(Entity("route", keys=("carrier", "dest"))))
    home = partition_of("J,FK", 4)
    assert stored.keys(["UA,J~1FK"]) == [f"dl:{{flights.arrivals.{home}}}:hourly@1:UA,J~1FK"]


@pytest.mark.parametrize("keys", [("carrier", "origin"), ("carrier", "dest")])
def test_what_is_no_key_of_a_composite_entity_is_refused(views: StoredViews, keys: tuple[str, str]) -> None:
    stored = views.of(hourly(Entity("route", keys=keys)))
    assert stored.keys(["UA,JFK"])
    with pytest.raises(RefusedError, match="no key of route"):
        stored.keys(["UA"])


def test_a_view_is_worked_out_once(views: StoredViews) -> None:
    view = FLIGHTS.views["dest_arrivals"]
    assert views.of(view) is views.of(view)


def test_views_that_come_and_go_are_never_mistaken_for_one_another(views: StoredViews) -> None:
    for version in range(1, 3_000):
        stored = views.of(hourly(Entity("origin"), version))
        assert stored.view.version == version
        assert stored.layout is ViewLayout.of(stored.view)
        assert f":hourly@{version}:" in stored.keys(["JFK"])[0]
        if not version % 500:
            gc.collect()
