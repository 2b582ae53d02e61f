"""A year by months: every loss, signal and fact lands in its month, and the report says what was measured."""

import json
import math
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from driftline.models.fitting import midnight_us
from driftline.playback.year import LogLosses, Month, Offer, Year, months, three_months_before
from driftline.playback.year_report import year_markdown
from driftline.project import load_project

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"


def us(*day: int) -> int:
    return int(datetime(*day, tzinfo=UTC).timestamp() * 1e6)  # type: ignore[arg-type]


def fact(at: str, kind: str, version: str = "v2", reason: str = "better: log loss .4 | .5") -> dict[str, Any]:
    return {
        "at": f"{at}T00:00:00+00:00",
        "kind": kind,
        "version": version,
        "reason": reason,
        "by": "model_registry",
    }


FOUND = months(
    np.array([us(2013, 4, 30, 23, 59), us(2013, 5, 1), us(2013, 5, 31, 23)]),
    np.array([1.0, 0.0, 1.0]),
    {
        "static": np.array([0.1, 0.2, 0.4]),
        "served": np.array([0.1, 0.1, 0.2]),
        "plain": np.array([math.nan, 0.3, 0.5]),
    },
    [
        {"at": "2013-05-02T00:00:00+00:00", "level": "ALERT", "segment": "JFK"},
        {"at": "2013-05-02T00:00:00+00:00", "level": "RETRAIN", "segment": ""},
    ],
    [{"data_until": "2013-05-02T00:00:00+00:00", "cause": "ACCURACY"}],
    [fact("2013-05-02", "REGISTERED"), fact("2013-05-11", "PROMOTED"), fact("2013-06-03", "REJECTED", "v3")],
)

YEAR = Year(
    project="flights",
    model="lateness",
    first_version="v1",
    candidate="boosting",
    trained_from="2013-01-01",
    start="2013-04-30",
    end="2013-06-04",
    step_minutes=60,
    predictions=4,
    outcomes={"JOINED": 3, "NEVER": 1},
    months=FOUND,
    overall=LogLosses(static=0.2333, served=0.1333, plain=None),
    versions=[
        {
            "version": "v2",
            "outcomes": 1,
            "log_loss": 0.2,
            "value": -3.0,
            "first_version": {"log_loss": 0.4, "value": -5.0},
        }
    ],
    signals=[],
    alerts={"OPENED": 2},
    retrains=[
        {
            "cause": "ACCURACY",
            "reason": "log loss rose",
            "data_until": "2013-05-02T00:00:00+00:00",
            "came_to": "CHALLENGER",
            "version": "v2",
        }
    ],
    models=[fact("2013-06-03", "REJECTED", "v3", "worse: p 0.01"), fact("2013-05-11", "PROMOTED")],
    offers=[
        Offer(
            version="v3",
            learnt_from="2013-02-01",
            learnt_until="2013-05-01",
            facts=[
                fact("2013-05-01", "CHALLENGER", "v3"),
                fact("2013-06-03", "REJECTED", "v3", "worse: p 0.01"),
            ],
        )
    ],
    unclosed_windows=0,
    seconds={"play": 12.4},
)


def test_months_split_at_midnight_and_keep_what_happened_in_each() -> None:
    april, may, june = FOUND
    assert [one.month for one in FOUND] == ["2013-04", "2013-05", "2013-06"]
    assert (april.outcomes, april.positive_share, april.signals) == (1, 1.0, {})
    assert april.log_loss == LogLosses(static=0.1, served=0.1, plain=None)  # the plain one had not begun
    assert may == Month(
        month="2013-05",
        outcomes=2,
        positive_share=0.5,
        log_loss=LogLosses(static=float(np.mean([0.2, 0.4])), served=float(np.mean([0.1, 0.2])), plain=0.4),
        signals={"ALERT in a part": 1, "RETRAIN": 1},
        retrains={"ACCURACY": 1},
        refusals=0,
        promotions=1,
        roll_backs=0,
    )
    assert (june.outcomes, june.positive_share, june.refusals) == (0, None, 1)


def test_the_offer_is_of_the_three_whole_months_before() -> None:
    model = load_project(FLIGHTS).models["lateness"]
    made = three_months_before(model, date(2013, 10, 1))
    assert (made.data_from_us, made.data_until_us) == (
        midnight_us(date(2013, 7, 1)),
        midnight_us(date(2013, 10, 1)),
    )
    assert three_months_before(model, date(2014, 2, 10)).data_from_us == midnight_us(date(2013, 11, 1))
    assert made.request_id == three_months_before(model, date(2013, 10, 1)).request_id


def test_the_report_says_what_made_it_and_every_figure() -> None:
    text = year_markdown(YEAR, "driftline year --days 35")
    assert text.startswith("# A year of flights\n\nMade by `driftline year --days 35`; do not edit.")
    assert "4 predictions, outcomes: 3 joined, 1 never. Alerts: 2 opened." in text
    assert "| 2013-04 | 1 | 100.0% | 0.1000 | 0.1000 | – |" in text
    assert "| 2013-05 | 2 | 50.0% | 0.3000 | 0.1500 | 0.4000 |" in text
    assert "| **all** | 3 | 66.7% | **0.2333** | **0.1333** | **–** |" in text
    assert "| 2013-05 | 1 alert in a part, 1 retrain | 1 accuracy | 0 | 1 | 0 |" in text
    assert "| 2013-05-02 | accuracy | log loss rose | promoted 2013-05-11 |" in text
    assert "| `v2` | 1 | 0.2000 | 0.4000 | -3 | -5 |" in text
    # Decisions in the order of time, cells that cannot break the table.
    assert text.index("| 2013-05-11 | promoted |") < text.index("| 2013-06-03 | rejected |")
    assert "better: log loss .4 \\| .5" in text
    assert "## The model of 2013-02-01 to 2013-05-01 alone" in text
    assert "In the end: rejected, worse: p 0.01." in text
    assert "did not close" not in text
    assert "did not close in time: 2" in year_markdown(replace(YEAR, unclosed_windows=2), "x")


def test_the_summary_is_json(tmp_path: Path) -> None:
    YEAR.write(tmp_path / "year" / "summary.json")
    found = json.loads((tmp_path / "year" / "summary.json").read_text())
    assert found["months"][1]["log_loss"] == {
        "static": FOUND[1].log_loss.static,
        "served": 0.15000000000000002,
        "plain": 0.4,
    }
    assert found["offers"][0]["facts"][1]["kind"] == "REJECTED"
