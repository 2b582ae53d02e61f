"""The pointer to what serves: written whole, read as it was written, older files too."""

import json
from pathlib import Path

import pytest

from driftline.models.bundle import BundleError
from driftline.models.standing import (
    ACTIVE_FILE,
    Pinned,
    Standing,
    active_version,
    load_active,
    read_standing,
    write_standing,
)

ONE, TWO = (Pinned(version=version, sha256=version * 64) for version in ("1", "2"))


@pytest.mark.parametrize(
    "standing",
    [
        Standing(active=ONE),
        Standing(active=TWO, priors=(ONE,), reign="e1", pulled=("0",)),
        Standing(active=None, withdrawn="pulled", pulled=("1",)),
    ],
)
def test_what_was_written_is_read(tmp_path: Path, standing: Standing) -> None:
    (tmp_path / "returns").mkdir()
    write_standing(tmp_path, "returns", standing)
    assert read_standing(tmp_path, "returns") == standing
    assert [path.name for path in (tmp_path / "returns").iterdir()] == [ACTIVE_FILE]


def test_a_file_of_before_there_were_priors_is_read(tmp_path: Path) -> None:
    (tmp_path / "returns").mkdir()
    old = {"version": "1", "manifest_sha256": ONE.sha256}
    (tmp_path / "returns" / ACTIVE_FILE).write_text(json.dumps(old))
    assert read_standing(tmp_path, "returns") == Standing(active=ONE)


def test_out_of_service_nothing_is_active(tmp_path: Path) -> None:
    (tmp_path / "returns").mkdir()
    write_standing(tmp_path, "returns", Standing(active=None, withdrawn="pulled"))
    assert active_version(tmp_path, "returns") is None
    assert load_active(tmp_path, "returns") is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": "1"}', '{"version": null, "priors": 3}'])
def test_a_damaged_file_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "returns").mkdir()
    (tmp_path / "returns" / ACTIVE_FILE).write_text(content)
    with pytest.raises(BundleError, match="is damaged"):
        read_standing(tmp_path, "returns")
