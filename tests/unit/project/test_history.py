"""A project's history is checked before anything is made of it."""

from datetime import date
from pathlib import Path

import pytest

from driftline.project import load_project
from driftline.project.history import load_history
from driftline.runtime.errors import ConfigurationError

PROJECT = Path(__file__).parents[3] / "examples" / "flights"
START, END = date(2013, 1, 1), date(2013, 1, 2)

PREAMBLE = """
import datetime
import pyarrow as pa
from driftline.project.history import History
from driftline.project.modules import load_module
from pathlib import Path
good = load_module(Path({path!r})).history
"""


def project_with(tmp_path: Path, body: str):  # type: ignore[no-untyped-def]
    for file in PROJECT.rglob("*"):
        if file.is_file() and file.name != "history.py" and "__pycache__" not in file.parts:
            target = tmp_path / file.relative_to(PROJECT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    (tmp_path / "history.py").write_text(PREAMBLE.format(path=str(PROJECT / "history.py")) + body)
    return load_project(tmp_path)


def test_a_good_history_passes(tmp_path: Path) -> None:
    project = project_with(tmp_path, "def history(start, end):\n    return good(start, end)\n")
    assert set(load_history(project, START, END).events) == set(project.event_types)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("history = 3\n", r"no function history\(start, end\)"),
        ("def history(start, end):\n    return []\n", "returned list, not History"),
        ("def history(start, end):\n    found = good(start, end)\n"
         "    return History(events={}, requests=found.requests)\n", "no table of event type 'departures'"),
        ("def history(start, end):\n    found = good(start, end)\n"
         "    return History(events=found.events, requests=found.requests.drop_columns(['label', 'dest']))\n",
         "requests lacks dest, label"),
        ("def history(start, end):\n    found = good(start, end)\n"
         "    return History(events=found.events, requests=found.requests.sort_by([('event_time', 'descending')]))\n",
         "requests: is not sorted by event_time"),
        ("def history(start, end):\n    found = good(start, end)\n"
         "    times = found.requests['event_time'].cast(pa.int64())\n"
         "    place = found.requests.column_names.index('event_time')\n"
         "    return History(events=found.events, requests=found.requests.set_column(place, 'event_time', times))\n",
         r"event_time must be timestamp\[us\] in UTC, found int64"),
    ],
)  # fmt: skip
def test_a_wrong_history_is_told(tmp_path: Path, body: str, complaint: str) -> None:
    project = project_with(tmp_path, body)
    with pytest.raises(ConfigurationError, match=complaint):
        load_history(project, START, END)


def test_an_empty_span_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"span .* is empty"):
        load_history(load_project(PROJECT), END, START)


def test_a_project_without_a_history_is_told(tmp_path: Path) -> None:
    project_with(tmp_path, "")
    file = tmp_path / "driftline.yaml"
    file.write_text(file.read_text().replace("history: history.py\n", ""))
    with pytest.raises(ConfigurationError, match="no `history:`"):
        load_history(load_project(tmp_path), START, END)
