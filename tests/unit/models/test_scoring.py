"""A row's score depends on nothing but the row, to the last bit."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.models.bundle import Bundle, BundleError
from driftline.models.scoring import Scorer

from .conftest import Converted, Sample, make_manifest

numbers = st.one_of(st.floats(width=32), st.sampled_from([0.0, -0.0, 1.0, float("nan"), 1e300, -1e300]))
texts = st.one_of(st.none(), st.sampled_from(["north", "south", "east", "red"]), st.text(max_size=5))
rows = st.lists(st.tuples(numbers, numbers, numbers, texts, texts), min_size=1, max_size=60)


@pytest.fixture(scope="session")
def scorer(converted: Converted) -> Scorer:
    bundle = Bundle(path=Path("bundle"), manifest=make_manifest(), model=converted.model, sha256="")
    return Scorer(bundle)


@given(rows=rows, cuts=st.lists(st.integers(1, 60), max_size=8))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_bits_at_any_batch_size(
    scorer: Scorer, rows: list[tuple[float, float, float, str | None, str | None]], cuts: list[int]
) -> None:
    numeric = np.array([row[:3] for row in rows], dtype=np.float64)
    whole = scorer.score(numeric, {"shop": [row[3] for row in rows], "colour": [row[4] for row in rows]})
    for bounds in (
        sorted({0, *(cut for cut in cuts if cut < len(rows)), len(rows)}),
        range(len(rows) + 1),
    ):
        edges = list(bounds)
        parts = [
            scorer.score(
                numeric[first:last],
                {
                    "shop": [row[3] for row in rows[first:last]],
                    "colour": [row[4] for row in rows[first:last]],
                },
            )
            for first, last in itertools.pairwise(edges)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert np.all((whole >= 0) & (whole <= 1))


def test_large_batches_give_the_bits_of_single_rows(scorer: Scorer, sample: Sample) -> None:
    whole = scorer.score(sample.numeric, sample.categorical)
    alone = [
        scorer.score(
            sample.numeric[row : row + 1],
            {name: values[row : row + 1] for name, values in sample.categorical.items()},
        )[0]
        for row in range(300)
    ]
    assert np.array(alone).tobytes() == whole[:300].tobytes()


def test_scores_are_the_pipelines(scorer: Scorer, sample: Sample, converted: Converted) -> None:
    expected = converted.pipeline.predict_proba(sample.frame)[:, 1]
    np.testing.assert_allclose(scorer.score(sample.numeric, sample.categorical), expected, rtol=0, atol=1e-5)


def test_no_rows_give_no_scores(scorer: Scorer) -> None:
    found = scorer.score(np.empty((0, 3)), {"shop": [], "colour": []})
    assert found.dtype == np.float64
    assert found.shape == (0,)


def test_wrong_shapes_are_refused(scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="takes 3 numeric columns"):
        scorer.score(np.zeros((2, 4)), {"shop": ["north"] * 2, "colour": ["red"] * 2})
    with pytest.raises(ValueError, match="column 'colour' has 1 values for 2 rows"):
        scorer.score(np.zeros((2, 3)), {"shop": ["north"] * 2, "colour": ["red"]})


def test_a_model_that_is_no_onnx_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="cannot load the model"):
        Scorer(replace(bundle, model=b"not a model"))


def test_a_model_with_other_inputs_than_its_manifest_is_refused(bundle: Bundle) -> None:
    manifest = bundle.manifest.model_copy(update={"numeric": ("size",)})
    with pytest.raises(BundleError, match=r"inputs .* are not the manifest's"):
        Scorer(replace(bundle, manifest=manifest))
