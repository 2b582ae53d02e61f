"""Batches become profiles by window and segment; windows without drift raise no more alarms than stated."""

import uuid
from collections import Counter

import numpy as np
import pyarrow as pa
from scipy.stats import binom
from sklearn.metrics import brier_score_loss, log_loss

from driftline.models.model_reference import EVERYTHING, ModelReference
from driftline.monitoring.levels import Level
from driftline.monitoring.profile import Profile
from driftline.project import ModelDeclaration
from services.profiler.summaries import by_version, profiled_outcomes, profiled_predictions
from tests.unit.profiler.conftest import COLUMNS, World

DAY_US = 86_400_000_000


def table(rows: dict, times: np.ndarray, **more: pa.Array) -> pa.RecordBatch:  # type: ignore[type-arg]
    count = len(rows["score"])
    columns = {
        "request_id": pa.array([str(uuid.uuid4()) for _ in range(count)]),
        "model": pa.array(["m"] * count),
        "model_version": pa.array(["1"] * count),
        "event_time": pa.array(times, pa.timestamp("us")),
        "score": pa.array(rows["score"]),
        "site": pa.array(rows["site"]),
        **{name: pa.array(rows["numeric"][:, at]) for at, name in enumerate(COLUMNS)},
        **more,
    }
    return pa.RecordBatch.from_pydict(columns)


def test_every_row_is_in_one_window_of_everything_and_of_its_segment(
    model: ModelDeclaration, reference: ModelReference
) -> None:
    rows = World(1).rows(900)
    times = np.arange(900) * (3 * DAY_US // 900)
    found = dict(profiled_predictions(table(rows, times), model, "1", reference))
    assert {key.window: value.rows for key, value in found.items() if key.segment == EVERYTHING} == {
        0: 300,
        DAY_US: 300,
        2 * DAY_US: 300,
    }
    sites = Counter(rows["site"][:300])
    assert {key.segment: value.rows for key, value in found.items() if key.window == 0 and key.segment} == {
        f"site={name}": count for name, count in sites.items()
    }


def test_batches_merge_to_the_whole(model: ModelDeclaration, reference: ModelReference) -> None:
    rows = World(2).rows(500)
    whole = table(rows, np.zeros(500, np.int64))
    expected = dict(profiled_predictions(whole, model, "1", reference))
    merged: dict = {}  # type: ignore[type-arg]
    for low in range(0, 500, 77):
        for key, profile in profiled_predictions(whole.slice(low, 77), model, "1", reference):
            merged[key] = profile if key not in merged else merged[key].merge(profile)
    assert {key: profile.to_bytes() for key, profile in merged.items()} == {
        key: profile.to_bytes() for key, profile in expected.items()
    }


def test_accuracy_of_a_window_equals_scikit_learn(model: ModelDeclaration, reference: ModelReference) -> None:
    rows = World(3).rows(800)
    labels = rows["label"].astype(float)
    labels[::50] = np.nan
    kinds = np.array(["JOINED"] * 800, dtype=object)
    kinds[1::97] = "CORRECTED"
    batch = table(
        rows,
        np.zeros(800, np.int64),
        kind=pa.array(kinds.tolist()),
        label=pa.array(labels, mask=np.isnan(labels)),
        label_known_at=pa.array(np.zeros(800, np.int64), pa.timestamp("us")),
        value=pa.array(np.ones(800)),
    )
    found = dict(profiled_outcomes(batch, model, "1", reference))
    counted = ~np.isnan(labels) & (kinds != "CORRECTED")
    for segment in (EVERYTHING, "site=west"):
        (accuracy,) = [profile.accuracy() for key, profile in found.items() if key.segment == segment]
        mine = counted & (np.array(rows["site"]) == "west" if segment else True)
        assert accuracy.rows == mine.sum()
        np.testing.assert_allclose(accuracy.log_loss, log_loss(labels[mine], rows["score"][mine]), rtol=1e-9)
        np.testing.assert_allclose(
            accuracy.brier, brier_score_loss(labels[mine], rows["score"][mine]), rtol=1e-9
        )


def test_rows_go_by_the_version_that_scored_them(model: ModelDeclaration) -> None:
    rows = World(4).rows(10)
    versions = ["1", "2"] * 4 + [None, None]
    scores = pa.array([*rows["score"][:8].tolist(), None, None])
    batch = table(rows, np.zeros(10, np.int64)).set_column(2, "model_version", pa.array(versions))
    batch = batch.set_column(batch.schema.get_field_index("score"), "score", scores)
    assert [(name, version, part.num_rows) for name, version, part in by_version(batch)] == [
        ("m", "1", 4),
        ("m", "2", 4),
    ]


def judged(model: ModelDeclaration, reference: ModelReference, rows: dict) -> dict[str, Level]:  # type: ignore[type-arg]
    """The worst level of each segment in a window, with the columns that passed the alert threshold."""
    batch = table(rows, np.zeros(len(rows["score"]), np.int64))
    levels = {}
    for key, profile in profiled_predictions(batch, model, "1", reference):
        assert isinstance(profile, Profile)
        found = reference.judge(key.segment, profile)
        levels[key.segment] = max((one.level for one in found), key=lambda level: level.rank)
    return levels


def test_ten_weeks_without_drift_raise_no_more_alarms_than_stated(
    model: ModelDeclaration, reference: ModelReference
) -> None:
    world = World(5)
    windows = [judged(model, reference, world.rows(900)) for _ in range(70)]
    alerts = sum(Level.ALERT in window.values() for window in windows)
    warnings = sum(any(level is not Level.NONE for level in window.values()) for window in windows)
    # All segments together: at most what the stated rates allow, with one chance in a thousand.
    assert alerts <= binom.ppf(0.999, 70, 1 / 200)
    assert warnings <= binom.ppf(0.999, 70, 1 / 20)


def test_half_a_deviation_in_one_segment_is_found_and_named(
    model: ModelDeclaration, reference: ModelReference
) -> None:
    world = World(6)
    for _ in range(10):
        found = False
        for _ in range(2):
            batch = table(world.rows(900, shift=0.5, where="north", column=2), np.zeros(900, np.int64))
            for key, profile in profiled_predictions(batch, model, "1", reference):
                passed = [
                    one.measurement.column
                    for one in reference.judge(key.segment, profile)
                    if one.level is not Level.NONE
                ]
                found |= key.segment == "site=north" and "x2" in passed
        assert found
