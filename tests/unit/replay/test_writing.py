"""Rows in a file have the bits of the scores, whatever the form, and a file is whole or not there."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from driftline.replay.bundles import Bundles
from driftline.replay.replaying import RESULT, Replay
from driftline.replay.writing import ResultFile
from driftline.runtime.errors import ConfigurationError


def read(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pq.read_table(path)
    if path.suffix == ".csv":
        options = pa_csv.ConvertOptions(column_types=RESULT, strings_can_be_null=True)
        return pa_csv.read_csv(path, convert_options=options)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    texts = {name: pa.array([row[name] for row in rows]) for name in RESULT.names}
    return pa.table([texts[field.name].cast(field.type) for field in RESULT], schema=RESULT)


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_what_is_written_reads_as_it_was(log: pa.Table, trained: Path, tmp_path: Path, ending: str) -> None:
    rows = Replay(Bundles(trained), {}, version="2").score(log)
    path = tmp_path / "deep" / f"rows.{ending}"
    with ResultFile(path) as file:
        file.write_table(rows.slice(0, 30))
        file.write_table(rows.slice(30))
    assert read(path).equals(rows)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_file_that_was_not_finished_is_not_there(
    log: pa.Table, trained: Path, tmp_path: Path, ending: str
) -> None:
    rows = Replay(Bundles(trained), {}).score(log)
    with pytest.raises(KeyboardInterrupt), ResultFile(tmp_path / f"rows.{ending}") as file:
        file.write_table(rows)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"rows\.xls.*\.parquet, \.csv, \.jsonl"):
        ResultFile(tmp_path / "rows.xls")
