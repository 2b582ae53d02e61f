"""A renumbering of an input's codes: the model in service, its training, its drift and its next version do not notice."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from driftline.models.bundle import load_bundle
from driftline.models.fitting import declared_model, gather
from driftline.models.model_event import Kind
from driftline.models.model_reference import load_model_reference
from driftline.models.retraining_job import RetrainingJob, champion_scores, data_profile
from driftline.models.scoring import Scorer
from driftline.models.shadow import score_logged
from driftline.models.standing import load_active
from driftline.models.tracking import Tracking, tracking_uri
from driftline.models.training import train
from driftline.project import Project, load_project
from driftline.project.history import load_history
from driftline.runtime.clock import ManualClock
from services.profiler.summaries import profiled_predictions
from tests.unit.models_life.market import START, TURN, ask, day_us, write_market

UNTIL = day_us(2024, 2, 25)
LISTS = """code_lists:
  colours:
    inputs: [colour]
    reads: READS
    versions:
      - version: 2
        since: 2024-02-01T00:00:00Z
        from: {"red": "blue", "blue": "green", "green": "red"}
models:
"""
COLOURS = '"colour": [["red", "red", "blue", "green", None][i % 5] for i in range(ROWS)]'
LATER = "day >= np.datetime64('2024-02-01').astype(int)"
NEW = '["blue", "blue", "green", "red", None]'
ALWAYS_NEW = f'"colour": [{NEW}[i % 5] for i in range(ROWS)]'
RENUMBERED = (
    f'"colour": [[["red", "red", "blue", "green", None], {NEW}][int({LATER})][i % 5] for i in range(ROWS)]'
)


def write(folder: Path, *, colours: str, reads: int | None) -> Project:
    write_market(folder)
    history = (folder / "history.py").read_text()
    old = '"colour": ["red" if i % 3 else None for i in range(ROWS)]'
    assert old in history
    history = history.replace(old, colours)
    # What comes back follows the colour, so that a wrong one gives another score.
    history = history.replace(
        "    label = rng",
        "    push = push + np.array([2, 2, -2, 0, 0])[np.arange(ROWS) % 5]\n    label = rng",
    )
    (folder / "history.py").write_text(history)
    if reads is not None:
        declaration = (folder / "driftline.yaml").read_text()
        lists = LISTS.replace("READS", str(reads))
        (folder / "driftline.yaml").write_text(declaration.replace("models:\n", lists))
    return load_project(folder)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Project]:
    return lambda **how: write(tmp_path_factory.mktemp("market"), **how)


@pytest.fixture(scope="module")
def before(make: Callable[..., Project]) -> Project:
    """The world whose source never switched."""
    return make(colours=COLOURS, reads=None)


@pytest.fixture(scope="module")
def reading_old(make: Callable[..., Project]) -> Project:
    return make(colours=RENUMBERED, reads=1)


@pytest.fixture(scope="module")
def reading_new(make: Callable[..., Project]) -> Project:
    return make(colours=RENUMBERED, reads=2)


@pytest.fixture(scope="module")
def models(before: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    train(before, "returns", folder, start=START, end=TURN)
    return folder


def requests(project: Project) -> pa.Table:
    """Requests as they come, with features that nobody looks at."""
    table = load_history(project, START, TURN).requests
    for name in declared_model(project, "returns").numeric_columns:
        if name not in table.column_names:
            table = table.append_column(name, pa.array(np.zeros(len(table))))
    return table


def test_the_training_set_is_the_same_to_the_byte(before: Project, reading_old: Project) -> None:
    hashes = {
        gather(
            project, declared_model(project, "returns"), start=START, until_us=UNTIL, known_by_us=UNTIL
        ).rows.sha256()
        for project in (before, reading_old)
    }
    assert len(hashes) == 1


def test_without_the_list_it_is_another(before: Project, make: Callable[..., Project]) -> None:
    silent = make(colours=RENUMBERED, reads=None)
    first, second = (
        gather(project, declared_model(project, "returns"), start=START, until_us=UNTIL, known_by_us=UNTIL)
        for project in (before, silent)
    )
    assert first.rows.sha256() != second.rows.sha256()


@pytest.mark.parametrize("reader", ["reading_old", "reading_new"])
def test_a_model_of_the_old_codes_serves_requests_with_new_ones(
    before: Project, models: Path, reader: str, request: pytest.FixtureRequest
) -> None:
    """Whatever the project reads by now: the bundle says what it learned from."""
    project: Project = request.getfixturevalue(reader)
    bundle = load_active(models, "returns")
    assert bundle is not None
    scorer = Scorer(bundle, declared_model(project, "returns").coded_inputs)
    expected = score_logged(Scorer(bundle), requests(before))
    assert score_logged(scorer, requests(project)).tobytes() == expected.tobytes()
    assert not np.array_equal(score_logged(Scorer(bundle), requests(project)), expected)


def test_a_model_of_the_new_codes_serves_requests_with_old_ones(
    make: Callable[..., Project], reading_new: Project, tmp_path: Path
) -> None:
    """It learns what it would have learned, had the codes always been the new ones."""
    always = make(colours=ALWAYS_NEW, reads=None)
    expected = train(always, "returns", tmp_path / "always", start=START, end=TURN).bundle
    bundle = train(reading_new, "returns", tmp_path / "switched", start=START, end=TURN).bundle
    assert bundle.manifest.codes == {"colour": 2}
    assert bundle.manifest.training.sha256 == expected.manifest.training.sha256
    scorer = Scorer(bundle, declared_model(reading_new, "returns").coded_inputs)
    table = requests(reading_new)
    assert table["colour"][0].as_py() == "red"  # in January
    assert score_logged(scorer, table).tobytes() == score_logged(Scorer(expected), requests(always)).tobytes()


def test_a_code_without_a_counterpart_is_unseen_and_counted(models: Path, reading_old: Project) -> None:
    bundle = load_active(models, "returns")
    assert bundle is not None
    scorer = Scorer(bundle, declared_model(reading_old, "returns").coded_inputs)
    table = requests(reading_old)
    strange = pa.array(["violet"] * len(table))
    table = table.set_column(table.column_names.index("colour"), "colour", strange)
    given = {name: table[name].to_pylist() for name in bundle.manifest.categorical}
    categories, unmapped = scorer.categories(given, table["event_time"].cast("int64").to_numpy())
    later = sum(table["event_time"].cast("int64").to_numpy() >= day_us(2024, 2, 1))
    assert set(categories["colour"]) == {"violet", "violet@2"}
    assert unmapped == {"colours": later}


def test_a_renumbering_is_no_drift(models: Path, before: Project, reading_old: Project) -> None:
    bundle = load_active(models, "returns")
    assert bundle is not None
    reference = load_model_reference(bundle.path)
    assert reference is not None

    def profiles(project: Project, *, knows: bool) -> dict[object, bytes]:
        table = requests(project)
        table = table.append_column("score", pa.array(np.linspace(0.1, 0.9, len(table))))
        model = declared_model(project, "returns")
        inputs = tuple(one if knows else replace(one, codes=None) for one in model.inputs)
        batch = table.combine_chunks().to_batches()[0]
        found = profiled_predictions(batch, replace(model, inputs=inputs), "1", reference)
        return {key: profile.to_bytes() for key, profile in found}

    expected = profiles(before, knows=True)
    assert profiles(reading_old, knows=True) == expected
    assert profiles(reading_old, knows=False) != expected


def test_the_next_version_learns_the_new_codes_and_is_held_against_the_champion_of_the_old(
    models: Path, reading_new: Project, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    tracking = Tracking(tracking_uri(tmp_path), tmp_path / "mlflow", reading_new.name)
    made = ask(day_us(2024, 4, 25), "s1")
    told = RetrainingJob(reading_new, folder, tracking, clock=ManualClock(7)).run(made)
    assert [fact.kind for fact in told] == [Kind.REGISTERED, Kind.VALIDATED, Kind.CHALLENGER]
    bundle = load_bundle(folder / "returns" / made.version)
    assert bundle.manifest.codes == {"colour": 2}
    reference = load_model_reference(bundle.path)
    assert reference is not None
    assert reference.codes == {"colour": 2}


def test_the_champion_is_asked_in_its_own_codes(models: Path, before: Project, reading_new: Project) -> None:
    champion = load_active(models, "returns")
    assert champion is not None
    scores = []
    for project in (before, reading_new):
        model = declared_model(project, "returns")
        rows = gather(project, model, start=START, until_us=UNTIL, known_by_us=UNTIL).rows
        found = champion_scores(champion, rows, model)
        assert found is not None
        scores.append(found.tobytes())
    assert scores[0] == scores[1]
    profile = data_profile(champion)
    assert profile is not None
    (coded,) = declared_model(reading_new, "returns").coded_inputs
    spoken = profile.spoken([coded], champion.manifest.codes).categorical["colour"].counts
    kept = profile.categorical["colour"].counts
    assert spoken == {"blue": kept["red"], "green": kept["blue"], "red": kept["green"]}
