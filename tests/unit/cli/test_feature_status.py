"""What is told of views that are filled: the table, the JSON, the feed."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from driftline.cli import feature_status
from driftline.cli.feature_status import build_lines, summaries
from driftline.cli.filling_feed import filling_feed
from driftline.cli.reading import features
from driftline.features.filling import Build, Fill, PartitionStanding, Standing, ViewStanding

DONE = ViewStanding(view="new@1", standing=Standing.COMPLETE)
SECOND = 1_000_000


def partition(number: int, view: ViewStanding, *builds: Build, fill: Fill | None = None) -> PartitionStanding:
    return PartitionStanding(
        event_type="sales", partition=number, next_offset=500, views=(view,), builds=builds, fill=fill
    )


def filled(begun: int, finished: int, *, views: tuple[str, ...] = ("new@1",), gone: int = 0) -> Build:
    return Build(
        views=views,
        start=100,
        stop=500,
        gone=gone,
        begun_us=begun * SECOND,
        finished_us=finished * SECOND,
        seconds=float(finished - begun),
        events=390,
    )


def test_a_view_is_as_far_as_its_last_partition() -> None:
    filling = ViewStanding(view="new@1", standing=Standing.FILLING, share=0.5, left=200, rate=50.0)
    waiting = ViewStanding(view="new@1", standing=Standing.FILLING, share=0.0, left=400)
    (view,) = summaries([partition(0, DONE), partition(1, filling), partition(2, waiting)])
    assert (view.standing, view.share, view.left, view.seconds_left) == (Standing.FILLING, 0.5, 600, 12.0)
    told = view.as_json()
    assert told["records_left"] == 600
    assert [one["standing"] for one in told["partitions"]] == ["complete", "filling", "filling"]
    assert [one["seconds_left"] for one in told["partitions"]] == [None, 4.0, None]
    missing = ViewStanding(view="new@1", standing=Standing.MISSING, share=0.0, left=500)
    (view,) = summaries([partition(0, filling), partition(1, missing)])
    assert view.standing is Standing.MISSING


def test_how_long_building_took() -> None:
    first, second = filled(10, 12, views=()), filled(11, 18, views=())
    (line,) = build_lines([partition(0, DONE, first), partition(1, DONE, second, filled(30, 31))])
    assert line == (
        "sales: built from 800 records in 7.0 s (the longest of 2 partitions), begun at 1970-01-01T00:00:10Z"
    )
    going_on = Build(start=0, stop=9, begun_us=5 * SECOND)
    (line,) = build_lines([partition(0, DONE, first), partition(1, DONE, going_on)])
    assert line == "sales: 1 of 2 partitions are built, since 1970-01-01T00:00:05Z"
    assert build_lines([partition(0, DONE)]) == []


def test_the_feed_tells_a_fill_of_all_partitions_once() -> None:
    entries = filling_feed([partition(0, DONE, filled(10, 14)), partition(1, DONE, filled(12, 30, gone=7))])
    assert [(one.at_us // SECOND, one.text) for one in entries] == [
        (10, "new@1: begun to be filled"),
        (30, "new@1: filled, 800 records, 780 events that count, 7 more are gone, in 20.0 s"),
    ]
    assert len({one.record_id for one in entries}) == 2


def test_the_feed_tells_a_second_fill_by_itself_and_none_as_over_that_goes_on() -> None:
    fill = Fill(views={"new@1": 1}, start=0, offset=3, begun_us=101 * SECOND)
    entries = filling_feed(
        [
            partition(0, DONE, filled(10, 14), filled(100, 104)),
            partition(1, DONE, filled(11, 15), fill=fill),
        ]
    )
    assert [(one.at_us // SECOND, one.text.split(",")[0]) for one in entries] == [
        (10, "new@1: begun to be filled"),
        (15, "new@1: filled"),
        (100, "new@1: begun to be filled"),
    ]


def test_the_feed_tells_what_a_lost_store_took() -> None:
    (begun, done) = filling_feed([partition(0, DONE, filled(10, 14, views=()))])
    assert begun.text == "every view of sales: begun to be built from the oldest record on"
    assert done.text == "every view of sales: built from the oldest record on, 400 records, in 4.0 s"


def test_the_command_prints_a_table_or_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    filling = ViewStanding(view="new@1", standing=Standing.FILLING, share=0.5, left=200, rate=50.0)
    asked: list[Any] = []

    def answered(*given: Any) -> list[PartitionStanding]:
        asked.append(given)
        return [partition(0, DONE, filled(10, 14, views=())), partition(1, filling)]

    monkeypatch.setattr(feature_status, "settings_for", lambda folder: ("settings", folder))
    monkeypatch.setattr(feature_status, "standings_of", answered)
    run = CliRunner().invoke(features, ["status", "--project", str(tmp_path), "--partitions"])
    assert run.exit_code == 0
    assert asked == [("settings", tmp_path)]
    rows = [line.split() for line in run.output.splitlines()]
    assert ["new@1", "all", "filling", "75%", "200", "4", "s"] in rows
    assert ["0", "complete"] in rows
    assert ["1", "filling", "50%", "200", "4", "s"] in rows
    assert "built from 400 records in 4.0 s" in run.output
    told = json.loads(CliRunner().invoke(features, ["status", "--json"]).output)
    assert told["views"][0]["share"] == 0.75
    assert told["builds"][0]["records"] == 400
