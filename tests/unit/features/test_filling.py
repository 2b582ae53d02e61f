"""Where a view stands is told from the store's keys, and so is what must not be served."""

from pathlib import Path

import pytest

from driftline.features import Entity, FeatureView, Source, count
from driftline.features.filling import (
    Build,
    Builds,
    Fill,
    PartitionStanding,
    Standing,
    StoredViews,
    fingerprints_of,
    incomplete_views,
    read_standings,
)
from driftline.features.keys import builds_key, fill_key, format_owner, owner_key, views_key
from driftline.project import EventType, Project

_SOURCE = Source("sales", Entity("shop"), "sold_at")
OLD = FeatureView("old", 1, _SOURCE, [count().over("1h")])
NEW = FeatureView("new", 1, _SOURCE, [count().over("24h")])


@pytest.fixture(name="project")
def project_fixture() -> Project:
    kind = EventType(name="sales", schema={}, schema_path=Path("sale.avsc"), key="shop", event_time="sold_at")
    return Project(
        name="shop",
        owner="tests",
        description="",
        folder=Path(),
        event_types={"sales": kind},
        entities={"shop": _SOURCE.entity},
        views={view.name: view for view in (OLD, NEW)},
        models={},
        future_skew_us=0,
        max_jump_us=None,
    )


class Keys(dict[str, bytes]):
    """Keys of the store, by hand."""

    def put(
        self, number: int, offset: int, *, complete: dict[str, int] | None, fill: Fill | None = None
    ) -> None:
        place = "shop", "sales", number
        self[owner_key(*place)] = format_owner(7, offset)
        if complete is not None:
            self[views_key(*place)] = StoredViews(complete=complete).format()
        if fill is not None:
            self[fill_key(*place)] = fill.format()

    def standings(self, project: Project) -> list[PartitionStanding]:
        return read_standings(
            lambda keys: [self.get(key) for key in keys],
            prefix="shop",
            project=project,
            partitions={"sales": 2},
        )


def test_a_view_that_is_filled_in_one_partition_is_incomplete(project: Project) -> None:
    marks = fingerprints_of(project, "sales")
    keys = Keys()
    keys.put(0, 300, complete=marks)
    fill = Fill(views={"new@1": marks["new@1"]}, start=100, offset=150, rate=10.0)
    keys.put(1, 300, complete={"old@1": marks["old@1"]}, fill=fill)
    first, second = keys.standings(project)
    assert [view.standing for view in first.views] == [Standing.COMPLETE] * 2
    old, new = second.views
    assert old.standing is Standing.COMPLETE
    assert (new.standing, new.share, new.left, new.seconds_left) == (Standing.FILLING, 0.25, 150, 15.0)
    assert incomplete_views([first, second]) == {"new@1": "feature view new@1 is being filled (62%)"}


def test_a_fill_that_is_nearly_there_is_not_whole(project: Project) -> None:
    marks = fingerprints_of(project, "sales")
    keys = Keys()
    for number in range(2):
        keys.put(number, 1_000, complete={}, fill=Fill(views=marks, start=0, offset=999))
    assert incomplete_views(keys.standings(project))["old@1"].endswith("(99%)")


def test_another_declaration_under_the_same_name_is_not_whole(project: Project) -> None:
    marks = fingerprints_of(project, "sales")
    keys = Keys()
    keys.put(0, 10, complete=marks | {"new@1": 1})
    keys.put(1, 10, complete=marks, fill=Fill(views={"new@1": 1}))
    told = incomplete_views(keys.standings(project))
    assert set(told) == {"new@1"}
    keys.put(0, 10, complete={"old@1": marks["old@1"]}, fill=Fill(views={"new@1": 1}))
    assert keys.standings(project)[0].views[1].standing is Standing.MISSING


@pytest.mark.parametrize(
    ("complete", "told"), [({}, "is not in the store yet: feature_store fills it"), (None, "")]
)
def test_a_view_that_nobody_has_begun_with(
    project: Project, complete: dict[str, int] | None, told: str
) -> None:
    """A store of before there was the key is believed to have its views."""
    keys = Keys()
    for number in range(2):
        keys.put(number, 50, complete=complete)
    assert told in incomplete_views(keys.standings(project)).get("new@1", "")


def test_a_partition_that_the_store_never_had_says_nothing(project: Project) -> None:
    assert incomplete_views(Keys().standings(project)) == {}
    keys = Keys()
    keys.put(0, -1, complete=None)
    first, second = keys.standings(project)
    assert (first.next_offset, first.views[0].standing) == (None, Standing.BUILDING)
    assert (second.next_offset, second.views[0].standing) == (None, Standing.MISSING)
    assert incomplete_views([first, second]) == {}


def test_a_build_from_the_beginning_shows_how_far_it_is(project: Project) -> None:
    keys = Keys()
    keys.put(0, 30, complete=fingerprints_of(project, "sales"))
    build = Build(start=10, stop=50, begun_us=1_000_000)
    keys[builds_key("shop", "sales", 0)] = Builds(builds=(build,)).format()
    (one, _) = keys.standings(project)
    assert (one.views[0].standing, one.views[0].share, one.views[0].left) == (Standing.BUILDING, 0.5, 20)
    done = build.finished(52, 3_500_000)
    keys[builds_key("shop", "sales", 0)] = Builds(builds=(build,)).done(done).format()
    (one, _) = keys.standings(project)
    assert one.views[0].standing is Standing.COMPLETE
    assert (one.builds[0].records, one.builds[0].seconds) == (42, 2.5)


def test_a_few_builds_are_kept_and_a_new_beginning_forgets_them() -> None:
    builds = Builds().with_one(Build(start=0, stop=5, begun_us=0))
    for number in range(30):
        builds = builds.with_one(Build(views=(f"v@{number}",), start=0, stop=5, begun_us=number))
    assert len(builds.builds) == 20
    assert builds.builds[-1].views == ("v@29",)
    assert builds.building is None
    again = builds.with_one(Build(start=3, stop=9, begun_us=99))
    assert [one.start for one in again.builds] == [3]
    assert Builds.parse(again.format()) == again
