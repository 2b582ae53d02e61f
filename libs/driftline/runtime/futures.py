"""Futures that are completed by whoever is told an outcome."""

import asyncio
from typing import TypeVar

T = TypeVar("T")


def complete(future: "asyncio.Future[T]", outcome: T | Exception) -> None:
    """Complete a future with a result or an error; not where its caller has gone (a deadline, a lost connection)."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
