"""The rack follows what is activated, and serves the old version where the new one cannot be used."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from driftline.models.bundle import load_bundle, write_bundle
from driftline.models.scoring import Scorer
from driftline.models.standing import Pinned, Standing, activate, read_standing, write_standing
from driftline.project import Project, load_project
from driftline.runtime.clock import ManualClock
from driftline.serving.rack import ModelRack
from tests.small_model import write_model

SHOP = Path(__file__).parents[2] / "e2e" / "shop"


@pytest.fixture(scope="module")
def project() -> Project:
    return load_project(SHOP)


@pytest.fixture(scope="module")
def trained(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_model(project, folder)
    return folder


@pytest.fixture
def models(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "models"))


def write_version(models: Path, version: str) -> Path:
    """Write another version of the model, not active yet."""
    first = load_bundle(models / "fraud" / "1")
    manifest = first.manifest.model_copy(update={"version": version})
    return write_bundle(models, manifest, model=first.model, card="# Another\n")


def served(rack: ModelRack) -> str | None:
    loaded = rack.get("fraud")
    return loaded and loaded.version


def test_the_active_version_is_loaded(project: Project, models: Path) -> None:
    rack = ModelRack(models, project)
    assert (served(rack), rack.missing, rack.troubles) == ("1", {}, {})
    assert rack.get("nobody") is None


def test_nothing_is_active_until_something_is(project: Project, models: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    rack = ModelRack(empty, project)
    assert served(rack) is None
    assert "no version is active" in rack.missing["fraud"]
    shutil.copytree(models, empty)
    rack.refresh()
    assert (served(rack), rack.missing) == ("1", {})


def test_it_follows_what_is_activated_and_back(project: Project, models: Path) -> None:
    rack = ModelRack(models, project)
    write_version(models, "2")
    rack.refresh()
    assert served(rack) == "1"
    for version in ("2", "1"):
        activate(models, "fraud", version)
        rack.refresh()
        assert served(rack) == version


@pytest.mark.parametrize("file", ["model.onnx", "manifest.json", "card.md"])
def test_a_changed_file_keeps_the_old_version_and_is_reported(
    project: Project, models: Path, file: str
) -> None:
    rack = ModelRack(models, project)
    path = write_version(models, "2")
    activate(models, "fraud", "2")
    (path / file).write_bytes((path / file).read_bytes() + b" ")
    rack.refresh()
    assert (served(rack), rack.missing) == ("1", {})
    assert "SHA-256" in rack.troubles["fraud"]
    activate(models, "fraud", "1")
    rack.refresh()
    assert (served(rack), rack.troubles) == ("1", {})
    assert served(ModelRack(models, project)) == "1"


def test_a_changed_file_without_an_old_version_is_missing_with_the_reason(
    project: Project, models: Path
) -> None:
    (models / "fraud" / "1" / "model.onnx").write_bytes(b"not a model")
    rack = ModelRack(models, project)
    assert served(rack) is None
    assert "SHA-256" in rack.missing["fraud"]


def test_features_that_are_not_declared_any_more_are_refused(project: Project, models: Path) -> None:
    declaration = project.models["fraud"]
    smaller = replace(project, models={"fraud": replace(declaration, views=declaration.views[:1])})
    rack = ModelRack(models, smaller)
    assert served(rack) is None
    assert "merchant_payments@1" in rack.missing["fraud"]
    assert "train a new version" in rack.missing["fraud"]


def test_a_version_that_cannot_score_keeps_the_old_one(
    project: Project, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rack = ModelRack(models, project)
    write_version(models, "2")
    activate(models, "fraud", "2")

    def fail(*_: object) -> np.ndarray:
        raise RuntimeError("Non-zero status code returned while running a node")

    monkeypatch.setattr(Scorer, "score", fail)
    rack.refresh()
    assert served(rack) == "1"
    assert "Non-zero status" in rack.troubles["fraud"]


def standing(models: Path) -> Standing:
    found = read_standing(models, "fraud")
    assert found is not None
    return found


def test_a_model_out_of_service_is_dropped_at_once_and_says_why(project: Project, models: Path) -> None:
    rack = ModelRack(models, project)
    before = standing(models)
    write_standing(models, "fraud", Standing(active=None, withdrawn="fraud@1 was pulled by ann: it insults"))
    rack.refresh()
    assert served(rack) is None
    why = "model 'fraud' is out of service: fraud@1 was pulled by ann: it insults"
    assert (rack.missing, rack.withdrawn, rack.troubles) == ({"fraud": why}, {"fraud": why}, {})
    write_standing(models, "fraud", before)
    rack.refresh()
    assert (served(rack), rack.missing, rack.withdrawn) == ("1", {}, {})


def test_a_pulled_version_is_dropped_even_where_its_successor_cannot_be_loaded(
    project: Project, models: Path
) -> None:
    rack = ModelRack(models, project)
    missing = Pinned(version="0", sha256="")
    write_standing(models, "fraud", Standing(active=missing))
    rack.refresh()
    assert served(rack) == "1"
    write_standing(models, "fraud", Standing(active=missing, pulled=("1",)))
    rack.refresh()
    assert served(rack) is None
    assert "cannot be read" in rack.missing["fraud"]


def test_an_active_version_that_cannot_be_loaded_is_answered_for_and_told_after_a_while(
    project: Project, models: Path
) -> None:
    path = write_version(models, "2")
    activate(models, "fraud", "2")
    card = (path / "card.md").read_bytes()
    (path / "card.md").write_bytes(b"changed")
    time = [0.0]
    rack = ModelRack(models, project, ManualClock(7), lambda: time[0])
    loaded = rack.get("fraud")
    assert loaded is not None
    assert loaded.version == "1"
    assert loaded.unusable.startswith("fraud@2 cannot be used: ")
    rack.refresh()
    assert rack.take_incidents() == []  # it may still be on its way here
    for time[0] in (10.0, 20.0):
        rack.refresh()
    (found,) = rack.take_incidents()
    assert (found.version, found.champion, found.failing, found.answered_by) == ("2", True, True, "1")
    assert "SHA-256" in found.reason
    (path / "card.md").write_bytes(card)
    rack.refresh()
    assert (served(rack), rack.troubles) == ("2", {})
    assert [(one.version, one.failing) for one in rack.take_incidents()] == [("2", False)]
