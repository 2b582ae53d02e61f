"""What a dead letter carries."""

from typing import Any

import pytest

from driftline.runtime.errors import BadMessageError
from driftline.streaming.dead_letters import MAX_BYTES, dead_letter, original_headers, read_origin


class Letter:
    """A message as the client gives it (its own class cannot be made with an offset)."""

    def __init__(self, value: bytes | None, headers: Any = None) -> None:
        self._value, self._headers = value, headers

    def topic(self) -> str:
        return "shop.payments"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 77

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Any:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_700_000_000_000


def make(message: Letter, error: BadMessageError) -> Any:
    return dead_letter(message, error, service="feature_store", instance="store-0")  # type: ignore[arg-type]


def test_bytes_key_and_headers_stay_and_the_reason_is_added() -> None:
    headers = [("a", b"1"), ("a", b"2"), ("b", None)]
    letter = make(Letter(b"\x00\xff", headers), BadMessageError("amount is nan", stage="validate"))
    assert (letter.key, letter.value) == (b"k", b"\x00\xff")
    assert original_headers(letter.headers) == headers
    origin = read_origin(letter.headers)
    assert origin is not None
    assert origin.id == "shop.payments/3/77"
    assert (origin.stage, origin.message, origin.service) == ("validate", "amount is nan", "feature_store")
    assert origin.timestamp_ms == 1_700_000_000_000
    assert dict(letter.headers)["__connect.errors.exception.class.name"].endswith(b"BadMessageError")


def test_one_that_fails_again_says_why_it_failed_this_time() -> None:
    first = make(Letter(b"x", [("a", b"1")]), BadMessageError("first"))
    second = make(Letter(b"x", list(first.headers)), BadMessageError("second"))
    assert read_origin(second.headers).message == "second"  # type: ignore[union-attr]
    assert len(second.headers) == len(first.headers)


@pytest.mark.parametrize("size", [MAX_BYTES, 5_000_000])
def test_what_the_topic_would_refuse_is_cut_and_says_so(size: int) -> None:
    letter = make(Letter(b"x" * size), BadMessageError("r" * 100_000))
    total = len(letter.value) + sum(len(name) + len(value or b"") for name, value in letter.headers)
    assert total < MAX_BYTES + 100
    assert read_origin(letter.headers).truncated_from == size  # type: ignore[union-attr]


def test_null_stays_null() -> None:
    assert make(Letter(None), BadMessageError("the value is null")).value is None


def test_headers_of_others_have_no_origin() -> None:
    assert read_origin([("a", b"1")]) is None
