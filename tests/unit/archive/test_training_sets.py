"""A training set's name means the same rows for ever, bit by bit."""

import math
import struct
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.archive.tables import TRAINING_SETS, Archive
from driftline.archive.training_rows import rows_of, table_of
from driftline.archive.training_sets import (
    TrainingSetChangedError,
    TrainingSets,
    content_sha256,
    models_with_sets,
)
from driftline.models.training_set import Rows
from driftline.project import load_project
from driftline.runtime.clock import ManualClock
from driftline.runtime.errors import ConfigurationError

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"
COLUMNS = {
    "i8": (pa.int8(), st.integers(-128, 127)),
    "i32": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "i64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "f32": (pa.float32(), st.floats(width=32)),
    "f64": (pa.float64(), st.floats()),
    "b": (pa.bool_(), st.booleans()),
    "s": (pa.string(), st.text(max_size=5)),
    "y": (pa.binary(), st.binary(max_size=5)),
    "d": (pa.date32(), st.dates()),
    "t": (pa.timestamp("us"), st.integers(-(2**52), 2**52)),
    "z": (pa.timestamp("us", "Europe/Berlin"), st.integers(-(2**52), 2**52)),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, unique=True))
    total = draw(st.integers(0, 20))
    columns = {}
    for name in names:
        kind, values = COLUMNS[name]
        cells = draw(st.lists(st.none() | values, min_size=total, max_size=total))
        columns[name] = pa.array(cells, pa.int64()).cast(kind) if name in "tz" else pa.array(cells, kind)
    return pa.table(columns)


@pytest.fixture
def sets(archive: Archive) -> TrainingSets:
    return TrainingSets(archive, "lateness", clock=ManualClock(1_000_000))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables(), parts=st.integers(1, 3))
