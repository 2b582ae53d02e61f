"""`driftline trace` names the arm that a request was assigned to, where versions were on trial."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from driftline.cli.reading import print_trace
from driftline.serving.tracing import Trace

EXAMPLE = Path(__file__).parents[3] / "schemas" / "examples" / "prediction.json"


def printed(**changes: Any) -> str:
    prediction = {**json.loads(EXAMPLE.read_text()), **changes}
    out = io.StringIO()
    trace = Trace(
        request_id=prediction["request_id"], prediction=prediction, partition=0, offset=7, records=1, views=[]
    )
    print_trace(Console(file=out, width=200), trace)
    return out.getvalue()


@pytest.mark.parametrize("arm", ["canary-2/canary", "ab/champion"])
def test_the_arm_stands_beside_the_version(arm: str) -> None:
    assert f"lateness@20130401T000000Z-1a2b3c, arm {arm}\n" in printed(arm=arm)


def test_without_a_trial_there_is_none() -> None:
    assert "lateness@20130401T000000Z-1a2b3c\n" in printed(arm=None)
