"""What the monitoring lines compare is the same on both sides, and a peer that answers otherwise is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import wasserstein_distance

from benchmarks import scored
from benchmarks.drift_evaluation import MOVED, Values, Window
from benchmarks.profile_cost import FEATURES, Batch, histograms, profiled, reference_of
from driftline.contracts.batch_codec import BatchEncoder
from driftline.contracts.project_schemas import label_schema, prediction_schema
from driftline.models.model_reference import ModelReferences
from driftline.project import load_project


@pytest.fixture(scope="module")
def window() -> Window:
    return Window.of(2_000, 12, replicates=2_000)


def as_evidently(window: Window) -> dict[str, tuple[float, float]]:
    """Evidently's statistic and threshold, from SciPy."""
    pairs = zip(window.reference_table.T, window.current_table.T, strict=True)
    return {
        f"x{place}": (wasserstein_distance(before, now) / before.std(), 0.1)
        for place, (before, now) in enumerate(pairs)
    }


def test_both_sides_find_the_moved_columns(window: Window) -> None:
    window.check(as_evidently(window), wasserstein=True)


@pytest.mark.parametrize(("column", "value"), [("x0", 0.01), (f"x{MOVED}", 0.9)])
def test_a_peer_that_misses_or_invents_drift_is_refused(window: Window, column: str, value: float) -> None:
    values: Values = {**as_evidently(window), column: (value, 0.1)}
    with pytest.raises(ValueError, match="found by us"):
        window.check(values, wasserstein=False)


def test_another_distance_is_refused(window: Window) -> None:
    values = as_evidently(window)
    values["x1"] = (values["x1"][0] * 1.001, 0.1)
    with pytest.raises(ValueError, match="distance of x1"):
        window.check(values, wasserstein=True)


def test_the_raw_histograms_count_the_rows_that_the_profile_counts() -> None:
    rng = np.random.default_rng(1)
    batch = Batch.of(rng, 3_000)
    profile, counts = profiled(reference_of(batch), batch), histograms(batch)
    assert len(counts) == FEATURES == len(profile.bins) + len(profile.cells)
    assert [one.sum() for one in counts] == [3_000] * FEATURES
    for cells, found in zip(profile.cells, counts[len(profile.bins) :], strict=True):
        assert sorted(cells[cells > 0]) == sorted(found[found > 0])


def test_each_label_names_one_prediction_and_comes_within_its_horizon(tmp_path: Path) -> None:
    project = load_project(scored.PROJECT)
    (model,) = project.labelled_models
    assert model.label is not None
    predictions = list(scored.prediction_batches(project, 25_000))
    labels = list(scored.label_batches(25_000))
    assert len(BatchEncoder(prediction_schema(project), 1).encode(predictions[0])) == 20_000
    assert len(BatchEncoder(label_schema(), 1).encode(labels[1])) == 5_000
    asked = {
        key: at
        for batch in predictions
        for key, at in zip(batch.column("order_id").to_pylist(), _micros(batch, "event_time"), strict=True)
    }
    known = [
        pair
        for batch in labels
        for pair in zip(batch.column("key").to_pylist(), _micros(batch, "known_at"), strict=True)
    ]
    assert sorted(key for key, _ in known) == sorted(asked)
    assert all(0 < at - asked[key] <= model.label.horizon_us for key, at in known)
    times = [at for _, at in known]
    assert times == sorted(times)
    assert [key for key, _ in known] != sorted(asked)
    scored.write_reference(project, tmp_path)
    found = ModelReferences(tmp_path).find(scored.MODEL, scored.VERSION)
    assert found is not None
    assert set(found.references) == {"", *(f"site={site}" for site in scored.SITES)}


def _micros(batch: pa.RecordBatch, name: str) -> list[int]:
    return batch.column(name).cast("int64").to_pylist()
