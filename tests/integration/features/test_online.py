from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from driftline.features import Entity, FeatureView, Source, count, join_key, last, mean
from driftline.features.keys import blob_key, format_owner, owner_key, partition_of
from driftline.features.layout import ViewLayout
from driftline.features.online import OnlineStore, connect
from driftline.features.read import FRESH, MISSING, ViewValues
from driftline.features.update import apply_events
from driftline.project import EventType, Project
from driftline.runtime.errors import ConfigurationError, RefusedError, UnavailableError

NOW_US = 1_700_000_000_000_000
PARTITIONS = 4

PLACE = Source("trips", entity=Entity("place"), event_time="ended_at")
DRIVER = Source("trips", entity=Entity("driver"), event_time="ended_at")
FARES = [count().over("1h"), last("fare")]
OF_PLACE = FeatureView("of_place", 1, PLACE, [count().over("1h"), mean("fare").over("1h")])
OF_DRIVER = FeatureView("of_driver", 2, DRIVER, [count().over("1h"), last("fare")])


def project_of(*views: FeatureView) -> Project:
    trips = EventType(
        name="trips", schema={}, schema_path=Path("trips.avsc"), key="place", event_time="ended_at"
    )
    return Project(
        name="city",
        owner="tests",
        description="",
        folder=Path(),
        event_types={"trips": trips},
        entities={view.entity.name: view.entity for view in views},
        views={view.name: view for view in views},
        models={},
        future_skew_us=0,
        max_jump_us=None,
    )


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def store(client: redis.Redis, unique: str) -> OnlineStore:
    return OnlineStore(
        client, prefix=unique, project=project_of(OF_PLACE, OF_DRIVER), partitions={"trips": PARTITIONS}
    )


def write(
    client: redis.Redis,
    prefix: str,
    view: FeatureView,
    entity: str,
    fares: list[float],
    *,
    part: int | None = None,
) -> None:
    """Write a blob as the feature store would after events a second apart, the last one at NOW_US."""
    partition = partition_of(entity, PARTITIONS) if part is None else part
    layout = ViewLayout.of(view)
    state = layout.empty(1)
    times = NOW_US - np.arange(len(fares), dtype=np.int64)[::-1] * 1_000_000
    apply_events(layout, state, np.zeros(len(fares), np.int64), times, {"fare": np.array(fares)})
    client.set(blob_key(prefix, "trips", partition, view.ref, entity), state.tobytes())


def rows(read: ViewValues) -> list[list[float]]:
    return np.where(np.isnan(read.values), -99.0, read.values).tolist()


def test_views_of_one_partition_and_of_many_are_read_in_one_round_trip(
    client: redis.Redis, store: OnlineStore, unique: str
) -> None:
    write(client, unique, OF_PLACE, "north", [10.0, 20.0])
    write(client, unique, OF_DRIVER, "ann", [1.0], part=0)
    write(client, unique, OF_DRIVER, "ann", [2.0, 3.0], part=3)
    before = client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"]

    places, drivers = store.read(
        [(OF_PLACE, ["north", "south", "north"]), (OF_DRIVER, ["ann", "ann", None])],
        np.array([NOW_US, NOW_US, NOW_US + 5_000_000]),
    )

    assert client.info("commandstats")["cmdstat_mget"]["calls"] == before + 1
    assert rows(places) == [[2.0, 15.0], [0.0, -99.0], [2.0, 15.0]]
    assert places.age_us.tolist() == [0, -1, 5_000_000]
    assert places.status.tolist() == [FRESH, MISSING, FRESH]
    assert rows(drivers) == [[3.0, 3.0], [3.0, 3.0], [0.0, -99.0]]
    assert drivers.status.tolist() == [FRESH, FRESH, MISSING]


@pytest.mark.parametrize("number", [30, 200])
def test_rows_of_one_entity_and_instant_are_answered_alike_in_any_batch(
    client: redis.Redis, store: OnlineStore, unique: str, number: int
) -> None:
    random = np.random.default_rng(7)
    names = [f"place {n}" for n in range(20)]
    for name in names[:15]:
        write(client, unique, OF_PLACE, name, random.normal(20, 5, 30).tolist())
    asked = [names[n] for n in random.integers(0, 20, number)]
    as_of = NOW_US + random.integers(0, 3, number) * 1_800_000_000

    (together,) = store.read([(OF_PLACE, asked)], as_of)

    for row in range(0, number, 10):
        (alone,) = store.read([(OF_PLACE, [asked[row]])], as_of[row : row + 1])
        assert alone.values[0].tobytes() == together.values[row].tobytes()
        assert alone.age_us[0] == together.age_us[row]
        assert alone.status[0] == together.status[row]


