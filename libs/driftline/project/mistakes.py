"""A mistake in a project's files: where it is, what is wrong, what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Self

from driftline.runtime.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One mistake.

    Attributes
    ----------
    text
        What is wrong, and what to do.
    line
        Where the reader of the file knew it: for Python that raised.
    keys
        In YAML the way to the place: keys, and numbers of items.
    names
        In Python where to look: the variable, then texts within its declaration, the nearest last.
    nth
        Which of the places that have the last of ``names``, from 0.
    """

    path: Path
    text: str
    line: int | None = None
    keys: tuple[str | int, ...] = ()
    names: tuple[str, ...] = ()
    nth: int = 0

    def __str__(self) -> str:
        """Return ``file:line: what is wrong; what to do``, without the line where it is not known."""
        return f"{self.path}{'' if self.line is None else f':{self.line}'}: {self.text}"


class ProjectError(ConfigurationError):
    """A project has mistakes: all that were found, a line each."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))

    @classmethod
    def of(cls, path: Path, text: str) -> Self:
        """Return the error of one mistake."""
        return cls([Mistake(path=path, text=text)])


def meant(word: str, known: Iterable[str]) -> str:
    """Return a question that names what was probably meant; empty where nothing is near.

    >>> meant("prize", ["price", "shop"])
    '; did you mean price?'
    >>> meant("prize", ["shop"])
    ''
    """
    near = get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
