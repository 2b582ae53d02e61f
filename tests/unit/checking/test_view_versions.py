"""Two versions of a view held against each other, and who reads which."""

import shutil
from pathlib import Path

import pytest

from driftline.checking.project_check import check_project
from driftline.checking.view_versions import compare_views
from driftline.runtime.errors import ConfigurationError
from tests.unit.checking.market import spoil

REFS = ("shop_visits@1", "shop_visits@2")


@pytest.fixture
def states(folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The project with a second version of its view of visits, and before it."""
    before = Path(shutil.copytree(folder, tmp_path / "before" / "market"))
    text = (folder / "features.py").read_text()
    head, tail = text.split("shop_visits = ")
    tail = tail.replace("version=1", "version=2").replace('count().over("1h")', 'count().over("2h")')
    (folder / "features.py").write_text(f"{head}shop_visits = {tail}")
    return folder, before


def test_versions_of_two_states(states: tuple[Path, Path]) -> None:
    after, before = map(check_project, states)
    compared = compare_views(after, *REFS, before)
    assert [str(one) for one in compared.differences] == [
        "windows: 1h became 1h, 2h",
        "tiles: 2m became 5m",
        "column shop_visits__count_1h removed: count() over 1h",
        "column shop_visits__count_2h added: count() over 2h",
    ]
    assert compared.models == {"shop_visits@1": ("returns",), "shop_visits@2": ("returns",)}


def test_the_same_version_in_two_states(states: tuple[Path, Path]) -> None:
    after, before = map(check_project, states)
    assert compare_views(after, "shop_sales@1", "shop_sales@1", before).differences == ()


def test_two_views_of_one_state(states: tuple[Path, Path]) -> None:
    compared = compare_views(check_project(states[1]), "shop_sales@1", "shop_visits@1")
    assert "source: sales became visits" in map(str, compared.differences)


def test_a_version_that_is_not_there_names_those_there_are(states: tuple[Path, Path]) -> None:
    complaint = r"no feature view shop_visits@1; there are shop_visits@2\. Name with --against a git revision"
    with pytest.raises(ConfigurationError, match=complaint):
        compare_views(check_project(states[0]), *REFS)


@pytest.mark.parametrize("ref", ["shop_visits", "shop_visits@0", "shop_visits@x", "@1", ""])
def test_what_is_no_reference_is_refused(states: tuple[Path, Path], ref: str) -> None:
    with pytest.raises(ConfigurationError, match="write a view and its version, like origin_delays@1"):
        compare_views(check_project(states[0]), ref, "shop_visits@2")


def test_a_view_that_a_mistake_hides_is_told_as_that(states: tuple[Path, Path]) -> None:
    spoil(states[0], "features.py", "version=2", "version=0")
    after, before = map(check_project, states)
    with pytest.raises(ConfigurationError, match=r"features\.py:17: .*versions start at 1"):
        compare_views(after, *REFS, before)