def test_views_are_read_each_for_rows_of_its_own(
    client: redis.Redis, redis_url: str, store: OnlineStore, unique: str
) -> None:
    write(client, unique, OF_PLACE, "north", [10.0, 20.0])
    write(client, unique, OF_DRIVER, "ann", [1.0], part=0)
    over_url = OnlineStore(
        redis_url, prefix=unique, project=project_of(OF_PLACE, OF_DRIVER), partitions={"trips": PARTITIONS}
    )
    late = np.array([NOW_US + 7_200_000_000])
    wanted = [(OF_PLACE, ["north", "south"], np.array([NOW_US, NOW_US])), (OF_DRIVER, ["ann"], late)]

    for reader in (store, over_url):
        places, drivers = reader.read_each(wanted)
        assert rows(places) == [[2.0, 15.0], [0.0, -99.0]]
        assert rows(drivers) == [[0.0, 1.0]]
        assert drivers.age_us.tolist() == [7_200_000_000]


def test_a_row_without_entity_is_not_the_entity_without_name(
    client: redis.Redis, store: OnlineStore, unique: str
) -> None:
    write(client, unique, OF_PLACE, "", [10.0])
    (read,) = store.read([(OF_PLACE, [None, ""])], np.array([NOW_US, NOW_US]))
    assert read.status.tolist() == [MISSING, FRESH]


def test_composite_entities_are_read_at_home_or_from_all_partitions(client: redis.Redis, unique: str) -> None:
    at_home = FeatureView(
        "at_home", 1, Source("trips", Entity("ride", keys=("driver", "place")), "ended_at"), FARES
    )
    all_over = FeatureView(
        "all_over", 1, Source("trips", Entity("cab", keys=("driver", "car")), "ended_at"), FARES
    )
    store = OnlineStore(
        client, prefix=unique, project=project_of(at_home, all_over), partitions={"trips": PARTITIONS}
    )
    places = ["north", "a,b", "~1", "south", ""]
    for number, place in enumerate(places):
        home = partition_of(place, PARTITIONS)  # the topic is keyed by place, whoever drives
        write(client, unique, at_home, join_key(["ann", place]), [float(number)], part=home)
    assert len({partition_of(place, PARTITIONS) for place in places}) > 1
    for part in range(PARTITIONS):
        write(client, unique, all_over, "ann,7", [1.0, 2.0], part=part)

    rides, cabs = store.read(
        [
            (at_home, [join_key(["ann", place]) for place in places]),
            (all_over, ["ann,7", "ann,8", None, "bob,7", "ann,7"]),
        ],
        np.full(5, NOW_US),
    )

    assert rows(rides) == [[1.0, float(number)] for number in range(5)]
    assert rows(cabs) == [[8.0, 2.0], [0.0, -99.0], [0.0, -99.0], [0.0, -99.0], [8.0, 2.0]]
    for view in (at_home, all_over):
        with pytest.raises(RefusedError, match=r"'ann' is no key of .*: join driver, "):
            store.read([(view, ["ann"])], np.array([NOW_US]))


def test_nothing_asked_is_nothing_read(store: OnlineStore) -> None:
    assert store.read([], np.empty(0, np.int64)) == []
    for read in store.read([(OF_PLACE, []), (OF_DRIVER, [])], np.empty(0, np.int64)):
        assert read.values.shape == (0, 2)


def test_a_view_that_was_changed_under_its_version_is_refused(
    client: redis.Redis, store: OnlineStore, unique: str
) -> None:
    for features in (
        [count().over("2h"), mean("fare").over("1h")],
        [count("fare").over("1h"), mean("fare").over("1h")],
    ):
        other = FeatureView("of_place", 1, PLACE, features)
        write(client, unique, other, "north", [10.0])
        with pytest.raises(ConfigurationError, match=r"of_place@1 .* Raise its version \(version=2\)"):
            store.read([(OF_PLACE, ["south", "north"])], np.array([NOW_US, NOW_US]))


def test_applied_offsets_are_the_owners(client: redis.Redis, store: OnlineStore, unique: str) -> None:
    assert store.applied_offsets("trips") == {}
    client.set(owner_key(unique, "trips", 2), format_owner(5, 1_234))
    assert store.applied_offsets("trips") == {2: 1_234}


def test_a_store_that_is_not_there_is_unavailable() -> None:
    away = OnlineStore(
        "redis://127.0.0.1:1/0", prefix="away", project=project_of(OF_PLACE), partitions={"trips": 1}
    )
    with pytest.raises(UnavailableError, match="does not answer"):
        away.read([(OF_PLACE, ["north"])], np.array([NOW_US]))


def test_a_key_that_holds_something_else_is_refused(
    client: redis.Redis, store: OnlineStore, unique: str
) -> None:
    client.set(blob_key(unique, "trips", partition_of("north", PARTITIONS), OF_PLACE.ref, "north"), b"short")
    with pytest.raises(ConfigurationError, match="of_place@1"):
        store.read([(OF_PLACE, ["north"])], np.array([NOW_US]))
