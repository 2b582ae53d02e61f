"""`driftline check --against` tells what changes in code lists, and whom it reaches."""

import shutil
from pathlib import Path

import pytest

from driftline.checking.changes import Change, ChangeKind, project_changes
from driftline.checking.project_check import check_project
from tests.unit.checking.market import spoil, write

LISTS = """code_lists:
  kinds:
    events: {sales: [kind]}
    versions:
      - {version: 2, since: 2026-07-01T00:00:00Z, from: {"S": "M", "M": "L", "L": "S"}}
"""
THIRD = """      - {version: 3, since: 2027-07-01T00:00:00Z, from: {"S": "M"}}
"""


@pytest.fixture
def before(tmp_path: Path) -> Path:
    folder = write(tmp_path / "before" / "market")
    spoil(
        folder, "features.py", 'rate("returned")', 'share("kind", "S").over("1d"),\n        rate("returned")'
    )
    return folder


@pytest.fixture
def folder(before: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(before, tmp_path / "market"))


def declare(folder: Path, lists: str = LISTS) -> None:
    spoil(folder, "driftline.yaml", "models:\n", lists + "models:\n")


def changes(before: Path, after: Path) -> list[Change]:
    examined = check_project(before), check_project(after)
    assert [one.mistakes for one in examined] == [(), ()]
    return list(project_changes(*examined))


def test_a_new_list_changes_nothing_else(before: Path, folder: Path) -> None:
    declare(folder)
    (only,) = changes(before, folder)
    assert (only.kind, only.breaks, only.place.line) == (ChangeKind.CODE_LIST, False, 14)
    assert only.place.text == "code list 'kinds' is new"
    assert (only.views, only.models) == (("shop_sales@1",), ("returns",))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("models:", THIRD + "models:", "has a version 3"),
        ('"L": "S"', '"L": "X"', "says otherwise what became of codes; what is stored, trained and logged stays as it was"),
        ("2026-07-01", "2026-08-01",
         "says otherwise what became of codes; what is stored, trained and logged stays as it was"),
        (LISTS, "", "is gone: its values are read as they are written"),
    ],
)  # fmt: skip
def test_a_list_that_changes(before: Path, folder: Path, old: str, new: str, text: str) -> None:
    for one in (before, folder):
        declare(one)
    spoil(folder, "driftline.yaml", old, new)
    (only,) = changes(before, folder)
    assert (only.breaks, only.place.text) == (False, f"code list 'kinds' {text}")
    assert only.models == ("returns",)


def test_going_over_to_the_new_codes_needs_a_version_of_the_views(before: Path, folder: Path) -> None:
    for one in (before, folder):
        declare(one)
    spoil(folder, "driftline.yaml", "events: {sales", "reads: 2\n    events: {sales")
    breaks, *others = changes(before, folder)
    assert breaks.breaks
    assert "code lists: none became kind in version 2 of kinds" in breaks.place.text
    assert "set version=2" in breaks.place.text
    assert "code list 'kinds' is read in version 2, not 1" in [one.place.text for one in others]
    spoil(folder, "features.py", '"shop_sales",\n    version=1', '"shop_sales",\n    version=2')
    assert not any(one.breaks for one in changes(before, folder))
