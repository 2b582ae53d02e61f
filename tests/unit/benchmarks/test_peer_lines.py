"""What is compared with peers before it is measured: equal values pass, others end the run."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks import events, peer_environment, quix_path
from benchmarks.__main__ import measured
from benchmarks.comparison import Comparison
from benchmarks.feast_path import PROJECT, check, feast_values
from benchmarks.http_client import request_bytes
from benchmarks.peer_environment import PeerMissingError, peer_python
from benchmarks.store_path import VIEW
from driftline.project import load_project

ROWS = 30_000


def test_no_two_readings_have_one_id() -> None:
    """The store would take the second for a repeat of the first."""
    assert len({event["event_id"] for event in events.readings(ROWS)}) == ROWS


def test_the_first_totals_are_those_of_the_first_of_all_rows() -> None:
    few, all_rows = quix_path.drawn_totals(ROWS, 100), quix_path.drawn_totals(ROWS, ROWS)
    assert sum(total[0] for total in few.values()) == 100
    drawn = list(events.readings(ROWS))
    for sensor in few:
        values = [event["value"] for event in drawn[:100] if event["sensor"] == sensor]
        assert few[sensor] == pytest.approx([len(values), sum(values), sum(values)])
        assert all_rows[sensor][0] >= few[sensor][0]


@pytest.mark.parametrize("totals", [{"a": [2, 3.0, 3.0]}, {"a": [3, 3.1, 3.0]}, {"a": [3, 3.0, 3.1]}, {}])
def test_other_windows_are_refused(totals: dict[str, list[float]]) -> None:
    expected = {"a": [3, 3.0, 3.0]}
    quix_path.check("a peer", expected, expected)
    with pytest.raises(ValueError, match="a peer has"):
        quix_path.check("a peer", totals, expected)


def test_sums_of_rounded_values_may_differ_by_half_a_step_each() -> None:
    expected = {"a": [4, 3.0, 3.0]}
    near, far = {"a": [4, 3.01, 3.01]}, {"a": [4, 3.03, 3.03]}
    quix_path.check("ours", near, expected, step=0.01)
    with pytest.raises(ValueError, match="ours has"):
        quix_path.check("ours", far, expected, step=0.01)


def test_feast_must_serve_our_values() -> None:
    answer = {
        "metadata": {"feature_names": ["sensor", "count_1h", "std_value_1h"]},
        "results": [{"values": ["a"]}, {"values": [3.0]}, {"values": [None]}],
    }
    served = feast_values(answer)
    check("a", {"count_1h": 3.0, "std_value_1h": np.nan}, served)
    for ours in ({"count_1h": 3.0, "std_value_1h": 0.0}, {"count_1h": 2.0, "std_value_1h": None}):
        with pytest.raises(ValueError, match="with Feast"):
            check("a", ours, served)
    with pytest.raises(ValueError, match="Feast"):
        check("a", {"count_1h": 3.0}, served)


def test_the_served_view_is_the_one_that_the_library_lines_read() -> None:
    assert load_project(PROJECT).views["sensor_wide"].features == VIEW.features


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (None, b"GET /v1/features/a/b?as_of=x HTTP/1.1"),
        (b"{}", b"POST /v1/features/a/b?as_of=x HTTP/1.1"),
    ],
)
def test_a_request_keeps_the_query_and_is_a_get_without_a_body(body: bytes | None, line: bytes) -> None:
    head, _, sent = request_bytes("http://127.0.0.1:80/v1/features/a/b?as_of=x", body).partition(b"\r\n\r\n")
    assert head.splitlines()[0] == line
    assert sent == (body or b"")


def test_lines_whose_peer_cannot_be_installed_are_told_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_environment.shutil, "which", lambda *_names, **_options: None)

    def missing() -> float:
        peer_python(tmp_path, "quix")
        return 1.0

    with pytest.raises(PeerMissingError, match="pip install uv"):
        missing()
    lines = [
        Comparison(name=name, unit="1/s", ours=lambda: 1.0, theirs=theirs)
        for name, theirs in (("without", missing), ("with", lambda: 2.0))
    ]
    console = Console(record=True, width=200)
    assert [one.name for one in measured(lines, 1, console)] == ["with"]
    assert "without: left out" in console.export_text()


@pytest.mark.parametrize("peer", ["evidently", "feast", "mlserver", "quix"])
def test_pins_are_versions_without_addresses(peer: str) -> None:
    lines = (Path(quix_path.__file__).parent / f"{peer}_peer.txt").read_text().splitlines()
    assert lines
    assert all(line.count("==") == 1 and "/" not in line for line in lines)