def test_what_is_pulled_is_what_was_built(
    tmp_path_factory: pytest.TempPathFactory, table: pa.Table, parts: int
) -> None:
    sets = TrainingSets(Archive.at(str(tmp_path_factory.mktemp("archive")), "shop"), "m")
    step = -(-max(1, len(table)) // parts)
    chunked = pa.concat_tables([table.slice(at, step) for at in range(0, max(1, len(table)), step)])
    built = sets.build("one", chunked)
    pulled = sets.pull("one")
    assert pulled.schema.equals(table.schema, check_metadata=True)
    assert content_sha256(pulled) == built.sha256 == content_sha256(table)
    for name in table.column_names:
        if table[name].type in {pa.float32(), pa.float64()}:
            pair = [
                [None if cell is None else struct.pack("d", cell) for cell in one[name].to_pylist()]
                for one in (pulled, table)
            ]
            assert pair[0] == pair[1]
        else:
            assert pulled[name].equals(table[name])


def test_the_hash_sees_every_difference_and_nothing_else() -> None:
    base = pa.table({"x": pa.array([1.0, math.nan, None]), "s": pa.array(["ab", "c", None])})
    same = pa.concat_tables([base.slice(0, 1), base.slice(1)])
    assert content_sha256(same) == content_sha256(base)
    negative_zero = [pa.table({"x": pa.array([value])}) for value in (0.0, -0.0)]
    other = [
        base.slice(0, 2),
        base.take([1, 0, 2]),
        base.rename_columns(["y", "s"]),
        base.set_column(0, "x", pa.array([1.0, None, None])),
        base.set_column(0, "x", pa.array([1.0, math.nan, 0.0])),
        base.set_column(1, "s", pa.array(["a", "bc", None])),
        base.set_column(1, "s", pa.array(["ab", "c", ""])),
        base.set_column(0, "x", base["x"].cast(pa.float32())),
        *negative_zero,
    ]
    assert len({content_sha256(one) for one in [base, *other]}) == len(other) + 1


def test_names_keep_their_rows_whatever_comes_after(sets: TrainingSets, archive: Archive) -> None:
    tables_ = {f"v{number}": pa.table({f"c{number}": np.arange(number + 1.0)}) for number in range(4)}
    for name, table in tables_.items():
        sets.build(name, table, span=("2013-01-01", "2013-02-01"), meta={"by": "test"})
    assert [found.name for found in sets.list_sets()] == ["v3", "v2", "v1", "v0"]
    for name, table in tables_.items():
        assert sets.pull(name).equals(table)
    found = sets.find("v2")
    assert (found.rows, found.span, found.meta) == (3, ("2013-01-01", "2013-02-01"), {"by": "test"})
    assert found.created_at == "1970-01-01T00:00:01+00:00"
    assert models_with_sets(archive) == ["lateness"]


def test_a_name_is_taken_once(sets: TrainingSets) -> None:
    table = pa.table({"x": [1, 2]})
    first = sets.build("one", table)
    assert sets.build("one", table) == first
    with pytest.raises(ConfigurationError, match="take another"):
        sets.build("one", pa.table({"x": [1, 3]}))
    assert sets.pull("one").equals(table)
    with pytest.raises(ConfigurationError, match="it has: one"):
        sets.pull("two")


def test_builds_at_the_same_time(sets: TrainingSets, archive: Archive) -> None:
    """Five names at once, two builders each with different rows: each name goes to exactly one of them."""
    won: list[tuple[str, int]] = []

    def build(name: str, value: int) -> None:
        try:
            TrainingSets(archive, "lateness").build(name, pa.table({"x": [value]}))
        except ConfigurationError:
            return
        won.append((name, value))

    threads = [threading.Thread(target=build, args=(f"n{n}", v)) for n in range(3) for v in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for name, _ in won) == ["n0", "n1", "n2"]
    for name, value in won:
        assert sets.pull(name)["x"].to_pylist() == [value]


@pytest.mark.parametrize("size_too", [True, False])
def test_changed_files_are_noticed(sets: TrainingSets, archive: Archive, size_too: bool) -> None:
    sets.build("one", pa.table({"x": [1.0, 2.0]}))
    folder = Path(archive.table(TRAINING_SETS, "lateness"))
    (file,) = folder.glob("*.parquet")
    before = file.stat().st_size
    stored = pq.read_table(file)
    pq.write_table(stored.set_column(1, "x", pa.array([1.0, 2.5])), file)
    if size_too:  # a careful forger: only the hash can tell
        log = folder / "_delta_log" / f"{1:020}.json"
        log.write_text(log.read_text().replace(f'"size":{before}', f'"size":{file.stat().st_size}'))
    with pytest.raises(TrainingSetChangedError, match="hash to" if size_too else "Parquet"):
        sets.pull("one")


def test_columns_that_would_not_come_back_are_refused(sets: TrainingSets) -> None:
    with pytest.raises(ConfigurationError, match=r"x \(list"):
        sets.build("one", pa.table({"x": [[1]]}))
    with pytest.raises(ConfigurationError, match="_row"):
        sets.build("one", pa.table({"_row": [1]}))
    with pytest.raises(ConfigurationError, match="cannot be a training set's name"):
        sets.build("../one", pa.table({"x": [1]}))


def test_rows_of_a_model_go_through_a_table_and_back() -> None:
    model = load_project(FLIGHTS).models["lateness"]
    random = np.random.default_rng(1)
    total = 50
    numeric = random.normal(size=(total, len(model.numeric_columns))).astype(np.float32)
    numeric[::7] = np.nan
    rows = Rows(
        numeric=numeric,
        categorical={
            name: [None if n % 5 == 0 else f"c{n}" for n in range(total)]
            for name in model.categorical_columns
        },
        labels=random.random(total) < 0.3,
        as_of_us=np.arange(total, dtype=np.int64),
        label_known_us=np.arange(total, dtype=np.int64) + 5,
    )
    table = table_of(model, rows, pa.array([f"r{n}" for n in range(total)]))
    assert rows_of(model, table).sha256() == rows.sha256()
