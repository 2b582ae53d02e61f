"""The summary's file has the keys that the issue names, and says what is wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from driftline.models.bundle import Quality
from driftline.playback.parity import Mismatch, Parity
from driftline.playback.printing import print_summary
from driftline.playback.reconciliation import Counts
from driftline.playback.rivals import compare_with_rivals
from driftline.playback.summary import Percentiles, Seconds, Summary

QUALITY = Quality(auc=0.75, log_loss=0.5, brier=0.15)
GOOD = Summary(
    counts=Counts(
        acknowledged=10, applied=7, duplicates=2, dead_letters=1, requests=5, predictions=5, differences=()
    ),
    http=Percentiles.of([1.0, 2.0, 9.0]),
    freshness=Percentiles.of([]),
    parity=Parity(compared=100, equal=100, mismatches=()),
    quality={"model": QUALITY, "constant": QUALITY, "moving_average": QUALITY},
    seconds=Seconds(install=1, start=2, train=3, play=4),
)


def test_the_file_has_exactly_the_named_keys(tmp_path: Path) -> None:
    GOOD.write(tmp_path / "demo" / "summary.json")
    found = json.loads((tmp_path / "demo" / "summary.json").read_text())
    scores = {"auc", "log_loss", "brier"}
    assert {key: set(part) if isinstance(part, dict) else None for key, part in found.items()} == {
        "events": {"acknowledged", "applied", "duplicates", "dead_letters"},
        "requests": None,
        "predictions": None,
        "http": {"requests", "p50_ms", "p99_ms"},
        "freshness": {"p50_ms", "p99_ms"},
        "parity": {"compared", "equal_share"},
        "quality": {"model", "constant", "moving_average"},
        "seconds": {"install", "start", "train", "play"},
    }
    assert all(set(part) == scores for part in found["quality"].values())


def test_unequal_values_and_differing_counts_are_problems() -> None:
    assert GOOD.problems == ()
    mismatch = Mismatch(column="a__b", request_id="r", served=1.0, recomputed=None)
    bad = replace(
        GOOD,
        parity=Parity(compared=100, equal=99, mismatches=(mismatch,)),
        counts=replace(GOOD.counts, differences=("1 requests have no prediction, first x",)),
    )
    console = Console(record=True, width=200)
    print_summary(console, bad)
    text = console.export_text()
    assert "1 requests have no prediction, first x" in text
    assert "1 of 100 served feature values differ" in text
    assert "a__b of request r: 1.0 served, None recomputed" in text


def test_the_model_is_judged_on_the_rows_that_have_a_label() -> None:
    hour = 3_600_000_000
    requests = pa.table(
        {
            "request_id": ["a", "b", "c", "d", "e"],
            "event_time": pa.array([hour * i for i in (50, 51, 52, 53, 54)], pa.timestamp("us")),
            "label": [True, False, None, True, False],
            "label_known_at": pa.array(
                [hour * 50 + 1, hour * 51 + 1, None, hour * 53 + 1, hour * 54 + 1], pa.timestamp("us")
            ),
        }
    )
    predictions = pa.table({"request_id": ["a", "b", "c", "d", "e"], "score": [0.9, 0.2, 0.5, 0.6, None]})
    found = compare_with_rivals(predictions, requests, base_rate=0.25)
    assert found["model"].auc == 1.0
    assert found["model"].brier == pytest.approx((0.01 + 0.04 + 0.16) / 3)
    assert found["constant"].brier == pytest.approx((0.5625 + 0.0625 + 0.5625) / 3)
    # a: none known, so .25; b: a is known (true), .999 after clipping; d: a and b, .5
    assert found["moving_average"].brier == pytest.approx((0.5625 + 0.999**2 + 0.25) / 3)
