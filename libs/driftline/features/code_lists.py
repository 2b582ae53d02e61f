"""Code lists that changed: which code a value is in the list that a reader knows.

The source wrote the first version's codes until an instant, from then on the next one's, and so on: the time of an
event or a request says which. A code without a counterpart becomes a text that no list has, like ``7@2``: an unseen
category, never another one's code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_Rows = TypeVar("_Rows", pa.RecordBatch, pa.Table)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeVersion:
    """A version that the source writes from an instant on (microseconds), and what became of the codes before.

    ``forward`` has pairs of a code of the version before and its code in this one; ``backward`` the other way.
    """

    version: int
    since_us: int
    forward: tuple[tuple[str, str], ...]
    backward: tuple[tuple[str, str], ...]


class Translated(NamedTuple):
    """Texts in the version that is read, and how many had no counterpart there."""

    texts: pa.StringArray
    unmapped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeList:
    """A code list. ``versions`` are the second and later ones, in order; ``reads`` is the one that features are made of.

    >>> second = CodeVersion(version=2, since_us=100, forward=(("A", "10"),), backward=(("10", "A"),))
    >>> kinds = CodeList(name="kind", versions=(second,), reads=1)
    >>> kinds.translate(pa.array(["A", "10", "11", None]), np.array([99, 100, 101, 102]))[0].to_pylist()
    ['A', 'A', '11@2', None]
    """

    name: str
    versions: tuple[CodeVersion, ...]
    reads: int = 1

    def written_at(self, times_us: Ints) -> Ints:
        """Return the version that the source wrote at each instant."""
        sinces = np.array([one.since_us for one in self.versions], np.int64)
        return 1 + np.searchsorted(sinces, times_us, side="right").astype(np.int64)

    def mapping(self, written: int, read: int) -> dict[str, str]:
        """Return the codes of one version that have one in another, with it."""
        between = [one for one in self.versions if min(written, read) < one.version <= max(written, read)]
        steps = [dict(one.forward) for one in between] if written < read else []
        steps = steps or [dict(one.backward) for one in reversed(between)]
        found = dict(steps[0]) if steps else {}
        for step in steps[1:]:
            found = {code: step[now] for code, now in found.items() if now in step}
        return found

    def translate(
        self, texts: pa.Array | pa.ChunkedArray, times_us: Ints, read: int | None = None
    ) -> Translated:
        """Return texts that were written at instants in a version; in ``reads`` unless said."""
        return self.between(texts, self.written_at(times_us), self.reads if read is None else read)

    def between(self, texts: pa.Array | pa.ChunkedArray, written: Ints, read: int) -> Translated:
        """Return texts in one version, each from the version that it is written in."""
        column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        found = column.cast(pa.string())
        encoded = found.dictionary_encode()
        codes: list[str] = encoded.dictionary.to_pylist()
        places = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        there = found.is_valid().to_numpy(zero_copy_only=False)
        unmapped = 0
        for version in np.unique(written[there]).tolist():
            if version == read:
                continue
            rows = there & (written == version)
            mapping = self.mapping(version, read)
            unmapped += int(np.array([code not in mapping for code in codes], np.bool_)[places[rows]].sum())
            names = pa.array([mapping.get(code, f"{code}@{version}") for code in codes], pa.string())
            found = pc.if_else(pa.array(rows), names.take(encoded.indices), found)
        return Translated(found, unmapped)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedField:
    """A column whose values are of a code list."""

    field: str
    codes: CodeList


def read_codes(
    table: _Rows,
    times_us: Ints,
    coded: Iterable[CodedField],
    versions: Mapping[str, int] | None = None,
) -> tuple[_Rows, dict[str, int]]:
    """Return a table with its coded columns in the versions that are read, and how many codes of each list had none.

    ``versions`` says by column which; those that the lists read unless given.
    """
    unmapped: dict[str, int] = {}
    for one in coded:
        read = one.codes.reads if versions is None else versions.get(one.field, 1)
        texts, number = one.codes.translate(table.column(one.field), times_us, read)
        table = table.set_column(table.schema.get_field_index(one.field), one.field, texts)
        if number:
            unmapped[one.codes.name] = unmapped.get(one.codes.name, 0) + number
    return table, unmapped
