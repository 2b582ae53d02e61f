"""The Python of the pages runs, from top to bottom, and prints what the pages show."""

import doctest
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[3]
PAGES = ("features.md", "time.md")
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def python_blocks(text: str) -> Iterator[tuple[int, str]]:
    """Yield each Python block with the number of lines before it."""
    for found in _BLOCK.finditer(text):
        yield text.count("\n", 0, found.start(1)), found[1]


def run_page(name: str, text: str) -> list[str]:
    """Run a page's blocks in one namespace; return what differs from the page.

    A block with ``>>>`` must print what it shows. Any other one only has to run.
    """
    namespace: dict[str, Any] = {}
    differences: list[str] = []
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    for line, block in python_blocks(text):
        if ">>>" not in block:
            exec(compile("\n" * line + block, name, "exec"), namespace)
            continue
        assert block.startswith(">>>"), f"{name}:{line + 1}: statements before the first >>> would not run"
        test = parser.get_doctest(block, namespace, name, name, line)
        test.globs = namespace  # the parser copies them; later blocks need what this one defines
        runner.run(test, out=differences.append, clear_globs=False)
    return differences


@pytest.mark.parametrize("page", PAGES)
def test_the_page_prints_what_it_shows(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / page).read_text()
    assert sum(block.count(">>> ") for _, block in python_blocks(text)) >= 10
    if differences := run_page(page, text):
        pytest.fail("".join(differences), pytrace=False)


@pytest.mark.parametrize("page", [*PAGES, "architecture.md"])
def test_links_lead_to_files(page: str) -> None:
    links = _LINK.findall((ROOT / "docs" / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_pictures_are_drawn_used_and_described() -> None:
    text = "".join((ROOT / "docs" / page).read_text() for page in PAGES)
    pictures = sorted((ROOT / "docs" / "pictures").glob("*.svg"))
    assert pictures
    for picture in pictures:
        svg = ElementTree.parse(picture).getroot()
        assert svg.find("{http://www.w3.org/2000/svg}title") is not None
        # A ground of its own: readable whatever the reader's theme.
        ground = svg.find("{http://www.w3.org/2000/svg}rect")
        assert ground is not None
        assert [ground.get("width"), ground.get("height")] == svg.get("viewBox", "").split()[2:]
        assert f"](pictures/{picture.name})" in text


def test_a_wrong_result_is_found_with_its_line() -> None:
    page = "words\n\n```python\nx = 2\n```\n\n```python\n>>> x + 1\n3\n>>> x + 2\n5\n```\n"
    (difference,) = [one for one in run_page("page.md", page) if "Failed example" in one]
    assert 'File "page.md", line 10' in difference
    assert "Expected:\n    5\nGot:\n    4\n" in difference


def test_an_error_in_a_block_without_results_is_found() -> None:
    with pytest.raises(ZeroDivisionError):
        run_page("page.md", "```python\n1 / 0\n```\n")
