"""What may be said of a deprecated view, and who still reads it."""

from datetime import date
from pathlib import Path

import pytest

from driftline.features import Entity, FeatureView, Source, count
from driftline.project import load_project
from driftline.project.deprecations import deprecated_uses
from tests.unit.checking.market import spoil, told, write

SHOP = Entity("shop")
SALES = Source("sales", entity=SHOP, event_time="sold_at")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "market")


def deprecate(folder: Path, successor: str, name: str = "shop_sales") -> None:
    old = f'"{name}",\n    version=1,'
    spoil(folder, "features.py", old, f'{old} deprecated="2026-12-31", successor="{successor}",')


@pytest.mark.parametrize("day", ["2026-02-30", "31.12.2026", "20261231", "soon", "2026-12-31T00:00:00"])
def test_the_last_day_is_a_real_date(day: str) -> None:
    with pytest.raises(
        ValueError, match=r"feature view 'sales': deprecated is the last day .*, like 2026-12-31"
    ):
        FeatureView("sales", version=1, source=SALES, features=[count().over("1h")], deprecated=day)


@pytest.mark.parametrize(
    ("deprecated", "successor", "complaint"),
    [
        ("", "sales_by_hour@1", "has a successor and no date"),
        ("2026-12-31", "sales_by_hour", "a view and its version, like origin_departures@2"),
        ("2026-12-31", "sales@1", "is the view itself"),
    ],
)
def test_a_successor_is_another_view_with_its_version(
    deprecated: str, successor: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        FeatureView(
            "sales",
            version=1,
            source=SALES,
            features=[count().over("1h")],
            deprecated=deprecated,
            successor=successor,
        )


def test_who_reads_a_deprecated_view(folder: Path) -> None:
    deprecate(folder, "shop_visits@1")
    (use,) = deprecated_uses(load_project(folder))
    assert (use.model, use.owner, use.view, use.successor) == (
        "returns",
        "someone@example.org",
        "shop_sales@1",
        "shop_visits@1",
    )
    assert not use.past(date(2026, 12, 31))
    assert use.past(date(2027, 1, 1))


def test_a_view_that_no_model_reads_warns_nobody(folder: Path) -> None:
    deprecate(folder, "shop_sales@1", "shop_visits")
    spoil(folder, "driftline.yaml", "      - shop_visits\n", "")
    assert deprecated_uses(load_project(folder)) == ()


@pytest.mark.parametrize(
    ("successor", "complaint"),
    [
        ("shop_vists@1", "is not declared; did you mean shop_visits@1?"),
        ("shop_visits@2", "is not declared; there is shop_visits@1"),
    ],
)
def test_a_successor_that_is_not_there(folder: Path, successor: str, complaint: str) -> None:
    deprecate(folder, successor)
    assert told(folder) == [
        f"features.py:8: feature view 'shop_sales': its successor {successor} {complaint}"
    ]


def test_a_successor_of_another_entity(folder: Path) -> None:
    deprecate(folder, "all_sales@1")
    with (folder / "features.py").open("a") as file:
        file.write(
            'all_sales = FeatureView("all_sales", version=1, features=[count().over("1h")],\n'
            '    source=Source("sales", entity=Entity("event_id"), event_time="sold_at"))\n'
        )
    assert told(folder) == [
        "features.py:8: feature view 'shop_sales': its successor all_sales@1 describes 'event_id', not 'shop'; "
        "name a view of the same entity"
    ]


def test_a_successor_that_goes_itself(folder: Path) -> None:
    deprecate(folder, "shop_visits@1")
    old = '"shop_visits",\n    version=1,'
    spoil(folder, "features.py", old, f'{old} deprecated="2027-06-30",')
    assert told(folder) == [
        "features.py:8: feature view 'shop_sales': its successor shop_visits@1 is deprecated itself; name the view that "
        "stays"
    ]


def test_a_successor_with_a_mistake_of_its_own_is_not_missed(folder: Path) -> None:
    deprecate(folder, "shop_visits@1")
    spoil(folder, "features.py", '"shop_visits",\n    version=1', '"shop_visits",\n    version=0')
    (only,) = told(folder)
    assert "versions start at 1" in only
