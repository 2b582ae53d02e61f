"""The demo's model is better than the moving average, and not too good to be true."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from driftline.models.quality import moving_average, quality
from driftline.models.scoring import Scorer
from driftline.models.training import Trained, train
from driftline.models.training_set import assemble, labelled_requests
from driftline.project import load_project
from driftline.project.history import load_history

PROJECT = load_project(Path(__file__).parents[3] / "examples" / "flights")
APRIL = (date(2013, 3, 25), date(2013, 5, 3))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("models")
    return train(PROJECT, "lateness", folder, start=date(2013, 1, 1), end=date(2013, 4, 1))


def test_april_is_predicted_honestly_and_better_than_by_the_moving_average(trained: Trained) -> None:
    history = load_history(PROJECT, *APRIL)
    requests = labelled_requests(history.requests, 2**62)
    rows = assemble(PROJECT.models["lateness"], history, requests)
    april = (rows.as_of_us >= np.datetime64("2013-04-01", "us").astype(int)) & (
        rows.as_of_us < np.datetime64("2013-05-01", "us").astype(int)
    )
    averages = moving_average(rows.label_known_us, rows.labels, rows.as_of_us, fallback=0.25)
    scores = Scorer(trained.bundle).score(rows.numeric, rows.categorical)

    model = quality(rows.labels[april], scores[april])
    baseline = quality(rows.labels[april], np.clip(averages[april], 1e-3, 1 - 1e-3))
    assert 0.74 <= model.auc <= 0.81  # above .81 something of the future is in the features
    assert model.log_loss < baseline.log_loss - 0.03
    assert model.brier < baseline.brier


def test_validation_says_the_same(trained: Trained) -> None:
    metrics = trained.bundle.manifest.metrics
    assert 0.74 <= metrics["model"].auc <= 0.81
    assert metrics["model"].log_loss < metrics["moving_average"].log_loss < metrics["constant"].log_loss


def test_about_forty_streaming_features_feed_it(trained: Trained) -> None:
    manifest = trained.bundle.manifest
    assert 30 <= sum("__" in name for name in manifest.numeric) <= 40
    assert manifest.conversion.max_difference < 1e-5
