"""Gates hold a new version against baselines and the champion, on rows that neither has learnt from."""

from typing import Any

import numpy as np
import pytest

from driftline.models.bundle import Quality
from driftline.models.gates import Gate, HeldBack, baseline_gate, champion_gate
from driftline.runtime.durations import DAY_US


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


def test_a_margin_over_the_baselines_must_be_exceeded() -> None:
    metrics = {"model": worth(0.45), "constant": worth(0.46)}
    assert baseline_gate(metrics, margin=0.005).passed
    found = baseline_gate(metrics, margin=0.02)
    assert (found.passed, found.alert) == (False, True)
    assert found.reason == (
        "the baseline constant is not beaten by more than 0.02: log loss 0.4600 against 0.4500"
    )


def against(part: HeldBack, champion: Any, **more: Any) -> Gate:
    return champion_gate(part, champion, **{"least_rows": 500, **more})


def held_back(scores: np.ndarray, labels: np.ndarray) -> HeldBack:  # type: ignore[type-arg]
    as_of = np.arange(len(labels), dtype=np.int64) * DAY_US // 100
    return HeldBack(as_of_us=as_of, labels=labels, scores=scores)


@pytest.fixture
def labels() -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(1).random(2000) < 0.3


def test_the_better_one_on_the_same_rows_passes(labels: np.ndarray) -> None:  # type: ignore[type-arg]
    good, bad = np.where(labels, 0.7, 0.2), np.full(len(labels), 0.3)
    assert against(held_back(good, labels), bad).passed
    refused = against(held_back(bad, labels), good)
    assert not refused.passed
    assert refused.reason.startswith("not better: log loss")
    assert not against(held_back(good, labels), good).passed


def test_a_margin_over_the_champion_must_be_exceeded(labels: np.ndarray) -> None:  # type: ignore[type-arg]
    good, bad = np.where(labels, 0.7, 0.2), np.full(len(labels), 0.3)
    found = against(held_back(good, labels), bad)
    advantage = found.measured["mean"]
    assert advantage is not None
    assert against(held_back(good, labels), bad, margin=advantage * 0.99).passed
    refused = against(held_back(good, labels), bad, margin=advantage * 1.01)
    assert not refused.passed
    assert refused.reason.startswith("not better by more than ")


def test_the_least_number_of_rows_is_the_callers(labels: np.ndarray) -> None:  # type: ignore[type-arg]
    part, good = held_back(np.full(len(labels), 0.3), labels), np.where(labels, 0.7, 0.2)
    assert not against(part, good, least_rows=len(labels)).passed
    assert against(part, good, least_rows=len(labels) + 1).passed


def test_rows_that_the_champion_may_have_learnt_from_do_not_count(labels: np.ndarray) -> None:  # type: ignore[type-arg]
    """There the champion knows the answers."""
    truth = np.where(labels, 0.99, 0.01)
    half = len(labels) // 2
    champion = np.where(np.arange(len(labels)) < half, truth, 0.3)
    candidate = np.where(labels, 0.6, 0.25)
    part = held_back(candidate, labels)
    until = int(part.as_of_us[half])
    assert not against(part, champion).passed
    fair = against(part, champion, champion_until_us=until)
    assert fair.passed
    assert fair.measured["outcomes"] == half
    open_gate = against(part, champion, champion_until_us=int(part.as_of_us[-10]))
    assert open_gate.passed
    assert "only 10 held-back rows" in open_gate.reason


def test_a_candidate_that_was_measured_knowing_less_is_no_evidence(labels: np.ndarray) -> None:  # type: ignore[type-arg]
    good, bad = np.where(labels, 0.7, 0.2), np.full(len(labels), 0.3)
    part = held_back(bad, labels)
    until = int(part.as_of_us[200])
    found = against(part, good, champion_until_us=until, candidate_until_us=until)
    assert found.passed
    assert "nothing to compare yet" in found.reason
    later = against(part, good, champion_until_us=until, candidate_until_us=until + 1)
    assert not later.passed


def test_without_a_champion_there_is_nothing_to_beat(labels: np.ndarray) -> None:  # type: ignore[type-arg]
    assert against(held_back(np.full(len(labels), 0.3), labels), None).passed
