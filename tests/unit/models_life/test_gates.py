"""Gates hold a new version against baselines and the champion, on rows that neither has learnt from."""

import numpy as np
import pytest

from driftline.models.bundle import Quality
from driftline.models.comparison import DAY_US
from driftline.models.gates import HeldBack, baseline_gate, champion_gate


def worth(log_loss: float) -> Quality:
    return Quality(auc=0.7, log_loss=log_loss, brier=0.2)


def test_a_model_must_beat_every_baseline() -> None:
    metrics = {"model": worth(0.45), "constant": worth(0.5), "moving_average": worth(0.46)}
    assert baseline_gate(metrics).passed
    won = baseline_gate({**metrics, "moving_average": worth(0.44)})
    assert not won.passed
    assert won.alert
    assert "moving average" in won.reason
    assert won.measured["moving_average"] == 0.44


@pytest.mark.parametrize("loss", [0.45, float("nan")])
def test_as_good_as_a_baseline_is_not_enough(loss: float) -> None:
    assert not baseline_gate({"model": worth(loss), "constant": worth(0.45)}).passed


def held_back(scores: np.ndarray, labels: np.ndarray) -> HeldBack:  # type: ignore[type-arg]
    as_of = np.arange(len(labels), dtype=np.int64) * DAY_US // 100
    return HeldBack(as_of_us=as_of, labels=labels, scores=scores)


@pytest.fixture
def labels() -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(1).random(2000) < 0.3


def test_the_better_one_on_the_same_rows_passes(labels: np.ndarray) -> None:  # type: ignore[type-arg]
    good, bad = np.where(labels, 0.7, 0.2), np.full(len(labels), 0.3)
    assert champion_gate(held_back(good, labels), bad).passed
    refused = champion_gate(held_back(bad, labels), good)
    assert not refused.passed
    assert refused.reason.startswith("not better: log loss")
    assert not champion_gate(held_back(good, labels), good).passed


def test_rows_that_the_champion_may_have_learnt_from_do_not_count(labels: np.ndarray) -> None:  # type: ignore[type-arg]
    """There the champion knows the answers."""
    truth = np.where(labels, 0.99, 0.01)
    half = len(labels) // 2
    champion = np.where(np.arange(len(labels)) < half, truth, 0.3)
    candidate = np.where(labels, 0.6, 0.25)
    part = held_back(candidate, labels)
    until = int(part.as_of_us[half])
    assert not champion_gate(part, champion).passed
    fair = champion_gate(part, champion, champion_until_us=until)
    assert fair.passed
    assert fair.measured["outcomes"] == half
    open_gate = champion_gate(part, champion, champion_until_us=int(part.as_of_us[-10]))
    assert open_gate.passed
    assert "only 10 held-back rows" in open_gate.reason


def test_a_candidate_that_was_measured_knowing_less_is_no_evidence(labels: np.ndarray) -> None:  # type: ignore[type-arg]
    good, bad = np.where(labels, 0.7, 0.2), np.full(len(labels), 0.3)
    part = held_back(bad, labels)
    until = int(part.as_of_us[200])
    found = champion_gate(part, good, champion_until_us=until, candidate_until_us=until)
    assert found.passed
    assert "nothing to compare yet" in found.reason
    later = champion_gate(part, good, champion_until_us=until, candidate_until_us=until + 1)
    assert not later.passed


def test_without_a_champion_there_is_nothing_to_beat(labels: np.ndarray) -> None:  # type: ignore[type-arg]
    assert champion_gate(held_back(np.full(len(labels), 0.3), labels), None).passed
