"""`archive` and `training-set`, typed as a person would, on an archive that an archiver wrote."""

import json
import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from driftline.archive.tables import TOPICS, Archive, summarize
from driftline.archive.training_rows import rows_of
from driftline.archive.training_sets import TrainingSets, content_sha256
from driftline.cli import archive as commands
from driftline.cli import training_sets
from driftline.contracts.topics import Topics
from driftline.models.training_set import assemble, labelled_requests
from driftline.project import Project
from driftline.project.history import load_history
from driftline.runtime.errors import ConfigurationError
from driftline.runtime.health import Health
from services.archiver.assembly import run_archiver
from services.archiver.settings import ArchiverSettings
from tests.integration.cli.conftest import Driftline
from tests.integration.cli.test_publish_and_tail import GOOD

Archived = Callable[..., Result]


@pytest.fixture
def typed(settings: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archived:
    monkeypatch.setenv("DRIFTLINE_ARCHIVE", str(tmp_path / "archive"))
    app = typer.Typer()
    app.add_typer(commands.app, name="archive")
    app.add_typer(training_sets.app, name="training-set")
    return lambda *arguments: CliRunner().invoke(app, arguments)


def archive_everything(settings: ArchiverSettings, project: Project, done: Callable[[], bool]) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            run_archiver(settings, project, health=Health(), stop=stop)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(1200):
            if done() or failures:
                break
            threading.Event().wait(0.1)
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert done()


def test_what_was_published_can_be_asked_for(
    driftline: Driftline, ingest: str, typed: Archived, flights: Project, topics: Topics, tmp_path: Path
) -> None:
    file = tmp_path / "cancellations.jsonl"
    file.write_text("".join(json.dumps({**GOOD, "flight": number}) + "\n" for number in range(9)))
    published = driftline("publish", str(file))
    assert published.exit_code == 0, published.output

    where = Archive.at(str(tmp_path / "archive"), topics.prefix)

    def done() -> bool:
        found = summarize(where, TOPICS, "cancellations")
        return found is not None and found.rows == 9

    archive_everything(ArchiverSettings.from_environment(flush_seconds=0.2), flights, done)
    (table,) = json.loads(typed("archive", "tables", "--json").stdout)
    assert (table["table"], table["first_day"], table["last_day"]) == (
        "cancellations",
        "2013-04-01",
        "2013-04-01",
    )
    offsets = table["next_offsets"]
    assert sum(offsets.values()) == 9
    found = typed(
        "archive", "query", "SELECT count(*) AS n, max(flight) AS last FROM cancellations", "--json"
    )
    assert json.loads(found.stdout) == [{"n": 9, "last": 8}]
    ordered = "SELECT flight + 100 AS f FROM cancellations ORDER BY 1"
    shown = typed("archive", "query", ordered, "--limit", "2")
    assert shown.exit_code == 0
    assert [number in shown.stdout for number in ("100", "101", "102")] == [True, True, False]
    assert "cancellations" in typed("archive", "tables").stdout
    compacted = json.loads(typed("archive", "compact", "--json").stdout)
    assert [one["table"] for one in compacted] == ["cancellations"]
    wrong = typed("archive", "query", "SELECT * FROM nothing")
    assert isinstance(wrong.exception, ConfigurationError) and "cancellations" in str(wrong.exception)


def test_a_training_set_is_built_listed_and_pulled_to_the_bit(
    typed: Archived, flights: Project, topics: Topics, tmp_path: Path
) -> None:
    span = ["--from", "2013-01-01", "--to", "2013-01-04"]
    built = typed("training-set", "build", *span, "--name", "new-year", "--json")
    assert built.exit_code == 0, built.output
    told = json.loads(built.stdout)
    listed = json.loads(typed("training-set", "list", "--json").stdout)
    assert listed == [told]
    assert (told["name"], told["span"]) == ("new-year", ["2013-01-01", "2013-01-04"])
    assert "new-year" in typed("training-set", "list").stdout
    out = tmp_path / "out" / "rows.parquet"
    pulled = typed("training-set", "pull", "new-year", "--out", str(out))
    assert pulled.exit_code == 0, pulled.output
    table = pq.read_table(out)
    assert len(table) == told["rows"] > 1_000
    assert content_sha256(table) == told["sha256"]

    model = flights.models["lateness"]
    history = load_history(flights, *_days(span))
    requests = labelled_requests(history.requests, 1_357_257_600_000_000)
    rows = assemble(model, history, requests)
    assert rows_of(model, table).sha256() == rows.sha256() == told["meta"]["rows_sha256"]
    assert table["request_id"].to_pylist() == requests["request_id"].to_pylist()

    again = typed("training-set", "build", *span, "--name", "new-year", "--json")
    assert json.loads(again.stdout) == told  # the same rows: the same version
    other = typed("training-set", "build", "--from", "2013-01-02", "--to", "2013-01-04", "--name", "new-year")
    assert "take another" in str(other.exception)
    sets = TrainingSets(Archive.at(str(tmp_path / "archive"), topics.prefix), "lateness")
    assert content_sha256(sets.pull("new-year")) == told["sha256"]
    assert "one of .parquet" in str(typed("training-set", "pull", "new-year", "--out", "x.txt").exception)
    assert "it has: new-year" in str(typed("training-set", "pull", "x", "--out", "x.csv").exception)


def _days(span: list[str]) -> tuple[date, date]:
    return date.fromisoformat(span[1]), date.fromisoformat(span[3])
