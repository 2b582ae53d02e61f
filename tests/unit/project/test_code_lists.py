"""Code lists are declared once, and reach the views and inputs that they name; their mistakes have their lines."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from driftline.project import load_project
from tests.unit.checking.market import spoil, told, write

LISTS = """code_lists:
  kinds:
    events: {sales: [kind]}
    inputs: [kind_asked]
    reads: 1
    versions:
      - version: 2
        since: 2026-07-01T00:00:00Z
        from: {"S": "M", "M": "L", "L": "S"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write(tmp_path / "market")
    spoil(folder, "driftline.yaml", "models:\n", LISTS + "models:\n")
    spoil(folder, "driftline.yaml", "      basket:", "      kind_asked: {type: string}\n      basket:")
    return folder


def test_views_and_inputs_know_their_list(folder: Path) -> None:
    project = load_project(folder)
    (coded,) = project.views["shop_sales"].source.codes
    assert (coded.field, coded.codes.name, coded.codes.reads) == ("kind", "kinds", 1)
    assert project.views["shop_visits"].source.codes == ()
    model = project.models["returns"]
    assert [one.field for one in model.coded_inputs] == ["kind_asked"]
    assert [view.source.codes for view in model.views] == [(coded,), ()]
    july = 1_782_864_000_000_000
    texts = coded.codes.translate(pa.array(["S", "S"]), np.array([july - 1, july])).texts
    assert texts.to_pylist() == ["S", "L"]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("{sales: [kind]}", "{sails: [kind]}", "15: code list 'kinds': there is no event type 'sails'; did you mean sales?"),
        ("[kind]}", "[kinds]}",
         "15: code list 'kinds': 'kinds' is no string or enum of sales.avsc; did you mean kind?"),
        ("[kind]}", "[price]}", "15: code list 'kinds': 'price' is no string or enum of sales.avsc"),
        ("[kind]}", "[shop]}", "15: code list 'kinds': 'shop' is a key, and keys are not translated"),
        ("[kind]}", "[kind, kind]}", "15: code list 'kinds': 'kind' is named twice; a value is of one list"),
        ("inputs: [kind_asked]", "inputs: [kind_askd]",
         "16: code list 'kinds': no model has a text input 'kind_askd' that is no identifier; did you mean kind_asked?"),
        ("inputs: [kind_asked]", "inputs: [ticket]",
         "16: code list 'kinds': no model has a text input 'ticket' that is no identifier"),
        ("reads: 1", "reads: 3", "17: code list 'kinds': it reads version 3, and the newest is 2"),
        ("version: 2", "version: 3",
         "18: code list 'kinds': its versions are 2, 3 and so on, in order; the first is what there was before them"),
        ('"L": "S"}', '"L": "M"}',
         "18: code list 'kinds': 'S', 'L' all became 'M' in version 2; say with back: which of them it is read as"),
    ],
)  # fmt: skip
def test_mistakes(folder: Path, old: str, new: str, complaint: str) -> None:
    spoil(folder, "driftline.yaml", old, new)
    assert f"driftline.yaml:{complaint}" in told(folder)


def test_merged_codes_with_a_way_back_are_none(folder: Path) -> None:
    spoil(folder, "driftline.yaml", '"L": "S"}', '"L": "M"}\n        back: {"M": "L"}')
    assert told(folder) == []


@pytest.mark.parametrize("since", ["2026-07-01T00:00:00", "soon"])
def test_the_instant_has_an_offset(folder: Path, since: str) -> None:
    spoil(folder, "driftline.yaml", "since: 2026-07-01T00:00:00Z", f'since: "{since}"')
    (mistake,) = told(folder)
    assert mistake.startswith("driftline.yaml:20: code_lists.kinds.versions.0.since: Input should")
