"""A version that reads a view which is being filled waits, and nothing is wrong with it."""

import shutil
from pathlib import Path

import pytest

from driftline.models.bundle import load_bundle, write_bundle
from driftline.models.scoring import Scorer
from driftline.models.standing import activate
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
    """Version 1, active, reads the first view only; version 2 the other one too."""
    models = Path(shutil.copytree(trained, tmp_path / "models"))
    first = load_bundle(models / "fraud" / "1")
    views = first.manifest.views
    assert len(views) > 1
    shutil.rmtree(models / "fraud")
    for version, read in (("1", views[:1]), ("2", views)):
        manifest = first.manifest.model_copy(update={"version": version, "views": read})
        write_bundle(models, manifest, model=first.model, card="# A card\n")
    activate(models, "fraud", "1")
    return models


@pytest.fixture(name="filling")
def filling_fixture(project: Project) -> dict[str, str]:
    ref = project.models["fraud"].views[1].ref
    return {ref: f"feature view {ref} is being filled (43%)"}


def served(rack: ModelRack) -> str | None:
    loaded = rack.get("fraud")
    return loaded and loaded.version


def test_the_prior_answers_until_the_view_is_full(
    project: Project, models: Path, filling: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    incomplete = dict(filling)
    rack = ModelRack(models, project, ManualClock(7), lambda: now[0], incomplete=lambda: incomplete)
    assert (served(rack), rack.troubles) == ("1", {})
    activate(models, "fraud", "2")
    rack.refresh()
    loaded = rack.get("fraud")
    assert loaded is not None
    assert loaded.version == "1"
    (why,) = filling.values()
    assert loaded.unusable == f"fraud@2 waits: {why}"
    assert (rack.missing, rack.troubles) == ({}, {"fraud": why})
    # It is loaded once, not every second.
    monkeypatch.setattr(Scorer, "__init__", lambda *_: pytest.fail("loaded again"))
    for now[0] in (100.0, 200.0):
        rack.refresh()
    assert rack.take_incidents() == []
    incomplete.clear()
    rack.refresh()
    assert (served(rack), rack.troubles, rack.missing) == ("2", {}, {})


def test_without_a_prior_there_is_no_answer_but_the_reason(
    project: Project, models: Path, filling: dict[str, str]
) -> None:
    shutil.rmtree(models / "fraud" / "1")
    activate(models, "fraud", "2")
    rack = ModelRack(models, project, incomplete=lambda: filling)
    assert served(rack) is None
    assert rack.missing == {"fraud": next(iter(filling.values()))}
    for name in filling:
        filling[name] = "feature view merchant_payments@1 is being filled (44%)"
    rack.refresh()
    assert "(44%)" in rack.missing["fraud"]
    filling.clear()
    rack.refresh()
    assert (served(rack), rack.missing) == ("2", {})


def test_a_version_in_service_steps_back_when_its_view_is_filled_anew(
    project: Project, models: Path, filling: dict[str, str]
) -> None:
    activate(models, "fraud", "2")
    incomplete: dict[str, str] = {}
    rack = ModelRack(models, project, incomplete=lambda: incomplete)
    assert served(rack) == "2"
    incomplete.update(filling)
    rack.refresh()
    assert served(rack) == "1"
    incomplete.clear()
    rack.refresh()
    assert served(rack) == "2"


def test_views_that_no_version_reads_are_nobodys_matter(project: Project, models: Path) -> None:
    rack = ModelRack(models, project, incomplete=lambda: {"other@3": "is being filled"})
    activate(models, "fraud", "2")
    rack.refresh()
    assert (served(rack), rack.troubles) == ("2", {})
