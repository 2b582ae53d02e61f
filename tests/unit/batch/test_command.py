"""`driftline predict MODEL --file FILE --dry-run` as a person types it: no server runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from driftline.cli.reading import predict
from driftline.runtime.errors import ConfigurationError
from tests.unit.batch.conftest import SHOP

Driftline = Callable[..., Result]
GOOD = "customer,merchant,amount,label\nc1,m1,5,1\nc2,m2,6,0\n"


@pytest.fixture
def driftline(monkeypatch: pytest.MonkeyPatch) -> Driftline:
    monkeypatch.setenv("DRIFTLINE_PROJECT", str(SHOP))
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer()
    app.command()(predict)
    return lambda *arguments: CliRunner().invoke(app, [str(one) for one in arguments])


def test_a_right_file(driftline: Driftline, tmp_path: Path) -> None:
    path = tmp_path / "payments.csv"
    path.write_text(GOOD)
    result = driftline("fraud", "--file", path, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["rows"], told["readable"], told["wrong"]) == (2, 2, [])
    assert told["columns_without_meaning"] == ["label"] and told["inputs_that_no_row_has"] == ["order_id"]
    assert told["request_ids"] == "made from the file and the row"


def test_wrong_rows_are_named_and_the_exit_code_says_so(driftline: Driftline, tmp_path: Path) -> None:
    path = tmp_path / "payments.csv"
    path.write_text(GOOD + "c3,m3,[red]much,0\n,m4,1,0\n")
    result = driftline("fraud", "--file", path, "--dry-run")
    assert result.exit_code == 1
    assert "row 3: amount: a number is wanted, got '[red]much'" in result.stderr
    assert "row 4: entity 'customer' is missing" in result.stderr
    assert "4 rows in" in result.stderr and "2 readable, 2 refused" in result.stderr
    told = json.loads(driftline("fraud", "--file", path, "--dry-run", "--json").stdout)
    assert [one["row"] for one in told["wrong"]] == [3, 4]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nothing", "--file", "x.csv", "--dry-run"), "no model 'nothing'"),
        (("fraud", "--file", "absent.csv", "--dry-run"), "absent.csv: cannot be read"),
        (("fraud", "--file", "x.csv", "-e", "customer=c1"), "--file brings the requests"),
        (("fraud", "--file", "x.csv", "--dry-run", "--event-time", "noon"), "--event-time noon: an ISO"),
        (("fraud", "--file", "x.csv", "--dry-run", "--out", "x.xlsx"), "must be .parquet or .csv"),
        (("fraud", "--file", "broken.parquet", "--dry-run"), "cannot be read as Parquet"),
        (("fraud", "--file", "empty.csv", "--dry-run"), "empty.csv: has no rows"),
        (("fraud", "--file", "x.txt", "--dry-run"), "format is not known by its ending"),
        (("fraud", "--dry-run"), "name one with --file"),
        (("fraud",), "name each entity"),
    ],
)
def test_mistakes_in_the_options(
    driftline: Driftline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ("x.csv", GOOD),
        ("broken.parquet", GOOD),
        ("x.txt", GOOD),
        ("empty.csv", "customer,merchant\n"),
    ):
        Path(name).write_text(text)
    result = driftline(*words)
    assert isinstance(result.exception, ConfigurationError)
    assert told in str(result.exception)
