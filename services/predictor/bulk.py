"""Many requests in one call: each is predicted, logged and answered as if it had come alone; answers are in order.

Rows enter the queue of all HTTP requests a slice at a time, so that other callers' requests pass between them, and
two slices are on their way at once, so that one is predicted while the other's acknowledgements are awaited.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec
import orjson
from starlette.responses import Response

from driftline.project import ModelDeclaration, Project
from driftline.runtime.errors import RefusedError
from services.predictor.requests import GoodBodies, ReadRequest, read_request

JSON_LINES = "application/x-ndjson"
_JSON = "application/json"
MAX_ROWS = 10_000
#: Rows that enter the queue together.
_SLICE = 128
_SLICES_ON_THEIR_WAY = 2

_array = msgspec.json.Decoder(list[msgspec.Raw])
_Row = TypeVar("_Row")


def split_rows(media_type: str, body: bytes) -> Sequence[bytes]:
    """Return the JSON of each row: of an array's items, or of lines that are not empty.

    Raises
    ------
    RefusedError
        400 for what is no array, 413 for too many rows, 415 for other media types.
    """
    declared = media_type.split(";", maxsplit=1)[0].strip().lower()
    if declared == JSON_LINES:
        rows: list[bytes] = [line for line in body.splitlines() if line.strip()]
    elif declared == _JSON:
        try:
            rows = [bytes(item) for item in _array.decode(body)]
        except (msgspec.MsgspecError, ValueError) as error:
            reason = f"the body is no JSON array of requests: {error}"
            raise RefusedError(reason, status=400, title="Not JSON") from error
    else:
        reason = f"send {JSON_LINES} or {_JSON}, not {declared}"
        raise RefusedError(reason, status=415, title="Unsupported media type")
    if len(rows) > MAX_ROWS:
        reason = f"a call may have {MAX_ROWS:,} rows, got {len(rows):,}; send several"
        raise RefusedError(reason, status=413, title="Too many rows")
    return rows


class RowReader:
    """Reads rows for one model."""

    def __init__(self, project: Project, declaration: ModelDeclaration) -> None:
        self._project = project
        self._model = declaration.name
        self._good = GoodBodies(project, declaration)

    def read(self, row: bytes, now_us: int) -> tuple[ReadRequest, RefusedError | None]:
        """Return the request that a row means, and why it cannot be read where it is not JSON."""
        good = self._good.read(row, now_us)
        if good is not None:
            return good, None
        body: Any = {}
        unreadable = None
        try:
            body = orjson.loads(row)
        except orjson.JSONDecodeError as error:
            unreadable = RefusedError(f"the row is not JSON: {error}", status=400, title="Not JSON")
        return read_request(self._project, self._model, body, now_us), unreadable


async def answer_lines(
    rows: Sequence[_Row], answer: Callable[[_Row], Awaitable[Response]]
) -> AsyncIterator[bytes]:
    """Answer rows, and return the answers' bodies as lines, in the rows' order."""
    on_their_way: deque[list[asyncio.Future[Response]]] = deque()
    for some in _slices(rows):
        on_their_way.append([asyncio.ensure_future(answer(row)) for row in some])
        if len(on_their_way) == _SLICES_ON_THEIR_WAY:
            yield await _lines(on_their_way.popleft())
    while on_their_way:
        yield await _lines(on_their_way.popleft())


async def _lines(answers: Sequence["asyncio.Future[Response]"]) -> bytes:
    return b"".join([bytes((await one).body) + b"\n" for one in answers])


def _slices(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    left = iter(rows)
    while some := list(islice(left, _SLICE)):
        yield some
