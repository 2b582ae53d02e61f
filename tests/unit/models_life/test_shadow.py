"""Paired outcomes by day are the same however partitions and batches are cut, corrections included."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.project_schemas import outcome_schema
from driftline.models.bundle import load_bundle
from driftline.models.comparison import Block, paired_blocks
from driftline.models.scoring import Scorer
from driftline.models.shadow import Pair, PairedOutcomes, Shadow, score_logged
from driftline.project import Project, load_project
from driftline.runtime.durations import DAY_US
from tests.small_model import write_model

SHOP = Path(__file__).parents[2] / "e2e" / "shop"
HOUR = 3_600_000_000
PAIR = Pair(model="fraud", champion="1", challenger="2", start_us=10 * DAY_US)


@pytest.fixture(scope="module")
def project() -> Project:
    return load_project(SHOP)


@pytest.fixture(scope="module")
def scorers(project: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scorer, Scorer]:
    folder = tmp_path_factory.mktemp("models")
    write_model(project, folder, "1")
    write_model(project, folder, "2")
    first, second = (Scorer(load_bundle(folder / "fraud" / version)) for version in ("1", "2"))
    return first, Swapped(second)  # type: ignore[return-value]


class Swapped:
    """The same model turned around, so that the two differ."""

    def __init__(self, scorer: Scorer) -> None:
        self.manifest = scorer.manifest
        self._scorer = scorer
        self.categories = scorer.categories

    def score(self, numeric: np.ndarray, categorical: dict[str, list[str | None]]) -> np.ndarray:  # type: ignore[type-arg]
        return 1 - self._scorer.score(numeric, categorical)


def outcomes(project: Project, rows: list[dict[str, object]]) -> pa.RecordBatch:
    """Rows of ``outcomes`` with everything that is not said filled in."""
    schema = arrow_schema(outcome_schema(project))
    columns = []
    for field in schema:
        default: object = None
        if not field.nullable:
            default = "" if pa.types.is_string(field.type) else 0
        columns.append(pa.array([row.get(field.name, default) for row in rows]).cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def row(number: int, day: float, label: float | None, **more: object) -> dict[str, object]:
    rng = random.Random(number)
    at = int(day * DAY_US)
    return {
        "request_id": str(number),
        "model": "fraud",
        "model_version": "1",
        "kind": "JOINED",
        "label": label,
        "event_time": at,
        "label_known_at": at + 6 * HOUR,
        "customer": f"customer-{number % 7}",
        "merchant": "merchant-1",
        "amount": rng.uniform(0, 100),
        **more,
    }


def paired(scorers: tuple[Scorer, Scorer], sources: int = 1) -> Shadow:
    one = PairedOutcomes(PAIR, *scorers, horizon_us=DAY_US)
    return Shadow({PAIR: one}, sources=sources)


def feed(shadow: Shadow, project: Project, rows: list[dict[str, object]], source: int = 0) -> None:
    shadow.add(source, outcomes(project, rows))


def expected(project: Project, scorers: tuple[Scorer, Scorer], rows: list[dict[str, object]]) -> list[Block]:
    """The oracle: all rows at once."""
    table = outcomes(project, rows)
    first, second = (score_logged(scorer, table) for scorer in scorers)
    asked = np.array([one["event_time"] for one in rows], np.int64)
    labels = np.array([one["label"] for one in rows], np.float64)
    return paired_blocks(asked, labels, first, second)


def assert_same(found: list[Block], wanted: list[Block]) -> None:
    assert [(one.day, one.rows) for one in found] == [(one.day, one.rows) for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.champion_loss == pytest.approx(other.champion_loss)
        assert one.challenger_loss == pytest.approx(other.challenger_loss)
        assert one.difference != 0


END = row(999, 99, None)


def test_only_complete_days_from_the_start_on_count(project: Project, scorers: tuple[Scorer, Scorer]) -> None:
    rows = [row(number, 9.5 + number / 10, float(number % 2)) for number in range(20)]
    shadow = paired(scorers)
    feed(shadow, project, rows)
    assert shadow.closed(PAIR) == []
    feed(shadow, project, [row(1, 11, None, label_known_at=12 * DAY_US)])
    assert_same(shadow.closed(PAIR), expected(project, scorers, rows[5:15]))
    assert shadow.known_us(PAIR, 10) == 12 * DAY_US


def test_other_models_and_rows_without_a_label_do_not_count(
    project: Project, scorers: tuple[Scorer, Scorer]
) -> None:
    good = [row(number, 10.1, 1.0) for number in range(3)]
    shadow = paired(scorers)
    feed(shadow, project, [*good, row(9, 10.1, 1.0, model="other"), row(8, 10.1, None), END])
    assert_same(shadow.closed(PAIR), expected(project, scorers, good))


def test_a_corrected_label_takes_the_place_of_the_first(
    project: Project, scorers: tuple[Scorer, Scorer]
) -> None:
    first = [row(number, 10.1, 1.0) for number in range(4)]
    corrections = [
        row(0, 10.1, 0.0, kind="CORRECTED", previous_label=1.0),
        row(1, 10.1, None, kind="CORRECTED", previous_label=1.0),
        row(7, 10.1, 1.0, kind="CORRECTED", previous_label=None),
    ]
    shadow = paired(scorers)
    feed(shadow, project, first)
    feed(shadow, project, [*corrections, END])
    true = [row(0, 10.1, 0.0), *first[2:], row(7, 10.1, 1.0)]
    assert_same(shadow.closed(PAIR), expected(project, scorers, true))


def test_a_day_waits_for_every_partition(project: Project, scorers: tuple[Scorer, Scorer]) -> None:
    rows = [row(number, 10.1, 1.0) for number in range(3)]
    shadow = paired(scorers, sources=2)
    feed(shadow, project, [*rows, END], source=0)
    assert shadow.closed(PAIR) == []
    feed(shadow, project, [row(50, 10.2, 0.0)], source=1)
    assert shadow.closed(PAIR) == []
    feed(shadow, project, [END], source=1)
    assert_same(shadow.closed(PAIR), expected(project, scorers, [*rows, row(50, 10.2, 0.0)]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_blocks_do_not_depend_on_how_partitions_and_batches_are_cut(
    project: Project, scorers: tuple[Scorer, Scorer], data: st.DataObject
) -> None:
    days = st.floats(9, 14)
    partitions: list[list[dict[str, object]]] = [
        [
            row(number, day, label, label_known_at=int((day + late) * DAY_US))
            for number, (day, label, late) in enumerate(
                data.draw(
                    st.lists(st.tuples(days, st.sampled_from([0.0, 1.0, None]), st.floats(0, 4)), max_size=15)
                )
            )
        ]
        + [END]
        for _ in range(2)
    ]
    plain, cut = paired(scorers, sources=2), paired(scorers, sources=2)
    for source, rows in enumerate(partitions):
        feed(plain, project, rows, source)
    left = [list(rows) for rows in partitions]
    while any(left):
        source = data.draw(st.sampled_from([number for number, rows in enumerate(left) if rows]))
        size = data.draw(st.integers(1, 5))
        feed(cut, project, left[source][:size], source)
        left[source] = left[source][size:]
    found, wanted = cut.closed(PAIR), plain.closed(PAIR)
    assert [(one.day, one.rows) for one in found] == [(one.day, one.rows) for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.difference == pytest.approx(other.difference)
