"""`driftline check` and `driftline features diff`, as a person and a program read them."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from driftline.cli.main import build
from driftline.runtime.errors import EXIT_CONFIGURATION
from tests.unit.checking.market import spoil, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "market")


@pytest.fixture
def before(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "before" / "market"))


def driftline(folder: Path, *words: str) -> Result:
    """Type a command in a project's folder."""
    with contextlib.chdir(folder):
        return CliRunner().invoke(build(list(words)), list(words))


def terminal(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a project's folder, as a process of its own, with no server to ask."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
    command = [sys.executable, "-m", "driftline.cli.main", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_correct_project(folder: Path) -> None:
    result = terminal(folder, "check")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "market (2 event types, 2 views, 1 model): no mistakes\n"


def test_mistakes_are_lines_that_an_editor_can_jump_to(folder: Path) -> None:
    spoil(folder, "features.py", 'mean("minutes")', 'mean("minute")')
    spoil(folder, "driftline.yaml", "cooldown: 7d", "cooldown: soon")
    spoil(folder, "model.py", "BOUNDS", "print('a word')\nBOUNDS")
    result = driftline(folder, "check")
    assert result.exit_code == EXIT_CONFIGURATION
    assert [line.partition(": ")[0] for line in result.stdout.splitlines()] == [
        "driftline.yaml:26",
        "features.py:21",
    ]
    assert "market: 2 mistakes" in result.stderr


def test_mistakes_as_json(folder: Path) -> None:
    spoil(folder, "features.py", 'mean("minutes")', 'mean("minute")')
    spoil(folder, "model.py", "BOUNDS", "print('a word')\nBOUNDS")
    result = driftline(folder, "check", "--json")
    answer = json.loads(result.stdout)
    (mistake,) = answer.pop("mistakes")
    assert result.exit_code == EXIT_CONFIGURATION
    assert answer == {"project": "market", "ok": False, "warnings": [], "changes": [], "against": None}
    assert (mistake["file"], mistake["line"]) == ("features.py", 21)
    assert "did you mean minutes?" in mistake["text"]


def test_what_breaks_is_an_error_too(folder: Path, before: Path) -> None:
    spoil(folder, "features.py", 'count().over("1h")', 'count().over("2h")')
    result = driftline(folder, "check", "--against", str(before))
    assert result.exit_code == EXIT_CONFIGURATION
    breaks, changes, summary = result.stdout.splitlines()
    assert breaks.startswith(
        "features.py:17: breaks: feature view shop_visits@1 changed under the same version"
    )
    assert changes.startswith("driftline.yaml:14: changes: model 'returns' needs a new training")
    assert summary.endswith("no mistakes; against " + str(before) + ": 1 breaking change, 1 other change")


def test_what_only_changes_is_none(folder: Path, before: Path) -> None:
    spoil(folder, "features.py", "version=1", "version=2")
    assert driftline(folder, "check", "--against", str(before)).exit_code == 0


def test_changes_as_json(folder: Path, before: Path) -> None:
    spoil(folder, "schemas/sales.avsc", "returned", "came_back")
    result = driftline(folder, "check", "--against", str(before), "--json")
    answer = json.loads(result.stdout)
    field = answer["changes"][0]
    assert result.exit_code == EXIT_CONFIGURATION
    assert answer["ok"] is False
    assert answer["against"] == {"state": str(before), "mistakes": 0}
    assert {name: field[name] for name in ("kind", "breaks", "file", "line", "views", "models")} == {
        "kind": "field",
        "breaks": True,
        "file": "schemas/sales.avsc",
        "line": 7,
        "views": ["shop_sales@1"],
        "models": ["returns"],
    }


def test_a_state_that_cannot_be_read_whole_is_told(folder: Path, before: Path) -> None:
    spoil(before, "features.py", 'count().over("1h")', "count()")
    result = driftline(folder, "check", "--against", str(before))
    assert result.exit_code == 0
    assert f"compared as far as {before} can be read, which has 1 mistake" in result.stdout
    (before / "driftline.yaml").write_text("- a\n")
    result = driftline(folder, "check", "--against", str(before))
    assert f"nothing compared, {before} cannot be read" in result.stdout


def test_no_project_and_no_revision(tmp_path: Path, folder: Path) -> None:
    for result in (terminal(tmp_path, "check"), terminal(folder, "check", "--against", "nonsense")):
        assert result.returncode == EXIT_CONFIGURATION
        assert result.stderr.startswith("error: ")
        assert "Traceback" not in result.stderr


def test_differences_of_two_versions(folder: Path, before: Path) -> None:
    spoil(folder, "features.py", "version=1", "version=2")
    spoil(folder, "features.py", 'mean("minutes")', 'mean("minutes").or_default(0)')
    words = ("features", "diff", "shop_visits@1", "shop_visits@2", "--against", str(before))
    told = driftline(folder, *words)
    assert (told.exit_code, told.stderr) == (0, "")
    answer = json.loads(driftline(folder, *words, "--json").stdout)
    assert told.stdout.splitlines() == [
        "column shop_visits__mean_minutes_1h: mean(minutes) over 1h became "
        "mean(minutes) over 1h, 0 where there is none",
        "shop_visits@1 is read by returns",
        "shop_visits@2 is read by returns",
    ]
    assert answer == {
        "before": "shop_visits@1",
        "after": "shop_visits@2",
        "differences": [
            {
                "aspect": "column",
                "column": "shop_visits__mean_minutes_1h",
                "before": "mean(minutes) over 1h",
                "after": "mean(minutes) over 1h, 0 where there is none",
            }
        ],
        "models": {"shop_visits@1": ["returns"], "shop_visits@2": ["returns"]},
    }


def test_versions_that_serve_the_same(folder: Path, before: Path) -> None:
    spoil(folder, "features.py", "version=1", "version=2")
    result = driftline(folder, "features", "diff", "shop_visits@1", "shop_visits@2", "--against", str(before))
    assert result.stdout.splitlines()[0] == "shop_visits@1 and shop_visits@2 serve the same"


def test_a_version_that_is_not_there(folder: Path) -> None:
    result = terminal(folder, "features", "diff", "shop_visits@1", "shop_visits@2")
    assert result.returncode == EXIT_CONFIGURATION
    assert "there is no feature view shop_visits@2; there are shop_visits@1" in result.stderr


def deprecate(folder: Path, day: str) -> None:
    old = '"shop_sales",\n    version=1,'
    spoil(folder, "features.py", old, f'{old} deprecated="{day}", successor="shop_visits@1",')


def test_a_model_that_reads_a_deprecated_view_is_a_warning(folder: Path) -> None:
    deprecate(folder, "2999-12-31")
    result = driftline(folder, "check")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "driftline.yaml:17: warning: model 'returns' (owner someone@example.org): shop_sales@1 is deprecated, read it "
        "until 2999-12-31 at most; its successor is shop_visits@1",
        "market (2 event types, 2 views, 1 model): no mistakes, 1 warning",
    ]
    answer = json.loads(driftline(folder, "check", "--json").stdout)
    assert answer["ok"] is True
    (warning,) = answer["warnings"]
    assert {
        key: warning[key] for key in ("line", "model", "owner", "view", "deprecated", "successor", "past")
    } == {
        "line": 17,
        "model": "returns",
        "owner": "someone@example.org",
        "view": "shop_sales@1",
        "deprecated": "2999-12-31",
        "successor": "shop_visits@1",
        "past": False,
    }


def test_a_past_day_is_a_mistake_only_where_the_project_says_so(folder: Path) -> None:
    deprecate(folder, "2020-12-31")
    result = driftline(folder, "check")
    assert (result.exit_code, "(that day is past)" in result.stdout) == (0, True)
    spoil(folder, "driftline.yaml", "history:", "refuse_past_deprecations: true\nhistory:")
    result = driftline(folder, "check", "--json")
    assert result.exit_code == EXIT_CONFIGURATION
    answer = json.loads(result.stdout)
    assert (answer["ok"], answer["warnings"]) == (False, [])
    (mistake,) = answer["mistakes"]
    assert (mistake["line"], "read it until 2020-12-31" in mistake["text"]) == (18, True)


def test_a_new_deprecation_is_a_change_that_breaks_nothing(folder: Path, before: Path) -> None:
    deprecate(folder, "2999-12-31")
    result = driftline(folder, "check", "--against", str(before), "--json")
    assert result.exit_code == 0
    (change,) = json.loads(result.stdout)["changes"]
    assert (change["breaks"], change["views"], change["models"]) == (False, ["shop_sales@1"], ["returns"])
    assert change["text"].startswith("feature view shop_sales@1 is deprecated, read it until 2999-12-31")
