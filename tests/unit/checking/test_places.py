"""Lines of keys in YAML and of declarations in Python."""

import pytest

from driftline.checking.places import python_line, repeated_keys, yaml_line

TEXT = """\
import other as price

def made(): pass

first = second = make("price")
for third in ("price", "shop"):
    pass
view = make(
    first,
    ["price",
     "price"],
)
view = make(first)
"""


@pytest.mark.parametrize(
    ("variable", "texts", "nth", "line"),
    [
        ("second", (), 0, 5),
        ("third", ("shop",), 0, 6),
        ("price", (), 0, 1),
        ("view", ("price",), 0, 5),  # the last binding counts, and what it names
        ("view", ("shop", "price"), 0, 5),  # the nearest text first
        ("nothing", (), 0, None),
    ],
)
def test_lines_of_declarations(variable: str, texts: tuple[str, ...], nth: int, line: int | None) -> None:
    assert python_line(TEXT, variable, texts, nth) == line


def test_the_nth_place_of_a_text() -> None:
    text = TEXT.removesuffix("view = make(first)\n")
    assert [python_line(text, "view", ["price"], nth) for nth in (0, 1, 2)] == [10, 11, 11]


def test_python_that_is_none_has_no_lines() -> None:
    assert python_line("a = (", "a") is None


@pytest.mark.parametrize(
    ("text", "line"), [("", None), ("a: [", 1), ("\x00", None), ("a: 1\nb:\n  - c\n", 3)]
)
def test_lines_of_odd_yaml(text: str, line: int | None) -> None:
    assert yaml_line(text, ["b", 0, "there is no such key"]) == line


def test_keys_of_inner_mappings_are_not_mixed_up() -> None:
    text = "a: {x: 1}\nb: {x: 1}\nc:\n  - {x: 1,\n     x: 2}\n? [1]\n: 1\n"
    assert list(repeated_keys(text)) == [(5, "c.0.x")]
