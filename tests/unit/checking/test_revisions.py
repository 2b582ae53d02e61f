"""The other state of a project: a folder, or the folder at a git revision."""

import os
import subprocess
from pathlib import Path

import pytest

from driftline.checking.changes import ChangeKind, project_changes
from driftline.checking.project_check import check_project
from driftline.checking.revisions import other_state
from driftline.runtime.errors import ConfigurationError
from tests.unit.checking.market import spoil, write

PERSON = ("-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *words: str) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(["git", "-C", str(folder), *PERSON, *words], check=True, capture_output=True, env=plain)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a folder of a git repository whose first commit has it not."""
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "--initial-branch=main")
    git(repository, "commit", "--allow-empty", "--message=nothing yet")
    folder = write(repository / "teams" / "market")
    git(repository, "add", "--all")
    git(repository, "commit", "--message=the market")
    git(repository, "tag", "served")
    return folder


@pytest.mark.parametrize("revision", ["HEAD", "main", "served"])
def test_a_revision_is_the_folder_as_it_was(project: Path, revision: str) -> None:
    was = (project / "features.py").read_text()
    spoil(project, "features.py", "version=1", "version=2")
    (project / "new.py").write_text("")
    with other_state(project, revision) as other:
        assert (other / "features.py").read_text() == was
        assert not (other / "new.py").exists()
    assert not other.exists()


def test_a_link_that_leads_out_of_the_project_is_left_out(project: Path) -> None:
    (project / "link").symlink_to("/etc/hostname")
    git(project, "add", "--all")
    git(project, "commit", "--message=a link")
    with other_state(project, "HEAD") as other:
        assert (other / "features.py").exists()
        assert not (other / "link").is_symlink()


def test_what_a_working_copy_breaks_against_a_revision(project: Path) -> None:
    spoil(project, "schemas/sales.avsc", '"price"', '"sale_price"')
    with other_state(project, "HEAD") as other:
        found = project_changes(check_project(other), check_project(project))
    assert [(one.views, one.models) for one in found if one.kind is ChangeKind.FIELD] == [
        (("shop_sales@1",), ("returns",))
    ]


def test_in_a_git_hook_the_hooks_own_repository_is_not_taken(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "elsewhere")
    with other_state(project, "HEAD") as other:
        assert (other / "driftline.yaml").is_file()


def test_a_folder_is_taken_as_it_is(project: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other")
    with other_state(project, str(other)) as found:
        assert found == other
    assert other.exists()


@pytest.mark.parametrize(
    ("against", "complaint"),
    [
        ("nonsense", "--against nonsense: is no folder, and no git revision that has .*; name another"),
        ("--output=x", "--against --output=x: is no folder, and no git revision"),
        ("HEAD~1", "had no driftline.yaml then|no git revision that has"),
    ],
)
def test_what_is_neither_is_refused(project: Path, against: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint), other_state(project, against):
        pass


def test_a_folder_without_a_project_is_refused(project: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"the folder has no driftline\.yaml"),
        other_state(project, str(tmp_path)),
    ):
        pass


def test_a_project_outside_of_git_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "market")
    with (
        pytest.raises(ConfigurationError, match=r"no git revision .*not a git repository"),
        other_state(folder, "HEAD"),
    ):
        pass
